"""Statistics of the whole picture inside a network: measured once, shared by all tiles."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from moir.layers.transposed_attention import ATTENTION
from moir.networks.base import Context, RestorationNetwork, check_pictures, recall


class Statistics:
    """What layers ask for the picture-wide statistics they need.

    Without a context, statistics are measured on the features at hand and written down; with one, they are taken from
    it, so that a tile is normalised, pooled and attended as the whole picture is.

    Args:
        context: What an analysis wrote down; None: measure.
        batch: Pictures or tiles in the batch.

    Attributes:
        used: Every statistic that was asked for, by name.
    """

    def __init__(self, context: Context | None, batch: int) -> None:
        self.used: dict[str, torch.Tensor] = {}
        self._context = context
        self._batch = batch

    @property
    def known(self) -> bool:
        """Whether an analysis wrote statistics down, so that none need be measured."""
        return self._context is not None

    def get(self, name: str, measure: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The statistic of that name, with the batch as first dimension.

        Args:
            name: A name of its own within the network, such as the module's.
            measure: Measures it on the features at hand.

        Raises:
            InvalidValueError: The context comes from another network, or from another number of pictures.
        """
        value = measure() if self._context is None else recall(self._context, name, self._batch)
        self.used[name] = value
        return value


def shared_attention(context: Context | None, batch: int) -> Statistics | None:
    """The attention maps that a context holds for tiles; None if it holds none, so that each input has its own.

    Args:
        context: What :meth:`RestorationNetwork.measure` returned, or anything else.
        batch: Pictures or tiles in the batch.
    """
    maps = {name: value for name, value in (context or {}).items() if name.endswith(ATTENTION)}
    return Statistics(maps, batch) if maps else None


class MeasuringNetwork(RestorationNetwork, ABC):
    """A network whose layers ask for :class:`Statistics` as they go: the pass that measures them also restores.

    What it measures says the ``analyse`` of each network.
    """

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: What :meth:`analyse` returned for the B pictures (or for the one picture all B tiles are from).

        Returns:
            (B, 3, H, W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
            InvalidValueError: The context does not fit.
        """
        check_pictures(x)
        return self._run(x, Statistics(context, x.shape[0]))

    def restore_whole(self, x: torch.Tensor) -> tuple[torch.Tensor, Context]:
        """See :meth:`RestorationNetwork.restore_whole`; one pass, which uses what it measures."""
        check_pictures(x)
        statistics = Statistics(None, x.shape[0])
        return self._run(x, statistics), statistics.used

    @abstractmethod
    def _run(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """One pass over (B, 3, H, W)."""
