"""Blur: Gaussian (round and elongated), defocus, and motion (straight and curved)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from moir.degrade.base import Params, check_batch, new_seed, pick_kind, register_params, uniform
from moir.degrade.fields import convolve, gaussian_kernel, line_kernel, seeded, stack_kernels
from moir.degrade.severity import draw

MOTION_LENGTH = 5.0
"""Length of a motion path per sigma, in pixels: sigma 3 gives 15 px. (A path of length L has deviation L / sqrt(12)
along itself and none across; the factor makes the loss of detail roughly that of the round Gaussian.)"""


@register_params
@dataclass(frozen=True)
class BlurParams(Params):
    """Parameters of blur.

    Attributes:
        sigma: Standard deviation of the kernel in pixels; a disc has radius 2 * sigma, a motion path length 5 * sigma.
        ratio: Elongated Gaussian only: second deviation over the first, 0..1.
        angle: Direction in degrees (elongated Gaussian and motion).
        bend: Curved motion only: how much the direction wanders along the path, degrees.
    """

    type: ClassVar[str] = "blur"
    kinds: ClassVar[tuple[str, ...]] = ("gaussian", "anisotropic", "defocus", "motion", "curved")
    severity_field: ClassVar[str] = "sigma"

    sigma: float
    ratio: float = 1.0
    angle: float = 0.0
    bend: float = 0.0


class Blur:
    """y = k * x, with the picture mirrored at its border."""

    type = "blur"
    kinds = BlurParams.kinds
    weights: ClassVar[dict[str, float]] = {
        "gaussian": 0.35,
        "anisotropic": 0.15,
        "defocus": 0.15,
        "motion": 0.2,
        "curved": 0.15,
    }

    def sample(self, level: str | float, generator: torch.Generator, kind: str | None = None) -> BlurParams:
        """See :class:`moir.degrade.base.Degradation`."""
        kind = pick_kind(kind, self.weights, self.type, generator)
        sigma, seed = draw(self.type, level, generator), new_seed(generator)
        ratio = uniform(generator, 0.3, 0.9) if kind == "anisotropic" else 1.0
        angle = uniform(generator, 0, 180) if kind in ("anisotropic", "motion", "curved") else 0.0
        bend = uniform(generator, 20, 90) if kind == "curved" else 0.0
        return BlurParams(kind, seed, sigma, ratio, angle, bend)

    def apply(self, images: torch.Tensor, params: Sequence[Params]) -> torch.Tensor:
        """See :class:`moir.degrade.base.Degradation`."""
        records = check_batch(images, params, BlurParams)
        kernels = stack_kernels([kernel_of(p, images.device) for p in records])
        return convolve(images, kernels, reflect=True).clamp(0, 1)


def kernel_of(p: BlurParams, device: torch.device) -> torch.Tensor:
    """The blur kernel, (K, K), non-negative, sum 1."""
    if p.kind == "gaussian":
        return gaussian_kernel(p.sigma, device)
    if p.kind == "anisotropic":
        return gaussian_kernel(p.sigma, device, sigma2=p.sigma * p.ratio, angle=p.angle)
    if p.kind == "defocus":
        kernel = _disc(2 * p.sigma, device)
    elif p.kind == "motion":
        kernel = line_kernel(MOTION_LENGTH * p.sigma, 0.4, p.angle, device)
    else:
        kernel = _curve(MOTION_LENGTH * p.sigma, p.angle, p.bend, seeded(p.seed, torch.device("cpu"))).to(device)
    return kernel / kernel.sum()


def _disc(radius: float, device: torch.device) -> torch.Tensor:
    reach = math.ceil(radius + 1)
    axis = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    distance = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)  # edge softened over a pixel


def _curve(length: float, angle: float, bend: float, generator: torch.Generator) -> torch.Tensor:
    """A camera-shake path: direction and speed wander smoothly; drawn as soft points along the path."""
    count = max(8, math.ceil(length * 4))
    knots = torch.randn(1, 1, 5, generator=generator)
    wander = torch.nn.functional.interpolate(knots, size=count, mode="linear", align_corners=True)[0, 0]
    direction = torch.deg2rad(angle + bend * wander)
    speed = 0.5 + torch.rand(count, generator=generator)
    step = length / count * speed / speed.mean()
    path = torch.stack([(step * direction.sin()).cumsum(0), (step * direction.cos()).cumsum(0)])
    path = path - path.mean(1, keepdim=True)
    reach = math.ceil(path.abs().max().item()) + 2
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    near_y = torch.exp(-0.5 * ((axis[:, None] - path[0]) / 0.5) ** 2)
    near_x = torch.exp(-0.5 * ((axis[:, None] - path[1]) / 0.5) ** 2)
    return near_y @ near_x.T
