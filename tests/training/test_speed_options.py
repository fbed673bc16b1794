"""Ways to train faster: the same results, bit for bit where that is promised, within rounding elsewhere."""

import itertools
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from moir.base.errors import RecipeError, TrainingError
from moir.checkpoints import read_tensors
from moir.layers.layer_norm import ChannelLayerNorm
from moir.models import create_model
from moir.training import load_recipe
from moir.training import loop as loop_module
from moir.training.data import DamagedPatches, Stream, collate, on_device
from moir.training.faster import FoldedAttention, FusedLayerNorm, WideDepthwise, use_faster_forms
from moir.training.loop import train
from moir.training.meter import LossMeter
from moir.training.optimisers import Muon, make_optimiser, settle
from moir.training.recipe import Data, Optimiser
from moir.training.recompute import recompute_blocks
from moir.training.start import lay_out

CPU = torch.device("cpu")


def gradients(network, x, half=False):
    """Output, and the gradients of all parameters by name."""
    network.zero_grad()
    torch.manual_seed(0)  # routing noise
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = network(x)
    (output.float() * torch.linspace(-1, 1, output.numel()).view(output.shape)).mean().backward()
    return output.detach().float(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp(min=1e-9)).item()


@pytest.mark.parametrize("name", ["test_moce_ir", "test_restormer", "test_promptir"])
def test_faster_forms_are_the_same_function(name):
    torch.manual_seed(0)
    network = create_model(name).train()
    lay_out(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    other = deepcopy(network)
    assert use_faster_forms(other) > 10
    assert other.state_dict().keys() == network.state_dict().keys()
    x = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    (plain, of_plain), (fast, of_fast) = gradients(network, x), gradients(other, x)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-4)
    assert of_fast.keys() == of_plain.keys()
    whole = torch.cat([value.flatten() for value in of_plain.values()])
    assert relative(torch.cat([of_fast[n].flatten() for n in of_plain]), whole) < 1e-4
    for key, value in of_plain.items():
        if value.norm() > 1e-4 * whole.norm():
            assert relative(of_fast[key], value) < 1e-3, key

    half, of_half = gradients(other, x, half=True)
    assert relative(half, plain) < 0.02
    assert relative(torch.cat([of_half[n].flatten() for n in of_plain]), whole) < 0.1


@pytest.mark.parametrize(("kernel", "padding"), [(7, 3), (5, 2), ((3, 4), (0, 1)), (7, 0)])
def test_gradients_of_a_wide_depthwise_convolution(kernel, padding):
    plain = nn.Conv2d(3, 3, kernel, padding=padding, groups=3).double()
    fast = deepcopy(plain)
    assert use_faster_forms(nn.Sequential(fast)) == 1
    assert type(fast) is WideDepthwise
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().contiguous(memory_format=torch.channels_last).requires_grad_()
    expected, got = plain(x), fast(y)
    torch.testing.assert_close(got, expected)
    direction = torch.randn_like(expected)
    ours = torch.autograd.grad(got, [y, *fast.parameters()], direction)
    theirs = torch.autograd.grad(expected, [x, *plain.parameters()], direction)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_features_that_are_all_zero_have_finite_gradients():
    attention = create_model("test_restormer").encoder_level1[0].attn
    assert use_faster_forms(attention) == 1
    assert type(attention) is FoldedAttention
    x = torch.zeros(1, 8, 4, 4, requires_grad=True)
    attention(x).sum().backward()
    assert x.grad.isfinite().all()
    assert attention.qkv.weight.grad.isfinite().all()


def test_only_plain_layers_get_another_form():
    network = create_model("test_restormer")
    first, second = network.encoder_level1[0].attn, network.encoder_level2[0].attn
    first.project_out.register_forward_hook(lambda *_: None)
    second.project_out = nn.Sequential(second.project_out)
    use_faster_forms(network)
    assert not isinstance(first, FoldedAttention)
    assert not isinstance(second, FoldedAttention)
    assert isinstance(network.encoder_level3[0].attn, FoldedAttention)
    others = nn.ModuleList(
        [nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 7, groups=2), nn.Conv2d(4, 4, 7, groups=4, stride=2),
         nn.Conv2d(4, 4, 7, groups=4, padding="same"), ChannelLayerNorm(4, "BiasFree")]
    )  # fmt: skip
    assert use_faster_forms(others) == 0


def test_a_fused_layer_norm_keeps_the_precision():
    plain = ChannelLayerNorm(6)
    nn.init.normal_(plain.body.weight)
    fused = nn.Sequential(deepcopy(plain))
    use_faster_forms(fused)
    assert isinstance(fused[0], FusedLayerNorm)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        x = torch.randn(2, 6, 5, 7).to(dtype)
        assert fused(x).dtype == dtype
        torch.testing.assert_close(fused(x), plain(x), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ["test_moce_ir", "test_compact"])
def test_recomputed_blocks_have_the_same_gradients_bit_for_bit(name):
    torch.manual_seed(0)
    options = {"num_blocks": (2, 1, 1, 1), "num_dec_blocks": (2, 1, 1)} if name == "test_moce_ir" else {
        "encoder_blocks": (2, 2), "decoder_blocks": (2, 1)}  # fmt: skip
    network = create_model(name, **options).train()
    other = deepcopy(network)
    calls = []
    of_block = (other.enc[0][0].layers if name == "test_moce_ir" else other.encoder1)[0]
    of_block.register_forward_pre_hook(lambda *_: calls.append(1))
    assert recompute_blocks(other) >= 4
    assert other.state_dict().keys() == network.state_dict().keys()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    (plain, of_plain), (again, of_again) = gradients(network, x), gradients(other, x)
    assert torch.equal(plain, again)
    assert of_plain.keys() == of_again.keys()
    assert all(torch.equal(value, of_again[key]) for key, value in of_plain.items())
    with torch.no_grad():
        assert torch.equal(other(x[:1]).isfinite().all(), torch.tensor(True))


def test_blocks_are_run_twice_only_where_gradients_are_wanted():
    calls = []

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            calls.append(1)
            return self.layer(x)

    network = nn.Sequential(Block(), Block(), nn.Linear(3, 3), nn.Linear(3, 3))
    assert recompute_blocks(network) == 2
    network(torch.rand(1, 3)).sum().backward()
    assert len(calls) == 4
    with torch.no_grad():
        network(torch.rand(1, 3))
    assert len(calls) == 6


@pytest.fixture
def both_ways(photograph):
    """The same samples, damaged in the data set and left to the device."""
    pictures = [(photograph[:, :90, :120] * 255).to(torch.uint8)]
    data = Data(folders=["x"], patch=32, instruct=0.4)
    later = data.model_copy(update={"device_degradation": True})
    return DamagedPatches(pictures, data, seed=3), DamagedPatches(pictures, later, seed=3)


def test_damage_in_a_batch_is_the_damage_of_each_sample(both_ways):
    now, later = both_ways
    numbers = range(24)
    batch = on_device(collate([later[number] for number in numbers]), CPU)
    expected = collate([now[number] for number in numbers])
    assert batch.keys() == expected.keys()
    for key in ("presence", "degree", "remove", "groups"):
        assert torch.equal(batch[key], expected[key])
    torch.testing.assert_close(batch["target"], expected["target"], atol=2e-5, rtol=0)
    # Before it is rounded to 8 bit, an input may differ in the last digit, and so now and then by one level.
    difference = (batch["input"] - expected["input"]).abs()
    assert difference.max() < 1.01 / 255
    assert (difference > 0.5 / 255).float().mean() < 1e-3


def test_records_come_from_workers_as_they_are(both_ways):
    _, later = both_ways
    loader = DataLoader(later, batch_size=2, sampler=Stream(0, 2), num_workers=1, collate_fn=collate)
    (batch,) = itertools.islice(loader, 1)
    alone = collate([later[0], later[1]])
    assert batch["records"] == alone["records"]
    assert torch.equal(batch["clean"], alone["clean"])


EVERYTHING = {"speed.faster_forms": "true", "speed.fused_optimiser": "true", "speed.recompute": "true",
              "data.device_degradation": "true"}  # fmt: skip


def test_a_fast_run_learns_what_a_plain_one_does(recipe_file, tmp_path):
    curves = {}
    for name, settings in (("plain", {}), ("fast", EVERYTHING)):
        curve = curves[name] = []
        recipe = load_recipe(
            recipe_file, {"model.name": "test_moce_ir", "steps": "4", "validation.folders": "[]", **settings}
        )
        train(recipe, tmp_path / name, device="cpu", on_step=lambda p, curve=curve: curve.append(p.losses["l1"]))
    assert len(curves["fast"]) == 4
    assert curves["fast"] == pytest.approx(curves["plain"], rel=2e-3)


def test_a_fast_run_is_resumed_exactly(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, {**EVERYTHING, "validation.folders": "[]"})
    whole = read_tensors(train(recipe, tmp_path / "whole", device="cpu"))[0]

    class KilledError(Exception):
        pass

    def kill(progress):
        if progress.step == 4:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, tmp_path / "broken", device="cpu", on_step=kill)
    for name, value in read_tensors(train(recipe, tmp_path / "broken", device="cpu"))[0].items():
        assert torch.equal(value, whole[name]), name


def test_a_compiled_run_gives_the_same(recipe_file, tmp_path, monkeypatch):
    # The whole way but for the code generator, which needs a compiler, and minutes.
    monkeypatch.setattr(loop_module._Pass, "compile", lambda self: nn.Module.compile(self, backend="eager"))
    curves = []
    for compiled in ("true", "false"):
        settings = {"speed.compile": compiled, "steps": "2", "validation.folders": "[]"}
        curve = []
        curves.append(curve)
        train(load_recipe(recipe_file, settings), tmp_path / compiled, device="cpu",
              on_step=lambda p, curve=curve: curve.append(p.losses["l1"]))  # fmt: skip
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_options_that_do_not_fit_are_refused(recipe_file, mixture_file):
    with pytest.raises(RecipeError, match=r"fused_optimiser is for adamw.*'muon'"):
        load_recipe(recipe_file, {"speed.fused_optimiser": "true", "optimiser.name": "muon"})
    with pytest.raises(RecipeError, match="device_degradation is for clean pictures"):
        load_recipe(mixture_file, {"data.device_degradation": "true"})
    with pytest.raises(RecipeError, match=r"speed\.recomputed.*recompute"):
        load_recipe(recipe_file, {"speed.recomputed": "true"})


def test_the_meter_averages_over_the_batches_of_a_step():
    meter = LossMeter(turns=2)
    for step, values in enumerate([(1.0, 3.0), (5.0, 7.0)]):
        for value in values:
            meter.add(step, 1e-3, {"l1": torch.tensor(value), "balance": torch.tensor(2 * value)})
    assert meter.fetch() == {"l1": 6.0, "balance": 12.0}  # of the latest step
    meter.add(2, 1e-3, {"l1": torch.tensor(1.0)})
    meter.add(2, 1e-3, {"l1": torch.tensor(2.0)})
    assert meter.fetch() == {"l1": 1.5}


def test_the_meter_names_the_first_step_that_went_wrong():
    meter = LossMeter()
    for step, value in enumerate([0.5, float("inf"), float("nan")]):
        meter.add(step, 1e-3, {"l1": torch.tensor(0.1), "fft": torch.tensor(value)})
    with pytest.raises(TrainingError, match=r"fft is not finite at step 1 \(learning rate 1\.00e-03\)"):
        meter.fetch()


def test_fused_adamw_takes_the_same_steps():
    networks = [nn.Linear(5, 4) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    plain, fused = (make_optimiser(n, Optimiser(), fused=f) for n, f in zip(networks, (False, True), strict=True))
    assert fused.defaults["fused"]
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    for _ in range(4):
        for network, optimiser in zip(networks, (plain, fused), strict=True):
            optimiser.zero_grad()
            F.mse_loss(network(x), x[:, :4]).backward()
            optimiser.step()
        settle(fused)
    torch.testing.assert_close(networks[1].state_dict(), networks[0].state_dict(), atol=1e-6, rtol=1e-5)


def test_moments_from_a_file_are_laid_out_like_their_weights():
    conv = nn.Conv2d(4, 4, 3)
    lay_out(conv)
    fused = make_optimiser(conv, Optimiser(), fused=True)
    moment = torch.randn(4, 4, 3, 3)  # as a file gives it: contiguous
    fused.state[conv.weight] = {"step": torch.tensor(3.0), "exp_avg": moment, "exp_avg_sq": moment.square()}
    settle(fused)
    found = fused.state[conv.weight]["exp_avg"]
    assert torch.equal(found, moment)
    assert found.stride() == conv.weight.stride() != moment.stride()


def test_muon_s_other_half_counts_the_steps_of_each_parameter():
    ours, theirs = ([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))] for _ in range(2))
    options = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    pair = Muon([], ours, **options), torch.optim.AdamW(theirs, **options)
    for step in range(4):
        for parameters, optimiser in zip((ours, theirs), pair, strict=True):
            for place, parameter in enumerate(parameters):
                # The second parameter has no gradient at first: its steps begin later.
                parameter.grad = None if place and step < 2 else torch.full_like(parameter, 0.3 * (step + 1))
            optimiser.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
