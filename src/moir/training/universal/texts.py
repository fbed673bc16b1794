"""Samples for the degradation extractor: squares of damaged pictures, each with its text."""

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from moir import degrade
from moir.base.errors import TrainingError
from moir.picture import read
from moir.training.data import clean_pictures, generator_of
from moir.training.universal.recipe import Damaged, Table
from moir.training.universal.samples import draw_of, label_of
from moir.universal.clustering import Label
from moir.universal.daclip_input import preprocess_training, random_square
from moir.universal.daclip_text import degradation_text, title
from moir.universal.daclip_tokens import Tokenizer

Sample = dict[str, torch.Tensor]


class TextSamples(Dataset[Sample], ABC):
    """Base of the two sources. Sample i depends on the seed and i alone.

    A sample holds ``image`` (3, side, side), normalised, and ``tokens`` (context,) int64.

    Args:
        paths: The pictures.
        tokenizer: Texts to tokens.
        context: Tokens of a text.
        side: Side of what the extractor looks at, pixels.
        seed: Of the run.
    """

    def __init__(self, paths: Sequence[Path], tokenizer: Tokenizer, context: int, side: int, seed: int) -> None:
        self.paths = tuple(paths)
        self.tokenizer, self.context, self.side, self.seed = tokenizer, context, side, seed

    def __getitem__(self, index: int) -> Sample:
        image, text, _ = self.labelled(index)
        return {"image": image, "tokens": self.tokenizer([text], self.context)[0]}

    def labelled(self, index: int) -> tuple[torch.Tensor, str, Label | None]:
        """The picture, its text, and what was done to it where that is known."""
        epoch, place = divmod(index, len(self.paths))
        order = torch.randperm(len(self.paths), generator=generator_of(self.seed, epoch, 1))
        number = int(order[place])
        generator = generator_of(self.seed, index)
        rgb = read(self.paths[number]).rgb
        left, top, length = random_square(rgb.shape[2], rgb.shape[1], generator, self.side)
        square = rgb[:, top : top + length, left : left + length]
        square, text, label = self._text(square, number, generator)
        eight_bit = (square * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        shown = preprocess_training(Image.fromarray(np.ascontiguousarray(eight_bit)), generator, self.side)
        return shown, text, label

    @abstractmethod
    def _text(
        self, square: torch.Tensor, number: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, str, Label | None]:
        """The square as the extractor shall see it, its text, and its label."""


class TableSamples(TextSamples):
    """Pictures that are damaged already, with their texts, as in the published training.

    Args:
        table: The section of the recipe.
        **rest: See :class:`TextSamples`.

    Raises:
        TrainingError: The table is missing, has no such columns, or names pictures that are not there.
    """

    def __init__(self, table: Table, **rest: Any) -> None:
        rows = read_table(table)
        super().__init__(list(rows), **rest)
        self.texts = list(rows.values())

    def _text(
        self, square: torch.Tensor, number: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, str, Label | None]:
        return square, self.texts[number], None


class DamagedSamples(TextSamples):
    """Clean pictures, damaged on the fly at native resolution, before anything is resized.

    Args:
        data: The section of the recipe.
        captions: Captions of some pictures, by absolute path; others have none.
        **rest: See :class:`TextSamples`.
    """

    def __init__(self, data: Damaged, captions: Mapping[Path, str], **rest: Any) -> None:
        super().__init__(clean_pictures(data.folders), **rest)
        self.draw, self.captions = draw_of(data), captions

    def _text(
        self, square: torch.Tensor, number: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, str, Label | None]:
        params = self.draw.sample(generator)
        label = label_of(params)
        damaged = degrade.quantise(degrade.apply(square[None].contiguous(), [params]))[0]
        return damaged, title(self.captions.get(self.paths[number].resolve(), ""), degradation_text(label)), label


def read_table(table: Table) -> dict[Path, str]:
    """Paths to texts.

    Raises:
        TrainingError: The table is missing, has no such columns, or names pictures that are not there.
    """
    file = Path(os.path.expandvars(table.file)).expanduser()
    root = Path(os.path.expandvars(table.root)).expanduser() if table.root else file.parent
    try:
        with file.open(newline="") as opened:
            rows = list(csv.DictReader(opened, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"the table {file} cannot be read: {error}") from error
    for column in (table.picture, table.text):
        if not rows or column not in rows[0]:
            have = ", ".join(rows[0]) if rows else "no rows"
            raise TrainingError(
                f"{file} has no column {column!r} ({have}); it must be tab separated, with a header line"
            )
    found = {root / row[table.picture]: row[table.text] or "" for row in rows if row[table.picture]}
    missing = [str(path) for path in found if not path.is_file()]
    if missing:
        raise TrainingError(f"{file} names {len(missing)} pictures that are not there, such as {missing[0]}")
    return found
