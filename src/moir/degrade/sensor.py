"""A camera's noise, as it looks after the camera's own processing; shared by noise and low light.

Photon and read noise arise in linear light (the Poisson-Gaussian model of Foi et al. 2008: var = a * linear + b). The
camera then amplifies each channel (white balance), interpolates its colour mosaic and filters noise, which leaves
patches in the colours more than in the brightness, sharpens, and encodes for the display.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

MIDDLE = 0.5
"""Mid-grey, display value: where the deviation of noise is stated."""


def to_linear(display: torch.Tensor) -> torch.Tensor:
    """Display values to linear light, both [0, 1] (IEC 61966-2-1)."""
    return torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055).pow(2.4))


def to_display(linear: torch.Tensor) -> torch.Tensor:
    """Linear light to display values; the inverse of :func:`to_linear`. Negative values become 0."""
    linear = linear.clamp_min(0)
    return torch.where(linear <= 0.0031308, linear * 12.92, linear.clamp_min(1e-4).pow(1 / 2.4) * 1.055 - 0.055)


def _display(linear: float, power: float | None) -> float:
    linear = max(linear, 0.0)
    if power is not None:
        return float(linear ** (1 / power))
    return float(linear * 12.92 if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


def middle_of(power: float | None) -> tuple[float, float]:
    """Mid-grey in linear light, and the slope of the display curve there.

    Args:
        power: The curve is ``linear ** (1 / power)``; None: that of sRGB.
    """
    if power is not None:
        linear = float(MIDDLE**power)
        return linear, float(linear ** (1 / power - 1) / power)
    linear = ((MIDDLE + 0.055) / 1.055) ** 2.4
    return linear, 1.055 / 2.4 * linear ** (1 / 2.4 - 1)


def calibration(sigma: float, power: float | None) -> float:
    """Factor on the linear noise so that the deviation at mid-grey, in display values, is what is asked for.

    To first order the factor is 1. It is not for strong noise, since the display curve bends over so wide a range and
    light is never negative: uncorrected, 30 levels come out as 36.

    Args:
        sigma: Deviation asked for, [0, 1] scale.
        power: See :func:`middle_of`.
    """
    # Every half level is exact enough, and keeps the table small.
    return _calibration(round(min(sigma, 0.8) * 510), power)


@lru_cache(maxsize=1024)
def _calibration(half_levels: int, power: float | None) -> float:
    if half_levels < 2:
        return 1.0
    sigma = half_levels / 510
    middle, slope = middle_of(power)
    normal = [-5 + 10 * (i + 0.5) / 200 for i in range(200)]
    weights = [math.exp(-0.5 * z * z) for z in normal]
    total = sum(weights)

    def deviation(factor: float) -> float:
        values = [_display(middle + factor * sigma / slope * z, power) for z in normal]
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / total
        return math.sqrt(sum(w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True)) / total)

    low, high = 0.2, 20.0
    for _ in range(20):
        factor = math.sqrt(low * high)
        low, high = (factor, high) if deviation(factor) < sigma else (low, factor)
    return factor


def sensor_noise(
    linear: torch.Tensor,
    sigma: float,
    shot: float,
    gains: tuple[float, float, float],
    grain: float,
    blotch: float,
    sharpen: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Add a camera's noise in linear light.

    The filters act on the noise alone: those of a camera follow the edges of the picture, and spare its detail.

    Args:
        linear: (3, H, W), linear light, [0, 1].
        sigma: Deviation at mid-grey, in display values, [0, 1] scale, to first order; see :func:`calibration`.
        shot: Share of the variance at mid-grey that comes from photons, 0..1; the rest is read noise.
        gains: Relative strength in red, green and blue (white balance amplifies red and blue most).
        grain: How far the noise is smoothed, 0 (white) to 1 (binomial 3x3).
        blotch: Deviation of the Gaussian that smears the noise of the colours, pixels; 0: none.
        sharpen: Strength of sharpening, 0..1.
        generator: Source of randomness, on the device of ``linear``.

    Returns:
        (3, H, W), linear light; negative where the noise goes below black.
    """
    device = linear.device
    field = torch.randn(linear.shape, generator=generator, device=device)
    if min(linear.shape[-2:]) > 2:
        if blotch > 0:
            # Brightness gets the fine filter, the differences between channels a wide one.
            common = field.mean(0, keepdim=True)
            field = _fine(common, grain, sharpen) + _wide(field - common, blotch)
        else:
            field = _fine(field, grain, sharpen)
    middle, slope = middle_of(None)
    gain = torch.tensor(gains, device=device)
    gain = (gain / gain.square().mean().sqrt())[:, None, None]
    deviation = (sigma / slope) * (shot * linear / middle + (1 - shot)).sqrt()
    return linear + deviation * gain * field


def _fine(field: torch.Tensor, grain: float, sharpen: float) -> torch.Tensor:
    """Smoothing (1 - g) + g B, then sharpening 1 + s - s B, with the binomial B; keeps the variance; (C, H, W)."""
    if grain == 0 and sharpen == 0:
        return field
    one, binomial, twice = torch.zeros(5, 5), torch.zeros(5, 5), torch.tensor([1.0, 4, 6, 4, 1]) / 16
    one[2, 2] = 1
    tap = torch.tensor([0.25, 0.5, 0.25])
    binomial[1:4, 1:4] = tap[:, None] * tap
    kernel = (1 - grain) * (1 + sharpen) * one
    kernel = kernel + (grain * (1 + sharpen) - sharpen * (1 - grain)) * binomial
    kernel = kernel - grain * sharpen * twice[:, None] * twice
    kernel = (kernel / kernel.square().sum().sqrt()).to(field.device)
    return F.conv2d(F.pad(field[:, None], (2, 2, 2, 2), mode="reflect"), kernel[None, None])[:, 0]


def _wide(field: torch.Tensor, blotch: float) -> torch.Tensor:
    """A Gaussian of deviation ``blotch`` that keeps the variance; (C, H, W)."""
    radius = min(math.ceil(2.5 * blotch), *(side - 1 for side in field.shape[-2:]))
    axis = torch.arange(-radius, radius + 1, device=field.device, dtype=torch.float32)
    tap = torch.exp(-0.5 * (axis / blotch) ** 2)
    tap = tap / tap.square().sum().sqrt()
    padded = F.pad(field[:, None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, tap.view(1, 1, 1, -1)), tap.view(1, 1, -1, 1))[:, 0]
