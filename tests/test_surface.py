"""The public surface, and what importing it costs."""

import json
import subprocess
import sys
from pathlib import Path

import moir

SURFACE = Path(__file__).parent / "api_surface.json"


def public_names():
    import importlib

    modules = ["moir", "moir.degrade", "moir.metrics", "moir.picture", "moir.checkpoints", "moir.runtime",
               "moir.batch", "moir.training", "moir.serve", "moir.evaluation.report", "moir.adapters"]  # fmt: skip
    return {name: sorted(importlib.import_module(name).__all__) for name in modules}


def test_no_public_name_vanishes():
    """Adding a name: run `python tests/test_surface.py` and commit the file. Removing one breaks somebody's program."""
    recorded = json.loads(SURFACE.read_text())
    assert public_names() == recorded


def test_public_names_exist():
    for name in moir.__all__:
        assert getattr(moir, name) is not None
    assert "load" in dir(moir)


def loaded_after(code):
    script = f"import sys\n{code}\nprint([m for m in ('torch', 'numpy', 'PIL', 'cv2', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1]


def test_importing_moir_imports_nothing_heavy():
    assert loaded_after("import moir") == "[]"


def test_help_imports_nothing_heavy():
    code = "sys.argv = ['moir', '--help']\nimport moir.cli\ntry:\n    moir.cli.main()\nexcept SystemExit:\n    pass"
    assert loaded_after(code) == "[]"


def test_listing_models_does_not_import_torch():
    assert loaded_after("import moir; moir.list_models()") == "[]"


if __name__ == "__main__":
    SURFACE.write_text(json.dumps(public_names(), indent=1) + "\n")
