"""When the learning rate rises and falls: a pure function of the step, so that a run can be resumed at any time."""

import math
from bisect import bisect_right
from dataclasses import dataclass

from moir.training.recipe import Optimiser, Recipe

WARMUP = 200
"""Steps of warm-up where a recipe names none: Adam's moments are rough until then."""


@dataclass(frozen=True)
class Schedule:
    """The lengths of a recipe, in steps.

    Attributes:
        steps: All steps of the run.
        warmup: The steps in which the rate rises.
        end: The step at which a cosine reaches the final rate; not before ``steps``.
        milestones: The steps at which ``multistep`` multiplies the rate.
    """

    steps: int
    warmup: int
    end: int
    milestones: tuple[int, ...] = ()


def schedule_of(recipe: Recipe, steps_per_epoch: float | None = None) -> Schedule:
    """Count a recipe's lengths in steps.

    Args:
        recipe: With ``steps`` or ``epochs``.
        steps_per_epoch: Samples of an epoch over samples of a step (all processes, accumulation included); needed with
            ``epochs``. A step at the seam takes the samples of two epochs.
    """
    settings = recipe.optimiser
    if recipe.epochs is None:
        assert recipe.steps is not None
        rising = WARMUP if settings.warmup is None else settings.warmup
        return Schedule(recipe.steps, rising, recipe.steps, tuple(round(m) for m in settings.milestones))
    assert steps_per_epoch is not None
    steps = max(1, round(recipe.epochs * steps_per_epoch))
    warmup = settings.warmup
    if warmup is None:
        warmup = WARMUP if settings.warmup_epochs is None else round(settings.warmup_epochs * steps_per_epoch)
    end = steps if settings.schedule_epochs is None else round(settings.schedule_epochs * steps_per_epoch)
    return Schedule(steps, warmup, max(steps, end), tuple(round(m * steps_per_epoch) for m in settings.milestones))


def learning_rate(step: int, schedule: Schedule, settings: Optimiser) -> float:
    """The learning rate of a step, counted from 0.

    Examples:
        >>> settings = Optimiser(learning_rate=1.0, final_rate=0.0)
        >>> [round(learning_rate(s, Schedule(110, 10, 110), settings), 3) for s in (0, 9, 10, 60, 110)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    top, bottom = settings.learning_rate, settings.final_rate
    if step < schedule.warmup:
        return top * (step + 1) / schedule.warmup
    if settings.schedule == "cosine":
        done = (step - schedule.warmup) / max(1, schedule.end - schedule.warmup)
        return bottom + (top - bottom) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if settings.schedule == "multistep":
        return top * settings.gamma ** bisect_right(schedule.milestones, step)
    falling = settings.decay * schedule.steps
    return bottom + (top - bottom) * min(1.0, max(0.0, (schedule.steps - step) / max(1.0, falling)))
