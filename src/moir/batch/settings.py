"""What is done to every picture of a run, as plain values that other processes and machines can be given."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from moir.base.errors import InvalidValueError
from moir.base.names import TASKS, check_name

if TYPE_CHECKING:
    from moir.restore import Restorer


@dataclass(frozen=True)
class Settings:
    """The options of ``moir restore`` that hold for every picture.

    Attributes:
        model: See :func:`moir.restore.load`; None: the shipped default.
        tasks: What to remove (``derain``, ...); None: whatever is found.
        strength: How much of the change to apply, 0..1.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; None: the best there is.
        precision: ``float32``, ``bf16``, ``fp16``; None: the fastest that is exact enough.
        tile: Side of tiles in pixels, ``auto``, or None: never tile.
        compare: Also write input and result side by side.

    Raises:
        UnknownNameError: An unknown task.
        InvalidValueError: No task, or a strength outside 0..1.
    """

    model: str | None = None
    tasks: tuple[str, ...] | None = None
    strength: float = 1.0
    device: str | None = None
    precision: str | None = None
    tile: int | str | None = "auto"
    compare: bool = False

    def __post_init__(self) -> None:
        # Before any work, not once per picture.
        if self.tasks is not None:
            if not self.tasks:
                raise InvalidValueError(f"no task was named; name some of {', '.join(TASKS)}, or leave the task out")
            for task in self.tasks:
                check_name(task, TASKS, "task")
        if not 0 <= self.strength <= 1:
            raise InvalidValueError(
                f"strength {self.strength!r} is outside 0..1: 0 gives the input, 1 the full restoration"
            )

    def load(self, device: str | None = None) -> "Restorer":
        """The restorer that these settings ask for, on ``device`` where one is given.

        Raises:
            MoirError: See :func:`moir.restore.load`.
        """
        from moir.restore import load

        return load(self.model, device=device or self.device, precision=self.precision, tile=self.tile)

    def identity(self, restorer: "Restorer") -> dict[str, Any]:
        """Everything of the settings that changes the results, for the manifest.

        The device is not part of it: a run may go on elsewhere. Weights count by their content, not by their path.
        """
        from moir.checkpoints.card import sha256_of
        from moir.models import DEFAULT, find_weights

        weights = restorer.card.sha256 if restorer.card else ""
        facts = asdict(self)
        del facts["device"]
        facts["model"] = restorer.name
        return {**facts, "weights": weights or sha256_of(find_weights(self.model or DEFAULT))}


def key_of(identity: dict[str, Any]) -> str:
    """A short name of an identity: the first 16 digits of the SHA-256 of its JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
