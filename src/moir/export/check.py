"""Whether exported graphs do what the network does, on pictures."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from skimage import data

from moir.export.errors import ExportError
from moir.export.graphs import decided
from moir.export.manifest import Experts
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
    """Compare graphs with their network; where there are experts, each of them, whatever is decided.

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
        context, found = decided(network, x), exported.analyse(x)
        worst = 0.0
        for name, wanted in context.items():
            if not wanted.is_floating_point() and not torch.equal(found[name], wanted):
                raise ExportError(
                    f"the {exported.engine} graph decides {name} otherwise than PyTorch on {what}: "
                    f"{found[name].flatten().tolist()} instead of {wanted.flatten().tolist()}; nothing was written"
                )
            # Logits of what may not be chosen are infinite, in both.
            off = torch.where(found[name] == wanted, 0.0, found[name] - wanted)
            error = _largest(off) / max(1.0, _largest(wanted[wanted.isfinite()]))
            if not error <= CONTEXT_LIMIT:
                raise ExportError(
                    f"the {exported.engine} graph's {name} differs from PyTorch's on {what} by {error:.1e} of its "
                    f"range (at most {CONTEXT_LIMIT}); nothing was written"
                )
            worst = max(worst, error)
        # Each with its own context: what a user of the graphs gets.
        error, decibels = _agree(network(x, context), exported.forward(x, found), exported, what)
        rows.append(Agreement(what, list(x.shape), exported.engine, worst, error, decibels))
    if exported.manifest.experts is not None:
        rows.append(_check_experts(network, exported, exported.manifest.experts, size))
    return rows


def _check_experts(network: RestorationNetwork, exported: Exported, experts: Experts, size: int) -> Agreement:
    """Compare every expert's graph on the photograph, whatever is decided about it."""
    x = check_pictures_of(size)["a photograph"]
    context = decided(network, x)
    largest, least = 0.0, CEILING
    for number in range(len(experts.files)):
        chosen = {**context, experts.input: torch.full_like(context[experts.input], number)}
        what = f"a photograph by expert {number}"
        error, decibels = _agree(network(x, chosen), exported.forward(x, chosen), exported, what)
        largest, least = max(largest, error), min(least, decibels)
    return Agreement("a photograph, by every expert", list(x.shape), exported.engine, 0.0, largest, least)


def _agree(wanted: torch.Tensor, got: torch.Tensor, exported: Exported, what: str) -> tuple[float, float]:
    """Largest error, and PSNR in dB, of restored pictures.

    Raises:
        ExportError: They are of another shape, or too far apart.
    """
    if got.shape != wanted.shape:
        raise ExportError(
            f"the {exported.engine} graph makes {tuple(got.shape)} on {what}, and PyTorch {tuple(wanted.shape)}; "
            "nothing was written"
        )
    decibels = min(CEILING, float(psnr(got, wanted).min()))
    limit = LIMITS[exported.manifest.precision]
    if not decibels >= limit:  # also where it is not a number
        raise ExportError(
            f"what the {exported.engine} graph restores is {decibels:.1f} dB from PyTorch's on {what}, "
            f"{tuple(wanted.shape)} (at least {limit:.0f} dB); nothing was written"
        )
    return _largest(got - wanted), round(decibels, 2)


def _largest(x: torch.Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0
