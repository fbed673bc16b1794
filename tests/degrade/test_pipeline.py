from collections import Counter
from collections.abc import Callable

import pytest
import torch

from moir.base.errors import InvalidValueError, PictureNotFoundError, TensorShapeError, UnknownNameError
from moir.base.names import DEGREES, TYPES
from moir.degrade import MIXES, ORDER, Params, Pipeline, apply, degradation, degree_of, quantise, sample

Photo = Callable[..., torch.Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_order_of_the_paper() -> None:
    assert ORDER == ("lowlight", "blur", "noise", "rain", "snow", "haze", "jpeg")
    assert sorted(ORDER) == sorted(TYPES)


def test_mixes_of_the_paper() -> None:
    letters = {"LL": "lowlight", "H": "haze", "N": "noise", "B": "blur", "R": "rain", "S": "snow"}
    assert list(MIXES) == ["H-R", "H-N", "H-N-R", "LL-H-N-R", "LL-H-N-S", "LL-H-N-B-R", "LL-H-N-B-S"]
    for name, types in MIXES.items():
        assert set(types) == {letters[part] for part in name.split("-")}
        assert list(types) == [t for t in ORDER if t in types]


@pytest.mark.parametrize("mix", MIXES)
def test_steps_act_in_order_whatever_the_order_of_the_records(mix: str, photo: Photo) -> None:
    params = sample(dict.fromkeys(MIXES[mix], "medium"), generator())
    assert [p.type for p in params] == list(MIXES[mix])
    expected = photo()
    for p in params:
        expected = degradation(p.type).apply(expected, [p])
    assert torch.equal(apply(photo(), [params]), expected)
    assert torch.equal(apply(photo(), [params[::-1]]), expected)
    # The order matters, so the comparison above means something.
    swapped = photo()
    for p in params[::-1]:
        swapped = degradation(p.type).apply(swapped, [p])
    assert (swapped - expected).abs().max() > 0.01


def test_each_picture_has_its_own_list(photo: Photo) -> None:
    x = torch.cat([photo(), photo("coffee"), photo("chelsea"), photo("coffee", 200)])
    lists: list[list[Params]] = [
        sample({"noise": "light", "jpeg": "heavy"}, generator(1)),
        [],
        sample({"jpeg": "light", "rain": "medium", "lowlight": "light"}, generator(2)),
        sample({"noise": "heavy"}, generator(3)),
    ]
    together = apply(x, lists)
    assert torch.equal(together[1], x[1])
    for i, records in enumerate(lists):
        torch.testing.assert_close(together[i : i + 1], apply(x[i : i + 1], [records]), rtol=0, atol=1e-6)


def test_an_expanded_view_may_be_damaged(photo: Photo) -> None:
    """As training does it: one patch, once with all the damage and once with a part of it."""
    records = sample({"noise": "heavy"}, generator())
    y = apply(photo().expand(2, -1, -1, -1), [records, []])
    assert torch.equal(y[1:], photo())
    assert not torch.equal(y[:1], photo())


def test_errors(photo: Photo) -> None:
    p = sample({"noise": "light"}, generator())
    with pytest.raises(TensorShapeError, match="2 parameter records"):
        apply(photo(), [p, p])
    with pytest.raises(InvalidValueError, match="two records of noise"):
        apply(photo(), [p + p])
    with pytest.raises(UnknownNameError, match="did you mean 'rain'"):
        sample({"rian": "light"}, generator())
    with pytest.raises(UnknownNameError, match="did you mean 'rain'"):
        sample({"rain": "light"}, generator(), {"rian": "dense"})
    with pytest.raises(PictureNotFoundError):
        sample({"snow": "light"}, generator(), {"snow": "mask"})


def test_sampling_is_a_function_of_the_generator() -> None:
    wanted = dict.fromkeys(ORDER, "medium")
    assert sample(wanted, generator(7)) == sample(wanted, generator(7))
    assert sample(wanted, generator(7)) != sample(wanted, generator(8))


def test_quantise() -> None:
    x = torch.tensor([0.0, 0.4999, 0.5001, 1.0])
    assert torch.equal(quantise(x) * 255, torch.tensor([0.0, 127.0, 128.0, 255.0]))


# -- what a training picture suffers: a few hundred draws of parameters --

DRAWS = 600


def near(count: int, probability: float, draws: int = DRAWS) -> bool:
    """Within four standard deviations of the binomial."""
    return bool(abs(count - draws * probability) <= 4 * (draws * probability * (1 - probability)) ** 0.5 + 1e-9)


def draws(pipeline: Pipeline, seed: int = 0) -> list[list[Params]]:
    g = generator(seed)
    return [pipeline.sample(g) for _ in range(DRAWS)]


def test_shares_of_clean_single_and_mixed() -> None:
    found = draws(Pipeline(clean=0.2, single=0.5, named=0.3))
    sizes = Counter(len(records) for records in found)
    assert near(sizes[0], 0.2)
    assert near(sizes[1], 0.5)
    mixes = Counter(tuple(p.type for p in records) for records in found if len(records) > 1)
    assert set(mixes) == set(MIXES.values())
    assert all(near(count, 0.3 / 7) for count in mixes.values())


def test_weights_of_types_and_levels() -> None:
    weights = {"noise": 3.0, "haze": 1.0, "jpeg": 0.0}
    found = draws(Pipeline(clean=0, single=1, named=0, types=weights, levels={"light": 1.0, "outside": 3.0}))
    counts = Counter(records[0].type for records in found)
    assert set(counts) == {"noise", "haze"}
    assert near(counts["noise"], 0.75)
    light = sum(degree_of(r[0].type, r[0].severity) == "light" for r in found)
    assert near(light, 0.25)


def test_degrees_are_equally_likely_by_default() -> None:
    found = draws(Pipeline(clean=0, single=1, named=0))
    degrees = Counter(degree_of(r[0].type, r[0].severity) for r in found)
    assert all(near(degrees[degree], 1 / 3) for degree in DEGREES)
    types = Counter(r[0].type for r in found)
    assert all(near(types[type_], 1 / 7) for type_ in ORDER)


@pytest.mark.parametrize("gate", [0.3, 0.5])
def test_gates(gate: float) -> None:
    found = draws(Pipeline(clean=0, single=0, named=0, gate=gate))
    closed = (1 - gate) ** 7  # then one type is drawn
    for type_ in ORDER:
        count = sum(any(p.type == type_ for p in records) for records in found)
        assert near(count, gate + closed / 7)
    assert near(sum(len(records) == 1 for records in found), 7 * gate * (1 - gate) ** 6 + closed)
    assert all([p.type for p in r] == [t for t in ORDER if t in {p.type for p in r}] for r in found)


def test_gates_of_types_without_weight_stay_closed() -> None:
    found = draws(Pipeline(clean=0, single=0, named=0, gate=0.9, types={"noise": 1.0, "blur": 1.0}))
    assert {p.type for records in found for p in records} == {"noise", "blur"}


# -- the file it was stored in --


def test_storage_is_mild_jpeg_beside_what_was_drawn() -> None:
    pipeline, g = Pipeline(stored=0.5), generator()
    noise = sample({"noise": "light"}, g)
    stored = [pipeline.storage(noise, g) for _ in range(DRAWS)]
    assert near(sum(len(records) for records in stored), 0.5)
    assert all(p.type == "jpeg" and 60 <= p.severity <= 95 for records in stored for p in records)
    clean = [p for _ in range(50) for p in pipeline.storage([], g)]
    assert all(90 <= p.severity <= 97 for p in clean)
    assert clean
    assert not any(Pipeline(stored=1).storage(sample({"jpeg": "light"}, g), g) for _ in range(20))
    assert not any(Pipeline(stored=0).storage(noise, g) for _ in range(20))


def test_what_is_drawn_does_not_depend_on_storage() -> None:
    assert Pipeline(stored=0).sample(generator(4)) == Pipeline(stored=1).sample(generator(4))


def test_storage_is_applied_last(photo: Photo) -> None:
    records = sample({"haze": "medium"}, generator(1))
    (file,) = Pipeline(stored=1).storage(records, generator(2))
    hazy = apply(photo(), [records])
    assert torch.equal(apply(photo(), [[file, *records]]), apply(hazy, [[file]]))
