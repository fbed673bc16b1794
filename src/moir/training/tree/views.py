"""Samples for the extractor: what it sees of whole damaged pictures, large and small."""

from dataclasses import dataclass, field

import torch
from torch.utils.data import Dataset

from moir.training.data import DamagedPatches, generator_of
from moir.training.recipe import Data
from moir.universal.compact_extractor import views

Sample = dict[str, torch.Tensor]


@dataclass
class ViewSamples(Dataset[Sample]):
    """Views of damaged pictures of several sizes; all of one batch have one size.

    A sample holds ``crops`` (N, 3, 64, 64), ``thumbnail`` (3, 64, 64), ``presence`` (7,) and ``degree`` (7,) as in
    :class:`~moir.training.data.DamagedPatches`. Sample number i depends on the seed and i alone.

    Attributes:
        pictures: uint8 (3, H, W); those smaller than a size are not used for it.
        data: The section of the recipe; its ``patch`` is not used.
        sizes: Sides of the pictures to draw, pixels, with their weights.
        batch: Samples in a batch.
        seed: Seed of the run.
        most: At most so many crops of a picture are shown, drawn anew each time.
    """

    pictures: list[torch.Tensor]
    data: Data
    sizes: dict[int, float]
    batch: int
    seed: int
    most: int = 6
    _of_size: dict[int, DamagedPatches] = field(init=False)

    def __post_init__(self) -> None:
        self._of_size = {}
        for side in self.sizes:
            large = [picture for picture in self.pictures if min(picture.shape[-2:]) >= side]
            self._of_size[side] = DamagedPatches(large, self.data.model_copy(update={"patch": side}), self.seed)

    def __getitem__(self, index: int) -> Sample:
        weights = torch.tensor(list(self.sizes.values()))
        place = torch.multinomial(weights, 1, generator=generator_of(self.seed, index // self.batch, 1))
        sample = self._of_size[list(self.sizes)[int(place)]][index]
        crops, thumbnail = views(sample["input"][None])
        # The batch decides how many crops there are (they stack), the sample which ones.
        count = crops.shape[1]
        shown = torch.randperm(count, generator=generator_of(self.seed, index, 2))[: self.most]
        return {
            "crops": crops[0, shown],
            "thumbnail": thumbnail[0],
            "presence": sample["presence"],
            "degree": sample["degree"],
        }
