"""Haze: the atmospheric scattering model over a procedural or a real depth map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from moir.degrade.base import Params, check_batch, check_map, new_seed, pick_kind, register_params, uniform
from moir.degrade.depth import DepthParams, depth_field
from moir.degrade.fields import seeded
from moir.degrade.severity import draw


@register_params
@dataclass(frozen=True)
class HazeParams(Params):
    """Parameters of haze.

    Attributes:
        beta: Scattering coefficient; depth is scaled to a maximum of 1.
        light: Atmospheric light A for red, green and blue, each 0..1.
        near: Depth of the nearest point, 0..1 (haze is seldom absent even there).
        fade: How much darker the light is at the bottom of the picture than at the top, 0..1.
        glow: How much darker the light is in the corner farthest from its brightest place than there, 0..1.
        spot: Where that place is, as shares of the width and of the height (outside 0..1: outside of the picture).
        horizon, power, tilt, relief, cue: The depth field; see :class:`moir.degrade.depth.DepthParams`.
    """

    type: ClassVar[str] = "haze"
    kinds: ClassVar[tuple[str, ...]] = ("landscape", "uneven", "even")
    severity_field: ClassVar[str] = "beta"

    beta: float
    light: tuple[float, float, float]
    near: float
    horizon: float
    power: float
    tilt: float
    relief: float
    cue: float
    fade: float = 0.0
    glow: float = 0.0
    spot: tuple[float, float] = (0.5, 0.0)


class Haze:
    """y = x t + A (1 - t), t = exp(-beta d) (Koschmieder; He et al. 2009, eq. 1 and 2).

    ``landscape`` grows denser towards a horizon, ``uneven`` drifts in swathes, ``even`` is the same nearly everywhere,
    as on a part of a photograph or on a scene without depth.
    """

    type = "haze"
    kinds = HazeParams.kinds
    weights: ClassVar[dict[str, float]] = {"landscape": 0.5, "uneven": 0.25, "even": 0.25}

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> HazeParams:
        """See :class:`moir.degrade.base.Degradation`."""
        kind = pick_kind(kind, self.weights, self.type, generator)
        beta, seed = draw(self.type, level, generator), new_seed(generator)
        # MiOIR draws A from 0.8-1.0; photographs of haze are often greyer (OneRestore: 0.6-0.9).
        # Yellowish (smog: red 0.06 above blue in photographs) to bluish (distance), with a trace of green or magenta.
        brightness, tint = uniform(generator, 0.6, 1.0), uniform(generator, -0.06, 0.06)
        cast = uniform(generator, -0.015, 0.015)
        light = tuple(min(1.0, brightness + shift) for shift in (tint, tint / 3 + cast, -tint))
        glow, spot = self._glow(torch.Generator().manual_seed(seed))
        return HazeParams(
            kind,
            seed,
            beta,
            (light[0], light[1], light[2]),
            near=uniform(generator, 0.4, 0.9) if kind == "even" else uniform(generator, 0.05, 0.45),
            horizon=uniform(generator, 0.0, 0.5),
            power=uniform(generator, 0.6, 2.5),
            tilt=uniform(generator, -12, 12),
            relief=uniform(generator, 0.4, 0.7) if kind == "uneven" else uniform(generator, 0.05, 0.25),
            cue=uniform(generator, 0.1, 0.4) if kind == "landscape" else uniform(generator, 0, 0.3),
            fade=self._fade(generator),
            glow=glow,
            spot=spot,
        )

    def _fade(self, generator: torch.Generator) -> float:
        """None in 40% of pictures, slight in 40%; in 20% as in dense smog, whose lower half lies in its own shade."""
        share = uniform(generator, 0, 1)
        if share < 0.4:
            return uniform(generator, 0, 0.25)
        return uniform(generator, 0.25, 0.6) if share < 0.6 else 0.0

    def _glow(self, generator: torch.Generator) -> tuple[float, tuple[float, float]]:
        """None in a quarter of pictures, slight in 40%; in 35% as where the sun is behind the haze.

        The generator is the picture's own, so that all else is drawn as it was before there was a glow.
        """
        share = uniform(generator, 0, 1)
        low, high = (0.0, 0.0) if share < 0.25 else (0.0, 0.15) if share < 0.65 else (0.15, 0.4)
        glow = uniform(generator, low, high)
        return glow, (uniform(generator, -0.1, 1.1), uniform(generator, -0.3, 0.5))

    def apply(self, images: torch.Tensor, params: Sequence[Params], depth: torch.Tensor | None = None) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`.

        Args:
            images: (B, 3, H, W), [0, 1].
            params: B parameter records.
            depth: (B, H, W), any unit, 0 or larger, larger is farther, each scaled to a maximum of 1; None: a
                procedural field.
        """
        records = check_batch(images, params, HazeParams)
        depth = None if depth is None else check_map(depth, images, "depth")
        out = []
        for index, (x, p) in enumerate(zip(images, records, strict=True)):
            if depth is None:
                shape = DepthParams(p.horizon, p.power, p.tilt, p.relief, p.cue)
                distance = p.near + (1 - p.near) * depth_field(x, shape, seeded(p.seed, x.device))
            else:
                distance = depth[index] / depth[index].max().clamp_min(1e-6)
            transmission = torch.exp(-p.beta * distance)
            light = torch.tensor(p.light, device=x.device, dtype=x.dtype)[:, None, None]
            if p.fade > 0:
                light = light * (1 - p.fade * torch.linspace(0, 1, x.shape[-2], device=x.device)[:, None])
            if p.glow > 0:
                light = light * (1 - p.glow * _distance_from(p.spot, x))
            out.append(x * transmission + light * (1 - transmission))
        return torch.stack(out).clamp(0, 1)


def _distance_from(spot: tuple[float, float], x: torch.Tensor) -> torch.Tensor:
    """(H, W), the distance of each pixel of (3, H, W) from a place, as a share of the largest."""
    height, width = x.shape[-2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype) - spot[0] * (width - 1)
    down = torch.arange(height, device=x.device, dtype=x.dtype) - spot[1] * (height - 1)
    distance = torch.hypot(across, down[:, None])
    return distance / distance.max().clamp_min(1e-6)
