"""What the standing table is made of: settings, which other methods stand beside the model, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from skimage.filters import gaussian
from skimage.util import random_noise

from moir import datasets, degrade
from moir.datasets import Pair, PairedSet
from moir.evaluation.noise import NoiseSource, jpeg, seed_of
from moir.evaluation.protocols import Protocol
from moir.evaluation.settings import Sample, Setting, Sources, settings

PHOTOGRAPHS = ("cid22_validation", "gb82")
"""Clean pictures that no shipped weights were trained on, and that are damaged here."""

LEFT_OUT = {"gb82/haze-lossless": "a photograph of real haze: a network that removes it is right, and would lose"}
"""Pictures that are no clean reference, with the reason."""

Damage = Callable[[torch.Tensor, int], torch.Tensor]
"""A clean picture (3, H, W) and a seed, to a damaged one."""


@dataclass(frozen=True)
class OtherCode(Setting):
    """Damage that neither moir.degrade nor a benchmark made.

    Attributes:
        damage: Makes it.
    """

    damage: Damage = lambda clean, seed: clean

    @property
    def made(self) -> str | None:
        """The damage, in words."""
        return self.name

    def sample(self, pair: Pair, protocol: Protocol, noise: NoiseSource) -> Sample:
        """See :meth:`moir.evaluation.settings.Setting.sample`; the result is rounded to 8 bit."""
        target = self.files.load(pair).target
        clean = protocol.cut(target)
        damaged = degrade.quantise(self.damage(clean, seed_of(self.name, pair.name, noise.seed)))
        return Sample(pair.name, damaged, clean, (target.shape[-2], target.shape[-1]))


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        title: Its heading.
        settings: Its rows.
        baselines: What stands beside the model.
    """

    title: str
    settings: tuple[Setting, ...]
    baselines: tuple[str, ...] = ()


def sections(root: Path) -> list[Section]:
    """All tables.

    Args:
        root: The data root with CBSD68, LIVE1, Rain100H_first25, cid22_validation and gb82; see docs/datasets.md.

    Raises:
        DatasetError: A set is not there.
    """
    photographs, few = _pictures(root, PHOTOGRAPHS), _pictures(root, PHOTOGRAPHS[-1:])

    def benchmarks(*names: str) -> tuple[Setting, ...]:
        return tuple(found for name in names for found in settings(name, Sources(root)))

    def other(type_: str, name: str, damage: Damage) -> Setting:
        types = (type_,) if type_ else ()
        return OtherCode(name, PairedSet(name, photographs), types, source=", ".join(PHOTOGRAPHS), damage=damage)

    def ranges(*types: str) -> tuple[Setting, ...]:
        specs = [f"{type_}={level}" for type_ in types for level in ("inside", "outside")]
        return tuple(_made(spec, photographs, PHOTOGRAPHS) for spec in specs)

    return [
        Section(
            "Noise",
            (
                *benchmarks("cbsd68_s15", "cbsd68_s25", "cbsd68_s50"),
                other("noise", "skimage Gaussian noise, sigma 25", _noise("gaussian", var=(25 / 255) ** 2)),
                other("noise", "skimage Poisson noise", _noise("poisson")),
                other("noise", "skimage speckle, variance 0.02", _noise("speckle", var=0.02)),
                *ranges("noise"),
            ),
            ("nlm", "wavelet", "tv", "median"),
        ),
        Section(
            "JPEG",
            (
                *benchmarks("live1_q10", "live1_q20", "live1_q30", "live1_q40"),
                other("jpeg", "Pillow JPEG, quality 15", lambda clean, seed: jpeg(clean, 15)),
                other("jpeg", "Pillow JPEG, quality 50", lambda clean, seed: jpeg(clean, 50)),
                *ranges("jpeg"),
            ),
            ("deblock", "tv"),
        ),
        Section("Rain and snow", (*benchmarks("rain100h_first25"), *ranges("rain", "snow")), ("median",)),
        Section("Haze", ranges("haze"), ("dark_channel", "clahe")),
        Section(
            "Blur",
            (
                other("blur", "skimage Gaussian blur, sigma 1", _blur(1)),
                other("blur", "skimage Gaussian blur, sigma 2", _blur(2)),
                *ranges("blur"),
            ),
            ("wiener", "richardson_lucy"),
        ),
        Section("Low light", ranges("lowlight"), ("gamma", "clahe")),
        Section("Mixes of the UniRestorer paper", ranges(*degrade.MIXES), ("dark_channel",)),
        Section(
            "Clean pictures, which should stay as they are",
            (other("", "clean", lambda clean, seed: clean),),
            (
                "nlm",
                "wavelet",
                "tv",
                "median",
                "deblock",
                "dark_channel",
                "clahe",
                "gamma",
                "wiener",
                "richardson_lucy",
            ),
        ),
        Section(
            "By degree",
            tuple(
                _made(f"{type_}={degree}", few, PHOTOGRAPHS[-1:])
                for type_ in degrade.ORDER
                for degree in ("light", "medium", "heavy")
            ),
        ),
    ]


def origin(setting: Setting) -> str:
    """Who made the damage: ``benchmark``, ``other code`` or ``moir degrade``."""
    if isinstance(setting, OtherCode):
        return "other code"
    return "moir degrade" if setting.spec else "benchmark"


def _pictures(root: Path, sets: Sequence[str]) -> tuple[Pair, ...]:
    return tuple(
        Pair(f"{name}/{pair.name}", None, pair.target) for name in sets for pair in datasets.find(name, root).pairs
    )


def _made(spec: str, pictures: tuple[Pair, ...], sets: Sequence[str]) -> Setting:
    types = tuple(type_ for type_ in degrade.ORDER if type_ in degrade.parse(spec).levels)
    return Setting(spec, PairedSet(spec, pictures), types, spec=spec, source=", ".join(sets))


def _noise(mode: str, **options: float) -> Damage:
    def damage(clean: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.from_numpy(random_noise(clean.numpy(), mode=mode, rng=seed, **options)).float()

    return damage


def _blur(sigma: float) -> Damage:
    def damage(clean: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.from_numpy(gaussian(clean.numpy(), sigma, channel_axis=0)).float()

    return damage
