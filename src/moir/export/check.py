"""Whether exported graphs do what the network does, on pictures."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from skimage import data

from moir.export.errors import ExportError
from moir.export.run import Exported
from moir.metrics import psnr
from moir.networks.base import RestorationNetwork

LIMITS = {"float32": 90.0, "fp16": 50.0}
"""PSNR in dB that restored pictures must reach against PyTorch, by how weights are stored."""

CONTEXT_LIMIT = 1e-3
"""How far a number of the context may be off, relative to the largest one of its tensor, or to 1."""

CEILING = 150.0
"""What is said of pictures that do not differ at all, dB."""


@dataclass(frozen=True)
class Agreement:
    """How far the graphs are from the network on one batch of pictures.

    Attributes:
        pictures: What they are.
        shape: (B, 3, H, W).
        engine: What ran the graphs.
        context_error: Largest error of the context, relative to the largest number of each tensor, or to 1; 0 if
            there is none.
        max_error: Largest error of a restored pixel, of [0, 1].
        psnr: Between restored pictures, the worst of the batch, dB, at most 150.
    """

    pictures: str
    shape: list[int]
    engine: str
    context_error: float
    max_error: float
    psnr: float


def check_pictures_of(size: int) -> dict[str, torch.Tensor]:
    """The pictures that exports are checked on.

    Args:
        size: About the side of the largest, pixels.

    Returns:
        Batches (B, 3, H, W): a photograph; two damaged crops of it, with odd sides; one much wider than high.
    """
    photograph = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None].float() / 255
    photograph = F.interpolate(photograph[..., :400, 50:450], (size, size), mode="bilinear", antialias=True)
    noise = torch.randn((2, 3, size - 3, size - 9), generator=torch.Generator().manual_seed(0))
    odd = torch.cat([photograph[..., 3:, 9:], 0.3 * photograph[..., :-3, :-9].flip(-1)])
    return {
        "a photograph": photograph,
        "two with noise, one of them dark": (odd + noise / 12).clamp(0, 1),
        "a strip": photograph[..., size // 3 : size // 3 + 21, : size - 7],
    }


@torch.no_grad()
def check(network: RestorationNetwork, exported: Exported, size: int) -> list[Agreement]:
    """Compare graphs with their network.

    Args:
        network: In evaluation mode, float32, on the CPU.
        exported: Its export.
        size: See :func:`check_pictures_of`.

    Raises:
        ExportError: They differ: a decision of the context (whole numbers) at all, other numbers by more than
            :data:`CONTEXT_LIMIT`, restored pictures by more than :data:`LIMITS` allows.
    """
    rows = []
    for what, x in check_pictures_of(size).items():
        context, found = network.analyse(x), exported.analyse(x)
        worst = 0.0
        for name, wanted in context.items():
            if not wanted.is_floating_point() and not torch.equal(found[name], wanted):
                raise ExportError(
                    f"the {exported.engine} graph decides {name} otherwise than PyTorch on {what}: "
                    f"{found[name].flatten().tolist()} instead of {wanted.flatten().tolist()}; nothing was written"
                )
            error = _largest(found[name] - wanted) / max(1.0, _largest(wanted))
            if not error <= CONTEXT_LIMIT:
                raise ExportError(
                    f"the {exported.engine} graph's {name} differs from PyTorch's on {what} by {error:.1e} of its "
                    f"range (at most {CONTEXT_LIMIT}); nothing was written"
                )
            worst = max(worst, error)
        # Each with its own context: what a user of the graphs gets.
        wanted, got = network(x, context), exported.forward(x, found)
        if got.shape != wanted.shape:
            raise ExportError(
                f"the {exported.engine} graph makes {tuple(got.shape)} of {tuple(x.shape)}, and PyTorch "
                f"{tuple(wanted.shape)}; nothing was written"
            )
        decibels = min(CEILING, float(psnr(got, wanted).min()))
        limit = LIMITS[exported.manifest.precision]
        if not decibels >= limit:  # also where it is not a number
            raise ExportError(
                f"what the {exported.engine} graph restores is {decibels:.1f} dB from PyTorch's on {what}, "
                f"{tuple(x.shape)} (at least {limit:.0f} dB); nothing was written"
            )
        largest = _largest(got - wanted)
        rows.append(Agreement(what, list(x.shape), exported.engine, worst, largest, round(decibels, 2)))
    return rows


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0
