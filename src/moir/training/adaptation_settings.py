"""How an adapter is trained: the settings behind ``moir adapt``, with values that suit a few dozen pairs."""

from collections.abc import Mapping
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moir.adapters import METHODS
from moir.base.errors import RecipeError
from moir.base.names import check_name
from moir.training.recipe import Loss, Positive, Share, Weight

RATES = {"adaptformer": 1e-2}
"""Learning rates of methods that :data:`RATE` does not suit: AdaptFormer scales its change by 0.1."""

RATE = 2e-3
"""Learning rate of all other methods."""

STEPS = 600
"""Steps where neither steps nor minutes are given."""

OPTION = "adapter."
"""Before the name of an option of the method: ``--set adapter.rank=8``."""


class Adaptation(BaseModel):
    """Everything about the training of an adapter but the pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = "adaptir"
    """A method of :mod:`moir.adapters`."""
    options: dict[str, Any] = {}
    """Its options."""
    steps: Positive | None = None
    """At most so many steps; None: as many as fit into ``minutes``, or 600."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """At most so many minutes; None: as long as the steps take."""
    batch: Annotated[int, Field(ge=2)] = 8
    """Patches per step; AdaptIR normalises over them."""
    patch: Annotated[int, Field(ge=16)] = 96
    """Side of a patch, pixels of the input; less where a picture is smaller."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate of AdamW; None: :data:`RATES`."""
    weight_decay: Weight = 1e-4
    clip: Weight = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    warmup: Share = 0.05
    """Share of the run in which the rate rises; afterwards it falls along a cosine."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay of the moving average of the weights, which is what is scored and written."""
    loss: Loss = Loss(presence=0, degree=0, balance=0)
    """What is wrong with the inputs is not known, and a frozen router has nothing to learn."""
    turns: bool = True
    """Turn patches by quarters; switch it off where the damage has a direction (rain that always falls)."""
    flips: bool = True
    """Mirror patches left to right."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the pairs that is never trained on and decides which state is kept; at least one pair."""
    most_held_out: Positive = 32
    """No more pairs than this are held out."""
    check_every: Positive = 50
    """Steps between two scorings of the held-out pairs."""
    patience: Positive = 6
    """Stop after so many scorings without a new best."""
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        return check_name(name, METHODS, "adapter")

    @property
    def rate(self) -> float:
        """The learning rate in use."""
        return self.learning_rate or RATES.get(self.method, RATE)

    @property
    def most_steps(self) -> int | None:
        """The number of steps after which the run ends; None: time alone ends it."""
        return STEPS if self.steps is None and self.minutes is None else self.steps


def read_settings(method: str = "adaptir", values: Mapping[str, str] | None = None, **known: Any) -> Adaptation:
    """Make settings from words.

    Args:
        method: A method of :mod:`moir.adapters`.
        values: Settings as text: ``{"patch": "64", "adapter.rank": "8", "loss.fft": "0.1"}``.
        **known: Settings as values; None means the default.

    Raises:
        RecipeError: An unknown setting, or a value that is not possible; all of them are named.
        UnknownNameError: An unknown method.

    Examples:
        >>> settings = read_settings("lora", {"patch": "64", "adapter.rank": "2"}, steps=100)
        >>> settings.patch, settings.options, settings.most_steps
        (64, {'rank': 2}, 100)
    """
    given: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    options: dict[str, Any] = {}
    loss: dict[str, Any] = {}
    for key, text in (values or {}).items():
        if key.startswith(OPTION):
            options[key.removeprefix(OPTION)] = yaml.safe_load(text)
        elif key.startswith("loss."):
            loss[key.removeprefix("loss.")] = text
        else:
            check_name(key, [name for name in Adaptation.model_fields if name != "options"], "setting of adapt")
            given[key] = text
    if loss:
        given["loss"] = {"presence": 0, "degree": 0, "balance": 0, **loss}
    try:
        return Adaptation(method=check_name(method, METHODS, "adapter"), options=options, **given)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in error.errors()]
        raise RecipeError("; ".join(problems)) from None
