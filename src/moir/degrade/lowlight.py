"""Low light: the UniRestorer paper's darkening of the illumination map, and a camera-like one with noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from moir.degrade.base import Params, check_batch, check_map, new_seed, pick_kind, register_params, uniform
from moir.degrade.fields import seeded
from moir.degrade.noise import GAMMA, iso_noise
from moir.degrade.severity import draw


@register_params
@dataclass(frozen=True)
class LowLightParams(Params):
    """Parameters of low light.

    Attributes:
        gamma: Darkening exponent of the illumination.
        smooth: Size of the neighbourhood of the illumination map, as a fraction of the longer side.
        exposure: ``camera`` only: further loss of light, in stops (factor 2 ** -exposure in linear light).
        noise: ``camera`` only: standard deviation of the sensor noise at mid-grey, 8-bit levels.
    """

    type: ClassVar[str] = "lowlight"
    kinds: ClassVar[tuple[str, ...]] = ("paper", "camera")
    severity_field: ClassVar[str] = "gamma"

    gamma: float
    smooth: float
    exposure: float = 0.0
    noise: float = 0.0


class LowLight:
    """y = (x / L) L^gamma, with an illumination map L (UniRestorer, after OneRestore)."""

    type = "lowlight"
    kinds = LowLightParams.kinds
    weights: ClassVar[dict[str, float]] = {"paper": 0.5, "camera": 0.5}

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> LowLightParams:
        """See :class:`moir.degrade.base.Degradation`."""
        kind = pick_kind(kind, self.weights, self.type, generator)
        gamma, seed = draw(self.type, level, generator), new_seed(generator)
        smooth = uniform(generator, 0.01, 0.08)
        if kind == "paper":
            return LowLightParams(kind, seed, gamma, smooth)
        # The darker, the higher the gain, and so the noise; a tripod or a good camera gives almost none.
        exposure = uniform(generator, 0.2, 1.2) * (gamma - 1)
        noise = uniform(generator, 0, 3.5) * (gamma - 1)
        return LowLightParams(kind, seed, gamma, smooth, exposure, noise)

    def apply(
        self, images: torch.Tensor, params: Sequence[Params], illumination: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`.

        Args:
            images: (B, 3, H, W), [0, 1].
            params: B parameter records.
            illumination: (B, H, W) in [0, 1]; None: computed from the picture by :func:`illumination_map`.
        """
        records = check_batch(images, params, LowLightParams)
        illumination = None if illumination is None else check_map(illumination, images, "illumination")
        out = []
        for index, (x, p) in enumerate(zip(images, records, strict=True)):
            light = illumination_map(x, p.smooth) if illumination is None else illumination[index].clamp(1e-4, 1)
            y = (x * light ** (p.gamma - 1)).clamp(0, 1)
            if p.kind == "camera":
                y = (y**GAMMA * 2.0**-p.exposure) ** (1 / GAMMA)
                y = iso_noise(y, p.noise / 255, 0.9, 0.4, 0.4, seeded(p.seed, x.device))
            out.append(y)
        return torch.stack(out).clamp(0, 1)


def illumination_map(image: torch.Tensor, smooth: float) -> torch.Tensor:
    """Illumination as the brightest channel (LIME's first estimate), averaged over a neighbourhood.

    Never below the brightest channel itself, so that the reflectance x / L stays in [0, 1].

    Args:
        image: (3, H, W), [0, 1].
        smooth: Neighbourhood, as a fraction of the longer side.

    Returns:
        (H, W) in [1e-4, 1].
    """
    brightest = image.max(0).values[None, None]
    size = image.shape[-2:]
    radius = round(smooth * max(size))
    light = brightest
    if radius > 0:
        # Averaged on a coarse grid whose cells are a quarter of the neighbourhood: the same map, at any size, cheaply.
        cell = max(1, radius // 4)
        grid = (math.ceil(size[0] / cell), math.ceil(size[1] / cell))
        light = F.adaptive_avg_pool2d(light, grid)
        reach = min(round(radius / cell), *(side - 1 for side in grid))
        for _ in range(2):  # two box filters: a soft triangle
            light = F.avg_pool2d(F.pad(light, (reach,) * 4, mode="reflect"), 2 * reach + 1, stride=1)
        light = F.interpolate(light, size=size, mode="bilinear", align_corners=False)
    return torch.maximum(light, brightest)[0, 0].clamp(1e-4, 1)
