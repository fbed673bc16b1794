"""A checkpoint in the published layout, opened without being loaded."""

import copy
from pathlib import Path

import pytest
import torch

import moir
from moir.base.errors import CheckpointError, InvalidValueError
from moir.checkpoints import write_tensors
from moir.models import create_model
from moir.networks.base import select
from moir.universal.network import UniRestorer
from moir.universal.opening import open_unirestorer
from moir.universal.tree import official_tree

LIMITS = {"dim": 4, "heads": (1, 1, 1, 1)}
CLIP = ("daclip_model.clip.", "daclip_model.visual.", "daclip_model.logit_scale")
TINY_NAFNET = {"width": 4, "middle_blk_num": 1, "enc_blk_nums": (1, 1), "dec_blk_nums": (1, 1)}
EXPERTS = [
    [("test_restormer", LIMITS)],
    [("test_restormer", {**LIMITS, "LayerNorm_type": "BiasFree"}), "test_retinexformer"],
    [("test_lora_restormer", {**LIMITS, "lora_alpha": 16}), ("nafnet_local", TINY_NAFNET), "test_dehazeformer_l"],
]
TREE = {
    "leaves": [
        {"name": "a", "types": ["noise"], "experts": [0, 1, 3]},
        {"name": "b", "types": ["rain"], "experts": [0, 2, 4]},
        {"name": "c", "types": ["haze"], "experts": [0, 2, 5]},
    ]
}


@pytest.fixture(scope="module")
def whole() -> UniRestorer:
    """All of a tiny network in memory, with six experts of five architectures and weights that do something."""
    torch.manual_seed(0)
    network = create_model("test_unirestorer", experts=EXPERTS, tree=TREE)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape))
        network.lf_gate[0].weight.normal_()
        network.layer_gate[0].weight.normal_()
        network.train()
        for norm in (network.mu[9], network.sigma[9]):
            norm.momentum = 1.0  # statistics of these pictures, so that they are told apart
        network.decide(pictures())
    return network.eval()


@pytest.fixture(scope="module", params=["safetensors", "pth"])
def checkpoint(whole: UniRestorer, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, state = tmp_path_factory.mktemp("checkpoint"), dict(whole.state_dict())
    if request.param == "safetensors":
        write_tensors(folder / "model.safetensors", state)
        return folder / "model.safetensors"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "model.pth")
    return folder / "model.pth"


def pictures(count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(count, 3, 23, 30, generator=generator)
    return noise ** torch.linspace(0.2, 5, count).view(-1, 1, 1, 1)


@torch.inference_mode()
def test_pictures_take_different_experts_and_get_what_these_give(whole: UniRestorer, checkpoint: Path) -> None:
    lazy, x = open_unirestorer(checkpoint, tree=TREE), pictures()
    assert lazy.experts[0].pool.in_memory == []
    context = lazy.decide(x)
    chosen = context["expert"].tolist()
    assert len(set(chosen)) >= 2
    output = lazy(x, context)
    for picture, number, restored in zip(x, chosen, output, strict=True):
        torch.testing.assert_close(restored[None], whole.experts[number](picture[None]), rtol=0, atol=1e-6)
    torch.testing.assert_close(output, whole(x), rtol=0, atol=1e-6)
    assert lazy.experts[0].pool.in_memory == [max(set(chosen))]  # one at a time, in order


@torch.inference_mode()
def test_every_expert_is_recognised_and_restores(whole: UniRestorer, checkpoint: Path) -> None:
    lazy, x = open_unirestorer(checkpoint, tree=TREE), pictures(1)
    models = [found.model for found in lazy.experts[0].pool.found]
    assert models == ["restormer", "restormer", "retinexformer", "lora_restormer", "nafnet_local", "dehazeformer_l"]
    for own, expert in zip(lazy.experts, whole.experts, strict=True):
        torch.testing.assert_close(own(x), expert(x), rtol=0, atol=1e-6)
        context = own.analyse(x)
        torch.testing.assert_close(own(x, context), expert(x), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_as_many_experts_stay_as_are_allowed(checkpoint: Path) -> None:
    lazy, x = open_unirestorer(checkpoint, resident=2, tree=TREE), pictures(1)
    pool = lazy.experts[0].pool
    for number in (0, 1, 0, 2, 0):
        lazy.experts[number](x)
    assert pool.in_memory == [2, 0]
    assert pool.loads == 3
    lazy.experts[1](x)
    assert pool.in_memory == [0, 1]
    assert pool.loads == 4
    with pytest.raises(InvalidValueError, match="resident=0"):
        open_unirestorer(checkpoint, resident=0, tree=TREE)


def test_only_what_is_needed_is_read(checkpoint: Path) -> None:
    lazy = open_unirestorer(checkpoint, tree=TREE)
    names = {name for name, _ in lazy.named_parameters()}
    assert {name.split(".")[0] for name in names} == {
        *("daclip_model", "mu", "sigma", "lf_gate", "layer_gate", "gamma", "beta")
    }  # fmt: skip
    assert all(name.startswith("daclip_model.visual_control.") for name in names if name.startswith("daclip_model."))


def test_its_state_dict_has_the_experts_and_makes_the_network_again(whole: UniRestorer, checkpoint: Path) -> None:
    lazy = open_unirestorer(checkpoint, tree=TREE)
    state = lazy.state_dict()
    original = {n: v for n, v in whole.state_dict().items() if n in state}
    assert all(torch.equal(state[name], value) for name, value in original.items())
    assert set(whole.state_dict()) - set(state) == {
        n
        for n in whole.state_dict()
        if n.startswith(("daclip_model.clip.", "daclip_model.visual.", "daclip_model.log"))
    }
    again = create_model("unirestorer", **lazy.options).eval()
    again.load_state_dict(state)
    with torch.inference_mode():
        x = pictures()
        torch.testing.assert_close(again(x), whole(x), rtol=0, atol=1e-6)
        torch.testing.assert_close(copy.deepcopy(lazy)(x), whole(x), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_the_context_holds_what_experts_decide_of_whole_pictures(whole: UniRestorer) -> None:
    x = pictures()
    leaf, level = torch.tensor([0, 1, 2, 0, 1, 0]), torch.tensor([2, 2, 2, 1, 1, 0])
    context = whole.analyse(x, leaf[:, None] != torch.arange(3), level[:, None] != torch.arange(3))
    assert context["expert"].tolist() == [3, 4, 5, 1, 2, 0]
    assert torch.equal(context["analysed"], context["expert"])
    assert any(name.startswith("experts.5.") for name in context)  # DehazeFormer's norms see the whole picture
    # A tile with the picture's context is restored as its own expert does it with its own context.
    for row, number in enumerate(context["expert"].tolist()):
        expert, tile = whole.experts[number], x[row : row + 1, :, 4:20, 8:24]
        wanted = expert(tile, expert.analyse(x[row : row + 1]))
        torch.testing.assert_close(whole(tile, select(context, [row])), wanted, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_an_instruction_never_uses_what_was_decided_for_another_expert(whole: UniRestorer) -> None:
    x = pictures()
    context = whole.analyse(x)
    for type_ in ("noise", "rain", "haze"):
        told = whole.instruct(context, [type_])
        wanted = torch.cat([whole.experts[n](p[None]) for n, p in zip(told["expert"].tolist(), x, strict=True)])
        torch.testing.assert_close(whole(x, told), wanted, rtol=0, atol=2e-6)
        torch.testing.assert_close(whole(x, whole.prepare(x, told)), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("mu.0.weight"), "1 missing: mu.0.weight"),
        (lambda s: s.update({"mu.1.weight": torch.ones(2)}), "1 unexpected: mu.1.weight"),
        (lambda s: s.pop("daclip_model.visual_control.proj"), "no image controller"),
        (lambda s: s.pop("daclip_model.clip.ln_final.bias"), "1 missing: clip.ln_final.bias"),
        (lambda s: s.update({"daclip_model.clip.visual.proj": torch.ones(2)}), "of another shape: clip.visual.proj"),
        (lambda s: s.pop("lf_gate.0.weight"), "no UniRestorer"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("l2_experts.1.")], "experts are missing"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("l2_experts.1.intro")], "expert l2_experts.1"),
    ],
)
def test_a_wrong_file_is_named(whole: UniRestorer, change: object, message: str, tmp_path: Path) -> None:
    state = dict(whole.state_dict())
    change(state)  # type: ignore[operator]
    write_tensors(tmp_path / "model.safetensors", state)
    with pytest.raises(CheckpointError, match=message):
        open_unirestorer(tmp_path / "model.safetensors", tree=TREE)


def test_a_file_without_clip_opens(whole: UniRestorer, tmp_path: Path) -> None:
    needed = {
        n: v for n, v in whole.state_dict().items() if not n.startswith(("daclip_model.clip", "daclip_model.visual."))
    }
    needed.pop("daclip_model.logit_scale")
    write_tensors(tmp_path / "model.safetensors", needed)
    with torch.inference_mode():
        x = pictures(2)
        torch.testing.assert_close(open_unirestorer(tmp_path / "model.safetensors", tree=TREE)(x), whole(x))


def test_a_damaged_expert_is_named_when_it_is_needed(whole: UniRestorer, tmp_path: Path) -> None:
    state = dict(whole.state_dict())
    state.pop("l0_experts.0.output.weight")
    write_tensors(tmp_path / "model.safetensors", state)
    lazy = open_unirestorer(tmp_path / "model.safetensors", tree=TREE)
    with pytest.raises(CheckpointError, match=r"l0_experts\.0 does not fit Restormer: 1 missing: output.weight"):
        lazy.experts[0](pictures(1))


def test_no_file_and_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no weights file"):
        open_unirestorer(tmp_path / "absent.pth")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(CheckpointError, match="text"):
            open_unirestorer(tmp_path / name)


def test_a_published_file_loads_like_any_model(tmp_path: Path) -> None:
    """With the published tree: 22 leaves, experts 1 + 7 + 22."""
    expert = ("test_restormer", LIMITS)
    network = create_model("test_unirestorer", experts=[[expert], [expert] * 7, [expert] * 22], tree=official_tree())
    with torch.no_grad():
        network.layer_gate[0].weight[2].fill_(1.0)
        network.sigma[9].bias.fill_(1.0)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    restorer = moir.load(tmp_path / "model.pth", device="cpu")
    found, told = restorer(pictures(1)[0]), restorer(pictures(1)[0], task="dehaze")
    assert restorer.name == "model"
    assert found.granularity == "degree"
    assert (told.granularity, told.estimate) == ("degree", ())
    assert "haze" in told.expert
