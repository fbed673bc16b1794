import pytest

CONTRACT = {"model", "size", "device", "precision", "engine", "median_s", "min_s", "peak_mb", "ratio",
            "psnr_to_yardstick"}  # fmt: skip


def test_rows_for_machines(moir_command, tiny_model):
    outcome = moir_command(
        "bench", "--model", tiny_model, "--size", 32, "--repeats", 1, "--device", "cpu", "--precision", "float32",
        "--engine", "plain", "--json"
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert [row["engine"] for row in outcome.records] == ["yardstick", "plain"]
    for row in outcome.records:
        assert row.keys() >= CONTRACT
        assert row["weights"] == "trained"
        assert row["min_s"] > 0


def test_a_table_for_people(moir_command):
    outcome = moir_command(
        "bench", "-m", "test_unet", "--size", 32, "--size", 16, "--repeats", 1, "--precision", "float32", "--engine",
        "plain", "--device", "cpu", "--no-memory"
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("yardstick float32") == 2
    assert outcome.out.count("plain float32") == 2
    assert "GMACs at 16 px" in outcome.out
    assert "random weights" in outcome.out
    assert max(map(len, outcome.out.split("\n\n")[0].splitlines())) <= 80


def test_overhead(moir_command):
    outcome = moir_command("bench", "--overhead", "-m", "test_unet", "--size", 16, "--repeats", 1, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.records[0].keys() >= {"model", "parameters", "macs", "peak_mb", "median_s"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "compcat"], "did you mean 'compact'"),
        (["--size", "0"], "size 0"),
        (["--precision", "int8"], "precision"),
        (["--precision", "fp16", "--device", "cpu"], "fp16"),
        (["--engine", "warp"], "engine 'warp'"),
        (["--overhead", "--engine", "plain"], "--overhead"),
    ],
)
def test_mistakes(moir_command, arguments, message):
    outcome = moir_command("bench", *arguments)
    assert outcome.code == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not outcome.out
