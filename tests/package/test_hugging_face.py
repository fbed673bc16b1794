"""Folders for Hugging Face: the Space serves the page in the hub's frame; weights load again."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import moir
from moir.checkpoints import Card
from moir.models import DEFAULT, WEIGHTS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "packaging" / "hugging_face.py"
SPACE = ROOT / "packaging" / "huggingface_space"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def front_matter(file: Path) -> dict:
    _, matter, _ = file.read_text().split("---\n", 2)
    return yaml.safe_load(matter)


def test_weights_load_again_and_the_readme_says_what_the_card_says(tmp_path):
    folder = tmp_path / "weights"
    done = run("weights", DEFAULT, folder)
    assert done.returncode == 0, done.stderr
    card = Card.read(WEIGHTS / f"{DEFAULT}.json")
    assert Card.read(folder / "model.json") == card
    assert moir.load(folder / "model.safetensors", device="cpu").name == card.name
    matter = front_matter(folder / "README.md")
    assert matter["library_name"] == "moir"
    assert card.licence.lower().replace(" ", "-").startswith(matter["license"])
    text = (folder / "README.md").read_text()
    for said in (card.licence, *card.weaknesses, *(str(row["psnr"]) for row in card.metrics if "psnr_input" in row)):
        assert said in text


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run("weights", DEFAULT, tmp_path)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_the_space_states_its_port_and_licence():
    matter = front_matter(SPACE / "README.md")
    assert matter["sdk"] == "docker"
    assert matter["license"] == "apache-2.0"
    assert f"EXPOSE {matter['app_port']}" in (SPACE / "Dockerfile").read_text()
    assert f"PORT = {matter['app_port']}" in (SPACE / "app.py").read_text()
    assert len(matter["short_description"]) <= 60  # the hub cuts it off


@pytest.fixture
def client(monkeypatch):
    for name in ("fastapi", "python_multipart", "httpx"):
        pytest.importorskip(name, reason="the extra 'serve' or httpx is not installed")
    from starlette.testclient import TestClient

    monkeypatch.setenv("SPACE_HOST", "owner-moir.hf.space")
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with TestClient(module.make_app()) as client:
        yield client


def test_the_page_may_be_framed_by_the_hub_alone(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "<title>" in page.text
    assert "frame-ancestors https://huggingface.co" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" not in page.headers["content-security-policy"]
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(("origin", "status"), [("https://owner-moir.hf.space", 200), ("https://example.org", 403)])
def test_the_space_answers_to_its_own_address_behind_the_proxy(client, origin, status):
    assert client.get("/v1/models", headers={"Origin": origin}).status_code == status


@pytest.mark.slow
def test_the_space_folder_is_complete(tmp_path):
    folder = tmp_path / "space"
    done = run("space", folder)
    assert done.returncode == 0, done.stderr
    names = {file.name for file in folder.iterdir()}
    assert {"README.md", "Dockerfile", "app.py", "constraints.txt"} < names
    (wheel,) = folder.glob("moir-*.whl")
    assert f"moir/weights/{DEFAULT}.safetensors" in zipfile.ZipFile(wheel).namelist()
    assert (folder / "constraints.txt").read_text() == (ROOT / "requirements" / "dev.txt").read_text()
