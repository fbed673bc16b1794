"""AdaptIR's tasks in evaluation: its benchmarks in its order, its noise, its table beside ours."""

import numpy as np
import pytest
import torch

from moir.evaluation.noise import NoiseSource
from moir.evaluation.protocols import protocol
from moir.evaluation.records import Evaluation, Summary
from moir.evaluation.report.tables import markdown
from moir.evaluation.settings import Sources, expand, settings
from moir.networks.adaptation_tasks import TASK_SCALES
from moir.picture import from_tensor, write

HYBRID = ("set5", "set14", "urban100", "b100", "manga109")  # the order of the published program


@pytest.mark.parametrize("task", TASK_SCALES)
def test_every_task_names_its_benchmarks(task):
    found = expand([task])
    if TASK_SCALES[task] != 1:
        assert found == [f"{name}_{task}" for name in HYBRID]
    else:
        assert len(found) == 1


def test_published_numbers_stand_beside_ours():
    counts = {"set5": 5, "set14": 14, "urban100": 100, "b100": 100, "manga109": 109}
    means = {"psnr": 20.0, "ssim": 0.5}  # made up
    summaries = tuple(Summary(f"{name}_lr4_noise30", n, 0, means, {}) for name, n in counts.items())
    page = markdown([Evaluation("mine", "adaptir", summaries, (), None, {})])
    for method, numbers in {
        "AdaptIR": ("26.48", "24.88", "24.67", "22.88", "24.96"),
        "Full-ft": ("27.24", "25.56", "25.02", "24.02", "26.31"),
        "LoRA": ("25.19", "23.82", "23.82", "21.81", "23.30"),
    }.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {method} ")]
        assert all(number in row for number in numbers)


@pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")
def test_noise_of_the_hybrid_task_as_published_and_on_its_own(tmp_path, photograph):
    low = (photograph[:, :12, :10] * 255).round() / 255
    for folder in ("Set5", "Set14"):
        for name in ("a", "b"):
            write(from_tensor(photograph[:, :48, :40]), tmp_path / folder / "HR" / f"{name}.png")
            write(from_tensor(low), tmp_path / folder / "LR_bicubic" / "X4" / f"{name}x4.png")
    found = [settings(f"{name}_lr4_noise30", Sources(root=tmp_path))[0] for name in ("set5", "set14")]
    rules = protocol("adaptir")
    # One stream for the whole run, seeded once; the picture in 8 bit, its fraction cut off.
    stream, levels = np.random.RandomState(0), (low.permute(1, 2, 0).double() * 255).round().numpy()
    source = NoiseSource("published", 0)
    for setting in found:
        for pair in setting.files.pairs:
            expected = np.clip(levels + 30 * stream.randn(*levels.shape), 0, 255).astype(np.uint8)
            got = setting.sample(pair, rules, source).input * 255
            assert np.array_equal(got.round().permute(1, 2, 0).numpy(), expected)
    # Drawn for each picture alone, it depends neither on the order nor on what is left out.
    last = found[1].files.pairs[1]
    alone = found[1].sample(last, rules, NoiseSource()).input
    used = NoiseSource()
    for setting in found:
        for pair in setting.files.pairs:
            after_all = setting.sample(pair, rules, used).input
    assert torch.equal(after_all, alone)
