import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moir.adapters import attach
from moir.base.errors import InvalidValueError, UnknownNameError
from moir.checkpoints.architectures import detect
from moir.models import create_model, load_model
from moir.networks.adaptation_tasks import TASK_SCALES
from moir.networks.edt import EDT, HEAD_OF_TASK, edt_sr4, mirrored
from moir.networks.edt import test_edt as tiny_edt
from moir.networks.edt_body import Block, WindowAttention, shift_masks

Fill = Callable[[torch.nn.Module], None]
MODELS = {
    "edt_sr2": 11_652_767,
    "edt_sr3": 11_837_407,
    "edt_sr4": 11_800_479,
    "edt_denoise": 11_676_575,
    "edt_derain": 11_676_575,
}
ADAPTERS = 173_412


@pytest.fixture(scope="module")
def keys(parity: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((parity / "adaptir_edt_keys.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "training"), [("edt_sr4_30x50", False), ("edt_sr4_train48_evalmode", True)])
@torch.inference_mode()
def test_published_numbers(parity: Path, fill_adapted: Fill, name: str, training: bool) -> None:
    network = attach(edt_sr4(), "adaptir").eval()
    fill_adapted(network)
    network.training = training  # of the network alone: a picture that fits is not padded
    with np.load(parity / f"{name}.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    # As sensitive to the last bits of phases as IPT; here few of them lie at the cut.
    torch.testing.assert_close(network(x), y, rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", MODELS)
def test_published_names_and_counts(keys: dict[str, Any], name: str) -> None:
    with torch.device("meta"):
        network = create_model(name)
    assert sum(p.numel() for p in network.parameters()) == MODELS[name] - ADAPTERS
    body = {k: v["shape"] for k, v in keys["sr_4"].items() if k.startswith("body") and "adaptir" not in k}
    ends = {k: v["shape"] for k, v in keys["extra_heads_tails"][network.options["task"]].items()}
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == {**body, **ends}
    assert detect({k: tuple(v.shape) for k, v in network.state_dict().items()}).model == name


def test_published_names_with_adapters(keys: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = attach(edt_sr4(), "adaptir")
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == {
        k: v["shape"] for k, v in keys["sr_4"].items()
    }


@pytest.mark.parametrize("task", TASK_SCALES)
@torch.inference_mode()
def test_every_task_can_be_chosen(task: str, fill_adapted: Fill) -> None:
    network = tiny_edt(task=task).eval()
    fill_adapted(network)
    scale = TASK_SCALES[task]
    assert network.scale == scale
    for height, width in [(1, 1), (9, 33)]:
        x = torch.rand(3, 3, height, width)
        output = network(x)
        assert output.shape == (3, 3, scale * height, scale * width)
        # Every picture is its own residual; as published, the first one was everybody's.
        torch.testing.assert_close(output, torch.cat([network(p) for p in x.split(1)]), rtol=0, atol=2e-6)


@torch.inference_mode()
def test_shifted_windows_against_the_formula(fill_adapted: Fill) -> None:
    attention = WindowAttention(6, heads=2, window=(2, 4), shift=(1, 2))
    fill_adapted(attention)
    qkv = torch.randn(3, 1, 6, 8, 6)
    out = attention(qkv)
    rolled = qkv.roll((-1, -2), (2, 3))
    expected = torch.empty(1, 6, 8, 6)
    for top in range(0, 6, 2):
        for left in range(0, 8, 4):
            q, k, v = rolled[:, 0, top : top + 2, left : left + 4].reshape(3, 8, 6)
            # Pixels that were apart before the roll: rows 5 | 0 and columns 6, 7 | 0, 1.
            row = (torch.arange(top, top + 2) == 5).repeat_interleave(4)
            column = (torch.arange(left, left + 4) >= 6).repeat(2)
            apart = (row[:, None] != row) | (column[:, None] != column)
            window = attention.lepe(v.T.reshape(1, 6, 2, 4))[0].flatten(1).T
            for head in (slice(0, 3), slice(3, 6)):
                scores = (q[:, head] @ k[:, head].T / 3**0.5).masked_fill(apart, -torch.inf)
                window[:, head] += scores.softmax(1) @ v[:, head]
            expected[0, top : top + 2, left : left + 4] = window.reshape(2, 4, 6)
    torch.testing.assert_close(out, expected.roll((1, 2), (1, 2)))


@pytest.mark.parametrize("window", [(6, 24), (24, 6)])
def test_published_masks(window: tuple[int, int]) -> None:
    label, shift = torch.zeros(48, 48), (window[0] // 2, window[1] // 2)
    for i, rows in enumerate([slice(0, -window[0]), slice(-window[0], -shift[0]), slice(-shift[0], None)]):
        for j, columns in enumerate([slice(0, -window[1]), slice(-window[1], -shift[1]), slice(-shift[1], None)]):
            label[rows, columns] = 3 * i + j
    grid = label.unflatten(0, (-1, window[0])).unflatten(2, (-1, window[1])).transpose(1, 2).flatten(2).flatten(0, 1)
    masks = shift_masks((48, 48), window, shift)
    assert masks.shape == (16, 144, 144)
    assert torch.equal(masks, torch.where(grid[:, :, None] != grid[:, None], -100.0, 0.0))


@given(height=st.integers(1, 20), width=st.integers(1, 20), beyond=st.booleans())
def test_padding_is_published_and_goes_on_for_tiny_pictures(height: int, width: int, beyond: bool) -> None:
    x = torch.rand(1, 3, height, width)
    padded = mirrored(x, 8, beyond)
    assert padded.shape[-2:] == tuple((n // 8 + 1) * 8 if beyond else -(-n // 8) * 8 for n in (height, width))
    border = ((0, 0), (0, 0), (0, padded.shape[2] - height), (0, padded.shape[3] - width))
    assert np.array_equal(padded.numpy(), np.pad(x.numpy(), border, mode="symmetric"))


@torch.no_grad()
def test_blocks_are_left_out_in_training_alone() -> None:
    masks = (torch.zeros(1), torch.zeros(1))
    block = Block(4, 1, (2, 4), 8, shifted=False, drop=0.5, masks=masks)
    x = torch.randn(200, 4, 4, 4)
    torch.testing.assert_close(block.eval()._dropped(x), x)
    kept = block.train()._dropped(x).flatten(1)
    zero = (kept == 0).all(dim=1)
    assert 60 < zero.sum() < 140
    torch.testing.assert_close(kept[~zero], 2 * x.flatten(1)[~zero])


@torch.inference_mode()
def test_masks_of_a_file_are_not_used(fill_adapted: Fill) -> None:
    network, x = tiny_edt().eval(), torch.rand(1, 3, 32, 32)
    fill_adapted(network)
    before = network(x)
    state = network.state_dict()
    state["body.layers.0.residual_group.blocks.1.attn_mask_h"] += 50
    network.load_state_dict(state)
    assert torch.equal(network(x), before)


def test_a_file_with_three_heads_is_recognised(tmp_path: Path, fill_adapted: Fill) -> None:
    options = {"num_feat": 4, "embed_dim": 12, "depths": (1, 2), "num_heads": (6, 6), "img_size": 24}
    network = EDT(task="sr_4", heads=("sr_x2", "sr_x3", "sr_x4"), **options).eval()  # type: ignore[arg-type]
    fill_adapted(network)
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {
        "body", "head_sr_x4", "tail_sr_x4",
    }  # fmt: skip
    torch.save(network.state_dict(), tmp_path / "SRx2x3x4.pth")
    loaded, card = load_model(str(tmp_path / "SRx2x3x4.pth"))
    assert (card.model, card.options["task"]) == ("edt_sr4", "sr_4")
    x = torch.rand(1, 3, 10, 20)
    with torch.inference_mode():
        assert torch.equal(loaded(x), network(x))


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        ({"task": "sr_5"}, UnknownNameError, "sr_"),
        ({"heads": ("sr_x4",)}, InvalidValueError, "dn_g30"),
        ({"heads": ("dn_g31",)}, UnknownNameError, "dn_g30"),
        ({"depths": (1,)}, InvalidValueError, "one number per group"),
        ({"window_size": (3, 8)}, InvalidValueError, "window_size"),
        ({"embed_dim": 13}, InvalidValueError, "even"),
        ({"num_heads": (4, 4)}, InvalidValueError, "4 heads"),
        ({"drop_path_rate": 1.0}, InvalidValueError, "drop_path_rate"),
        ({"img_size": 20}, InvalidValueError, "img_size"),
    ],
)
def test_wrong_options(wrong: dict[str, object], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        tiny_edt(**wrong)


def test_a_model_has_its_tasks() -> None:
    with torch.device("meta"):
        assert create_model("edt_sr4", task="lr4_jpeg30").scale == 4
        assert create_model("edt_denoise", task="low_light").get_submodule("head_dn_g50")
        with pytest.raises(InvalidValueError, match="edt_sr4 cannot have the task derainL"):
            create_model("edt_sr4", task="derainL")
    assert set(HEAD_OF_TASK) == set(TASK_SCALES)
