"""Noise: Gaussian (the benchmarks'), Poisson (photon counting), and two forms of a camera's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from moir.degrade.base import Params, check_batch, new_seed, pick_kind, register_params, uniform
from moir.degrade.fields import seeded
from moir.degrade.sensor import calibration, sensor_noise, to_display, to_linear
from moir.degrade.severity import draw

GAMMA = 2.2
"""Display exponent used to go to linear light; the exact sRGB curve makes no visible difference to noise."""


@register_params
@dataclass(frozen=True)
class NoiseParams(Params):
    """Parameters of noise.

    Attributes:
        sigma: Standard deviation at mid-grey (0.5), in 8-bit levels, whatever the kind.
        shot: ``iso`` and ``sensor``: share of the variance at mid-grey that comes from photon noise, 0..1.
        grain: ``iso`` and ``sensor``: 0 gives white noise, 1 noise smoothed as by demosaicing and in-camera filtering.
        chroma: ``iso`` only: 1 gives independent channels, 0 the same noise in all three.
        gains: ``sensor`` only: relative strength in red, green and blue.
        blotch: ``sensor`` only: size of the patches of the colour noise, pixels; see :mod:`moir.degrade.sensor`.
        sharpen: ``sensor`` only: strength of the sharpening that the noise has passed, 0..1.
        calibration: ``iso`` and ``sensor``: factor on the noise in linear light that makes ``sigma`` true for strong
            noise too. 1 in old records: there the deviation is up to 21% above ``sigma``.
    """

    type: ClassVar[str] = "noise"
    kinds: ClassVar[tuple[str, ...]] = ("gaussian", "poisson", "iso", "sensor")
    severity_field: ClassVar[str] = "sigma"

    sigma: float
    shot: float = 0.0
    grain: float = 0.0
    chroma: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blotch: float = 0.0
    sharpen: float = 0.0
    calibration: float = 1.0


class Noise:
    """y = x + n. Gaussian colour noise, Poisson noise, or a camera's noise in linear light.

    A severity given as a number, with no kind, means Gaussian noise: ``noise=25`` is what the benchmarks call sigma 25.
    """

    type = "noise"
    kinds = NoiseParams.kinds
    weights: ClassVar[dict[str, float]] = {"gaussian": 0.45, "poisson": 0.1, "iso": 0.15, "sensor": 0.3}

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> NoiseParams:
        """See :class:`moir.degrade.base.Degradation`."""
        if kind is None and not isinstance(level, str):
            kind = "gaussian"
        kind = pick_kind(kind, self.weights, self.type, generator)
        sigma, seed = draw(self.type, level, generator), new_seed(generator)
        if kind in ("gaussian", "poisson"):
            return NoiseParams(kind, seed, sigma)
        shot, grain, chroma = (uniform(generator, low, high) for low, high in ((0.85, 0.99), (0, 1), (0.4, 1)))
        if kind == "iso":
            return NoiseParams(kind, seed, sigma, shot, grain, chroma, calibration=calibration(sigma / 255, GAMMA))
        return NoiseParams(
            kind,
            seed,
            sigma,
            shot=shot,
            grain=grain if uniform(generator, 0, 1) < 0.7 else 0.0,
            gains=(uniform(generator, 1, 1.9), 1.0, uniform(generator, 1, 1.7)),
            # Patches are what a camera's filter leaves of the colour noise; where noise is strong, there was no filter.
            blotch=uniform(generator, 0.5, 1.4) if uniform(generator, 0, 1) < (0.5 if sigma < 25 else 0.2) else 0.0,
            sharpen=uniform(generator, 0, 0.8) if uniform(generator, 0, 1) < 0.5 else 0.0,
            calibration=calibration(sigma / 255, None),
        )

    def apply(self, images: torch.Tensor, params: Sequence[Params]) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`."""
        records = check_batch(images, params, NoiseParams)
        return torch.stack([self._one(x, p) for x, p in zip(images, records, strict=True)]).clamp(0, 1)

    def _one(self, x: torch.Tensor, p: NoiseParams) -> torch.Tensor:
        generator = seeded(p.seed, x.device)
        sigma = p.sigma / 255
        if p.kind == "gaussian":
            return x + sigma * torch.randn(x.shape, generator=generator, device=x.device)
        if p.kind == "poisson":
            # The variance x / peak equals sigma ** 2 at x = 0.5. (Below a fortieth of a level there is no noise to see,
            # and CUDA's 32-bit counts would overflow.)
            peak = 0.5 / max(sigma, 1e-4) ** 2
            return torch.poisson(x * peak, generator=generator) / peak
        sigma = sigma * p.calibration
        if p.kind == "iso":
            return iso_noise(x, sigma, p.shot, p.grain, p.chroma, generator)
        noisy = sensor_noise(to_linear(x), sigma, p.shot, p.gains, p.grain, p.blotch, p.sharpen, generator)
        return to_display(noisy)


def iso_noise(
    x: torch.Tensor, sigma: float, shot: float, grain: float, chroma: float, generator: torch.Generator
) -> torch.Tensor:
    """A camera's noise: photon and read noise in linear light, correlated between neighbours and channels.

    The Poisson-Gaussian model of Foi et al. (2008), var = a * linear + b, with a and b chosen so that the standard
    deviation at mid-grey, back in display values, is ``sigma`` to first order (measured: 2% more at 10 levels,
    17% more at 25, since the curve of the display bends over so wide a noise; :func:`moir.degrade.sensor.calibration`
    gives the factor that makes it true).

    Args:
        x: (3, H, W), [0, 1].
        sigma: Standard deviation at mid-grey, [0, 1] scale.
        shot, grain, chroma: See :class:`NoiseParams`.
        generator: Source of randomness, on the device of ``x``.
    """
    field = torch.randn(x.shape, generator=generator, device=x.device)
    common = torch.randn(x.shape[-2:], generator=generator, device=x.device)
    field = (chroma**0.5) * field + ((1 - chroma) ** 0.5) * common
    if grain > 0 and min(x.shape[-2:]) > 1:
        tap = torch.tensor([0.25, 0.5, 0.25], device=x.device)
        kernel = (tap[:, None] * tap[None])[None, None].expand(3, 1, 3, 3)
        smooth = F.conv2d(F.pad(field[None], (1, 1, 1, 1), mode="replicate"), kernel, groups=3)[0]
        # Rescaled so that sigma still means the standard deviation: the smoothed field has variance (3/8)**2, and its
        # covariance with the white one is the centre tap, 1/4.
        white = 1 - grain
        field = (white * field + grain * smooth) / (
            white**2 + 2 * white * grain * 0.25 + grain**2 * (3 / 8) ** 2
        ) ** 0.5
    linear = x**GAMMA
    middle = 0.5**GAMMA
    slope = middle ** (1 / GAMMA - 1) / GAMMA  # d display / d linear at mid-grey
    deviation = (sigma / slope) * (shot * linear / middle + (1 - shot)).sqrt()
    return (linear + deviation * field).clamp_min(0) ** (1 / GAMMA)
