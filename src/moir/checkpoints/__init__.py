"""Weights on disk: safetensors with a JSON card, and other programs' checkpoints. No file is ever executed."""

from moir.checkpoints.card import Card
from moir.checkpoints.convert import Conversion, convert, open_foreign
from moir.checkpoints.foreign import Foreign, read_foreign
from moir.checkpoints.safetensors import check_fit, load_into, read_tensors, write_tensors

__all__ = [
    "Card",
    "Conversion",
    "Foreign",
    "check_fit",
    "convert",
    "load_into",
    "open_foreign",
    "read_foreign",
    "read_tensors",
    "write_tensors",
]
