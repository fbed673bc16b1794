"""What every network of moir offers: picture in, picture out, and one decision per picture.

A network with routing, or with statistics of the whole picture, makes its decision in ``analyse`` and takes it back in
``forward``. The runtime analyses once per picture (or shot) and hands the context to every tile, so that tiles never
decide for themselves.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from moir.base.errors import InvalidValueError, TensorShapeError
from moir.base.names import check_name

Context = Mapping[str, torch.Tensor]
"""What a network decided about each picture of a batch: named tensors, each with the batch as first dimension."""

PLACE = "place"
"""The context's name for where tiles lie, (B, 4), int64: the tile's first row and column in its picture, and the
picture's height and width, in pixels. For networks with ``uses_place`` alone; without it, an input is a whole picture.
"""


class RestorationNetwork(nn.Module):
    """Base of all networks: float32 (B, 3, H, W) in [0, 1], RGB, sRGB-encoded, to the same shape.

    A network for super-resolution gives (B, 3, scale * H, scale * W).

    Any H, W >= 1: networks pad and crop inside ``forward``. In evaluation a batch gives what its pictures give one by
    one. The output is not clamped.

    Attributes:
        estimates: Whether the context says which degradations are there (``presence``, ``degree``) and which shall be
            removed (``remove``); training then supervises the one and instructs through the other.
        bounded_analysis: Whether ``analyse`` costs little whatever the picture's size. Where it does not (it runs the
            network), the runtime shrinks a picture that does not fit into memory before it is analysed.
        measures: Whether :meth:`measure` adds anything.
        uses_place: Whether what is restored depends on where in the picture it lies; the context of tiles then has
            :data:`PLACE`.
        size_multiple: Tiles have sides and positions that are multiples of this, in pixels, so that they see the same
            grid as the whole picture. (What ``forward`` pads to may be less.)
        overlap: How far neighbouring tiles overlap so that no seam is seen, pixels; a multiple of ``size_multiple``.
        scale: How many times larger the result is than the input; 1 but for super-resolution.
        options: The options the network was built with (set by :func:`build`); a card stores them.
        balance_loss: After a training forward of a routed network: its balance loss, a scalar. None otherwise.
    """

    estimates: ClassVar[bool] = False
    bounded_analysis: ClassVar[bool] = True
    size_multiple: ClassVar[int] = 1
    measures: ClassVar[bool] = False
    uses_place: ClassVar[bool] = False
    overlap: ClassVar[int] = 32
    scale: int = 1

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, Any] = {}
        self.balance_loss: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A balance loss hangs on its graph, which cannot be copied; networks are copied for moving averages.
        return {**self.__dict__, "balance_loss": None}

    def analyse(self, x: torch.Tensor) -> Context:
        """Decide, on whole pictures, what their tiles share.

        Args:
            x: (B, 3, H, W), float32, [0, 1].

        Returns:
            Named tensors with B as first dimension; empty if the network decides nothing.
        """
        return {}

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        """The same context, with the instruction to remove these types of damage only.

        Args:
            context: From :meth:`analyse`.
            types: Degradation types (``rain``, ...).

        Raises:
            InvalidValueError: This network cannot be told what to remove.
            UnknownNameError: Not a degradation type.
        """
        raise InvalidValueError(
            f"{type(self).__name__} restores what it finds and cannot be told what to remove ({', '.join(types)}); "
            "leave the task out, or use a model that takes instructions"
        )

    def following(self, context: Context, decided: Context) -> Context:
        """What was decided about a picture in another orientation, but restored by who was chosen for it as it is.

        Args:
            context: Of the mirrored or turned picture, from :meth:`analyse`, :meth:`instruct` or :meth:`prepare`.
            decided: Of the picture as it is.
        """
        return context

    def prepare(self, x: torch.Tensor, context: Context) -> Context:
        """The same context, with what whole pictures still have to tell after :meth:`instruct` changed the decision.

        Args:
            x: (B, 3, H, W), the whole pictures.
            context: From :meth:`instruct`.
        """
        return context

    def measure(self, x: torch.Tensor, context: Context) -> Context:
        """The same context, with what layers measure on the whole picture and cannot see in a tile.

        Unlike what :meth:`analyse` decides, this is needed only where pictures are cut into tiles: the runtime then
        measures once, on the picture or on a part of it that stands for the whole, and hands the result to all tiles.

        Args:
            x: (B, 3, H, W), the whole pictures, or a sample of each.
            context: From :meth:`analyse`, :meth:`instruct` or :meth:`prepare`.
        """
        return context

    def restore_whole(self, x: torch.Tensor) -> tuple[torch.Tensor, Context]:
        """Restore whole pictures, and say what was decided about them.

        The same as ``forward(x)`` and ``analyse(x)``. Networks that decide while they restore do it in one pass.

        Args:
            x: (B, 3, H, W), float32, [0, 1].

        Returns:
            What :meth:`forward` gives, and what :meth:`analyse` gives.
        """
        context = self.analyse(x)
        return self(x, context), context

    def account(self, context: Context) -> list[tuple[str, str]] | None:
        """Which expert serves each picture, and its granularity; None if the network is one expert for everything.

        Args:
            context: From :meth:`analyse` or :meth:`instruct`.
        """
        return None

    def accelerated(
        self, make: "Callable[[RestorationNetwork], RestorationNetwork | None]"
    ) -> "RestorationNetwork | None":
        """This network with faster forms of the networks it is made of; None if it is made of none.

        Args:
            make: Gives the faster form of a network, or None if there is none.
        """
        return None

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles.

        Args:
            x: (B, 3, H, W), float32, [0, 1].
            context: What :meth:`analyse` returned for the pictures that ``x`` was cut from; None: analyse ``x``.

        Returns:
            (B, 3, scale * H, scale * W), about [0, 1], not clamped.
        """
        raise TypeError(f"{type(self).__name__} does not define forward")


N = TypeVar("N", bound=RestorationNetwork)


def build(make: Callable[..., N], defaults: Mapping[str, Any], options: Mapping[str, Any]) -> N:
    """Make a network from its defaults and the options given, naming the near miss of an unknown option.

    Args:
        make: The network's class.
        defaults: The options of this size.
        options: What the user overrides.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    known = [name for name in inspect.signature(make).parameters if name != "self"]
    for name in options:
        check_name(name, known, f"option of {make.__name__}")
    merged = {**defaults, **options}
    network = make(**merged)
    network.options = merged
    return network


def check_pictures(x: torch.Tensor) -> None:
    """Check the shape contract of a network's input.

    Raises:
        TensorShapeError: Not (B, 3, H, W) with H, W >= 1, or not floating point.
    """
    if x.dim() != 4 or x.shape[1] != 3 or min(x.shape) < 1 or not x.is_floating_point():
        raise TensorShapeError(
            f"expected a float tensor (B, 3, H, W) with values in [0, 1], got {x.dtype} {tuple(x.shape)}; "
            "add a batch dimension with x[None], or convert grey to colour with x.expand(-1, 3, -1, -1)"
        )


def select(context: Context, pictures: slice | list[int]) -> dict[str, torch.Tensor]:
    """The context of some pictures of the batch."""
    return {name: value[pictures] for name, value in context.items()}


def recall(context: Context, name: str, batch: int) -> torch.Tensor:
    """What was decided under ``name``, for a batch of this size.

    A decision on one picture serves any number of its tiles.

    Args:
        context: What the network's ``analyse`` returned.
        name: The tensor's name.
        batch: Pictures or tiles in the batch.

    Returns:
        (batch, ...).

    Raises:
        InvalidValueError: The context comes from another network, or from another number of pictures.
    """
    if name not in context:
        known = ", ".join(context) or "nothing"
        raise InvalidValueError(
            f"the context has no {name!r} (it has {known}); make it with this network's own analyse()"
        )
    decision = context[name]
    if decision.shape[0] == batch:
        return decision
    if decision.shape[0] == 1:
        return decision.expand(batch, *decision.shape[1:])
    raise InvalidValueError(
        f"the context is of {decision.shape[0]} pictures but the batch has {batch}; "
        "use select() to pick the pictures that the tiles were cut from"
    )
