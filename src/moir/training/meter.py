"""The terms of the loss on their way from the device to the log."""

import math

import torch

from moir.base.errors import TrainingError


class LossMeter:
    """Keeps the terms of the loss where they are until they are needed, and then fetches them all at once.

    Reading a number from a GPU waits until it has done everything it was asked for, and leaves it idle until it is
    asked again. Nothing is lost by waiting: every value is checked before anything is written.

    Args:
        turns: Batches in a step (``accumulate``), over which the terms are averaged.
    """

    def __init__(self, turns: int = 1) -> None:
        self.turns = turns
        self._held: list[tuple[int, float, tuple[str, ...], torch.Tensor]] = []

    def add(self, step: int, rate: float, terms: dict[str, torch.Tensor]) -> None:
        """Keep the terms of one batch.

        Args:
            step: Steps done before this one.
            rate: The learning rate, for the message if a term is not finite.
            terms: Name to scalar.
        """
        self._held.append((step, rate, tuple(terms), torch.stack([term.detach() for term in terms.values()])))

    def fetch(self) -> dict[str, float]:
        """Check everything kept since the last call, and return the terms of the latest step.

        Raises:
            TrainingError: A term is not finite; the message names it and its step.
        """
        held, self._held = self._held, []
        values = iter(torch.cat([values for *_, values in held]).tolist())
        latest: dict[str, float] = {}
        for step, rate, names, _ in held:
            terms = {name: next(values) for name in names}
            _check_finite(terms, step, rate)
            if step == held[-1][0]:
                for name, value in terms.items():
                    latest[name] = latest.get(name, 0.0) + value / self.turns
        return latest


def _check_finite(terms: dict[str, float], step: int, rate: float) -> None:
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"the loss term {' and '.join(broken)} is not finite at step {step} (learning rate {rate:.2e}); "
            "the last saved state is whole: lower optimiser.learning_rate, clip harder, or use precision 'no'"
        )
