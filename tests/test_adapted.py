"""Adapters as files."""

import json

import pytest
import torch

import moir
from moir.adapted import fingerprint, load_adapter, read_adapter_facts, save_adapter
from moir.adapters import adapter_parameters, attach, attached, set_active
from moir.base.errors import CheckpointError, InvalidValueError, OutputExistsError, UnknownNameError
from moir.batch import Settings
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import create_model, load_model


def network(model="test_restormer", seed=0, **options):
    torch.manual_seed(seed)
    return create_model(model, **options).eval()


@pytest.fixture
def saved(tmp_path):
    """An adapted network, and its adapter's file."""
    adapted = attach(network(), "adaptir", "rain", hidden=4)
    with torch.no_grad():
        for parameter in adapter_parameters(adapted, "rain"):
            parameter.add_(0.1 * torch.randn(parameter.shape))
        adapted.train()(torch.rand(2, 3, 16, 16))  # moves running statistics
    save_adapter(tmp_path / "rain.safetensors", adapted, "rain", "test_restormer", {"pairs": 20})
    return adapted.eval(), tmp_path / "rain.safetensors"


def test_it_comes_back_on_a_fresh_network(saved):
    adapted, path = saved
    fresh = network()
    facts = load_adapter(fresh, path)
    assert (facts.method, facts.options, facts.model, facts.notes) == (
        "adaptir",
        {"hidden": 4},
        "test_restormer",
        {"pairs": 20},
    )
    assert facts == read_adapter_facts(path)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(fresh(x), adapted(x))
        set_active(fresh)
        assert torch.equal(fresh(x), network()(x))
    load_adapter(fresh, path, "again")
    assert list(attached(fresh)) == ["rain", "again"]
    with pytest.raises(OutputExistsError):
        save_adapter(path, fresh, "rain", "test_restormer")


def test_the_fingerprint_is_that_of_the_frozen_network(saved):
    adapted, _ = saved
    assert fingerprint(adapted) == fingerprint(network()) != fingerprint(network(seed=1))


@pytest.mark.parametrize(
    ("other", "any_base", "says"),
    [
        (
            lambda: network(seed=1),
            False,
            r"belongs to test_restormer with .*, not to this Restormer",
        ),
        (lambda: network("test_nafnet"), True, "another network or size"),
        (lambda: network(dim=16), True, "another network or size"),
    ],
)
def test_another_network_is_refused_and_left_as_it_was(saved, other, any_base, says):
    wrong = other()
    before = fingerprint(wrong)
    with pytest.raises(CheckpointError, match=says):
        load_adapter(wrong, saved[1], any_base=any_base)
    assert not attached(wrong)
    assert fingerprint(wrong) == before
    assert all(p.requires_grad for p in wrong.parameters())


def test_other_weights_may_be_allowed(saved):
    load_adapter(network(seed=1), saved[1], any_base=True)


def test_another_file_is_named(tmp_path, saved):
    write_tensors(tmp_path / "plain.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="is not an adapter"):
        load_adapter(network(), tmp_path / "plain.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved[1].read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_adapter(network(), cut)


def test_an_adapter_given_as_a_network_is_named_with_its_network(files):
    _, (glass, _) = files
    for load in (load_model, moir.load):
        with pytest.raises(
            CheckpointError, match=r"glass\.safetensors is an adapter for tiny, .* --model tiny --adapter .*glass"
        ):
            load(str(glass))
    glass.with_suffix(".json").unlink()  # its card may be lost: the header says it, too
    with pytest.raises(CheckpointError, match="is an adapter for tiny"):
        load_model(str(glass))


def test_a_network_given_as_an_adapter_is_named(files, tmp_path):
    weights, _ = files
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is a network \(tiny\), not an adapter; .*--model"):
        moir.load(weights, adapter=weights)
    with pytest.raises(CheckpointError, match="compact is a network, not an adapter"):
        moir.load(weights, adapter="compact")
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is not an adapter"):
        moir.load(weights, adapter=tmp_path / "last.ckpt")


# -- restoring with adapters --


@pytest.fixture
def files(tmp_path, tiny_network):
    """A model's file and two adapters for it."""
    weights = tmp_path / "tiny.safetensors"
    write_tensors(weights, tiny_network.state_dict())
    Card("tiny", "test_compact", tiny_network.options, sha256=sha256_of(weights)).write(weights.with_suffix(".json"))
    for number, name in enumerate(("glass", "screen")):
        adapted, _ = load_model(str(weights))
        attach(adapted, "lora", name, rank=1)
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in adapter_parameters(adapted, name):
                parameter.add_(0.3 * torch.randn(parameter.shape))
        save_adapter(tmp_path / f"{name}.safetensors", adapted, name, "tiny")
    return weights, [tmp_path / "glass.safetensors", tmp_path / "screen.safetensors"]


def opened(files, *numbers):
    return moir.load(files[0], adapter=[files[1][n] for n in numbers], device="cpu", precision="float32")


def test_a_restorer_switches_adapters_per_picture(files, photograph):
    picture = photograph[:, :24, :32]
    alone = moir.load(files[0], device="cpu", precision="float32")
    plain, glass, screen = alone(picture), opened(files, 0)(picture), opened(files, 1)(picture)
    assert not torch.equal(plain.tensor, glass.tensor)
    assert not torch.equal(glass.tensor, screen.tensor)
    assert (plain.expert, plain.granularity) == ("tiny", "all")
    assert (glass.expert, glass.granularity, glass.model) == ("glass", "adapter", "tiny")

    both = opened(files, 0, 1)
    assert both.adapters == ("glass", "screen")
    assert torch.equal(both(picture).tensor, glass.tensor)  # the first one, where none is named
    assert torch.equal(both(picture, adapter="screen").tensor, screen.tensor)
    # The network alone may run in another, faster form; it rounds differently.
    assert torch.allclose(both(picture, adapter="none").tensor, plain.tensor, atol=1e-5)
    small = picture[:, :16]
    batch = both.batch([picture, picture, small, picture, picture], adapter=["screen", "none", "glass", None, "screen"])
    for found, expected in zip(batch, (screen, plain, None, glass, screen), strict=True):
        if expected is not None:
            assert torch.allclose(found.tensor, expected.tensor, atol=1e-5)
            assert found.expert == expected.expert
    assert torch.allclose(batch[2].tensor, opened(files, 0)(small).tensor, atol=1e-6)
    with both.acting("none"):
        assert set(attached(both.engine.network)) == {"glass", "screen"}
        assert not any(a.active for a in attached(both.engine.network).values())
    assert attached(both.engine.network)["glass"].active


def test_adapters_that_cannot_be_used_are_named(files, saved, photograph):
    picture = photograph[:, :16, :16]
    with pytest.raises(CheckpointError, match=r"rain\.safetensors belongs to test_restormer .*not to this tiny"):
        moir.load(files[0], adapter=saved[1])
    with pytest.raises(InvalidValueError, match="'glass' is attached already"):
        opened(files, 0, 0)
    with pytest.raises(CheckpointError, match="no weights file"):
        moir.load(files[0], adapter="nowhere.safetensors")
    restorer = opened(files, 0)
    with pytest.raises(UnknownNameError, match="glass"):
        restorer(picture, adapter="glas")
    with pytest.raises(InvalidValueError, match="2 names of adapters for 1 pictures"):
        restorer.batch([picture], adapter=["glass", "glass"])


def test_settings_of_a_run_choose_adapters_by_file_name(files):
    glass, screen = map(str, files[1])
    one = Settings(str(files[0]), adapters=(glass,), device="cpu")
    assert one.adapter_of(one.load(), "anything.png") == "glass"
    several = Settings(str(files[0]), adapters=(f"g*={glass}", f"*.jpg={screen}"), device="cpu")
    restorer = several.load()
    names = ("g.jpg", "a.jpg", "a.png")
    assert [several.adapter_of(restorer, name) for name in names] == ["glass", "screen", "none"]
    with pytest.raises(InvalidValueError, match=r"2 adapters, but not for which .*'PATTERN="):
        Settings(adapters=(glass, screen))
    plain = Settings(str(files[0]), device="cpu")
    loaded = plain.load()
    assert "adapters" not in plain.identity(loaded)  # manifests of before there were adapters go on
    assert plain.adapter_of(loaded, "a.png") == "none"
    assert one.identity(loaded)["adapters"] == [["*", sha256_of(glass)]]


def test_the_card_says_what_the_header_says(saved):
    card = json.loads(saved[1].with_suffix(".json").read_text())
    assert card["sha256"] == sha256_of(saved[1])
    assert card["base"] == read_adapter_facts(saved[1]).base
