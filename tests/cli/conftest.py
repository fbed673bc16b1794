import json
import subprocess
import sys
from pathlib import Path

import pytest

from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of


class Outcome:
    """What a run of the command line left behind."""

    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def records(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def moir_command(tmp_path):
    """Run ``moir ARGUMENTS`` in tmp_path, as a user would, in a process of its own."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "moir", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, **options)
        return Outcome(done)

    return run


@pytest.fixture
def tiny_model(tiny_network, tmp_path) -> Path:
    """A weights file with its card."""
    path = tmp_path / "models" / "tiny.safetensors"
    write_tensors(path, tiny_network.state_dict())
    Card("tiny", "test_compact", tiny_network.options, sha256=sha256_of(path)).write(path.with_suffix(".json"))
    return path


@pytest.fixture
def pictures(tmp_path, photograph):
    """A folder: two pictures, one broken picture, a text file, and a picture in a subfolder."""
    from moir.picture import from_tensor, write

    folder = tmp_path / "in"
    write(from_tensor(photograph[:, :40, :56]), folder / "a.png")
    write(from_tensor(photograph[:, 60:90, :33]), folder / "b.jpg")
    write(from_tensor(photograph[:, 60:80, :20]), folder / "sub" / "c.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("hello")
    return folder
