"""Wheel and source distribution: what is in them; the wheel, alone in a fresh environment, restores a picture."""

import subprocess
import sys
import tarfile
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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distribution, and with the wheel that was built from nothing but it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


def expected():
    """Everything a user of the package needs, as paths from src/."""
    package = ROOT / "src" / "moir"
    patterns = ("**/*.py", "weights/*", "evaluation/published/*.csv", "serve/page/*", "py.typed")
    found = {pattern: [file for file in package.glob(pattern) if file.is_file()] for pattern in patterns}
    assert all(found.values()), found
    assert {f"{name}.safetensors" for name in shipped()} <= {file.name for file in found["weights/*"]}
    return {file.relative_to(package.parent).as_posix() for files in found.values() for file in files}


@pytest.mark.slow
def test_the_source_distribution_holds_the_package_and_nothing_large(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {f"src/{name}" for name in expected()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops <= {"src", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "setup.cfg"}
    weights = sum(file.stat().st_size for file in (ROOT / "src" / "moir" / "weights").iterdir())
    assert path.stat().st_size < weights + 2**20


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_no_more(built):
    (path,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name}
    assert names == expected()


@pytest.mark.slow
def test_the_wheel_works_alone(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements" / "core.txt", wheel)
    Image.fromarray(data.chelsea()[:128, :160]).save(tmp_path / "cat.png")
    run(tmp_path / "env" / "bin" / "moir", "restore", "cat.png", cwd=tmp_path)
    with Image.open(tmp_path / "cat_restored.png") as image:
        assert image.size == (160, 128)
    where = run(python, "-c", "import moir; print(moir.__file__)", cwd=tmp_path)
    assert str(tmp_path) in where
