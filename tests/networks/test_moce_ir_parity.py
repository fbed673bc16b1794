import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from moir.networks.moce_ir import MoCEIR, moce_ir, moce_ir_s

FILES = ["moce_ir_small.safetensors", "moce_ir_small_complexity.safetensors"]
Published = tuple[MoCEIR, dict[str, torch.Tensor]]


@pytest.fixture(scope="module", params=FILES)
def published(request: pytest.FixtureRequest, parity: Path) -> Published:
    with safe_open(parity / request.param, "pt") as file:
        data = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    model = MoCEIR(**config, routing_noise="never")
    fresh = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.load_state_dict({name[6:]: value for name, value in data.items() if name.startswith("state.")})
    assert fresh, "the experts' complexity must be among the buffers"
    for name, buffer in model.named_buffers():  # computed here, not only loaded
        torch.testing.assert_close(fresh[name], buffer, rtol=1e-6, atol=0)
    return model, data


def test_evaluation_and_routes_batched_and_one_by_one(published: Published) -> None:
    model, data = published
    model.eval()
    with torch.no_grad():
        for pictures in [data["input"], *data["input"].split(1)]:
            first = int((data["input"] == pictures[:1]).flatten(1).all(1).nonzero()[0])
            rows = slice(first, first + len(pictures))
            output = model(pictures)
            torch.testing.assert_close(output, data["output_eval"][rows], rtol=0, atol=2e-6)
            assert set(model.routes) == {n[11:] for n in data if n.startswith("route_eval.")}
            for name, chosen in model.routes.items():
                assert torch.equal(chosen, data[f"route_eval.{name}"][rows]), name


def test_training_step_and_every_gradient(published: Published) -> None:
    model, data = published
    model.train()
    model.zero_grad()
    output = model(data["input"])
    torch.testing.assert_close(output, data["output_train"], rtol=0, atol=2e-6)
    assert model.balance_loss is not None
    assert model.balance_loss.shape == ()
    torch.testing.assert_close(model.balance_loss, data["balance_loss"][0], rtol=1e-6, atol=0)
    loss = (output - data["target"]).abs().mean() + 0.01 * model.balance_loss
    torch.testing.assert_close(loss, data["train_loss"][0], rtol=1e-6, atol=0)
    loss.backward()
    names = {name[5:] for name in data if name.startswith("grad.")}
    assert names == {name for name, _ in model.named_parameters()}
    largest = max(float(torch.linalg.norm(data[f"grad.{name}"])) for name in names)
    for name, parameter in model.named_parameters():
        expected = data[f"grad.{name}"]
        assert parameter.grad is not None, name
        error = torch.linalg.norm(parameter.grad - expected)
        # A gradient of 1e-14 beside others of 1e-2 is rounding, and processors round differently.
        assert error <= 1e-3 * torch.linalg.norm(expected) + 1e-9 * largest, (name, error)


def test_parity_on_a_bare_clone(fixtures: Path) -> None:
    with np.load(fixtures / "moce_ir_small.npz") as file:
        data = dict(file)
    model = MoCEIR(**json.loads(str(data["config"])), routing_noise="never")
    flat, pictures, expected = (
        torch.from_numpy(np.ascontiguousarray(data[name].T).view("<f4").ravel().copy())
        for name in ("state", "input", "output_eval")
    )
    pictures, expected = (values.view(-1, *data["shape"][1:]) for values in (pictures, expected))
    state = model.state_dict()
    parts = flat.split([state[name].numel() for name in sorted(state)])
    model.load_state_dict({name: part.view_as(state[name]) for name, part in zip(sorted(state), parts, strict=True)})
    with torch.no_grad():
        output = model.eval()(pictures)
    torch.testing.assert_close(output[data["kept"]], expected, rtol=0, atol=2e-6)
    assert (output - pictures).abs().max() > 0.1  # the network does something
    for name, chosen in model.routes.items():
        assert chosen.tolist() == data[f"route_eval.{name}"].tolist()
    # In training, without noise, the published outputs are the same to 1e-6.
    torch.testing.assert_close(model.train()(pictures)[data["kept"]], expected, rtol=0, atol=2e-6)
    assert model.balance_loss is not None
    assert model.balance_loss.item() == pytest.approx(float(data["balance_loss"][0]), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "name", "count"), [(moce_ir_s, "moce_ir_s", 11_477_752), (moce_ir, "moce_ir", 25_353_796)]
)
def test_published_names_shapes_and_counts(make: type[MoCEIR], name: str, count: int, fixtures: Path) -> None:
    with gzip.open(fixtures / "moce_ir_keys.json.gz", "rt") as file:
        keys = json.load(file)[name]
    with torch.device("meta"):
        model = make()
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == keys
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_stored_key_list_is_the_published_one(parity: Path, fixtures: Path) -> None:
    with gzip.open(fixtures / "moce_ir_keys.json.gz", "rt") as file:
        assert json.load(file) == json.loads((parity / "moce_ir_keys.json").read_text())
