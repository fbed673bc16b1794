import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from moir.base.names import TYPES
from moir.cli.restore import _in_words


def test_a_folder_with_a_broken_picture(moir_command, pictures, tiny_model, tmp_path):
    outcome = moir_command("restore", pictures, "--model", tiny_model, "--output", "out", "--json")
    assert outcome.code == 1
    records = {record["input"].rsplit("/", 1)[1]: record for record in outcome.records}
    assert set(records) == {"a.png", "b.jpg", "broken.png"}
    assert "broken.png" in records["broken.png"]["error"]
    assert set(records["broken.png"]) == {"input", "error"}
    good = records["a.png"]
    assert (good["width"], good["height"], good["model"], good["strength"]) == (56, 40, "tiny", 1.0)
    assert sorted(finding["type"] for finding in good["estimate"]) == sorted(TYPES)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.jpg"}
    assert "notes.txt" in outcome.err
    with Image.open(tmp_path / "out" / "b.jpg") as written:
        assert written.size == (33, 30)


def test_without_output_the_result_lies_beside_the_input_and_nothing_is_replaced(moir_command, pictures, tiny_model):
    first = moir_command("restore", pictures / "a.png", "--model", tiny_model)
    assert first.code == 0
    result = pictures / "a_restored.png"
    before = result.read_bytes()
    second = moir_command("restore", pictures / "a.png", "--model", tiny_model)
    assert second.code == 1
    assert "exists already" in second.err
    assert result.read_bytes() == before
    assert moir_command("restore", pictures / "a.png", "--model", tiny_model, "--overwrite").code == 0


def test_resume_leaves_out_what_is_done(moir_command, pictures, tiny_model, tmp_path):
    (pictures / "broken.png").unlink()
    arguments = ("restore", pictures, "--recursive", "--model", tiny_model, "--output", "out", "--json")
    assert moir_command(*arguments).code == 0
    assert (tmp_path / "out" / "sub" / "c.png").exists()
    (tmp_path / "out" / "b.jpg").unlink()
    kept = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    outcome = moir_command(*arguments, "--resume")
    assert outcome.code == 0
    skipped = {record["input"].rsplit("/", 1)[1]: record.get("skipped", False) for record in outcome.records}
    assert skipped == {"a.png": True, "b.jpg": False, "c.png": True}
    assert (tmp_path / "out" / "b.jpg").exists()
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == kept


def test_compare_writes_both_side_by_side(moir_command, pictures, tiny_model, tmp_path):
    outcome = moir_command(
        "restore", pictures / "a.png", "--model", tiny_model, "--output", "out.png", "--compare", "--jobs", 2
    )
    assert outcome.code == 0
    with Image.open(tmp_path / "out_compare.png") as sheet, Image.open(pictures / "a.png") as original:
        assert sheet.size == (2 * 56 + 8, 40)
        assert sheet.crop((0, 0, 56, 40)).tobytes() == original.convert("RGB").tobytes()
        with Image.open(tmp_path / "out.png") as restored:
            assert sheet.crop((64, 0, 120, 40)).tobytes() == restored.convert("RGB").tobytes()


def test_jobs_give_the_same_pictures(moir_command, pictures, tiny_model, tmp_path):
    (pictures / "broken.png").unlink()
    for jobs, name in ((1, "one"), (3, "three")):
        assert moir_command("restore", pictures, "--model", tiny_model, "-o", name, "-j", jobs).code == 0
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "three" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "does not exist"),
        (["no/*.png"], "no file matches"),
        (["in", "--task", "derian"], "did you mean 'derain'"),
        (["in", "--strength", "3"], "strength"),
        (["in", "--device", "cuda:99"], "cuda:99"),
        (["in", "--precision", "int8"], "precision"),
        (["in", "--tile", "7"], "tile"),
        (["in", "--tile", "seven"], "tile"),
        (["in", "--model", "compcat"], "compcat"),
        (["in/a.png", "in/b.jpg", "--output", "in/a.png"], "in/a.png"),
    ],
)
def test_mistakes_are_answered_with_what_to_do(moir_command, pictures, tiny_model, arguments, message):
    (pictures / "broken.png").unlink()
    if "--model" not in arguments:
        arguments = [*arguments, "--model", tiny_model]
    outcome = moir_command("restore", *arguments)
    assert outcome.code == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(pictures.glob("*_restored*"))


def test_an_unknown_option_is_a_usage_error(moir_command):
    outcome = moir_command("restore", "--tsk", "derain", "a.png")
    assert outcome.code == 2
    assert "--task" in outcome.err


def test_two_inputs_with_one_output_are_refused_before_any_work(moir_command, pictures, tiny_model, tmp_path):
    outcome = moir_command(
        "restore", pictures / "a.png", pictures / "sub" / "a.png", "--output", "out", "--model", tiny_model
    )
    assert outcome.code == 1
    assert "both be written" in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_ctrl_c_leaves_no_partial_file(pictures, tiny_model, tmp_path, photograph):
    from moir.picture import from_tensor, write

    many = tmp_path / "many"
    for number in range(300):
        write(from_tensor(photograph), many / f"{number:03}.png")
    command = [sys.executable, "-m", "moir", "restore", str(many), "--model", str(tiny_model), "-o", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*.png")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    written = list((tmp_path / "out").iterdir())
    assert process.returncode not in (0, None)
    assert "Traceback" not in err
    assert 0 < len(written) < 300
    for file in written:
        assert file.suffix == ".png"
        assert ".part" not in file.name
        with Image.open(file) as image:
            image.load()


@pytest.mark.parametrize(
    ("probability", "expert", "told", "words"),
    [
        (0.9, "lowlight", False, "heavy lowlight (90%); 8x8"),
        (0.55, "clean-2", False, "heavy lowlight (55%), left as it is; not sure enough: try --task lowlight; 8x8"),
        (0.4, "clean", False, "no damage found, left as it is; perhaps heavy lowlight (40%): try --task lowlight; 8x8"),
        (0.4, "all", False, "no damage found; perhaps heavy lowlight (40%): try --task lowlight; 8x8"),
        (0.1, "clean", False, "no damage found, left as it is; 8x8"),
        (0.4, "lowlight", True, "no damage found; 8x8"),
    ],
)
def test_what_may_be_there_and_was_not_acted_on_is_said(probability, expert, told, words):
    estimate = [{"type": "lowlight", "degree": "heavy", "probability": probability}]
    record = {"estimate": estimate, "expert": expert, "width": 8, "height": 8, "seconds": 0.5}
    assert _in_words(record, told) == f"{words} in 0.50 s"


def test_an_ensemble_is_asked_for(moir_command, pictures, tiny_model, tmp_path):
    for name, more in (("one", ()), ("many", ("--ensemble",))):
        assert moir_command("restore", pictures / "a.png", "--model", tiny_model, "-o", f"{name}.png", *more).code == 0
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "many.png").read_bytes()
    (pictures / "a.mp4").write_bytes(b"x")
    outcome = moir_command("restore", pictures / "a.mp4", "--model", tiny_model, "--ensemble")
    assert outcome.code == 1
    assert "a.mp4 is a clip" in outcome.err
