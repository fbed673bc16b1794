"""Self-ensemble: a picture is restored in several orientations, and the mean of the results is taken.

What is right stays, what a network made up differs from one orientation to the next. The papers write it as a ``+``
behind the network's name: Timofte et al., "Seven ways to improve example-based single image super resolution"
(arXiv 1511.02228); Lim et al., EDSR+ (arXiv 1707.02921), "geometric self-ensemble". Noise, JPEG blocks and blur look
alike however a picture is held. Rain and snow fall, and haze and light come from above: with these a picture is
mirrored, and not turned.
"""

from collections.abc import Callable, Sequence

import torch

from moir.base.names import TYPES
from moir.networks.base import Context
from moir.runtime.engine import Engine, Output, Progress

UPRIGHT = ("rain", "haze", "snow", "lowlight")
"""Damage that looks otherwise, or is restored otherwise, when the picture is turned."""

PERHAPS = 0.25
"""Probability from which such damage keeps a picture from being turned."""

Orientation = tuple[bool, int]
"""Whether the picture is mirrored, left and right, and how many quarters it is then turned counter-clockwise."""

MIRRORED: tuple[Orientation, ...] = ((False, 0), (True, 0))
TURNED: tuple[Orientation, ...] = tuple((mirrored, quarters) for mirrored in (False, True) for quarters in range(4))


def oriented(x: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """Pictures (B, 3, H, W) in another orientation, (B, 3, H, W) or (B, 3, W, H)."""
    mirrored, quarters = orientation
    return torch.rot90(x.flip(3) if mirrored else x, quarters, (2, 3))


def upright(x: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """Undoes :func:`oriented`.

    Examples:
        >>> x = torch.rand(1, 3, 4, 6)
        >>> all(torch.equal(upright(oriented(x, way), way), x) for way in TURNED)
        True
    """
    mirrored, quarters = orientation
    x = torch.rot90(x, -quarters, (2, 3))
    return x.flip(3) if mirrored else x


def orientations(context: Context, types: Sequence[str] | None = None) -> tuple[Orientation, ...]:
    """The orientations in which a picture is restored: all eight, or two where it must stay upright.

    Args:
        context: What the network decided about it (a batch of one). All eight, if it does not say what is there.
        types: Damage that it was told to remove; None: what it found counts.

    Examples:
        >>> found = torch.tensor([[3.0, -9, -9, -9, -9, -9, -9]])
        >>> len(orientations({"presence": found})), len(orientations({"presence": found}, ["rain"]))
        (8, 2)
    """
    if types is None:
        if "presence" not in context:
            return TURNED
        probabilities = torch.sigmoid(context["presence"][0].float()).tolist()
        types = [type_ for type_, p in zip(TYPES, probabilities, strict=True) if p >= PERHAPS]
    return MIRRORED if set(types) & set(UPRIGHT) else TURNED


def restore_ensemble(
    engine: Engine, pictures: torch.Tensor, types: Sequence[str] | None = None, on_tile: Progress | None = None
) -> Output:
    """Restore pictures of one size in several orientations each.

    Which expert restores is decided once, on the picture as it is (:meth:`RestorationNetwork.following`).

    Args:
        engine: Restores each of them.
        pictures: (B, 3, H, W), float32, [0, 1].
        types: Damage that shall be removed, and no other; None: whatever is found.
        on_tile: Called after every tile, with tiles done and all tiles of the picture in all orientations.

    Returns:
        As :meth:`Engine.restore`; ``tiles`` are those of one orientation.

    Raises:
        InvalidValueError: The network cannot be told what to remove.
    """
    outputs = [_restore_one(engine, picture[None], types, on_tile) for picture in pictures]
    names = outputs[0].context
    context = {name: torch.cat([output.context[name] for output in outputs]) for name in names}
    return Output(torch.cat([output.pictures for output in outputs]), outputs[0].tiles, context)


def _restore_one(
    engine: Engine, picture: torch.Tensor, types: Sequence[str] | None, on_tile: Progress | None
) -> Output:
    network = engine.network
    context = engine.analyse(picture, types) if types is not None or network.bounded_analysis else None
    ways = orientations(context or {}, types)

    def told(number: int) -> Callable[[int, int], None] | None:
        if on_tile is None:
            return None
        return lambda done, tiles: on_tile(number * tiles + done, len(ways) * tiles)

    first = engine.restore(picture, context, told(0))
    total = first.pictures.clone()
    for number, way in enumerate(ways[1:], start=1):
        x = oriented(picture, way).contiguous()
        own = None
        if context is not None:
            own = network.following(engine.analyse(x, types), context)
        total += upright(engine.restore(x, own, told(number)).pictures, way)
    return Output(total / len(ways), first.tiles, first.context)
