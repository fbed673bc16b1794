import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moir.base.errors import InvalidValueError, UnknownNameError
from moir.base.names import DEGREES
from moir.degrade import MIXES, ORDER, SEVERITIES, degradation, degree_of, parse
from moir.degrade.severity import LEVELS, draw

TYPES = st.sampled_from(ORDER)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def requests(give: st.DrawFn) -> tuple[dict[str, str | float | None], dict[str, str]]:
    levels: dict[str, str | float | None] = {}
    kinds = {}
    for type_ in give(st.lists(TYPES, min_size=1, unique=True)):
        low, high = SEVERITIES[type_].allowed
        levels[type_] = give(st.one_of(st.none(), st.sampled_from(LEVELS), st.floats(low, high)))
        kind = give(st.one_of(st.none(), st.sampled_from(degradation(type_).kinds)))
        if kind is not None:
            kinds[type_] = kind
    return levels, kinds


@settings(max_examples=80, deadline=None)
@given(requests(), st.sampled_from([",", " , ", ",,"]), st.sampled_from(["=", " = "]), st.sampled_from([":", " : "]))
def test_what_is_written_is_what_is_read(
    request_: tuple[dict[str, str | float | None], dict[str, str]], comma: str, equals: str, colon: str
) -> None:
    levels, kinds = request_
    words = [
        type_ + (f"{colon}{kinds[type_]}" if type_ in kinds else "") + ("" if level is None else f"{equals}{level}")
        for type_, level in levels.items()
    ]
    found = parse(comma.join(words))
    assert found.levels == levels
    assert found.kinds == kinds


@settings(max_examples=60, deadline=None)
@given(st.lists(TYPES, min_size=1, unique=True), st.integers(0, 1000))
def test_samples_are_what_was_asked_for(types: list[str], seed: int) -> None:
    request = parse(",".join(f"{t}={DEGREES[i % 3]}" for i, t in enumerate(types)))
    params = request.sample(generator(seed))
    assert [p.type for p in params] == [t for t in ORDER if t in types]
    for p in params:
        assert degree_of(p.type, p.severity) == DEGREES[types.index(p.type) % 3]


@settings(max_examples=200, deadline=None)
@given(TYPES, st.sampled_from(DEGREES), st.integers(0, 2**31))
def test_degree_is_the_inverse_of_the_ranges(type_: str, degree: str, seed: int) -> None:
    assert degree_of(type_, draw(type_, degree, generator(seed))) == degree
    # Also after the parameters were made of it (JPEG rounds its quality).
    assert degree_of(type_, degradation(type_).sample(degree, generator(seed)).severity) == degree


@pytest.mark.parametrize("degree", DEGREES)
def test_a_rounded_quality_stays_in_its_degree(degree: str) -> None:
    g = generator()
    assert {degree_of("jpeg", degradation("jpeg").sample(degree, g).severity) for _ in range(400)} == {degree}


@pytest.mark.parametrize("type_", ORDER)
def test_ranges_are_in_order(type_: str) -> None:
    s = SEVERITIES[type_]
    sign = -1 if s.light[0] > s.light[1] else 1  # JPEG: a smaller quality is worse
    degrees = [sign * v for v in (*s.light, *s.medium, *s.heavy)]
    assert degrees == sorted(degrees)
    assert s.light[1] == s.medium[0]
    assert s.medium[1] == s.heavy[0]
    assert sign * s.outside[0] >= sign * s.inside[1]
    low, high = s.allowed
    assert all(low <= v <= high for level in LEVELS for v in s.range(level))
    assert s.source
    assert degree_of(type_, s.outside[1]) == "heavy"


def test_published_ranges() -> None:
    """The MiOIR data scripts (UniRestorer fact sheet, section 7)."""
    published = {
        "blur": ((1, 3), (3, 5)),
        "noise": ((15, 50), (50, 70)),
        "rain": ((50, 99), (100, 149)),
        "haze": ((0.5, 2.5), (2.5, 3)),
        "lowlight": ((1, 3), (3, 4)),
        "jpeg": ((70, 30), (30, 10)),
    }
    for type_, ranges in published.items():
        assert (SEVERITIES[type_].inside, SEVERITIES[type_].outside) == ranges


@pytest.mark.parametrize("mix", MIXES)
def test_mixes_by_name(mix: str) -> None:
    assert set(parse(mix).levels.items()) == {(t, None) for t in MIXES[mix]}
    assert set(parse(f"{mix}=heavy, jpeg=40").levels.items()) == {(t, "heavy") for t in MIXES[mix]} | {("jpeg", 40.0)}
    assert [p.type for p in parse(mix).sample(generator())] == list(MIXES[mix])


def test_without_a_level_every_degree_comes() -> None:
    g = generator()
    found = {degree_of("noise", parse("noise").sample(g)[0].severity) for _ in range(40)}
    assert found == set(DEGREES)


def test_a_number_is_the_severity_and_a_kind_the_kind() -> None:
    (p,) = parse("noise:poisson=25").sample(generator())
    assert (p.type, p.kind, p.severity) == ("noise", "poisson", 25.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rian=heavy", "did you mean 'rain'"),
        ("H-NR", "did you mean 'H-N-R'"),
        ("rain=hevy", "did you mean 'heavy'"),
        ("rain=", "severity of rain"),
        ("rain:dens=heavy", "did you mean 'dense'"),
        ("snow:masks=heavy", "did you mean 'mask'"),
        ("=heavy", "degradation type"),
    ],
)
def test_unknown_words(spec: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no degradation"),
        (" , ", "no degradation"),
        ("noise=25,noise=30", "twice"),
        ("H-R,rain=heavy", "twice"),
        ("noise=900", "0..200"),
        ("jpeg=0", "1..100"),
        ("haze=nan", "0.01..10"),
        ("H-R=50", "haze"),
        ("H-R:dense=heavy", "a mix has no kind"),
    ],
)
def test_impossible_requests(spec: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        parse(spec)
