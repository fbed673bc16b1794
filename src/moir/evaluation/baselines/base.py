"""What every baseline is: a function from pixels to pixels, with where it comes from and what it is meant for."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import torch

from moir.base.errors import TensorShapeError
from moir.evaluation.cost import measure_cost
from moir.evaluation.records import Cost

Pixels = np.ndarray[Any, Any]
"""A picture, (H, W, 3), float32, RGB, [0, 1]."""


@dataclass
class Baseline:
    """A method without learnt weights, as a :class:`moir.evaluation.methods.Method`.

    Baselines are blind: they know neither the setting nor the severity of the damage. What a method needs to know (the
    noise level) it estimates from the picture; what cannot be estimated simply (the kernel of a blur) is assumed, and
    said.

    Attributes:
        name: As in :func:`moir.evaluation.baselines.list_baselines`.
        description: One line, with the settings that are not the library's defaults.
        source: The paper.
        types: Degradation types that it is meant for; empty for the identity.
        function: :data:`Pixels` to pixels of the same shape; values outside [0, 1] are clipped after it.
    """

    name: str
    description: str
    source: str
    types: tuple[str, ...]
    function: Callable[[Pixels], Pixels]

    def restore(self, x: torch.Tensor, *, setting: object | None = None) -> torch.Tensor:
        """Restore one picture.

        Args:
            x: (3, H, W), float32, [0, 1].
            setting: Not used: baselines are blind.

        Returns:
            (3, H, W), float32, [0, 1].

        Raises:
            TensorShapeError: ``x`` is something else.
            MissingExtraError: The method needs a package that is not installed.
        """
        if x.dim() != 3 or x.shape[0] != 3 or x.dtype != torch.float32 or min(x.shape) < 1:
            raise TensorShapeError(f"expected float32 (3, H, W) in [0, 1], got {x.dtype} {tuple(x.shape)}")
        pixels = np.ascontiguousarray(x.permute(1, 2, 0).cpu().numpy())
        restored = np.asarray(self.function(pixels), dtype=np.float32).clip(0, 1)
        return torch.from_numpy(np.ascontiguousarray(restored.transpose(2, 0, 1)))

    def cost(self, size: tuple[int, int]) -> Cost:
        """Memory and time for a picture of this height and width; there are no parameters and no MACs to count."""
        return measure_cost(self.restore, size)

    def options(self) -> dict[str, Any]:
        """What the results depend on, for the record of a run."""
        return {"description": self.description, "opencv": cv2.__version__, "scikit-image": version("scikit-image")}


def identity(pixels: Pixels) -> Pixels:
    """The picture as it is."""
    return pixels


IDENTITY = Baseline("identity", "leaves the picture as it is", "the score of the input", (), identity)
