"""Recipes (validated YAML) and one readable training loop."""

from moir.training.recipe import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe"]
