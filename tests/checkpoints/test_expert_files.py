"""UniRestorer's expert networks are recognised by the names and shapes in a file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from moir.checkpoints import convert
from moir.checkpoints.architectures import detect
from moir.models import create_model, load_model


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("lora_restormer", {}),
        ("lora_restormer", {"r": 4, "LayerNorm_type": "BiasFree", "num_blocks": (1, 1, 2, 2), "bias": True}),
        ("retinexformer", {}),
        ("retinexformer", {"n_feat": 16, "stage": 2, "num_blocks": (1, 1, 3)}),
        ("nafnet", {}),
        ("nafnet", {"width": 32}),
        ("nafnet_local", {}),
        ("nafnet_local", {"width": 8, "middle_blk_num": 0, "enc_blk_nums": (1, 2), "dec_blk_nums": (2, 3)}),
        ("dehazeformer_l", {}),
        ("dehazeformer_l", {"embed_dims": (8, 16, 24, 16, 8), "depths": (2, 2, 2, 1, 1), "num_heads": (2, 2, 3, 1, 1),
                            "attn_ratio": (0.5, 1, 0, 0, 0), "window_size": 4}),
    ],
)  # fmt: skip
def test_options_are_read_from_shapes(model: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = create_model(model, **options)
        detected = detect(shapes_of(network))
        found = create_model(detected.model, **detected.options)
    assert detected.model == model
    assert shapes_of(found) == shapes_of(network)
    for name in options:
        if name != "num_heads":  # heads where there is no attention leave no trace
            assert list_of(detected.options[name]) == list_of(options[name])
    assert "UniRestorer" in detected.licence


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_pooling_can_be_said_where_it_cannot_be_seen() -> None:
    with torch.device("meta"):
        shapes = shapes_of(create_model("nafnet_local"))
    assert detect(shapes).model == "nafnet_local"
    assert detect(shapes, model="nafnet").options["enc_blk_nums"] == (1, 1, 1, 28)


def test_the_released_pool_is_recognised() -> None:
    folder = os.environ.get("MOIR_PARITY")
    if not folder:
        pytest.skip("MOIR_PARITY is unset: no names of the published files here")
    keys = json.loads((Path(folder) / "unirestorer_keys.json").read_text())["keys"]
    experts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, value in keys.items():
        if "_experts." in name:
            level, number, rest = name.split(".", 2)
            experts.setdefault(f"{level}.{number}", {})[rest] = tuple(value["shape"])
    found, kinds = [], {}
    for shapes in experts.values():
        detected = detect(shapes)
        kinds[detected.model, detected.options.get("LayerNorm_type")] = (detected, shapes)
        found.append((detected.model, detected.options.get("LayerNorm_type")))
    for detected, shapes in kinds.values():
        with torch.device("meta"):
            assert shapes_of(create_model(detected.model, **detected.options)) == shapes
    biased, free, lora = ("restormer", "WithBias"), ("restormer", "BiasFree"), ("lora_restormer", "WithBias")
    haze, light, blur = ("dehazeformer_l", None), ("retinexformer", None), ("nafnet_local", None)
    level1 = [free] * 4 + [haze, light, blur]
    level2 = [free] * 3 + [lora] * 4 + [biased] * 10 + [haze] * 2 + [light] * 2 + [blur] * 2
    assert found == [biased, *level1, *level2]


@pytest.mark.parametrize(
    "tiny", ["test_lora_restormer", "test_retinexformer", "test_nafnet_local", "test_dehazeformer_l"]
)
@torch.no_grad()
def test_a_file_is_converted_and_loaded(tiny: str, tmp_path: Path) -> None:
    network, x = create_model(tiny).eval(), torch.rand(1, 3, 16, 24)
    for parameter in network.parameters():
        parameter.add_(0.03 * torch.randn(parameter.shape))
    torch.save({"params": network.state_dict()}, tmp_path / "expert.pth")
    stated = {name: network.options[name] for name in ("lora_alpha", "train_size") if name in network.options}
    convert(tmp_path / "expert.pth", tmp_path / "expert", options=stated, create=create_model)
    again, card = load_model(str(tmp_path / "expert.safetensors"))
    assert card.model == tiny.removeprefix("test_")
    torch.testing.assert_close(again(x), network(x), rtol=0, atol=1e-6)
