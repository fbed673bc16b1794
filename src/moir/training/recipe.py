"""A training recipe: one YAML file per run, checked before anything starts.

A wrong key or value is refused with its place and the near miss.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moir.base.errors import MoirError, RecipeError
from moir.base.names import check_name, near_misses
from moir.degrade import ORDER, SEVERITIES, parse
from moir.degrade.severity import LEVELS
from moir.models import list_models

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Section):
    """Which network, and where its weights start."""

    name: str
    """A name of the registry."""
    options: dict[str, Any] = {}
    """Options of the network."""
    start: str | None = None
    """Weights to start from (.safetensors); None: fresh ones. The optimiser starts anew."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return check_name(name, list_models(tests=True), "model")


class Damage(_Section):
    """What is done to the clean pictures; see :class:`moir.degrade.Pipeline`."""

    clean: Share = 0.06
    single: Share = 0.6
    named: Share = 0.14
    gate: Share = 0.3
    types: dict[str, Weight] = dict.fromkeys(ORDER, 1.0)
    levels: dict[str, Weight] = {"light": 1.0, "medium": 1.0, "heavy": 1.0}

    @field_validator("types", "levels")
    @classmethod
    def _known(cls, weights: dict[str, float], info: Any) -> dict[str, float]:
        known: Sequence[str] = tuple(SEVERITIES) if info.field_name == "types" else LEVELS
        for name in weights:
            check_name(name, known, "degradation type" if info.field_name == "types" else "severity")
        if not sum(weights.values()) > 0:
            raise ValueError("the weights must not all be 0")
        return weights


class Data(_Section):
    """Clean pictures, and how training samples are cut from them."""

    folders: list[str] = Field(min_length=1)
    """Folders of clean pictures, searched recursively; ``$NAME`` and ``~`` are expanded."""
    patch: Annotated[int, Field(ge=16)] = 128
    """Side of a training patch, pixels."""
    smallest_scale: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Pictures are shrunk by a random factor down to this one, never below the patch size."""
    instruct: Share = 0.1
    """Share of samples on which the network is told what to remove, and must leave the rest."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that prepare samples."""
    damage: Damage = Damage()


class Loss(_Section):
    """Weights of the loss terms; 0 leaves a term out."""

    l1: Weight = 1.0
    charbonnier: Weight = 0.0
    fft: Weight = 0.0
    presence: Weight = 0.05
    degree: Weight = 0.02
    balance: Weight = 0.01


class Optimiser(_Section):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    final_rate: Annotated[float, Field(ge=0)] = 1e-6
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Weight = 1e-4
    clip: Weight = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    warmup: Annotated[int, Field(ge=0)] = 200
    schedule: Literal["cosine", "hold"] = "cosine"
    """cosine: falls from warm-up to the end. hold: constant, and falls linearly over the last ``decay`` share of the
    steps, so that a run can be made longer, or ended at any time, without having planned it."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of all steps over which ``hold`` falls."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the exponential moving average of the weights, which is what is saved and validated."""


class Validation(_Section):
    """Pictures that are never trained on, damaged in the same way every time."""

    folders: list[str] = []
    """Folders of clean pictures; none: no validation."""
    limit: Positive = 8
    """How many pictures of each damage."""
    crop: Positive = 256
    """Side of the centre crop, pixels."""
    damages: list[str] = ["clean", "noise=25", "rain=medium", "haze=medium", "snow=medium", "blur=medium",
                          "lowlight=medium", "jpeg=20", "H-N-R=medium"]  # fmt: skip
    every: Positive = 500

    @field_validator("damages")
    @classmethod
    def _readable(cls, damages: list[str]) -> list[str]:
        for spec in damages:
            if spec != "clean":
                parse(spec)
        return damages


class Recipe(_Section):
    """One training run."""

    name: str
    model: Model
    data: Data
    steps: Positive
    batch: Positive = 16
    """Samples per step and process."""
    accumulate: Positive = 1
    """Batches whose gradients are summed before a step."""
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    seed: int = 0
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    validation: Validation = Validation()
    save_every: Positive = 500
    log_every: Positive = 20


def load_recipe(path: str | Path, settings: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe and check it.

    Args:
        path: A YAML file.
        settings: Values to set in it, by dotted key: ``{"optimiser.learning_rate": "1e-4"}``, read as YAML.

    Raises:
        RecipeError: The file is missing or no YAML mapping, or a key or value is wrong; near misses are named.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{file} must hold a YAML mapping with keys such as 'model' and 'data'")
    for key, text in (settings or {}).items():
        _set(content, key, _value(text))
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{file}: " + "; ".join(_explain(e, content) for e in error.errors())) from None
    except MoirError as error:
        raise RecipeError(f"{file}: {error}") from error


def _value(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:  # YAML 1.1 takes 1e-4 for a word
            return float(value)
        except ValueError:
            return value
    return value


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = content
    for name in parents:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise RecipeError(f"cannot set {key!r}: {name!r} is not a section of the recipe")
    place[last] = value


def _explain(error: Any, content: dict[str, Any]) -> str:
    place = [str(part) for part in error["loc"]]
    where = ".".join(place)
    if error["type"] == "extra_forbidden":
        section: Any = Recipe
        for part in place[:-1]:
            field = section.model_fields.get(part)
            section = field.annotation if field is not None else Recipe
        known = list(section.model_fields)
        near = near_misses(place[-1], known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" + (f" (got {error['input']!r})" if error["type"] != "missing" else "")
