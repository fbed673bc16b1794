"""What holds for every degradation, kind and level."""

import json
from collections.abc import Callable

import pytest
import torch

from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError
from moir.base.names import DEGREES
from moir.degrade import ORDER, Params, apply, degradation, params_from_json
from moir.degrade.severity import LEVELS, SEVERITIES

Photo = Callable[..., torch.Tensor]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
# Snow masks need picture files: test_snow.py.
KINDS = [(type_, kind) for type_ in ORDER for kind in degradation(type_).kinds if kind != "mask"]
every_kind = pytest.mark.parametrize(("type_", "kind"), KINDS)


def draw(type_: str, kind: str, level: str | float = "heavy", seed: int = 0) -> Params:
    return degradation(type_).sample(level, torch.Generator().manual_seed(seed), kind)


@every_kind
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("device", DEVICES)
def test_output_obeys_the_contract(type_: str, kind: str, level: str, device: str, photo: Photo) -> None:
    x = photo().to(device)
    before = x.clone()
    y = apply(x, [[draw(type_, kind, level)]])
    assert torch.equal(x, before), "the input was modified"
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert y.device == x.device
    assert y.isfinite().all()
    assert y.min() >= 0
    assert y.max() <= 1
    assert (y - x).abs().max() > 1 / 255, "nothing happened"


@every_kind
@pytest.mark.parametrize("device", DEVICES)
def test_same_parameters_same_picture(type_: str, kind: str, device: str, photo: Photo) -> None:
    x = photo().to(device)
    p = draw(type_, kind)
    torch.manual_seed(1)
    first = apply(x, [[p]])
    torch.manual_seed(2)  # the global generator must have no say
    assert torch.equal(first, apply(x, [[p]]))


# Curved motion and the random fields depend on the seed; what is a pure function of the other parameters does not.
SEEDED = [(t, k) for t, k in KINDS if t in ("noise", "rain", "snow", "haze") or k in ("curved", "camera")]


@pytest.mark.parametrize(("type_", "kind"), SEEDED)
def test_another_seed_another_picture(type_: str, kind: str, photo: Photo) -> None:
    record = draw(type_, kind).to_json()
    pictures = [apply(photo(), [[params_from_json({**record, "seed": seed})]]) for seed in (1, 2)]
    assert (pictures[0] - pictures[1]).abs().max() > 1 / 255


@every_kind
@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_gives_what_its_pictures_give(type_: str, kind: str, device: str, photo: Photo) -> None:
    x = torch.cat([photo(), photo("coffee"), photo("chelsea")]).to(device)
    params = [draw(type_, kind, level, seed) for seed, level in enumerate(DEGREES)]
    together = apply(x, [[p] for p in params])
    alone = torch.cat([apply(x[i : i + 1], [[p]]) for i, p in enumerate(params)])
    # Only blur shares an FFT between kernels of different size.
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    if device == "cpu" and type_ != "blur":
        assert torch.equal(together, alone)


@every_kind
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (1, 60), (60, 2), (17, 8)])
def test_any_size(type_: str, kind: str, size: tuple[int, int], photo: Photo) -> None:
    x = photo(height=size[0], width=size[1])
    y = apply(x, [[draw(type_, kind, "outside")]])
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert y.min() >= 0
    assert y.max() <= 1


@every_kind
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_pictures(type_: str, kind: str, value: float) -> None:
    y = apply(torch.full((1, 3, 24, 24), value), [[draw(type_, kind)]])
    assert y.isfinite().all()
    assert y.min() >= 0
    assert y.max() <= 1


@every_kind
def test_memory_layout_does_not_matter(type_: str, kind: str, photo: Photo) -> None:
    x = torch.cat([photo(), photo("coffee")])
    params = [[draw(type_, kind)]] * 2
    torch.testing.assert_close(
        apply(x.to(memory_format=torch.channels_last), params), apply(x, params), rtol=0, atol=1e-6
    )


@every_kind
def test_autocast_changes_nothing(type_: str, kind: str, photo: Photo) -> None:
    expected = apply(photo(), [[draw(type_, kind)]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply(photo(), [[draw(type_, kind)]]), expected)


@every_kind
def test_worse_degrees_are_worse(type_: str, kind: str, photo: Photo) -> None:
    x = photo(height=96, width=96).expand(10, -1, -1, -1)
    damage = []
    for level in DEGREES:
        y = apply(x, [[draw(type_, kind, level, seed)] for seed in range(10)])
        damage.append((y - x).square().mean().item())
    assert damage[0] < 0.9 * damage[1]
    assert damage[1] < 0.9 * damage[2]


@every_kind
@pytest.mark.parametrize("level", LEVELS)
def test_records_survive_json(type_: str, kind: str, level: str, photo: Photo) -> None:
    p = draw(type_, kind, level, seed=5)
    again = params_from_json(json.loads(json.dumps(p.to_json())))
    assert again == p
    assert torch.equal(apply(photo(), [[again]]), apply(photo(), [[p]]))


@every_kind
def test_draws_stay_in_the_range_of_the_level(type_: str, kind: str) -> None:
    for level in LEVELS:
        low, high = sorted(SEVERITIES[type_].range(level))
        values = [draw(type_, kind, level, seed).severity for seed in range(40)]
        assert all(low <= value <= high for value in values)
        assert max(values) - min(values) > 0.5 * (high - low)


@every_kind
def test_severity_by_number(type_: str, kind: str) -> None:
    low, high = SEVERITIES[type_].allowed
    for value in (low, high):
        assert draw(type_, kind, value).severity == value
    for value in (low - 1, high + 1, float("nan"), float("inf")):
        with pytest.raises(InvalidValueError, match=f"{low:g}..{high:g}"):
            draw(type_, kind, value)


@pytest.mark.parametrize("type_", ORDER)
def test_extremes_that_may_be_asked_for(type_: str, photo: Photo) -> None:
    for value in SEVERITIES[type_].allowed:
        for kind in degradation(type_).kinds:
            if kind != "mask":
                y = apply(photo(height=20, width=30), [[draw(type_, kind, value)]])
                assert y.isfinite().all()


@pytest.mark.parametrize("type_", ORDER)
def test_kinds_are_drawn_when_none_is_named(type_: str) -> None:
    g = torch.Generator().manual_seed(0)
    found = {degradation(type_).sample("light", g).kind for _ in range(60)}
    assert found == set(degradation(type_).kinds) - {"mask"}


# -- errors --


@pytest.mark.parametrize("type_", ORDER)
def test_wrong_names(type_: str) -> None:
    g = torch.Generator()
    kind = degradation(type_).kinds[0]
    with pytest.raises(UnknownNameError, match=f"did you mean '{kind}'"):
        degradation(type_).sample("light", g, kind[:-1])
    with pytest.raises(UnknownNameError, match="did you mean 'medium'"):
        degradation(type_).sample("medum", g)
    with pytest.raises(UnknownNameError, match=f"'{type_}'"):
        degradation(type_ + "e")


@pytest.mark.parametrize("type_", ORDER)
def test_wrong_tensors(type_: str) -> None:
    p = draw(type_, degradation(type_).kinds[0])
    for bad in (torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(TensorShapeError, match="float32"):
            degradation(type_).apply(bad, [p])
        with pytest.raises(TensorShapeError, match="float32"):
            apply(bad, [[p]])
    with pytest.raises(TensorShapeError, match="2 parameter records"):
        degradation(type_).apply(torch.rand(1, 3, 8, 8), [p, p])


@pytest.mark.parametrize("type_", ORDER)
def test_parameters_of_another_degradation(type_: str) -> None:
    other = "jpeg" if type_ != "jpeg" else "noise"
    with pytest.raises(InvalidValueError, match=other):
        degradation(type_).apply(torch.rand(1, 3, 8, 8), [draw(other, degradation(other).kinds[0])])


@pytest.mark.parametrize("type_", ORDER)
def test_wrong_records(type_: str) -> None:
    record = draw(type_, degradation(type_).kinds[0]).to_json()
    measure = SEVERITIES[type_].parameter
    assert params_from_json(record).to_json() == record
    with pytest.raises(UnknownNameError, match="degradation type"):
        params_from_json({**record, "type": type_ + "x"})
    with pytest.raises(UnknownNameError, match=f"did you mean '{measure}'"):
        params_from_json({**record, measure + "x": 1.0})
    with pytest.raises(UnknownNameError, match=f"kind of {type_}"):
        params_from_json({**record, "kind": "zzz"})
    with pytest.raises(InvalidValueError, match=measure):
        params_from_json({key: value for key, value in record.items() if key != measure})
    for wrong in ("3", None, True, [1.0], float("nan")):
        with pytest.raises(InvalidValueError, match=f"{measure} of {type_}"):
            params_from_json({**record, measure: wrong})
    with pytest.raises(InvalidValueError, match="outside"):
        params_from_json({**record, measure: -1.0})
    with pytest.raises(InvalidValueError, match="seed"):
        params_from_json({**record, "seed": 1.5})
