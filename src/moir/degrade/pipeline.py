"""Several degradations on one picture, in the order of the UniRestorer paper, and the named mixes of its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.degrade.base import Degradation, Params, check_map, check_pictures, choose, new_seed, uniform
from moir.degrade.blur import Blur
from moir.degrade.haze import Haze
from moir.degrade.jpeg import SUBSAMPLINGS, Jpeg, JpegParams
from moir.degrade.lowlight import LowLight
from moir.degrade.noise import Noise
from moir.degrade.rain import Rain
from moir.degrade.snow import Snow

ORDER: tuple[str, ...] = ("lowlight", "blur", "noise", "rain", "snow", "haze", "jpeg")
"""UniRestorer: low light, blur, noise, rain, snow, haze; JPEG comes after everything, as in a camera or on the web."""

MIXES: dict[str, tuple[str, ...]] = {
    "H-R": ("rain", "haze"),
    "H-N": ("noise", "haze"),
    "H-N-R": ("noise", "rain", "haze"),
    "LL-H-N-R": ("lowlight", "noise", "rain", "haze"),
    "LL-H-N-S": ("lowlight", "noise", "snow", "haze"),
    "LL-H-N-B-R": ("lowlight", "blur", "noise", "rain", "haze"),
    "LL-H-N-B-S": ("lowlight", "blur", "noise", "snow", "haze"),
}
"""The seven mixed settings of the UniRestorer paper, in the order of application."""

_DEGRADATIONS: dict[str, Degradation] = {
    "noise": Noise(),
    "rain": Rain(),
    "haze": Haze(),
    "snow": Snow(),
    "blur": Blur(),
    "lowlight": LowLight(),
    "jpeg": Jpeg(),
}


def degradation(type_: str) -> Degradation:
    """The degradation of a type name.

    Raises:
        UnknownNameError: Not a degradation type.
    """
    return _DEGRADATIONS[check_name(type_, _DEGRADATIONS, "degradation type")]


def sample(
    wanted: Mapping[str, str | float],
    generator: torch.Generator,
    kinds: Mapping[str, str] | None = None,
    *,
    snow_masks: str | Path | None = None,
) -> list[Params]:
    """Draw the parameters of several degradations, in the order in which they act.

    Args:
        wanted: Degradation type to degree, ``inside``, ``outside`` or severity.
        generator: Source of randomness.
        kinds: Degradation type to kind, where it shall not be drawn.
        snow_masks: Folder of mask pictures for snow of the kind ``mask``; see :class:`moir.degrade.snow.Snow`.

    Raises:
        UnknownNameError: An unknown type, kind or level.
        InvalidValueError: A severity out of range.
        PictureNotFoundError: Snow of the kind ``mask`` without a folder of masks.
    """
    chosen = kinds or {}
    for type_ in (*wanted, *chosen):
        check_name(type_, ORDER, "degradation type")
    steps: dict[str, Degradation] = {**_DEGRADATIONS, "snow": Snow(snow_masks)}
    return [steps[t].sample(wanted[t], generator, chosen.get(t)) for t in ORDER if t in wanted]


def apply(
    images: torch.Tensor,
    params: Sequence[Sequence[Params]],
    *,
    depth: torch.Tensor | None = None,
    illumination: torch.Tensor | None = None,
) -> torch.Tensor:
    """Damage a batch, each picture with its own list of degradations.

    Degradations act in the order of :data:`ORDER` whatever the order of the lists; pictures that share a type are
    processed together. Values are clipped to [0, 1] after every step.

    Args:
        images: (B, 3, H, W), float32, [0, 1].
        params: For each picture its parameter records; an empty list leaves it as it is.
        depth: (B, H, W), real depth maps for haze; None: procedural ones. See :meth:`moir.degrade.haze.Haze.apply`.
        illumination: (B, H, W), illumination maps for low light; None: computed from the pictures.

    Returns:
        (B, 3, H, W), float32, [0, 1].

    Raises:
        TensorShapeError: Pictures or maps of the wrong shape or type, or not one list for each picture.
        InvalidValueError: Two records of one type for one picture.
    """
    check_pictures(images, len(params))
    depth = None if depth is None else check_map(depth, images, "depth")
    illumination = None if illumination is None else check_map(illumination, images, "illumination")
    out = images.clone()
    # Under mixed precision the matrix products of JPEG would lose the digits that it rounds to.
    with torch.autocast(images.device.type, enabled=False):
        for type_ in ORDER:
            found = [(i, p) for i, records in enumerate(params) for p in records if p.type == type_]
            if not found:
                continue
            index = [i for i, _ in found]
            if len(set(index)) < len(index):
                raise InvalidValueError(f"a picture has two records of {type_}; give one, or apply twice")
            step, chosen = degradation(type_), [p for _, p in found]
            if isinstance(step, Haze) and depth is not None:
                out[index] = step.apply(out[index], chosen, depth[index])
            elif isinstance(step, LowLight) and illumination is not None:
                out[index] = step.apply(out[index], chosen, illumination[index])
            else:
                out[index] = step.apply(out[index], chosen)
    return out


def quantise(images: torch.Tensor) -> torch.Tensor:
    """Round to 8 bit, as a file would: (x * 255) to the nearest integer, / 255."""
    return (images * 255).round() / 255


@dataclass(frozen=True)
class Pipeline:
    """Draws what is wrong with a training picture.

    Attributes:
        clean: Probability of no damage at all.
        single: Probability of exactly one degradation, drawn with ``types`` as weights.
        named: Probability of one of the named mixes of the paper.
        types: Weight of each degradation type.
        gate: Otherwise every type passes its own gate with this probability (all closed: one type is drawn).
        levels: Weight of each degree (or ``inside`` / ``outside``).
        stored: Probability that a picture without JPEG damage has nevertheless been stored as a good JPEG file, as
            nearly all photographs are; see :meth:`storage`.
    """

    clean: float = 0.06
    single: float = 0.6
    named: float = 0.14
    types: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(ORDER, 1.0))
    gate: float = 0.3
    levels: Mapping[str, float] = field(default_factory=lambda: {"light": 1.0, "medium": 1.0, "heavy": 1.0})
    stored: float = 0.4

    def sample(self, generator: torch.Generator) -> list[Params]:
        """The parameters of one picture, in the order in which they act; empty for a clean one."""
        place = uniform(generator, 0, 1)
        types: tuple[str, ...]
        if place < self.clean:
            return []
        if place < self.clean + self.single:
            types = (choose(generator, dict(self.types)),)
        elif place < self.clean + self.single + self.named:
            mixes = {name: 1.0 for name, mix in MIXES.items() if all(self.types.get(t, 0) > 0 for t in mix)}
            types = MIXES[choose(generator, mixes)] if mixes else (choose(generator, dict(self.types)),)
        else:
            open_ = [t for t in ORDER if self.types.get(t, 0) > 0 and uniform(generator, 0, 1) < self.gate]
            types = tuple(open_) or (choose(generator, dict(self.types)),)
        return sample({t: choose(generator, dict(self.levels)) for t in types}, generator)

    def storage(self, params: Sequence[Params], generator: torch.Generator) -> list[Params]:
        """The file that a damaged picture was stored in: mild JPEG after everything, or nothing.

        It is no damage to be named or removed, so it stands beside what :meth:`sample` draws: append it to the records
        of the network's input, and leave it out of the labels. Quality is 60 to 95 (own; half above 82). A picture
        without damage gets 90 to 97, milder than the mildest labelled damage, so that "clean" stays true.

        Args:
            params: What :meth:`sample` has drawn.
            generator: Source of randomness.

        Returns:
            One record of type ``jpeg``, or an empty list (always if ``params`` has JPEG already).
        """
        if uniform(generator, 0, 1) >= self.stored or any(p.type == "jpeg" for p in params):
            return []
        place = uniform(generator, 0, 1)
        quality = 95 - 35 * place**1.5 if params else 90 + 7 * place
        return [JpegParams("baseline", new_seed(generator), float(round(quality)), choose(generator, SUBSAMPLINGS))]
