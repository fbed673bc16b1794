"""The table: names, layouts, groups, and the page that is written from it."""

from pathlib import Path

import pytest

from moir.base.errors import UnknownNameError
from moir.base.names import TYPES
from moir.datasets import BENCHMARKS, DATASETS, GROUPS, MIXTURES, Synthesis, benchmarks, mixture
from moir.datasets.checking import sets_of
from moir.datasets.guide import markdown
from moir.datasets.overlaps import OVERLAPS
from moir.degrade import parse

CDD11 = ["low", "haze", "rain", "snow", "low_haze", "low_rain", "low_snow", "haze_rain", "haze_snow", "low_haze_rain",
         "low_haze_snow"]  # fmt: skip
PLAIN = (
    "rain100l rain100h sots gopro lolv1 lolv2_real snow100k_s snow100k_m snow100k_l lhp realsnow test1200 test2800 "
    "rain200h rain200l set5_lr4_noise30"
)
DESIGN = [
    *(f"{name}_s{sigma}" for name in ("cbsd68", "kodak24", "urban100") for sigma in (15, 25, 50)),
    *PLAIN.split(),
    *(f"live1_q{q}" for q in (10, 20, 30, 40)),
    *(f"cdd11_{kind}" for kind in CDD11),
]


@pytest.mark.parametrize("name", DESIGN)
def test_every_benchmark_of_the_design_resolves(name: str) -> None:
    (benchmark,) = benchmarks(name)
    assert benchmark.name == name
    assert benchmark.dataset.role == "test"
    assert benchmark.dataset.paired or benchmark.synthesis is not None


@pytest.mark.parametrize(
    ("group", "n"), [("aio3", 5), ("aio5", 5), ("seven", 12), ("mixed", 7), ("mixed_out", 7), ("cdd11", 11)]
)
def test_groups(group: str, n: int) -> None:
    assert len(benchmarks(group)) == len(set(GROUPS[group])) == n


def test_parts_of_cdd11() -> None:
    parts = [GROUPS[f"cdd11_{part}"] for part in ("single", "double", "triple")]
    assert [len(part) for part in parts] == [4, 5, 2]
    assert sum(parts, ()) == GROUPS["cdd11"]
    assert len(mixture("cdd11_all")) == 11


def test_counts_of_the_papers() -> None:
    expected = {
        "bsd400": 400, "wed": 4744, "cbsd68": 68, "urban100": 100, "kodak24": 24, "raintrainl": 200, "rain100l": 100,
        "rain100h": 100, "rain200l": 200, "rain200h": 200, "test1200": 1200, "test2800": 2800, "ots": 72135,
        "sots": 500, "gopro": 1111, "gopro_train": 2103, "lolv1_train": 485, "lolv1": 15, "lolv2_real_train": 689,
        "lolv2_real": 100, "snow100k_s": 16611, "snow100k_m": 16588, "snow100k_l": 16801, "live1": 29,
        "cdd11_train_low": 1183, "cdd11_low_haze_snow": 200, "div2k_train": 800, "div2k_valid_x4": 100,
        "flickr2k_x2": 2650, "set5": 5, "set14_x3": 14, "b100": 100, "manga109": 109, "rain100h_first25": 25,
    }  # fmt: skip
    assert {name: DATASETS[name].counts for name in expected} == {name: (n,) for name, n in expected.items()}
    assert DATASETS["raintrainh"].counts == (1800, 1254)


def test_table_is_consistent() -> None:
    for name, dataset in DATASETS.items():
        assert name == dataset.name == name.lower()
        layouts = list(dataset.layouts())
        assert len(layouts) == len(set(layouts)), name
        assert all((layout.input is None) != dataset.paired for layout in layouts)
        assert dataset.source.get
    for benchmark in BENCHMARKS.values():
        assert set(benchmark.types) <= set(TYPES)
        if benchmark.synthesis:
            parse(benchmark.synthesis.spec)
    for members in GROUPS.values():
        assert set(members) <= set(BENCHMARKS)
    for parts in MIXTURES.values():
        assert all(DATASETS[part.dataset].role == "train" for part in parts)
    for overlap in OVERLAPS:
        assert {overlap.train, *overlap.test} <= set(DATASETS)


def test_no_folder_is_claimed_by_two_sets() -> None:
    owners: dict[tuple[str | None, str], str] = {}
    for dataset in DATASETS.values():
        for layout in dataset.layouts():
            key = ((layout.input or "").lower(), layout.target.lower())
            assert owners.setdefault(key, dataset.name) == dataset.name, layout


def test_what_is_added() -> None:
    (noisy,) = benchmarks("cbsd68_s25")
    assert noisy.synthesis == Synthesis("noise", 25)
    (small,) = benchmarks("set5_lr4_noise30")
    assert (small.scale, small.dataset.name, small.types) == (4, "set5_x4", ("noise",))
    (mixed,) = benchmarks("mixed_out_ll_h_n_r")
    assert mixed.synthesis == Synthesis("LL-H-N-R", "outside")
    assert mixed.types == ("lowlight", "noise", "rain", "haze")
    (three,) = benchmarks("cdd11_low_haze_rain")
    assert three.types == ("lowlight", "haze", "rain")


def test_training_mixture_of_the_paper() -> None:
    parts = {(part.dataset, part.synthesis and part.synthesis.level): part.repeat for part in mixture("aio5")}
    assert parts[("raintrainl", None)] == 120
    assert parts[("wed", 50)] == parts[("bsd400", 15)] == 3
    assert parts[("lolv1_train", None)] == 20
    assert {d.name for d in sets_of(["aio3_train"])} == {"bsd400", "wed", "raintrainl", "ots"}


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="cbsd68_s25"):
        benchmarks("cbsd68_s26")
    with pytest.raises(UnknownNameError, match="benchmarks on it: cbsd68_s15"):
        benchmarks("cbsd68")
    with pytest.raises(UnknownNameError, match="aio3"):
        mixture("aio4")


def test_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "datasets.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run: python -m moir.datasets.guide > docs/datasets.md"
