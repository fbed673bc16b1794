import json

import pytest
import torch
from accelerate.state import AcceleratorState

from moir.base.errors import CheckpointError
from moir.checkpoints import Card, read_tensors
from moir.models import create_model
from moir.training import load_recipe
from moir.training.loop import train
from moir.training.losses import fft_loss
from moir.training.plots import draw_curves, read_log
from moir.training.usage import ExpertCounter, read_usage

pytestmark = pytest.mark.filterwarnings("ignore::moir.datasets.WrongCountWarning")


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_on_a_mixture_from_first_to_last(mixture_file, tmp_path):
    recipe = load_recipe(
        mixture_file, {"validation": "{benchmarks: [cdd11_low, cdd11_rain], crop: 32, limit: 1, every: 4}"}
    )
    weights = train(recipe, tmp_path / "run", device="cpu")
    run = tmp_path / "run"
    log = records(run / "log.jsonl")
    # 8 steps per epoch: 2 of warm-up, 6 in all, of a cosine that would end at step 10.
    cosine = [0.5e-3 * (1 + torch.tensor(torch.pi * done / 8).cos().item()) for done in range(4)]
    assert [record["lr"] for record in log] == pytest.approx([0.5e-3, 1e-3, *cosine])
    assert {"l1", "fft", "balance"} <= set(log[0])
    assert set(records(run / "validation.jsonl")[0]) == {"step", "cdd11_low", "cdd11_rain", "mean"}

    usages = read_usage(run / "usage.jsonl")
    assert [usage.step for usage in usages] == [4, 6]
    assert usages[0].groups == ("low", "haze", "rain", "snow")
    assert [sum(usage.pictures) for usage in usages] == [8, 4]
    network = create_model("test_moce_ir").eval()
    network(torch.rand(1, 3, 16, 16))
    assert list(usages[0].routers) == list(network.routes)
    for name in usages[0].routers:
        assert torch.tensor(usages[0].routers[name]).sum(1).tolist() == list(usages[0].pictures)
    for plot in ("curves.png", "expert_usage.png"):
        assert (run / plot).read_bytes().startswith(b"\x89PNG")

    card = Card.read(weights.with_suffix(".json"))
    assert [entry["name"] for entry in card.training_data] == [f"cdd11_train_{k}" for k in usages[0].groups]
    again = json.loads((run / "recipe.json").read_text())
    (tmp_path / "again.yaml").write_text(json.dumps(again))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_a_resumed_routed_run_ends_exactly_where_an_unbroken_one_does(mixture_file, tmp_path):
    recipe = load_recipe(mixture_file)
    whole = read_tensors(train(recipe, tmp_path / "whole", device="cpu"))[0]

    class KilledError(Exception):
        pass

    def kill(progress):
        if progress.step == 4:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, tmp_path / "broken", device="cpu", on_step=kill)
    resumed = read_tensors(train(recipe, tmp_path / "broken", device="cpu"))[0]
    for name, value in resumed.items():  # routing noise, too, depends on the step alone
        assert torch.equal(value, whole[name]), name
    assert [record["step"] for record in read_log(tmp_path / "broken" / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def _another_precision():
    """Accelerate keeps one precision per process; forget it before and after."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("_another_precision")
def test_mixed_precision_keeps_the_fourier_transforms_in_float32(mixture_file, tmp_path):
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        half = fft_loss(a.bfloat16(), b)
    assert half.dtype == torch.float32
    assert torch.equal(half, fft_loss(a.bfloat16().float(), b))
    recipe = load_recipe(mixture_file, {"precision": "bf16", "epochs": "0.25", "optimiser.schedule_epochs": "null"})
    losses = []
    train(recipe, tmp_path / "run", device="cpu", on_step=lambda p: losses.append(p.losses))
    assert {"fft", "balance"} <= set(losses[-1])


def test_fine_tuning_from_the_published_form(mixture_file, tmp_path):
    torch.manual_seed(5)
    state = create_model("test_moce_ir").state_dict()
    start = tmp_path / "published.ckpt"
    torch.save({"epoch": 119, "state_dict": {f"net.{name}": value for name, value in state.items()}}, start)
    settings = {"model.start": str(start), "epochs": "0.125", "optimiser.learning_rate": "1e-9",
                "optimiser.warmup_epochs": "0"}  # fmt: skip
    weights = train(load_recipe(mixture_file, settings), tmp_path / "run", device="cpu")
    for name, value in read_tensors(weights)[0].items():
        assert torch.allclose(value, state[name], atol=1e-6), name
    card = Card.read(weights.with_suffix(".json"))
    assert "non-commercial" in card.licence
    assert "published.ckpt" in card.source

    state["surplus"] = state.pop("output.weight")
    torch.save({"state_dict": state}, start)
    with pytest.raises(CheckpointError, match=r"missing: output\.weight.*unexpected: surplus"):
        train(load_recipe(mixture_file, settings), tmp_path / "other", device="cpu")


def test_curves_of_a_run_that_was_killed_and_changed(tmp_path):
    lines = ['{"step": 1, "lr": 0.1, "seconds": 1, "l1": 0.5}', '{"step": 2, "lr": 0.1, "seco',
             '{"step": 3, "lr": 0.1, "seconds": 1, "log_l1": -0.5}', '{"step": 2, "lr": 0.2, "seconds": 1, "l1": 0.4}',
             '{"step": 3, "lr": 0.1, "seconds": 2, "log_l1": -0.7}']  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]
    draw_curves(tmp_path)
    assert (tmp_path / "curves.png").exists()


def test_choices_are_counted_by_group():
    counter = ExpertCounter(("rain", "haze"), experts=3)
    routes = {"one": torch.tensor([[0], [2], [2]]), "two": torch.tensor([[1], [1], [0]])}
    counter.add(routes, torch.tensor([[1.0, 0], [1, 1], [0, 1]]))
    counter.add(routes, torch.tensor([[1.0, 0], [0, 0], [0, 0]]))
    usage = counter.take(7)
    assert usage.pictures == (3, 2)
    assert usage.routers == {"one": [[2, 0, 1], [0, 0, 2]], "two": [[0, 3, 0], [1, 1, 0]]}
    assert torch.allclose(usage.shares("haze"), torch.tensor([[0, 0, 1], [0.5, 0.5, 0]]))
    assert counter.take(8) is None
    counter.add({"one": torch.tensor([[4, 0]])}, torch.tensor([[1.0, 0]]))  # more experts than were known, two each
    assert counter.take(9).routers == {"one": [[1, 0, 0, 0, 1], [0, 0, 0, 0, 0]]}
