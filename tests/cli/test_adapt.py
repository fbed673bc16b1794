"""``moir adapt``, and restoring with what it wrote, as a user would."""

import pytest
import torch

from moir.picture import from_tensor, write

QUICK = ("--set", "patch=16", "--set", "batch=2", "--set", "check_every=5", "--set", "learning_rate=0.02")


@pytest.fixture
def pairs(tmp_path):
    """Five pairs that are much alike; the inputs are too dark."""
    generator = torch.Generator().manual_seed(0)
    for number in range(5):
        target = 0.3 + 0.4 * torch.rand(3, 40, 32, generator=generator)
        write(from_tensor(target), tmp_path / "pairs" / "target" / f"{number}.png")
        write(from_tensor(target - 0.15), tmp_path / "pairs" / "input" / f"{number}.png")
    return tmp_path / "pairs"


def test_adapt_then_restore(moir_command, tiny_model, pairs, tmp_path):
    done = moir_command("adapt", tiny_model, "--task", "dim", "--pairs", pairs, "--method", "conv", "--steps", 15,
                        "--json", *QUICK)  # fmt: skip
    assert done.code == 0, done.err
    *checks, last = done.records
    assert [check["step"] for check in checks] == [0, 5, 10, 15]
    assert last["adapter"] == "dim_adapter.safetensors"
    assert (tmp_path / "dim_adapter.json").is_file()
    assert last["psnr_after"] > last["psnr_before"] == checks[0]["psnr"]
    assert last["held_out"] == 1

    restored = moir_command("restore", pairs / "input" / "0.png", "--model", tiny_model, "--adapter", last["adapter"],
                            "--output", "out.png", "--json")  # fmt: skip
    assert restored.code == 0, restored.err
    assert (restored.records[0]["expert"], restored.records[0]["granularity"]) == ("dim", "adapter")

    other = moir_command("restore", pairs / "input" / "0.png", "--adapter", last["adapter"], "--output", "b.png")
    assert other.code == 1
    assert "belongs to tiny with the weights it was trained on" in other.err
    assert "not to this unirestorer_compact" in other.err

    again = moir_command("adapt", tiny_model, "--task", "dim", "--pairs", pairs, *QUICK)
    assert again.code == 1
    assert "dim_adapter.safetensors exists already" in again.err


def test_nothing_better_is_an_error_and_no_file(moir_command, tiny_model, pairs, tmp_path):
    done = moir_command("adapt", tiny_model, "--task", "dim", "--input", pairs / "input", "--target", pairs / "target",
                        "--steps", 5, *QUICK, "--set", "learning_rate=1e-12")  # fmt: skip
    assert done.code == 1
    assert "no adapter was written: in 5 steps nothing better than tiny alone" in done.err
    assert not list(tmp_path.glob("dim_adapter*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give exactly one of --pairs DIR"),
        (("--pairs", "a", "--clean", "b"), "--pairs DIR and --clean DIR"),
        (("--with", "noise=25"), "--with needs --clean; only --with was given"),
        (("--clean", "nowhere"), "this network keeps the size of pictures, so the clean ones in nowhere are no pairs"),
        (("--pairs", "nowhere"), "nowhere does not exist"),
    ],
)
def test_requests_that_cannot_work(moir_command, tiny_model, arguments, says):
    done = moir_command("adapt", tiny_model, "--task", "dim", *arguments)
    assert done.code == 1
    assert says in " ".join(done.err.split())
