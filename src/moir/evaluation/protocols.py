"""How a score is computed, down to the last rounding: the published protocols, frozen and named.

A number means something only together with its protocol: the papers crop, round and convert differently, and name the
results alike.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from moir.base.errors import InvalidValueError, TensorShapeError
from moir.base.names import check_name
from moir.metrics import SsimForm, luminance, psnr, ssim

BEST_PSNR = 100.0
"""What stands for the infinite PSNR of two equal pictures, dB, so that means stay finite."""

Colour = Literal["rgb", "y", "y_rounded", "adaptir"]
Noise = Literal["truncated", "float"]


@dataclass(frozen=True)
class Protocol:
    """One way to compare a restored picture with its target.

    Attributes:
        name: Its name.
        source: Whose protocol it is, and how it is known.
        crop_multiple: Input and target are cut at their centre to sides that are multiples of this, before noise is
            added and anything is restored; 1: nothing is cut.
        border: ``none``, or ``scale``: as many pixels as the target is larger than the input are left out on every
            side, where it is larger.
        rounding: Predictions are rounded to whole 8-bit levels first (all protocols clamp them to [0, 1]).
        colour: ``rgb``: all three channels. ``y``: MATLAB's luminance. ``y_rounded``: that, rounded to 8-bit levels,
            as MATLAB does for uint8 pictures. ``adaptir``: ``y`` for super-resolution and rain, otherwise ``rgb``.
        ssim: Form of SSIM; see :func:`moir.metrics.ssim`.
        noise: How Gaussian noise of the benchmarks is stored: ``truncated`` to 8 bit, or clipped ``float``. (Benchmarks
            of low resolution are always truncated.)
        crop, stride: Sides larger than ``crop`` pixels are restored in overlapping square crops, ``stride`` pixels
            apart, averaged where they overlap. None: pictures are handed over whole.
        data_range: The range of pixel values in PSNR and SSIM.
    """

    name: str
    source: str
    crop_multiple: int = 1
    border: Literal["none", "scale"] = "none"
    rounding: bool = False
    colour: Colour = "rgb"
    ssim: SsimForm = "gaussian"
    noise: Noise = "truncated"
    crop: int | None = None
    stride: int | None = None
    data_range: float = 1.0

    def __post_init__(self) -> None:
        if (self.crop is None) != (self.stride is None):
            raise InvalidValueError(f"crop {self.crop} and stride {self.stride}: give both or neither")
        if self.crop is not None and self.stride is not None and not 16 <= self.stride <= self.crop:
            raise InvalidValueError(f"stride {self.stride} must be 16 px at least and at most the crop, {self.crop} px")

    def cut(self, picture: torch.Tensor) -> torch.Tensor:
        """The part of a whole picture (..., H, W) that takes part: its centre, with sides that are multiples."""
        height, width = picture.shape[-2:]
        tall, wide = (side // self.crop_multiple * self.crop_multiple for side in (height, width))
        if not (tall and wide):
            raise TensorShapeError(
                f"protocol {self.name} cuts pictures to multiples of {self.crop_multiple} px; {width}x{height} is less"
            )
        top, left = (height - tall) // 2, (width - wide) // 2
        return picture[..., top : top + tall, left : left + wide]

    def compared(
        self, prediction: torch.Tensor, target: torch.Tensor, *, scale: int = 1, types: tuple[str, ...] = ()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the metrics see: clamped, rounded, without border, in the protocol's colours; float64, (C, h, w).

        Args:
            prediction, target: (3, H, W), RGB, after :meth:`cut`.
            scale: How many times larger the target is than the input was.
            types: Degradation types in the input.
        """
        if prediction.shape != target.shape or target.dim() != 3 or target.shape[0] != 3:
            raise TensorShapeError(f"expected two (3, H, W) of one shape, got {prediction.shape} and {target.shape}")
        x, y = prediction.double().clamp(0, 1), target.double().clamp(0, 1)
        if self.rounding:
            x, y = (_round(value) for value in (x, y))
        if self.colour != "rgb" and (self.colour != "adaptir" or scale != 1 or "rain" in types):
            x, y = luminance(x), luminance(y)
            if self.colour == "y_rounded":
                x, y = _round(x), _round(y)
        if self.border == "scale" and scale != 1:
            x, y = (value[..., scale:-scale, scale:-scale] for value in (x, y))
        return x, y

    def scores(
        self, prediction: torch.Tensor, target: torch.Tensor, *, scale: int = 1, types: tuple[str, ...] = ()
    ) -> dict[str, float]:
        """PSNR (dB, at most :data:`BEST_PSNR`) and SSIM of one picture; arguments as for :meth:`compared`.

        Raises:
            TensorShapeError: The shapes differ, or the pictures are smaller than the window of SSIM.
            InvalidValueError: The prediction holds NaN or infinity.

        Examples:
            >>> target = torch.full((3, 16, 16), 0.5)
            >>> round(protocol("moce_ir").scores(target + 0.1, target)["psnr"], 2)
            20.0
        """
        wrong = int((~torch.isfinite(prediction)).sum())
        if wrong:
            raise InvalidValueError(f"{wrong} of {prediction.numel()} values are NaN or infinite")
        x, y = self.compared(prediction, target, scale=scale, types=types)
        decibels = float(psnr(x[None], y[None]))
        return {"psnr": min(decibels, BEST_PSNR), "ssim": float(ssim(x[None], y[None], self.ssim))}

    def to_json(self) -> dict[str, Any]:
        """Every field, for the record of a run."""
        return dataclasses.asdict(self)


def _round(values: torch.Tensor) -> torch.Tensor:
    return (values * 255 + 0.5).floor() / 255  # halves go up, as in MATLAB; torch.round takes them to even numbers


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "moce_ir",
            "MoCE-IR (CVPR 2025), its published test program",
            crop_multiple=16,
        ),
        Protocol(
            "promptir",
            "PromptIR (NeurIPS 2023), its published test program; AirNet and AdaIR score alike",
            crop_multiple=16,
            ssim="uniform",
        ),
        Protocol(
            "restormer_y",
            "Restormer and MPRNet, deraining: their MATLAB program on 8-bit files, luminance rounded to 8 bit",
            rounding=True,
            colour="y_rounded",
            ssim="matlab",
        ),
        Protocol(
            "adaptir",
            "AdaptIR (NeurIPS 2024), its published test program",
            border="scale",
            rounding=True,
            colour="adaptir",
            ssim="matlab",
            noise="float",
        ),
        Protocol(
            "unirestorer",
            "UniRestorer (ICLR 2026): the paper restores large pictures in overlapping crops and averages them; it "
            "publishes neither crop nor stride nor a test program. Crop, stride, rounding to 8 bit and the form of "
            "SSIM (that of BasicSR, on which its code builds) are our choice",
            rounding=True,
            ssim="matlab",
            crop=512,
            stride=256,
        ),
    )
}  # fmt: skip
"""The protocols by name."""

DEFAULT_PROTOCOL = "moce_ir"
"""The protocol of every benchmark unless another is asked for, so that all rows of a table mean the same."""


def protocol(name: str, *, crop: int | None = None, stride: int | None = None) -> Protocol:
    """Return a protocol.

    Args:
        name: One of :data:`PROTOCOLS`.
        crop, stride: Replace those of ``unirestorer``; recorded with the results.

    Raises:
        UnknownNameError: No such protocol; the message gives near misses.
        InvalidValueError: A crop or stride for a protocol that has none, or one that is not possible.

    Examples:
        >>> protocol("promptir").ssim
        'uniform'
    """
    found = PROTOCOLS[check_name(name, PROTOCOLS, "protocol")]
    if crop is None and stride is None:
        return found
    if found.crop is None:
        raise InvalidValueError(f"protocol {name} restores whole pictures; crop and stride belong to unirestorer")
    side = crop or found.crop
    return dataclasses.replace(found, crop=side, stride=stride or max(16, side // 2))


def positions(side: int, crop: int, stride: int) -> list[int]:
    """Where crops begin along one side: ``stride`` apart, the last one at the end; one crop if the side is not larger.

    Examples:
        >>> positions(1000, 512, 256), positions(300, 512, 256)
        ([0, 256, 488], [0])
    """
    if side <= crop:
        return [0]
    steps = math.ceil((side - crop) / stride)
    return [min(step * stride, side - crop) for step in range(steps + 1)]
