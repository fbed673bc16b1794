import json
import logging
from copy import deepcopy

import pytest
import torch

from moir import load
from moir.base.errors import CheckpointError, OutputExistsError, RecipeError, TrainingError
from moir.checkpoints import read_tensors
from moir.models import create_model, load_model
from moir.networks.base import select
from moir.networks.instructed import instruction
from moir.training import load_recipe
from moir.training import loop as loop_module
from moir.training.data import DamagedPatches, load_pictures
from moir.training.loop import train, update_average
from moir.training.losses import charbonnier, degree_loss, fft_loss, terms
from moir.training.optimisers import make_optimiser
from moir.training.recipe import Loss
from moir.training.state import alone_in, load_state
from moir.training.teacher import Teacher


def test_a_run_writes_weights_that_load_and_pictures_to_look_at(recipe, tmp_path):
    seen = []
    weights = train(recipe, tmp_path / "run", device="cpu", on_step=lambda p: seen.append(p.step))
    assert seen == [1, 2, 3, 4, 5, 6]
    restorer = load(weights, device="cpu")
    assert restorer.name == "tiny"
    assert restorer(torch.rand(3, 20, 20)).tensor.shape == (3, 20, 20)
    run = tmp_path / "run"
    assert {path.name for path in (run / "validation").iterdir()} == {"0000003.png", "0000006.png"}
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert {"l1", "presence", "degree", "lr"} <= set(records[0])
    scores = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert set(scores[0]) == {"step", "clean", "noise=25", "mean"}
    assert list((run / "tensorboard").iterdir())


def test_a_second_run_in_the_same_folder_is_refused(recipe, tmp_path):
    run = tmp_path / "run"
    with alone_in(run), pytest.raises(OutputExistsError, match=r"another run is at work with .*run"):
        train(recipe, run, device="cpu")
    assert {path.name for path in run.iterdir()} == {".lock"}
    train(recipe.model_copy(update={"steps": 1}), run, device="cpu")
    assert (run / "weights.safetensors").is_file()


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_resumed_run_ends_exactly_where_an_unbroken_one_does(recipe_file, tmp_path, optimiser):
    recipe = load_recipe(recipe_file, {"optimiser.name": optimiser})
    whole = read_tensors(train(recipe, tmp_path / "whole", device="cpu"))[0]

    class KilledError(Exception):
        pass

    def kill(progress):
        if progress.step == 5:  # two steps after the last save: they are done again
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, tmp_path / "broken", device="cpu", on_step=kill)
    rest = []
    resumed = train(recipe, tmp_path / "broken", device="cpu", on_step=lambda p: rest.append(p.step))
    assert rest == [4, 5, 6]
    for name, value in read_tensors(resumed)[0].items():
        assert torch.equal(value, whole[name]), name


class TestStateInPieces:
    MEGABYTES = "0.05"

    @pytest.fixture
    def in_pieces(self, recipe_file):
        return load_recipe(recipe_file, {"state.megabytes": self.MEGABYTES})

    def test_no_file_of_the_state_is_larger_than_asked_for_and_none_is_left_over(self, in_pieces, recipe, tmp_path):
        train(in_pieces, tmp_path / "run", device="cpu")
        files = list((tmp_path / "run").glob("state*.safetensors"))
        assert max(file.stat().st_size for file in files) <= float(self.MEGABYTES) * 1e6
        of_step = [{name for name in (f.name for f in files) if f"{step:07d}" in name} for step in (3, 6)]
        assert all(len(pieces) > 1 for pieces in of_step)  # the present state's, and those of the one before
        assert len(files) == 2 + sum(map(len, of_step))
        one = read_tensors(train(recipe, tmp_path / "one", device="cpu").with_name("state.safetensors"))[0]
        assert len(list((tmp_path / "one").glob("state*.safetensors"))) == 2
        held = [read_tensors(file)[0] for file in files if "previous" not in file.name and "0000003" not in file.name]
        assert sum(map(len, held)) == len(one)
        for piece in held:
            for name, value in piece.items():
                assert torch.equal(value, one[name]), name

    def test_a_run_goes_on_from_them_exactly(self, in_pieces, recipe, tmp_path):
        whole = read_tensors(train(recipe, tmp_path / "whole", device="cpu"))[0]
        train(in_pieces.model_copy(update={"steps": 3}), tmp_path / "run", device="cpu")
        for name, value in read_tensors(train(in_pieces, tmp_path / "run", device="cpu"))[0].items():
            assert torch.equal(value, whole[name]), name

    def test_a_missing_piece_is_named(self, in_pieces, tmp_path):
        train(in_pieces, tmp_path / "run", device="cpu")
        (tmp_path / "run" / "state_0000006_1.safetensors").unlink()
        with pytest.raises(TrainingError, match="not whole without state_0000006_1"):
            train(in_pieces, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(("optimiser", "share"), [("muon", 1 / 3), ("adamw", 3 / 8)])
def test_a_state_that_is_not_exact_is_small_and_goes_on_from_the_average(recipe_file, tmp_path, optimiser, share):
    recipe = load_recipe(recipe_file, {"optimiser.name": optimiser, "state.exact": "false", "steps": "3"})
    exact = load_recipe(recipe_file, {"optimiser.name": optimiser, "steps": "3"})
    average = read_tensors(train(recipe, tmp_path / "run", device="cpu"))[0]
    train(exact, tmp_path / "exact", device="cpu")

    def numbers(run):
        kept = read_tensors(tmp_path / run / "state.safetensors")[0].values()
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    assert numbers("run") / numbers("exact") == pytest.approx(share, rel=0.05)
    network = create_model(recipe.model.name, **recipe.model.options)
    moments = make_optimiser(network, recipe.optimiser)
    assert load_state(tmp_path / "run", network, deepcopy(network), moments) == 3
    for name, value in network.state_dict().items():
        assert torch.equal(value, average[name].bfloat16().float()), name
    steps = []
    train(
        recipe.model_copy(update={"steps": 5}), tmp_path / "run", device="cpu", on_step=lambda p: steps.append(p.step)
    )
    assert steps == [4, 5]


def test_a_finished_run_can_be_made_longer(recipe, recipe_file, tmp_path):
    train(recipe, tmp_path / "run", device="cpu")
    steps = []
    train(load_recipe(recipe_file, {"steps": "8"}), tmp_path / "run", device="cpu",
          on_step=lambda p: steps.append(p.step))  # fmt: skip
    assert steps == [7, 8]


def test_training_learns(recipe_file, tmp_path):
    recipe = load_recipe(
        recipe_file,
        {"steps": "60", "batch": "4", "optimiser.learning_rate": "4e-3", "data.instruct": "0", "save_every": "60",
         "data.damage": "{clean: 0, single: 1, named: 0, types: {haze: 1}, levels: {heavy: 1}}",
         "optimiser.ema": "0.9", "validation.folders": "[]"},
    )  # fmt: skip
    network, _ = load_model(str(train(recipe, tmp_path / "run", device="cpu")))
    patches = DamagedPatches(load_pictures(recipe.data.folders, 32), recipe.data, seed=99)
    samples = [patches[number] for number in range(24)]
    x, target = (torch.stack([sample[key] for sample in samples]) for key in ("input", "target"))
    with torch.inference_mode():
        assert (network(x) - target).abs().mean() < 0.9 * (x - target).abs().mean()


def test_accumulated_batches_are_one_large_batch(recipe_file, tmp_path):
    settings = {"steps": "2", "optimiser.clip": "0", "validation.folders": "[]", "loss.degree": "0"}
    large = train(load_recipe(recipe_file, {**settings, "batch": "4"}), tmp_path / "large", device="cpu")
    small = train(
        load_recipe(recipe_file, {**settings, "batch": "2", "accumulate": "2"}), tmp_path / "small", device="cpu"
    )
    # Adam divides by the gradient's own size, so that rounding is visible; weights still agree closely.
    for name, value in read_tensors(small)[0].items():
        assert torch.allclose(value, read_tensors(large)[0][name], atol=2e-4), name


def test_a_loss_that_is_not_finite_is_named(recipe, tmp_path, monkeypatch):
    def broken(*arguments):
        found = terms(*arguments)
        found["presence"] = found["presence"] * float("nan")
        return found

    monkeypatch.setattr(loop_module, "terms", broken)
    with pytest.raises(TrainingError, match="presence is not finite at step 0"):
        train(recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_what_is_validated_on_is_not_trained_on(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, {"validation.folders": f"[{tmp_path / 'clean'}]"})
    with pytest.raises(TrainingError, match="keep them apart"):
        train(recipe, tmp_path / "run", device="cpu")


def test_the_state_of_another_network_is_refused(recipe, recipe_file, tmp_path):
    train(recipe, tmp_path / "run", device="cpu")
    with pytest.raises(CheckpointError, match="does not fit"):
        train(load_recipe(recipe_file, {"model.options.width": "4", "steps": "9"}), tmp_path / "run", device="cpu")


def test_starting_from_weights(recipe_file, recipe, tmp_path):
    first = train(recipe, tmp_path / "one", device="cpu")
    again = load_recipe(recipe_file, {"model.start": str(first), "steps": "1", "optimiser.learning_rate": "1e-9"})
    second = train(again, tmp_path / "two", device="cpu")
    for name, value in read_tensors(second)[0].items():
        assert torch.allclose(value, read_tensors(first)[0][name], atol=1e-6)


def test_the_moving_average_follows_the_weights():
    network, average = create_model("test_compact"), create_model("test_compact")
    expected = [0.9 * a + 0.1 * n for a, n in zip(average.parameters(), network.parameters(), strict=True)]
    update_average(average, network, 0.9)
    for value, wanted in zip(average.parameters(), expected, strict=True):
        assert torch.allclose(value, wanted, atol=1e-6)


def test_loss_terms_against_their_definitions():
    a, b = torch.rand(2, 3, 8, 10), torch.rand(2, 3, 8, 10)
    spectrum = torch.fft.rfft2(a) - torch.fft.rfft2(b)
    assert fft_loss(a, b) == pytest.approx(
        (spectrum.real.abs().mean() + spectrum.imag.abs().mean()).item() / 2, rel=1e-4
    )
    assert charbonnier(a, a).item() == pytest.approx(1e-3)
    logits, degree = torch.randn(2, 7, 3, requires_grad=True), torch.full((2, 7), -1)
    assert degree_loss(logits, degree).item() == 0
    degree[1, 3] = 2
    assert degree_loss(logits, degree).item() == pytest.approx(-logits[1, 3].log_softmax(0)[2].item(), rel=1e-5)


def test_terms_that_do_not_apply_are_left_out(photograph):
    network = create_model("test_restormer")
    x = photograph[None, :, :32, :32]
    found = terms(network, network(x), network.analyse(x), {"target": x}, Loss())
    assert set(found) == {"l1"}


def test_a_routed_network_brings_its_balance_loss(photograph):
    network = create_model("test_moce_ir").train()
    x = photograph[None, :, :32, :32].repeat(2, 1, 1, 1)
    found = terms(network, network(x), {}, {"target": x}, Loss(balance=0.5))
    assert found["balance"].item() == pytest.approx(0.5 * network.balance_loss.item())


def test_other_networks_of_the_registry_train(recipe_file, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    recipe = load_recipe(recipe_file, {"model.name": "test_moce_ir", "steps": "2", "validation.folders": "[]"})
    losses = []
    train(recipe, tmp_path / "run", device="cpu", on_step=lambda p: losses.append(p.losses))
    assert {"l1", "balance"} <= set(losses[-1])


def test_a_network_learns_from_a_teacher_alone(recipe_file, tmp_path):
    teacher = str(train(load_recipe(recipe_file, {"steps": "1"}), tmp_path / "teacher", device="cpu"))
    common = {"optimiser.learning_rate": "4e-3", "optimiser.ema": "0.5", "batch": "4", "seed": "5", "steps": "40"}
    changes = {"model.teacher": teacher, "loss.distil": "1", "loss.l1": "0", "save_every": "40"} | common
    student, _ = load_model(str(train(load_recipe(recipe_file, changes), tmp_path / "student", device="cpu")))
    alone, _ = load_model(str(train(load_recipe(recipe_file, {"save_every": "40"} | common), tmp_path / "alone")))
    wanted, _ = load_model(teacher)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        near, far = ((network(x) - wanted(x)).abs().mean() for network in (student, alone))
    assert near < far
    with pytest.raises(RecipeError, match="go together"):
        load_recipe(recipe_file, {"model.teacher": teacher})


@torch.inference_mode()
def test_a_teacher_hears_each_instruction():
    tree, _ = load_model("unirestorer_compact")
    teacher = Teacher("unirestorer_compact", torch.device("cpu"))
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))  # noise, if nothing is said
    remove = torch.stack([instruction(["rain"]), torch.zeros(8), instruction(["rain"])])
    context = tree.analyse(x)
    told = tree.instruct(context, ["rain"])
    taught = teacher(x, remove)
    for row, own in enumerate((told, context, told)):
        alone = tree(x[row : row + 1], select(own, [row])).clamp(0, 1)
        assert torch.allclose(taught[row : row + 1], alone, atol=1e-5)
    assert not torch.equal(told["expert"], context["expert"])


def test_distillation_compares_with_the_teacher(recipe):
    output, taught = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)
    sample = {"target": torch.ones(1, 3, 4, 4)}
    found = terms(create_model("test_unet"), output, {}, sample, Loss(l1=1, distil=2), taught)
    assert {name: value.item() for name, value in found.items()} == {"l1": 1.0, "distil": 1.0}
