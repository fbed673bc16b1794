"""One routing for a whole shot, so that its frames do not flicker."""

from collections.abc import Sequence
from pathlib import Path

import torch

from moir.base.names import TYPE_OF_TASK
from moir.batch.video.colour import to_tensor
from moir.batch.video.opening import Facts, frames, opened
from moir.networks.base import Context
from moir.restore import Restorer


def decide(
    restorer: Restorer, source: Path, facts: Facts, samples: Sequence[int], tasks: Sequence[str] | None
) -> Context:
    """Analyse some frames of a shot, and take the decision that agrees best with the others.

    A decision that was made, rather than a mean of several: a routed network's context holds numbers of experts, which
    have no mean, and a frame that is not like the others (a flash, a fade) then does not count.

    Args:
        restorer: Whose network analyses.
        source: The clip.
        facts: Of its video stream.
        samples: Timestamps of the frames.
        tasks: What to remove; None: whatever is found.

    Returns:
        A context of batch size 1.
    """
    types = None if tasks is None else [TYPE_OF_TASK[task] for task in tasks]
    contexts = []
    for time in samples:
        with opened(source) as container:
            frame = next(frames(container, time))
            contexts.append(restorer.engine.analyse(to_tensor(frame, facts)[None], types))
    return medoid(contexts)


def medoid(contexts: Sequence[Context]) -> Context:
    """The context with the least sum of distances to the others, every tensor scaled by its spread.

    Examples:
        >>> values = [{"a": torch.tensor([[v]])} for v in (0.0, 1.0, 9.0)]
        >>> medoid(values)["a"].item()
        1.0
    """
    distances = torch.zeros(len(contexts), len(contexts))
    for name in contexts[0]:
        values = torch.stack([context[name].detach().float().flatten().cpu() for context in contexts])
        apart = torch.cdist(values[None], values[None])[0]
        distances += apart / apart.mean().clamp_min(1e-9)
    return contexts[int(distances.sum(1).argmin())]
