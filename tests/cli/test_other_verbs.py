import json

from PIL import Image

import moir
from moir.degrade import params_from_json
from moir.models import list_models


def test_help_lists_the_verbs_that_work(moir_command):
    outcome = moir_command("--help")
    assert outcome.code == 0
    for verb in ("restore", "inspect", "degrade", "models", "train", "adapt", "convert", "export", "expert", "evaluate",
                 "bench", "serve", "data"):  # fmt: skip
        assert verb in outcome.out
        assert moir_command(verb, "--help").code == 0
    assert moir_command("--version").out.strip() == f"moir {moir.__version__}"


def test_degrade_records_what_it_did_and_does_it_again(moir_command, pictures, tmp_path):
    (pictures / "broken.png").unlink()
    arguments = ("degrade", pictures, "--with", "rain=heavy, noise:poisson=25", "--seed", 7, "--json")
    first = moir_command(*arguments, "--output", "one")
    assert first.code == 0
    second = moir_command(*arguments, "--output", "two")
    for record in first.records:
        kinds = [(p["type"], p["kind"]) for p in record["damage"]]
        assert kinds[0] == ("noise", "poisson")
        assert kinds[1][0] == "rain"
        assert [params_from_json(p).to_json() for p in record["damage"]] == record["damage"]
    assert [r["damage"] for r in first.records] == [r["damage"] for r in second.records]
    for name in ("a.png", "b.jpg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert (tmp_path / "one" / name).read_bytes() != (pictures / name).read_bytes()
    saved = json.loads((tmp_path / "one" / "a.json").read_text())
    assert saved["damage"] == next(r for r in first.records if r["input"].endswith("a.png"))["damage"]
    other = moir_command("degrade", pictures, "--with", "rain=heavy", "--seed", 8, "--json", "--output", "three")
    assert other.records[0]["damage"][0]["seed"] != first.records[0]["damage"][1]["seed"]


def test_degrade_with_masks_of_snow(moir_command, pictures, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (64, 64), 255).save(masks / "m.png")
    outcome = moir_command(
        "degrade", pictures / "a.png", "--with", "snow:mask=1", "--snow-masks", masks, "-o", "snow.png"
    )
    assert outcome.code == 0, outcome.err
    with Image.open(tmp_path / "snow.png") as image:
        assert image.getextrema() == ((255, 255),) * 3


def test_degrade_mistakes(moir_command, pictures):
    wrong = moir_command("degrade", pictures / "a.png", "--with", "rian=heavy")
    assert wrong.code == 1
    assert "did you mean 'rain'" in wrong.err
    assert moir_command("degrade", pictures / "a.png").code == 2


def test_models(moir_command):
    outcome = moir_command("models", "--json")
    assert outcome.code == 0
    networks = [r["name"] for r in outcome.records if r["kind"] == "network"]
    assert networks == list_models()
    default = [r for r in outcome.records if r.get("default")]
    assert len(default) == 1
    assert default[0]["parameters"] > 1e5
    assert default[0]["licence"]
    assert default[0]["name"] in moir_command("models").out
