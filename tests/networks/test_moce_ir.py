import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError
from moir.experts.gate import ExpertGate
from moir.layers.padding import pad_to_multiple
from moir.networks.base import select
from moir.networks.moce_ir import MoCEIR, moce_ir_s
from moir.networks.moce_ir import test_moce_ir as tiny_moce_ir
from moir.networks.moce_ir_expert import (
    ComplexityExpert,
    expert_depths,
    expert_ranks,
    window_circular_convolution,
)

RANK_TYPES = ["constant", "lin", "double", "exp", "fact", "spread"]
DEPTH_TYPES = ["constant", "lin", "double", "exp", "fact", 2]


def decisive(**options: Any) -> MoCEIR:
    """A tiny model whose gates tell pictures apart, as a trained one's do (a fresh one sends all the same way)."""
    model = tiny_moce_ir(**options).eval()
    generator = torch.Generator().manual_seed(3)

    def tune(gate: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Look only at what differs between the pictures, with logits of unit deviation."""
        assert isinstance(gate, ExpertGate)
        for linear, values in ((gate.gate[2], inputs[0].mean((2, 3))), (gate.freq_gate, inputs[1])):
            common = values.mean(0)
            weight = torch.randn(linear.weight.shape, generator=generator)
            weight -= torch.outer(weight @ common, common) / common.square().sum()
            linear.weight.copy_(weight / (values @ weight.T).std())

    hooks = [m.register_forward_pre_hook(tune) for m in model.modules() if isinstance(m, ExpertGate)]
    with torch.no_grad():
        model.analyse(pictures())
    for hook in hooks:
        hook.remove()
    return model


def pictures(count: int = 4, height: int = 24, width: int = 32) -> torch.Tensor:
    """Different in contrast and brightness, so that they take different routes."""
    generator = torch.Generator().manual_seed(5)
    levels = torch.linspace(0.1, 1, count).view(-1, 1, 1, 1)
    tint = torch.rand(count, 3, 1, 1, generator=generator)
    return levels * tint * torch.rand(count, 3, height, width, generator=generator)


def distinct(routes: dict[str, torch.Tensor]) -> int:
    """The largest number of different choices that one block made in the batch."""
    return max(len({tuple(row) for row in chosen.tolist()}) for chosen in routes.values())


@pytest.mark.parametrize("topk", [1, 2, 4])
def test_batch_equals_singles(topk: int) -> None:
    model, x = decisive(topk=topk), pictures()
    with torch.no_grad():
        together = model(x)
        routes = model.routes
        alone, alone_routes = [], []
        for picture in x.split(1):
            alone.append(model(picture))
            alone_routes.append(model.routes)
    assert distinct(routes) > 1, "the pictures must take different routes for this to mean anything"
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)
    for name, chosen in routes.items():
        assert chosen.shape == (4, topk)
        assert torch.equal(chosen, torch.cat([r[name] for r in alone_routes]))


@pytest.mark.parametrize("topk", [1, 2])
def test_training_and_evaluation_compute_the_same_without_noise(topk: int) -> None:
    model, x = decisive(topk=topk, routing_noise="never"), pictures()
    torch.testing.assert_close(model.train()(x), model.eval()(x), rtol=0, atol=1e-6)


def test_evaluation_is_deterministic_and_leaves_torchs_generator_alone() -> None:
    model, x = decisive(), pictures()
    before = torch.get_rng_state()
    with torch.no_grad():
        first, second = model(x), model(x)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_noise_modes() -> None:
    x = pictures(16)

    def runs(mode: str, training: bool, seeds: tuple[int | None, int | None]) -> bool:
        """Whether two runs take the same routes and give the same gates."""
        model = tiny_moce_ir(routing_noise=mode).train(training)
        seen = []
        for seed in seeds:
            if seed is not None:
                model.seed_routing(seed)
            with torch.no_grad():
                seen.append(model.analyse(x))
        return all(torch.equal(value, seen[1][name]) for name, value in seen[0].items())

    assert runs("never", True, (None, None))
    assert runs("never", False, (None, None))
    assert runs("training", False, (None, None))
    assert not runs("training", True, (None, None))
    assert runs("training", True, (7, 7))
    assert not runs("always", False, (None, None))  # the published behaviour
    assert runs("always", False, (7, 7))
    assert not runs("always", False, (7, 8))


def test_always_noise_in_evaluation_never_uses_torchs_generator() -> None:
    before = torch.get_rng_state()
    tiny_moce_ir(routing_noise="always")
    built = torch.get_rng_state()
    model = tiny_moce_ir(routing_noise="always").eval()
    state = torch.get_rng_state()
    model(pictures(1))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(before, built)


def test_context_gives_what_the_network_decides_itself() -> None:
    model, x = decisive(topk=2), pictures(3, 21, 30)
    with torch.no_grad():
        own = model(x)
        routes = model.routes
        context = model.analyse(x)
        torch.testing.assert_close(model(x, context), own, rtol=0, atol=1e-6)
        for picture in range(3):
            alone = model(x[picture : picture + 1], select(context, [picture]))
            torch.testing.assert_close(alone, own[picture : picture + 1], rtol=0, atol=1e-6)
    assert context["frequency"].shape == (3, 64)
    for name, chosen in routes.items():
        assert torch.equal(context[f"{name}.experts"], chosen)
        assert context[f"{name}.gates"].shape == (3, 2)
    assert len(context) == 1 + 2 * len(routes)


def test_tiles_share_the_pictures_route() -> None:
    model = decisive()
    left, right = pictures(2, 32, 32)
    picture = torch.cat([left, right], dim=-1)[None]
    tiles = torch.cat([picture[..., :32], picture[..., 32:]])
    with torch.no_grad():
        context = model.analyse(picture)
        model(picture)
        whole = model.routes
        model(tiles)
        assert distinct(model.routes) > 1, "left alone, the tiles must disagree"
        shared = model(tiles, context)
        for name, chosen in model.routes.items():
            assert torch.equal(chosen, whole[name].expand(2, 1))
        assert model.balance_loss is None
        one = model(tiles[:1], context)
    torch.testing.assert_close(shared[:1], one, rtol=0, atol=1e-6)


def test_context_that_does_not_fit() -> None:
    model, x = tiny_moce_ir().eval(), pictures(2)
    context = model.analyse(x)
    with pytest.raises(InvalidValueError, match="2 pictures but the batch has 3"):
        model(pictures(3), context)
    with pytest.raises(InvalidValueError, match="no 'frequency'"):
        model(x, {})


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (33, 40), (9, 100)])
def test_any_size(height: int, width: int) -> None:
    model, x = decisive(), pictures(2, height, width)
    with torch.no_grad():
        output = model(x)
        padded = model(pad_to_multiple(x, 8))
    assert output.shape == x.shape
    assert output.isfinite().all()
    assert torch.equal(output, padded[..., :height, :width])


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorShapeError):
        tiny_moce_ir()(torch.zeros(shape))


def test_backward_reaches_everything_even_unused_experts() -> None:
    model, x = decisive().train(), pictures(2)
    output = model(x)
    (output.square().mean() + 0.01 * model.balance_loss).backward()
    used = {(name, expert) for name, chosen in model.routes.items() for expert in chosen.flatten().tolist()}
    unused = 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if ".experts." in name:
            block, rest = name.split(".experts.")
            if (f"{block}.routing", int(rest[0])) not in used:
                assert not parameter.grad.any(), name
                unused += 1
            elif rest.endswith("proj.2.weight"):
                assert parameter.grad.any(), name
    assert unused > 0


def test_distributed_training_with_unused_experts(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = decisive().train()
        parallel = DistributedDataParallel(model)  # fails at the second step if a parameter got no gradient
        for _ in range(3):
            (parallel(pictures(1)).mean() + model.balance_loss).backward()
            assert len({e for chosen in model.routes.values() for e in chosen.flatten().tolist()}) < 4
    finally:
        torch.distributed.destroy_process_group()


def test_balance_loss_is_the_mean_over_blocks_and_only_in_training() -> None:
    model, x = tiny_moce_ir(routing_noise="never", num_dec_blocks=(1, 2, 1)), pictures(4)
    gates = [module for module in model.modules() if isinstance(module, ExpertGate)]
    seen: list[torch.Tensor] = []
    for gate in gates:
        gate.register_forward_hook(lambda _m, _i, routing: seen.append(routing.loss))
    model.train()(x)
    assert len(seen) == len(gates) == 4
    torch.testing.assert_close(model.balance_loss, torch.stack(seen).mean())
    model.eval()(x)
    assert model.balance_loss is None


def test_complexity_bias_changes_the_loss_only() -> None:
    x = pictures(4)
    with_bias, without = (
        decisive(routing_noise="never", with_complexity=flag, complexity_scale="min") for flag in (True, False)
    )
    without.load_state_dict(with_bias.state_dict())
    outputs = [model.train()(x) for model in (with_bias, without)]
    assert torch.equal(*outputs)
    assert with_bias.balance_loss is not None
    assert without.balance_loss is not None
    assert abs(with_bias.balance_loss.item() - without.balance_loss.item()) > 1e-3
    complexity = with_bias.dec[0][2].layers[0].adapter.routing.complexity
    assert complexity.min() == 1
    assert complexity.max() > 5


def test_bf16_autocast_is_close_to_fp32() -> None:
    model, x = decisive(), pictures(2)
    with torch.no_grad():
        context = model.analyse(x)  # the decision in float32; this is about the computation
        exact = model(x, context)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x, context)
    residual = (exact - x).square().mean().sqrt()
    assert residual > 1e-2, "the network must do something"
    error = (rough.float() - exact).square().mean().sqrt()
    assert 0 < error < 0.03 * residual


def test_all_bf16_model_runs() -> None:
    model, x = decisive(), pictures(1)
    with torch.no_grad():
        exact = model(x, context := model.analyse(x))
        half = model.bfloat16()
        rough = half(x.bfloat16(), {k: v.bfloat16() if v.is_floating_point() else v for k, v in context.items()})
    assert rough.dtype == torch.bfloat16
    assert 10 * math.log10(1 / (rough.float() - exact).square().mean().item()) > 35


@pytest.mark.parametrize("rank_type", RANK_TYPES)
@pytest.mark.parametrize("depth_type", DEPTH_TYPES)
def test_every_rank_and_depth_type(rank_type: str, depth_type: str | int) -> None:
    options = {"rank_type": rank_type, "depth_type": depth_type, "num_experts": 3, "stage_depth": (1, 2, 1)}
    published = decisive(**options)
    stacked = decisive(**options, expert_depth="stacked")
    stacked.load_state_dict(published.state_dict())  # same weights
    x = pictures(4, 8, 16)
    with torch.no_grad():
        first, second = published(x), stacked(x)
    assert first.isfinite().all()
    assert second.isfinite().all()
    for stage, width in zip(published.dec, (32, 16, 8), strict=True):
        experts = stage[2].layers[0].adapter.experts
        assert [e[0].body.norm.body.weight.numel() for e in experts] == expert_ranks(rank_type, 2, width, 3)
        assert [e[0].passes for e in experts] == [1, 1, 1]
        assert [e[0].body.window for e in experts] == [4, 8, 16]
    depths = [[e[0].passes for e in stage[2].layers[0].adapter.experts] for stage in stacked.dec]
    assert depths == [expert_depths(depth_type, depth, 3) for depth in (1, 2, 1)]
    assert not torch.equal(first, second)  # the middle level, at least, is deeper


def test_ranks_and_depths_of_the_fact_sheet() -> None:
    assert expert_ranks("constant", 2, 64, 4) == [2, 2, 2, 2]
    assert expert_ranks("lin", 2, 64, 4) == [2, 3, 4, 5]
    assert expert_ranks("double", 2, 64, 4) == [2, 4, 6, 8]
    assert expert_ranks("exp", 2, 64, 4) == [2, 4, 8, 16]
    assert expert_ranks("fact", 2, 64, 4) == [2, 6, 24, 120]
    assert expert_ranks("spread", 2, 64, 4) == [8, 16, 32, 64]
    assert expert_depths("constant", 3, 4) == [3, 3, 3, 3]
    assert expert_depths("lin", 3, 4) == [3, 4, 5, 6]
    assert expert_depths("double", 3, 4) == [3, 5, 7, 9]
    assert expert_depths("exp", 3, 4) == [1, 2, 4, 8]
    assert expert_depths("fact", 3, 4) == [1, 2, 6, 24]
    assert expert_depths(2, 3, 4) == [2, 2, 2, 2]
    with pytest.raises(InvalidValueError, match="use fewer experts"):
        expert_ranks("spread", 2, 4, 4)
    with pytest.raises(InvalidValueError, match="gives depths"):
        expert_depths("constant", 0, 4)


def test_expert_depth_published_ignores_and_stacked_repeats() -> None:
    x, shared = torch.randn(2, 8, 9, 10), torch.randn(2, 8, 9, 10)
    once = ComplexityExpert(8, 4, 8, depth=1, depth_mode="stacked")
    thrice = ComplexityExpert(8, 4, 8, depth=3, depth_mode="stacked")
    published = ComplexityExpert(8, 4, 8, depth=3, depth_mode="published")
    for other in (thrice, published):
        other.load_state_dict(once.state_dict())
    torch.testing.assert_close(published(x, shared), once(x, shared))
    torch.testing.assert_close(thrice(x, shared), once(once(once(x, shared), shared), shared))


def test_window_convolution_is_circular_inside_each_window() -> None:
    window, q, k = 4, torch.randn(1, 2, 6, 9), torch.randn(1, 2, 6, 9)
    result = window_circular_convolution(q, k, window)
    big_q, big_k = (nn.functional.pad(t, (0, 3, 0, 2)) for t in (q, k))
    expected = torch.zeros(1, 2, 8, 12)
    for top in range(0, 8, window):
        for left in range(0, 12, window):
            a, b = (t[..., top : top + window, left : left + window] for t in (big_q, big_k))
            for i in range(window):
                for j in range(window):
                    shifted = torch.roll(b, (i, j), dims=(2, 3))
                    expected[..., top : top + window, left : left + window] += a[..., i : i + 1, j : j + 1] * shifted
    torch.testing.assert_close(result, expected[..., :6, :9], rtol=1e-5, atol=1e-5)


def test_high_pass_starts_as_a_laplacian() -> None:
    kernel = tiny_moce_ir().freq_embed.high_conv[0].conv.weight
    assert kernel.requires_grad
    assert kernel[:, 0].tolist() == [[[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]] * 64


def test_copying_after_a_training_step() -> None:
    model, x = decisive().train(), pictures(2)
    model.seed_routing(1)
    model(x)
    twin = copy.deepcopy(model).eval()
    assert model.balance_loss is not None
    assert twin.balance_loss is None
    assert torch.equal(twin(x), model.eval()(x))
    assert set(twin.routes) == set(model.routes)


def test_options() -> None:
    assert tiny_moce_ir(topk=2).options["topk"] == 2
    with torch.device("meta"):
        assert moce_ir_s(routing_noise="never").options["dim"] == 32
    with pytest.raises(UnknownNameError, match="num_experts"):
        tiny_moce_ir(num_expert=2)
    for wrong in ({"rank_type": "sprea"}, {"depth_type": "lim"}, {"routing_noise": "trainin"}):
        with pytest.raises(UnknownNameError, match="did you mean"):
            tiny_moce_ir(**wrong)
    with pytest.raises(UnknownNameError, match="complexity_scale"):
        tiny_moce_ir(complexity_scale="mean")
    with pytest.raises(UnknownNameError, match="expert_depth"):
        tiny_moce_ir(expert_depth="real")
    for wrong in ({"topk": 0}, {"topk": 5}, {"heads": (1, 2)}, {"heads": (3, 2, 4, 8)}, {"stage_depth": (1,)}):
        with pytest.raises(InvalidValueError):
            tiny_moce_ir(**wrong)


def test_decoder_blocks_are_given_shallowest_first() -> None:
    model = tiny_moce_ir(num_dec_blocks=(1, 2, 3))
    assert [len(stage[2].layers) for stage in model.dec] == [3, 2, 1]
