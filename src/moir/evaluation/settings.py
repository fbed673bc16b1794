"""What is scored: benchmarks on disk, folders of pairs, and damage made here from clean pictures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from moir import datasets, degrade
from moir.base.errors import InvalidValueError
from moir.base.names import TYPES, check_name
from moir.datasets import BENCHMARKS, DATASETS, GROUPS, Benchmark, FolderMissingError, Pair, PairedSet, Synthesis
from moir.datasets.folders import Tree
from moir.evaluation.noise import NoiseSource, add_noise, jpeg, seed_of
from moir.evaluation.protocols import Protocol

CLEAN_SOURCE = "div2k_valid"
"""The set whose clean pictures the UniRestorer paper damages; a folder of one's own can stand for it."""


class Sample(NamedTuple):
    """One picture, ready to be restored and scored.

    Attributes:
        name: Unique in its setting.
        input: (3, H, W) float32, [0, 1], damaged.
        target: (3, sH, sW), clean; s is the scale of the setting.
        whole: Height and width of the target before the protocol's cut, pixels.
        damage: The parameters of the damage that was made here.
    """

    name: str
    input: torch.Tensor
    target: torch.Tensor
    whole: tuple[int, int]
    damage: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Setting:
    """One row of a table: pictures, and what is done to them.

    Attributes:
        name: Name of the benchmark or setting.
        files: The files; nothing is decoded until :meth:`sample`.
        types: Degradation types in the inputs.
        synthesis: Noise or JPEG as a benchmark defines it.
        spec: Damage in the words of :func:`moir.degrade.parse`, or ``clean`` for none; None if the set has inputs, or
            there is a ``synthesis``.
        source: The data set or folder that the pictures come from.
    """

    name: str
    files: PairedSet = field(repr=False)
    types: tuple[str, ...] = ()
    synthesis: Synthesis | None = None
    spec: str | None = None
    source: str = ""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def scale(self) -> int:
        """How many times larger the target is than the input."""
        return self.files.scale

    @property
    def made(self) -> str | None:
        """What damage is made here, in words; None if the inputs come with the set."""
        return self.spec or (self.synthesis.spec if self.synthesis else None)

    def sample(self, pair: Pair, protocol: Protocol, noise: NoiseSource) -> Sample:
        """Decode a pair, cut it as the protocol says, and make the damage.

        The damage depends on the setting's name, the picture's name and the seed alone (but see
        :class:`moir.evaluation.noise.NoiseSource`), and is stored in 8 bit (but see ``Protocol.noise``).

        Raises:
            DatasetError: A picture cannot be read, or the sizes of a pair do not fit.
            TensorShapeError: The picture is too small for the protocol.
        """
        example = self.files.load(pair)
        source, target = example.input, example.target
        whole = (target.shape[-2], target.shape[-1])
        if self.scale == 1:
            target = protocol.cut(target)
            source = target if source is None else protocol.cut(source)
        elif source is None:
            raise InvalidValueError(f"{self.name}: targets are {self.scale} times larger, but there are no inputs")
        damaged, records = self._damage(source, pair.name, protocol, noise)
        return Sample(pair.name, damaged, target, whole, records)

    def _damage(
        self, source: torch.Tensor, image: str, protocol: Protocol, noise: NoiseSource
    ) -> tuple[torch.Tensor, tuple[dict[str, Any], ...]]:
        made = self.synthesis
        if made is not None and made.type == "noise":
            sigma = float(made.level)
            numbers = noise.draw((*source.shape[1:], 3), self.name, image, sigma)
            truncate = protocol.noise == "truncated" or self.scale != 1
            return add_noise(source, sigma, numbers, truncate=truncate), ()
        if made is not None:
            return jpeg(source, int(made.level), swapped=self.scale != 1), ()
        if self.spec is None or self.spec == "clean":
            return source, ()
        params = self.drawn(image, noise.seed)
        damaged = degrade.quantise(degrade.apply(source[None], [params])[0])
        return damaged, tuple(p.to_json() for p in params)

    def drawn(self, image: str, seed: int) -> tuple[degrade.Params, ...]:
        """The parameters of the damage of a picture; none where the damage is not drawn by :mod:`moir.degrade`.

        Args:
            image: The picture's name.
            seed: Of the evaluation.
        """
        if self.spec is None or self.spec == "clean":
            return ()
        generator = torch.Generator().manual_seed(seed_of(self.name, image, self.spec, seed))
        return tuple(degrade.parse(self.spec).sample(generator))


def _single(level: str, prefix: str) -> dict[str, Benchmark]:
    return {
        prefix + type_: Benchmark(prefix + type_, DATASETS[CLEAN_SOURCE], (type_,), Synthesis(type_, level))
        for type_ in TYPES
    }


SYNTHESISED: dict[str, Benchmark] = {
    **_single("inside", "single_"),
    **_single("outside", "single_out_"),
    **{name: BENCHMARKS[name] for group in ("mixed", "mixed_out") for name in GROUPS[group]},
}
"""The seven single and seven mixed settings of the UniRestorer paper, in- and out-of-distribution, from clean pictures.

(Its own single settings are the published sets: the group ``seven``. These need no download.)
"""

SETTING_GROUPS: dict[str, tuple[str, ...]] = {
    **GROUPS,
    "single": tuple(_single("inside", "single_")),
    "single_out": tuple(_single("outside", "single_out_")),
}
"""Groups of settings: those of the data sets, ``single`` and ``single_out``."""

SPECIAL = ("pairs", "synthetic")
"""Settings on folders of one's own: of pairs, and of clean pictures with damage of one's choice."""


@dataclass(frozen=True)
class Sources:
    """Where pictures come from.

    Attributes:
        root: The data root of the benchmarks.
        clean: Folders of clean pictures, for ``synthetic`` and instead of DIV2K for ``single*`` and ``mixed*``.
        specs: Damage for ``synthetic``, in the words of :func:`moir.degrade.parse`, or ``clean``.
        input, target: Folders of damaged and clean pictures, for ``pairs``.
    """

    root: Path | None = None
    clean: tuple[Path, ...] = ()
    specs: tuple[str, ...] = ()
    input: Path | None = None
    target: Path | None = None


def expand(names: Sequence[str]) -> list[str]:
    """The names of single settings that names, groups and comma-separated lists of them mean, each once, in order.

    Raises:
        UnknownNameError: No such setting; the message gives near misses.

    Examples:
        >>> expand(["cbsd68_s15,cbsd68_s25", "aio5"])
        ['cbsd68_s15', 'cbsd68_s25', 'sots', 'rain100l', 'gopro', 'lolv1']
    """
    found: dict[str, None] = {}
    for name in (part.strip() for text in names for part in text.split(",")):
        if name in SETTING_GROUPS:
            found.update(dict.fromkeys(SETTING_GROUPS[name]))
        elif name in SYNTHESISED or name in SPECIAL:
            found[name] = None
        elif name in BENCHMARKS or name in DATASETS:
            found.update(dict.fromkeys(b.name for b in datasets.benchmarks(name)))
        elif name:
            found[check_name(name, (*BENCHMARKS, *SYNTHESISED, *SETTING_GROUPS, *SPECIAL), "benchmark")] = None
    if not found:
        raise InvalidValueError("no benchmark was named; for example cbsd68_s25, aio3, mixed, pairs or synthetic")
    return list(found)


def settings(name: str, sources: Sources) -> list[Setting]:
    """Find the pictures of a setting.

    Args:
        name: One name of :func:`expand`. ``synthetic`` gives a setting for each damage.
        sources: Where to look.

    Raises:
        DatasetError: The pictures are not there, or are not whole; see :func:`moir.datasets.find`.
        InvalidValueError: A folder or damage that this setting needs was not given.
    """
    if name == "pairs":
        if sources.input is None or sources.target is None:
            raise InvalidValueError("pairs needs two folders: --input with damaged, --target with clean pictures")
        found = datasets.pairs(sources.input, sources.target)
        return [Setting("pairs", found, source=f"{sources.input.name} and {sources.target.name}")]
    if name == "synthetic":
        if not sources.clean or not sources.specs:
            raise InvalidValueError("synthetic needs --clean DIR and --with SPEC, such as 'rain=heavy,noise=25'")
        alone = len(sources.specs) == 1
        return [synthetic(sources.clean, spec, "synthetic" if alone else spec) for spec in sources.specs]
    if name in SYNTHESISED:
        benchmark = SYNTHESISED[name]
        assert benchmark.synthesis is not None
        if sources.clean:
            return [synthetic(sources.clean, benchmark.synthesis.spec, name)]
        try:
            found = datasets.find(CLEAN_SOURCE, _root(name, sources))
        except FolderMissingError as error:
            raise FolderMissingError(f"{name}: {error}; or give any folder of clean pictures: --clean DIR") from error
        return [Setting(name, found, benchmark.types, spec=benchmark.synthesis.spec, source=CLEAN_SOURCE)]
    benchmark = BENCHMARKS[name]
    found = datasets.find(name, _root(name, sources))
    return [Setting(name, found, benchmark.types, benchmark.synthesis, source=benchmark.dataset.name)]


def synthetic(clean: Sequence[str | Path], spec: str, name: str = "synthetic") -> Setting:
    """A setting made from folders of clean pictures.

    Args:
        clean: The folders (not what lies in folders below them). With several, a picture's name begins with that of its
            folder.
        spec: Damage in the words of :func:`moir.degrade.parse`, or ``clean`` for none.
        name: Name of the setting, which the damage depends on too.

    Raises:
        FolderMissingError: A folder does not exist or holds no pictures.
        UnpairedError: Two pictures have one name.
        UnknownNameError, InvalidValueError: The damage is not understood.
    """
    types = () if spec == "clean" else tuple(t for t in degrade.ORDER if t in degrade.parse(spec).levels)
    files: dict[str, Path] = {}
    for folder in map(Path, clean):
        place = folder.expanduser()
        pictures = Tree(place).pictures(".") if place.is_dir() else []
        if not pictures:
            state = "holds no pictures" if place.is_dir() else "does not exist"
            raise FolderMissingError(f"{name}: clean folder {folder} {state}; give a folder with clean pictures")
        for _, path in pictures:
            image = path.stem if len(clean) == 1 else f"{place.resolve().name}/{path.stem}"
            if image in files:
                raise datasets.UnpairedError(
                    f"{name}: {files[image]} and {path} have one name, {image}; rename or remove one of them"
                )
            files[image] = path
    pairs = tuple(Pair(image, None, path) for image, path in files.items())
    source = ", ".join(Path(folder).expanduser().resolve().name for folder in clean)
    return Setting(name, PairedSet(name, pairs), types, spec=spec, source=source)


def fingerprint(setting: Setting) -> str:
    """What a score of this setting depends on besides the files: name, damage, scale; SHA-256."""
    return hashlib.sha256(f"{setting.name}\n{setting.made}\n{setting.scale}\n{setting.types}".encode()).hexdigest()


def _root(name: str, sources: Sources) -> Path:
    if sources.root is None:
        raise datasets.RootMissingError(
            f"{name} lies below a data root; give it with --data ROOT (docs/datasets.md has the layout)"
        )
    return sources.root
