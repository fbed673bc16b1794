"""What every expert makes of every picture: the table from which routers are trained and compared.

The experts are frozen when the router learns, so each restores each picture once, and routers of any kind are then
trained and measured on numbers alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from moir.checkpoints import read_tensors, write_tensors
from moir.universal.compact_tree import CompactUniRestorer


@dataclass(frozen=True)
class Outcomes:
    """N pictures and E experts.

    Attributes:
        points: (N, F), places of the whole damaged pictures (:meth:`CompactExtractor.place`).
        presence: (N, 7), 0 or 1. degree: (N, 7), index of the degree or -1.
        mse: (N, E), mean squared error of each expert's result, clamped to [0, 1].
        l1: (N, E), mean absolute error, not clamped.
        slope: (N, E), mean of sign(y - t) * y: the derivative of the L1 error by the gate that scales the result y
            (equation 9 reaches the gates through it).
        before: (N,), mean squared error of the damaged picture.
    """

    points: torch.Tensor
    presence: torch.Tensor
    degree: torch.Tensor
    mse: torch.Tensor
    l1: torch.Tensor
    slope: torch.Tensor
    before: torch.Tensor

    @property
    def psnr(self) -> torch.Tensor:
        """(N, E), dB, at most 100."""
        return -10 * self.mse.clamp(min=1e-10).log10()

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        write_tensors(path, {f.name: getattr(self, f.name).contiguous() for f in fields(self)}, overwrite=True)

    @classmethod
    def load(cls, path: Path) -> "Outcomes":
        """Read what :meth:`save` wrote."""
        tensors, _ = read_tensors(path)
        return cls(**{f.name: tensors[f.name] for f in fields(cls)})


Batch = dict[str, torch.Tensor]
"""``input`` and ``target`` (B, 3, H, W), ``presence`` (B, 7), ``degree`` (B, 7)."""


@torch.inference_mode()
def measure(
    network: CompactUniRestorer,
    batches: Iterable[Batch],
    crop: int | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Outcomes:
    """Restore every picture with every expert.

    Args:
        network: In evaluation mode; the router is not used.
        batches: Damaged and clean pictures; those of one batch have one size.
        crop: Only the centre crop of this side is restored, with the decision on the whole picture; None: all of it.
        on_batch: Called with the number of pictures done.
    """
    found: dict[str, list[torch.Tensor]] = {f.name: [] for f in fields(Outcomes)}
    done = 0
    for batch in batches:
        whole, target = batch["input"], batch["target"]
        context = network.analyse(whole)
        x, clean = _centre(whole, crop), _centre(target, crop)
        # In float32 the crop would cost several times as much; routers compare experts, which all round alike.
        results: dict[int, torch.Tensor] = {}
        experts = range(network.tree.experts)
        owners = [-1 if network.tree.is_clean(n) else network.owner_of(n) for n in experts]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for number, owner in zip(experts, owners, strict=True):
                if owner not in results:  # experts without parameters of their own do what their parents do
                    results[owner] = network.restore_with(number, x, context).float()
        restored = torch.stack([results[owner] for owner in owners], 1)
        error = restored - clean[:, None]
        found["points"].append(network.extractor.place(network.extractor(whole)))
        found["presence"].append(batch["presence"])
        found["degree"].append(batch["degree"])
        found["mse"].append((restored.clamp(0, 1) - clean[:, None]).square().mean((2, 3, 4)))
        found["l1"].append(error.abs().mean((2, 3, 4)))
        found["slope"].append((error.sign() * restored).mean((2, 3, 4)))
        found["before"].append((x - clean).square().mean((1, 2, 3)))
        done += len(x)
        if on_batch is not None:
            on_batch(done)
    return Outcomes(**{name: torch.cat(rows) for name, rows in found.items()})


def _centre(x: torch.Tensor, side: int | None) -> torch.Tensor:
    if side is None or min(x.shape[-2:]) <= side:
        return x
    # On the grid of 8, as a tile would be, so that JPEG's blocks stay where they are.
    top, left = ((length - side) // 16 * 8 for length in x.shape[-2:])
    return x[..., top : top + side, left : left + side]
