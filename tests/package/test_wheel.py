"""The wheel, installed alone in a fresh environment, restores a picture with the weights inside it."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from moir.models import shipped

ROOT = Path(__file__).parents[2]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_alone(tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in shipped():
        assert f"moir/weights/{name}.safetensors" in names
        assert f"moir/weights/{name}.json" in names
    assert "moir/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements" / "core.txt", wheel)
    Image.fromarray(data.chelsea()[:128, :160]).save(tmp_path / "cat.png")
    run(tmp_path / "env" / "bin" / "moir", "restore", "cat.png", cwd=tmp_path)
    with Image.open(tmp_path / "cat_restored.png") as image:
        assert image.size == (160, 128)
    where = run(python, "-c", "import moir; print(moir.__file__)", cwd=tmp_path)
    assert str(tmp_path) in where
