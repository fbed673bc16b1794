"""What every expert makes of every picture: the table from which routers are trained and compared.

The experts are frozen when the router learns, so each restores each picture once, and routers of any kind are then
trained and measured on numbers alone.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from moir.base.errors import TrainingError
from moir.checkpoints import read_tensors, write_tensors
from moir.networks.base import PLACE
from moir.runtime.device import has_fast_bf16
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.composed_expert import CERTAINTY
from moir.universal.expert_kinds import Composed
from moir.universal.pool import fingerprint

Batch = dict[str, torch.Tensor]
"""``input`` and ``target`` (B, 3, H, W), ``presence`` (B, 7), ``degree`` (B, 7)."""

OF_EXPERTS = ("mse", "l1", "slope")
"""Fields with a column for each expert."""


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
        experts: Fingerprints of the E experts, by which a changed one is known; empty: not told.
        extractor: Fingerprint of the extractor that made the points; empty: not told.
    """

    points: torch.Tensor
    presence: torch.Tensor
    degree: torch.Tensor
    mse: torch.Tensor
    l1: torch.Tensor
    slope: torch.Tensor
    before: torch.Tensor
    experts: tuple[str, ...] = ()
    extractor: str = ""

    def __len__(self) -> int:
        return len(self.points)

    @property
    def psnr(self) -> torch.Tensor:
        """(N, E), dB, at most 100."""
        return -10 * self.mse.clamp(min=1e-10).log10()

    def followed_by(self, other: "Outcomes") -> "Outcomes":
        """These pictures and others, of the same experts."""
        both = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in _tensors()}
        return Outcomes(**both, experts=self.experts, extractor=self.extractor)

    def changed(self, network: CompactUniRestorer) -> list[int]:
        """Numbers of the network's experts that are not those of the table."""
        return [n for n, print_ in enumerate(prints(network)) if self.experts[n : n + 1] != (print_,)]

    def is_of(self, network: CompactUniRestorer) -> bool:
        """Whether extractor and experts are still those of the network."""
        return not self.changed(network) and self.extractor == fingerprint(network.extractor.state_dict())

    def refreshed(self, network: CompactUniRestorer, batches: Iterable[Batch], crop: int | None = None) -> "Outcomes":
        """The same pictures with the network's present extractor and experts; only experts that changed are run.

        Args:
            network, crop: See :func:`measure`.
            batches: The same pictures in the same order.

        Raises:
            TrainingError: They are other pictures.
        """
        if self.is_of(network):
            return self
        changed = self.changed(network)
        found = measure(network, batches, crop, experts=changed)
        if not torch.allclose(found.before, self.before, rtol=1e-3, atol=1e-7):
            raise TrainingError(
                "the outcomes were measured on other pictures than these, so that experts cannot be compared; remove "
                "the file, or go on with the data that it was made of"
            )
        columns = {}
        for name in OF_EXPERTS:
            old = getattr(self, name)
            columns[name] = old.new_zeros(len(self), network.tree.experts)
            columns[name][:, : old.shape[1]] = old[:, : network.tree.experts]
            columns[name][:, changed] = getattr(found, name)[:, changed]
        # Points and prints are found anew in any case.
        return replace(found, mse=columns["mse"], l1=columns["l1"], slope=columns["slope"])

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        tensors = {name: getattr(self, name).contiguous() for name in _tensors()}
        facts = {"experts": list(self.experts), "extractor": self.extractor}
        write_tensors(path, tensors, facts, overwrite=True)

    @classmethod
    def load(cls, path: Path) -> "Outcomes":
        """Read what :meth:`save` wrote."""
        tensors, facts = read_tensors(path)
        own = {name: tensors[name] for name in _tensors()}
        return cls(**own, experts=tuple(facts.get("experts", ())), extractor=facts.get("extractor", ""))


def prints(network: CompactUniRestorer) -> tuple[str, ...]:
    """Fingerprints of what each expert does, by its number."""
    owners = _owners(network)
    found = {_IDENTITY: "identity", 0: fingerprint(network.base.state_dict())}
    # An assembled expert has all that it does, and its form, which may name what has no numbers.
    for number in set(owners) - found.keys():
        made = fingerprint(network.expert(number).state_dict())
        kind = network.kinds[number]
        found[number] = f"{made} {kind if isinstance(kind, Composed) else kind.words}"
    return tuple(found[owner] for owner in owners)


@torch.inference_mode()
def measure(
    network: CompactUniRestorer,
    batches: Iterable[Batch],
    crop: int | None = None,
    on_batch: Callable[[int], None] | None = None,
    experts: Collection[int] | None = None,
) -> Outcomes:
    """Restore every picture with every expert, as if it were certain that the damage it is for is there.

    Args:
        network: In evaluation mode; the router is not used.
        batches: Damaged and clean pictures; those of one batch have one size.
        crop: Only the centre crop of this side is restored, with the decision on the whole picture; None: all of it.
        on_batch: Called with the number of pictures done.
        experts: Only these; the columns of the others are zero. None: all.
    """
    owners = _owners(network)
    wanted = range(network.tree.experts) if experts is None else experts
    found: dict[str, list[torch.Tensor]] = {name: [] for name in _tensors()}
    done = 0
    for batch in batches:
        whole, target = batch["input"], batch["target"]
        context = dict(network.analyse(whole))
        context[CERTAINTY] = torch.ones_like(context[CERTAINTY])
        x, clean = centre(whole, crop), centre(target, crop)
        if network.uses_place:
            context[PLACE] = place_of_centre(whole, crop)
        results: dict[int, torch.Tensor] = {}
        # In float32 the crop would cost several times as much; routers compare experts, which all round alike.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_fast_bf16(x.device)):
            for number in wanted:
                if owners[number] not in results:  # experts without parameters of their own do what their parents do
                    results[owners[number]] = network.restore_with(number, x, context).float()
        columns = {name: x.new_zeros(len(x), len(owners)) for name in OF_EXPERTS}
        for number in wanted:
            restored = results[owners[number]]
            error = restored - clean
            columns["mse"][:, number] = (restored.clamp(0, 1) - clean).square().mean((1, 2, 3))
            columns["l1"][:, number] = error.abs().mean((1, 2, 3))
            columns["slope"][:, number] = (error.sign() * restored).mean((1, 2, 3))
        for name, column in columns.items():
            found[name].append(column)
        found["points"].append(network.extractor.place(network.extractor(whole)))
        found["presence"].append(batch["presence"])
        found["degree"].append(batch["degree"])
        found["before"].append((x - clean).square().mean((1, 2, 3)))
        done += len(x)
        if on_batch is not None:
            on_batch(done)
    extractor = fingerprint(network.extractor.state_dict())
    tensors = {name: torch.cat(rows) for name, rows in found.items()}
    return Outcomes(**tensors, experts=prints(network), extractor=extractor)


_IDENTITY = -1


def _owners(network: CompactUniRestorer) -> list[int]:
    """For each expert the number of that whose parameters it uses; -1 where pictures come back as they are."""
    numbers = range(network.tree.experts)
    return [_IDENTITY if network.tree.is_clean(n) else network.owner_of(n) for n in numbers]


def _tensors() -> tuple[str, ...]:
    return tuple(f.name for f in fields(Outcomes) if f.name not in ("experts", "extractor"))


def centre(x: torch.Tensor, side: int | None) -> torch.Tensor:
    """The centre of pictures (..., H, W), at most ``side`` x ``side``; None: all of them."""
    if side is None or min(x.shape[-2:]) <= side:
        return x
    top, left = _corner(x, side)
    return x[..., top : top + side, left : left + side]


def place_of_centre(x: torch.Tensor, side: int | None) -> torch.Tensor:
    """Where :func:`centre` lies in the pictures, (B, 4), as :data:`moir.networks.base.PLACE` wants it."""
    height, width = x.shape[-2:]
    top, left = (0, 0) if side is None or min(height, width) <= side else _corner(x, side)
    return torch.tensor([[top, left, height, width]]).expand(len(x), -1)


def _corner(x: torch.Tensor, side: int) -> tuple[int, int]:
    # On the grid of 8, as a tile would be, so that JPEG's blocks stay where they are.
    top, left = ((length - side) // 16 * 8 for length in x.shape[-2:])
    return top, left
