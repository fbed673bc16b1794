"""Which experts a routed network takes for which damage: counted while it trains.

MoCE-IR's figure of the allocation of tasks to experts (arXiv 2411.18466) is drawn from these counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Usage:
    """Counts over some steps.

    Attributes:
        step: The step at which they were written.
        groups: What is counted by: degradation types, or the labels of a mixture.
        pictures: How many pictures of each group were seen.
        routers: Router name, in the order in which they run, to (groups, experts) counts.
    """

    step: int
    groups: tuple[str, ...]
    pictures: tuple[int, ...]
    routers: Mapping[str, Sequence[Sequence[int]]]

    def shares(self, group: str) -> torch.Tensor:
        """(routers, experts): which share of a group's choices each expert got; rows sum to 1."""
        place = self.groups.index(group)
        counts = torch.tensor([counts[place] for counts in self.routers.values()], dtype=torch.float32)
        return counts / counts.sum(1, keepdim=True).clamp(min=1)


class ExpertCounter:
    """Counts choices, batch by batch.

    A picture with several degradations counts for each of them. Of several processes, each sees its own samples; the
    main one's counts are written.

    Args:
        groups: See :class:`Usage`.
        experts: Experts of a router, as far as it is known; more are found by being chosen.
    """

    def __init__(self, groups: Sequence[str], experts: int = 0) -> None:
        self.groups = tuple(groups)
        self.experts = experts
        self.pictures = torch.zeros(len(groups))
        self.counts: dict[str, torch.Tensor] = {}

    def add(self, routes: Mapping[str, torch.Tensor], groups: torch.Tensor) -> None:
        """Count a batch.

        Args:
            routes: Router name -> (B, topk) experts, as routed networks keep them after a forward.
            groups: (B, G), 0 or 1.
        """
        if not routes:
            return
        groups = groups.cpu().float()
        self.pictures += groups.sum(0)
        # One transfer for all routers: each would wait for the device.
        chosen = torch.stack(list(routes.values())).cpu()
        self.experts = max(self.experts, int(chosen.max()) + 1)
        for name, choice in zip(routes, chosen, strict=True):
            taken = torch.nn.functional.one_hot(choice, self.experts).sum(1).float()
            before = self.counts.get(name, torch.zeros(len(self.groups), self.experts))
            grown = torch.nn.functional.pad(before, (0, self.experts - before.shape[1]))
            self.counts[name] = grown + groups.T @ taken

    def take(self, step: int) -> Usage | None:
        """What was counted since the last call; None if nothing was."""
        if not self.counts:
            return None
        routers = {name: counts.int().tolist() for name, counts in self.counts.items()}
        usage = Usage(step, self.groups, tuple(self.pictures.int().tolist()), routers)
        self.counts, self.pictures = {}, torch.zeros(len(self.groups))
        return usage


def write_usage(usage: Usage, path: Path, writer: Any) -> None:
    """Append the counts to a file of JSON lines, and the shares over all routers to TensorBoard."""
    record = {"step": usage.step, "groups": usage.groups, "pictures": usage.pictures, "routers": usage.routers}
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    for group, seen in zip(usage.groups, usage.pictures, strict=True):
        if seen:
            for expert, share in enumerate(usage.shares(group).mean(0).tolist()):
                writer.add_scalar(f"experts/{group}/{expert}", share, usage.step)


def read_usage(path: Path) -> list[Usage]:
    """Read such a file."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [Usage(r["step"], tuple(r["groups"]), tuple(r["pictures"]), r["routers"]) for r in records]
