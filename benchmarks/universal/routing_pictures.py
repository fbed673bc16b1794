"""The pictures of the routing benchmarks: fourteen settings in two ranges, and what the networks make of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from moir import degrade
from moir.base.names import TYPES
from moir.checkpoints import read_tensors, write_tensors
from moir.datasets import find
from moir.degrade.pipeline import MIXES
from moir.networks.base import PLACE, RestorationNetwork
from moir.runtime.device import has_fast_bf16
from moir.training.tree.outcomes import Batch, Outcomes, centre, measure, place_of_centre
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.pool import fingerprint

WHOLE = 384
"""Side of what the decision is made on, pixels: a centre crop of the picture, or all of it."""
CROP = 160
"""Side of what is restored and scored, pixels."""
SETS = ("cid22_validation", "live1", "cbsd68")
"""Where the pictures come from, one set after the other: none was trained on, or used to calibrate the estimate."""
RANGES = {"inside": "in distribution", "outside": "out of distribution"}


@dataclass(frozen=True)
class Setting:
    """One row of the tables.

    Attributes:
        name: A degradation type, or a mix of the paper.
        range: ``inside`` or ``outside``; see :mod:`moir.degrade.severity`.
        types: What the pictures suffer from.
    """

    name: str
    range: str
    types: tuple[str, ...]

    @property
    def is_single(self) -> bool:
        return len(self.types) == 1


SETTINGS = [
    Setting(name, where, types)
    for where in RANGES
    for name, types in ({type_: (type_,) for type_ in TYPES} | MIXES).items()
]


@dataclass(frozen=True)
class Seen:
    """N pictures of one setting: what each expert makes of them, and what the present extractor says of them.

    Attributes:
        outcomes: The table of the experts' errors.
        points: (N, F), places of the representations.
        presence: (N, 7), calibrated logits.
        degree: (N, 7, 3), logits.
        auto, told: (N,), PSNR of what a user gets who says nothing, and who says which damage is there, dB.
    """

    outcomes: Outcomes
    points: torch.Tensor
    presence: torch.Tensor
    degree: torch.Tensor
    auto: torch.Tensor
    told: torch.Tensor

    def psnr(self, expert: torch.Tensor) -> torch.Tensor:
        """(N,), of these experts, dB."""
        return self.outcomes.psnr.gather(1, expert[:, None])[:, 0]


def photographs(root: Path) -> Iterator[torch.Tensor]:
    """Clean pictures, (3, H, W), of all sets; one that is not there is an error, since a part would pass for all."""
    for name in SETS:
        found = find(name, root, strict=False)
        yield from (found.load(pair).target for pair in found.pairs)


def damaged(root: Path, setting: Setting, count: int) -> Iterator[Batch]:
    """The pictures of one setting, one by one."""
    request = degrade.parse(f"{setting.name}={setting.range}")
    for number, photograph in enumerate(islice(photographs(root), count)):
        target = _centre(photograph, WHOLE)[None]
        seed = 1000 * SETTINGS.index(setting) + number
        records = request.sample(torch.Generator().manual_seed(seed))
        presence, degree = torch.zeros(1, len(TYPES)), torch.full((1, len(TYPES)), -1)
        for record in records:
            presence[0, TYPES.index(record.type)] = 1
        x = degrade.quantise(degrade.apply(target, [records]))
        yield {"input": x, "target": target, "presence": presence, "degree": degree}


@torch.inference_mode()
def restored_by(network: RestorationNetwork, root: Path, setting: Setting, count: int) -> torch.Tensor:
    """PSNR, (N,), of another network on the same pictures, restored and scored in the same way, dB."""
    found = []
    for batch in damaged(root, setting, count):
        x, target = centre(batch["input"], CROP), centre(batch["target"], CROP)
        context = network.analyse(batch["input"])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_fast_bf16(x.device)):
            out = network(x, context).float().clamp(0, 1)
        found.append(-10 * (out - target).square().mean().log10())
    return torch.stack(found)


def see(network: CompactUniRestorer, root: Path, setting: Setting, count: int, kept: Path) -> Seen:
    """Restore the pictures of a setting with every expert, and estimate what they suffer from.

    What the experts make of them is kept in a file: later only experts that changed are run. The estimate is made
    anew every time, since the extractor may have changed, too.

    Args:
        network: In evaluation mode.
        root: The data root.
        setting: Which pictures.
        count: How many.
        kept: A folder.
    """
    path = kept / f"{setting.range}_{setting.name}_{count}.safetensors"
    outcomes = Outcomes.load(path) if path.exists() else None
    if outcomes is None:
        outcomes = measure(network, damaged(root, setting, count), CROP)
    else:
        outcomes = outcomes.refreshed(network, damaged(root, setting, count), CROP)
    outcomes.save(path)
    with torch.inference_mode():
        pictures = [batch["input"] for batch in damaged(root, setting, count)]
        decided = [network.analyse(x) for x in pictures]
        points = network.extractor.place(torch.cat([network.extractor(x) for x in pictures]))
        presence, degree = (torch.cat([context[name] for context in decided]) for name in ("presence", "degree"))
    users = kept / f"{setting.range}_{setting.name}_{count}_users.safetensors"
    made_with = f"{fingerprint(network.state_dict())} {sorted(network.options.items())}"
    tensors, facts = read_tensors(users) if users.exists() else ({}, {})
    if facts.get("made_with") != made_with:
        tensors = _as_users_get_them(network, damaged(root, setting, count), setting.types)
        write_tensors(users, tensors, {"made_with": made_with}, overwrite=True)
    return Seen(outcomes, points, presence, degree, **tensors)


@torch.inference_mode()
def _as_users_get_them(
    network: CompactUniRestorer, batches: Iterable[Batch], types: Sequence[str]
) -> dict[str, torch.Tensor]:
    """PSNR, (N,), of auto mode and of instruction mode, from the estimate on."""
    found: dict[str, list[torch.Tensor]] = {"auto": [], "told": []}
    for batch in batches:
        whole = batch["input"]
        context = {**network.analyse(whole), PLACE: place_of_centre(whole, CROP)}
        for mode, decided in (("auto", context), ("told", network.instruct(context, types))):
            error = network(centre(whole, CROP), decided).clamp(0, 1) - centre(batch["target"], CROP)
            found[mode].append(-10 * error.square().mean((1, 2, 3)).log10())
    return {mode: torch.cat(values) for mode, values in found.items()}


def _centre(x: torch.Tensor, side: int) -> torch.Tensor:
    height, width = (min(length, side) for length in x.shape[-2:])
    top, left = (x.shape[-2] - height) // 16 * 8, (x.shape[-1] - width) // 16 * 8
    return x[:, top : top + height, left : left + width]
