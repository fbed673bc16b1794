"""``python -m moir``: the command line."""

from moir.cli import main

main()
