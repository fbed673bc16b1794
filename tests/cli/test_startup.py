"""What restoring one picture imports; start-up is judged by this, its time in `benchmarks/speed/startup.py`."""

import gc
import json
import subprocess
import sys

import pytest

from moir.cli.startup import imports_to_keep

NEEDLESS = ("cv2", "skimage", "scipy", "matplotlib", "pandas", "accelerate", "sklearn", "ray", "av", "fastapi",
            "onnxruntime", "openvino", "onnx", "torchvision", "huggingface_hub", "spandrel")  # fmt: skip

SCRIPT = f"""
import json, sys
from moir.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([name for name in ("torch", *{NEEDLESS!r}) if name in sys.modules]))
"""


def test_restoring_one_picture_imports_no_more_than_it_needs(pictures, tiny_model, tmp_path):
    command = [sys.executable, "-c", SCRIPT, "restore", pictures / "a.png", "--model", tiny_model, "-o", "out.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").exists()
    assert json.loads(done.stdout.splitlines()[-1]) == ["torch"]


@pytest.fixture
def collector():
    """The collector of garbage as it was found, also after a test that changes it."""
    was_enabled = gc.isenabled()
    yield
    gc.unfreeze()
    (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_imported_to_stay_is_kept_from_the_collector(collector, enabled):
    (gc.enable if enabled else gc.disable)()
    gc.unfreeze()
    with pytest.raises(ImportError), imports_to_keep():
        assert not gc.isenabled()
        raise ImportError("no such module")
    assert gc.get_freeze_count() > 0
    assert gc.isenabled() == enabled
