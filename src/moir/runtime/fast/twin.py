"""What all fast twins share: they stand in for a network, one picture after the other."""

from collections.abc import Sequence

import torch

from moir.networks.base import Context, RestorationNetwork, check_pictures, recall


class Twin(RestorationNetwork):
    """Base of the fast twins: a batch is restored picture by picture.

    A batch gains nothing on a CPU, and feature maps of one picture are simpler: one route, one attention map.

    Args:
        network: The network that this stands in for.
        dtype: Precision of the arithmetic.
    """

    def __init__(self, network: RestorationNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        for name in ("estimates", "bounded_analysis", "measures", "size_multiple", "overlap", "scale", "options"):
            setattr(self, name, getattr(network, name))
        self.dtype = dtype

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles; see :meth:`RestorationNetwork.forward`.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
            InvalidValueError: The context does not fit.
        """
        check_pictures(x)
        with torch.inference_mode():
            pictures = [self.restore_one(x[i : i + 1], of_picture(context, i, len(x))) for i in range(len(x))]
        return pictures[0] if len(pictures) == 1 else torch.cat(pictures)

    def restore_one(self, x: torch.Tensor, context: Context | None) -> torch.Tensor:
        """Restore one picture or tile: (1, 3, H, W), float32, to the same shape."""
        raise TypeError(f"{type(self).__name__} does not define restore_one")

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        """A picture (1, 3, H, W) in the precision and memory format of the arithmetic."""
        return x.to(self.dtype, memory_format=torch.channels_last)


def of_picture(context: Context | None, picture: int, batch: int) -> Context | None:
    """The context of one picture of the batch."""
    if context is None:
        return None
    return {name: recall(context, name, batch)[picture : picture + 1] for name in context}


def joined(contexts: Sequence[Context]) -> dict[str, torch.Tensor]:
    """The context of a batch from those of its pictures."""
    return {name: torch.cat([one[name] for one in contexts]) for name in contexts[0]}
