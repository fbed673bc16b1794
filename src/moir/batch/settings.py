"""What is done to every picture of a run, as plain values that other processes and machines can be given."""

import fnmatch
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
        adapters: Files of adapters. One: for every picture. Several: each as ``PATTERN=FILE``, for the pictures whose
            name the shell-like pattern matches; the first that matches counts, and pictures that none matches are
            restored without an adapter.
        ensemble: Restore in several orientations and take the mean.

    Raises:
        UnknownNameError: An unknown task.
        InvalidValueError: No task, a strength outside 0..1, or several adapters without patterns.
    """

    model: str | None = None
    tasks: tuple[str, ...] | None = None
    strength: float = 1.0
    device: str | None = None
    precision: str | None = None
    tile: int | str | None = "auto"
    compare: bool = False
    adapters: tuple[str, ...] = ()
    ensemble: bool = False

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
        if len(self.adapters) > 1 and (plain := [word for word in self.adapters if "=" not in word]):
            raise InvalidValueError(
                f"{len(self.adapters)} adapters, but not for which pictures each is; give {plain[0]} as "
                f"'PATTERN={plain[0]}', for example 'night*=night_adapter.safetensors'"
            )

    def load(self, device: str | None = None) -> "Restorer":
        """The restorer that these settings ask for, on ``device`` where one is given.

        Raises:
            MoirError: See :func:`moir.restore.load`.
        """
        from moir.restore import load

        files = [file for _, file in self._adapters()]
        return load(
            self.model,
            adapter=files,
            device=device or self.device,
            precision=self.precision,
            tile=self.tile,
            ensemble=self.ensemble,
        )

    def adapter_of(self, restorer: "Restorer", name: str) -> str:
        """The name of the adapter for a picture; ``"none"`` if there is none for it.

        Args:
            restorer: From :meth:`load`.
            name: The picture's file name.
        """
        from moir.restore import ALONE

        if not self.adapters:
            return restorer.adapters[0] if restorer.adapters else ALONE
        matching = (
            adapter
            for (pattern, _), adapter in zip(self._adapters(), restorer.adapters, strict=True)
            if fnmatch.fnmatchcase(name, pattern)
        )
        return next(matching, ALONE)

    def _adapters(self) -> list[tuple[str, str]]:
        """Pattern and file of each adapter."""
        words = (word.rpartition("=") for word in self.adapters)
        return [(pattern or "*", file) for pattern, _, file in words]

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
        # Without adapters and ensemble, an identity is what it was before there were any.
        del facts["adapters"]
        if not self.ensemble:
            del facts["ensemble"]
        if self.adapters:
            facts["adapters"] = [[pattern, sha256_of(file)] for pattern, file in self._adapters()]
        return {**facts, "weights": weights or sha256_of(find_weights(self.model or DEFAULT))}


def key_of(identity: dict[str, Any]) -> str:
    """A short name of an identity: the first 16 digits of the SHA-256 of its JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
