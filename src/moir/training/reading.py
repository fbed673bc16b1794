"""Recipes from files: YAML that may extend another file, values set by key, and errors that name the near miss."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from moir.base.errors import MoirError, RecipeError
from moir.base.names import check_name, near_misses
from moir.training.recipe import Recipe

KINDS: dict[str, str] = {
    "daclip": "moir.training.universal.recipe:ControllerRecipe",
    "join": "moir.training.tree.join_recipe:JoinRecipe",
    "tree": "moir.training.tree.recipe:TreeRecipe",
    "unirestorer": "moir.training.universal.recipe:UniRestorerRecipe",
}
"""What ``kind`` in a recipe may say, where it trains something else than one network: classes with a method ``run``."""


def load_recipe(path: str | Path, settings: Mapping[str, str] | None = None) -> Any:
    """Read a recipe and check it.

    Args:
        path: A YAML file.
        settings: Values to set in it, by dotted key: ``{"optimiser.learning_rate": "1e-4"}``, read as YAML.

    Returns:
        A :class:`Recipe`, or what the recipe's ``kind`` stands for in :data:`KINDS`.

    Raises:
        RecipeError: The file is missing or no YAML mapping, or a key or value is wrong; near misses are named.
    """
    file = Path(path)
    content = _read(file)
    for key, text in (settings or {}).items():
        _set(content, key, _value(text))
    kind: Any = Recipe
    try:
        if "kind" in content:
            module, name = KINDS[check_name(str(content.pop("kind")), KINDS, "kind of recipe")].split(":")
            kind = getattr(importlib.import_module(module), name)
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{file}: " + "; ".join(_explain(e, kind) for e in error.errors())) from None
    except MoirError as error:
        raise RecipeError(f"{file}: {error}") from error


def _read(file: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The content of a recipe, laid over that of the one it extends."""
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        whose = f", which {heirs[-1]} extends" if heirs else ""
        raise RecipeError(f"cannot read the recipe {file}{whose}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{file} must hold a YAML mapping with keys such as 'model' and 'data'")
    base = content.pop("extends", None)
    if base is None:
        return content
    parent = file.parent / str(base)
    if parent in (file, *heirs):
        raise RecipeError(f"{file} extends {base}, which extends it in turn")
    return _over(_read(parent, (*heirs, file)), content)


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key, everything else is replaced."""
    both = {key: _over(base[key], changes[key]) for key in base.keys() & changes.keys()
            if isinstance(base[key], dict) and isinstance(changes[key], dict)}  # fmt: skip
    return {**base, **changes, **both}


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


def _explain(error: Any, recipe: Any) -> str:
    place = [str(part) for part in error["loc"]]
    where = ".".join(place)
    if error["type"] == "extra_forbidden":
        section: Any = recipe
        for part in place[:-1]:
            field = section.model_fields.get(part)
            kinds = (recipe,) if field is None else (field.annotation, *get_args(field.annotation))
            section = next((kind for kind in kinds if hasattr(kind, "model_fields")), recipe)
        known = list(section.model_fields)
        near = near_misses(place[-1], known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "missing" or isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return (f"{where}: " if where else "") + message + got
