"""The command ``moir``. Nothing here imports torch before a command needs it."""

from moir.cli.app import main

__all__ = ["main"]
