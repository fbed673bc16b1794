"""Recipes (validated YAML) and one readable training loop."""

from moir.training.reading import load_recipe
from moir.training.recipe import Recipe

__all__ = ["Recipe", "load_recipe"]
