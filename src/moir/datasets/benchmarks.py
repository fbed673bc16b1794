"""The names of ``moir evaluate --benchmark``: which set each means, and which damage is added to its pictures."""

from dataclasses import dataclass

from moir.base.errors import UnknownNameError
from moir.base.names import check_name
from moir.datasets.entry import DataSet
from moir.datasets.table import DATASETS, composite
from moir.degrade import MIXES


@dataclass(frozen=True)
class Synthesis:
    """Damage that is added to the input (or, in sets of clean pictures, to the target).

    The exact recipe (order of random numbers, truncation to 8 bits) belongs to the evaluation protocol.

    Attributes:
        type: A degradation type, or a mix of the UniRestorer paper.
        level: The severity (noise: sigma in 8-bit levels; jpeg: quality), or ``inside`` / ``outside``, the published
            in- and out-of-distribution ranges.
    """

    type: str
    level: float | str

    @property
    def spec(self) -> str:
        """The same for ``moir degrade --with``.

        Examples:
            >>> Synthesis("noise", 25).spec, Synthesis("LL-H-N-R", "inside").spec
            ('noise:gaussian=25', 'LL-H-N-R=inside')
        """
        if isinstance(self.level, str):
            return f"{self.type}={self.level}"
        kind = {"noise": ":gaussian"}.get(self.type, "")
        return f"{self.type}{kind}={self.level:g}"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: The name.
        dataset: Where the pictures come from.
        types: The degradation types that are in the input, in the order of application.
        synthesis: What is added; None if the inputs come with the set as they are.
    """

    name: str
    dataset: DataSet
    types: tuple[str, ...]
    synthesis: Synthesis | None = None

    @property
    def scale(self) -> int:
        """How many times larger the target is than the input."""
        return self.dataset.scale


NOISE_LEVELS = (15, 25, 30, 50)
JPEG_QUALITIES = (10, 20, 30, 40)
CLASSIC = ("set5", "set14", "urban100", "b100", "manga109")
"""The sets of AdaptIR's low-resolution tasks, in the order in which its protocol visits them."""
_CDD11_TYPES = {"low": "lowlight", "haze": "haze", "rain": "rain", "snow": "snow"}
_RAIN = ("rain100l", "rain100h", "rain100h_first25", "rain200l", "rain200h", "test1200", "test2800", "lhp")
_AS_THEY_ARE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_RAIN, ("rain",)),
    "sots": ("haze",),
    **dict.fromkeys(("snow100k_s", "snow100k_m", "snow100k_l", "realsnow"), ("snow",)),
    "gopro": ("blur",),
    **dict.fromkeys(("lolv1", "lolv2_real"), ("lowlight",)),
    **{f"cdd11_{kind}": tuple(_CDD11_TYPES[word] for word in kind.split("_")) for kind in composite.ALL},
}


def _made(name: str, dataset: str, type_: str, level: float | str) -> Benchmark:
    return Benchmark(name, DATASETS[dataset], MIXES.get(type_, (type_,)), Synthesis(type_, level))


def _low_resolution(name: str) -> list[Benchmark]:
    plain = [Benchmark(f"{name}_sr_{s}", DATASETS[f"{name}_x{s}"], ()) for s in (2, 3, 4)]
    return [
        *plain,
        _made(f"{name}_lr4_noise30", f"{name}_x4", "noise", 30),
        _made(f"{name}_lr4_jpeg30", f"{name}_x4", "jpeg", 30),
    ]


def _mixed(level: str, prefix: str) -> list[Benchmark]:
    return [_made(prefix + mix.lower().replace("-", "_"), "div2k_valid", mix, level) for mix in MIXES]


_MIXED, _MIXED_OUT = _mixed("inside", "mixed_"), _mixed("outside", "mixed_out_")
_ALL = [
    *(_made(f"{s}_s{n}", s, "noise", n) for s in ("cbsd68", "kodak24", "urban100") for n in NOISE_LEVELS),
    *(_made(f"live1_q{q}", "live1", "jpeg", q) for q in JPEG_QUALITIES),
    *(Benchmark(name, DATASETS[name], types) for name, types in _AS_THEY_ARE.items()),
    *(benchmark for name in CLASSIC for benchmark in _low_resolution(name)),
    *_MIXED,
    *_MIXED_OUT,
]
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
"""Every benchmark by name."""

_CBSD68 = ("cbsd68_s15", "cbsd68_s25", "cbsd68_s50")
GROUPS: dict[str, tuple[str, ...]] = {
    "aio3": ("sots", "rain100l", *_CBSD68),
    "aio5": ("sots", "rain100l", "cbsd68_s25", "gopro", "lolv1"),
    "seven": (
        "rain100l", "sots", *_CBSD68, "gopro", "lolv1", "snow100k_l", *(f"live1_q{q}" for q in JPEG_QUALITIES),
    ),
    "mixed": tuple(benchmark.name for benchmark in _MIXED),
    "mixed_out": tuple(benchmark.name for benchmark in _MIXED_OUT),
    "real": ("lhp", "lolv2_real", "realsnow"),
    "cdd11": tuple(f"cdd11_{kind}" for kind in composite.ALL),
    "cdd11_single": tuple(f"cdd11_{kind}" for kind in composite.SINGLE),
    "cdd11_double": tuple(f"cdd11_{kind}" for kind in composite.DOUBLE),
    "cdd11_triple": tuple(f"cdd11_{kind}" for kind in composite.TRIPLE),
    **{
        task: tuple(f"{name}_{task}" for name in CLASSIC)
        for task in ("sr_2", "sr_3", "sr_4", "lr4_noise30", "lr4_jpeg30")
    },
    **{f"denoise_{sigma}": (f"urban100_s{sigma}",) for sigma in (25, 30, 50)},
    "derainL": ("rain100l",),
    "derainH": ("rain100h",),
    "low_light": ("lolv1",),
}  # fmt: skip
"""Groups of benchmarks: of MoCE-IR (aio3, aio5, cdd11), of UniRestorer (seven, mixed, mixed_out, real), and of
each task of AdaptIR, under its name."""


def benchmarks(name: str) -> tuple[Benchmark, ...]:
    """Return the benchmarks that a name means: one, or those of a group.

    Raises:
        UnknownNameError: Neither a benchmark nor a group; the message gives near misses.

    Examples:
        >>> [b.name for b in benchmarks("aio5")]
        ['sots', 'rain100l', 'cbsd68_s25', 'gopro', 'lolv1']
    """
    if name in GROUPS:
        return tuple(BENCHMARKS[member] for member in GROUPS[name])
    if name not in BENCHMARKS and name in DATASETS:
        own = [b.name for b in BENCHMARKS.values() if b.dataset.name == name]
        hint = f"; benchmarks on it: {', '.join(own)}" if own else ""
        raise UnknownNameError(f"{name!r} is a data set without a benchmark of its own{hint}")
    return (BENCHMARKS[check_name(name, (*BENCHMARKS, *GROUPS), "benchmark")],)
