"""The Restorer: picture in, Restoration out."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from moir.adapted import load_adapter
from moir.base.errors import InvalidValueError, TensorShapeError
from moir.base.names import TASKS, TYPE_OF_TASK, check_name
from moir.checkpoints import Card
from moir.findings import Finding, Inspection, estimate_report, read_estimate, uncertainty
from moir.models import DEFAULT, load_model
from moir.networks.base import RestorationNetwork, select
from moir.picture import Picture, from_array, from_pil, from_tensor, prepare_colour, read, write
from moir.runtime import Engine
from moir.runtime.ensemble import restore_ensemble
from moir.runtime.scaling import enlarged

Input = str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | torch.Tensor | Picture
"""What can be restored: a path, a PIL image, an array (H, W[, C]), a tensor (3, H, W), or a Picture."""

ALONE = "none"
"""What is named in place of an adapter to restore without one."""


@dataclass(frozen=True)
class Restoration:
    """A restored picture and the account of what was done.

    Attributes:
        picture: The restored picture, with everything else the file held.
        estimate: What was found, the most probable first; empty if the model estimates nothing.
        uncertainty: How unsure the estimate is; see :func:`moir.findings.uncertainty`. None if the model does not say.
        model: Name of the model.
        expert: Name of the expert or adapter that restored it.
        granularity: Its level in the tree of experts; ``all`` for one network for everything; ``adapter``.
        strength: How much of the change was applied, 0..1.
        tiles: Into how many tiles the picture was cut.
        seconds: Time for estimate and restoration, without reading and writing files.
    """

    picture: Picture = field(repr=False)
    estimate: tuple[Finding, ...]
    uncertainty: float | None
    model: str
    expert: str
    granularity: str
    strength: float
    tiles: int
    seconds: float

    @property
    def image(self) -> Image.Image:
        """As a PIL image, of the input's mode and depth where PIL has one."""
        return self.picture.to_pil()

    @property
    def tensor(self) -> torch.Tensor:
        """As a tensor, (3, H, W), float32, [0, 1]."""
        return self.picture.rgb

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, quality: int | None = None) -> None:
        """Write the picture, with its metadata, in the format of the suffix; see :func:`moir.picture.write`.

        Raises:
            OutputExistsError: The file exists and ``overwrite`` is false.
            PictureFormatError: The suffix is not of a format that can be written.
        """
        write(self.picture, Path(path), overwrite=overwrite, quality=quality)

    def report(self) -> dict[str, Any]:
        """The account as plain values, for JSON."""
        return {
            "width": self.picture.width,
            "height": self.picture.height,
            "model": self.model,
            "expert": self.expert,
            "granularity": self.granularity,
            **estimate_report(self.estimate, self.uncertainty),
            "strength": self.strength,
            "tiles": self.tiles,
            "seconds": round(self.seconds, 4),
        }


class Restorer:
    """Restores pictures with one model. Made by :func:`load`.

    Args:
        network: The network. Where adapters are attached, the first one acts unless another is named.
        name: What reports call the model.
        device: ``cpu``, ``cuda``, ``mps``, ...; None: the best there is.
        precision: ``float32``, ``bf16``, ``fp16``; None: bf16 where the processor has it and the network allows it.
        tile: Side of tiles in pixels; ``auto``: from free memory; None: never tile.
        card: The card of the weights.
        ensemble: Restore every picture in several orientations and take the mean: two to eight times slower, and a
            little better; see :mod:`moir.runtime.ensemble`.

    Examples:
        >>> import torch
        >>> from moir.models import create_model
        >>> restorer = Restorer(create_model("test_compact"), "test_compact", device="cpu")
        >>> restorer(torch.rand(3, 20, 30)).tensor.shape
        torch.Size([3, 20, 30])
    """

    def __init__(
        self,
        network: RestorationNetwork,
        name: str,
        *,
        device: str | None = None,
        precision: str | None = None,
        tile: int | str | None = "auto",
        card: Card | None = None,
        ensemble: bool = False,
    ) -> None:
        self.name = name
        self.ensemble = ensemble
        self.card = card
        self.adapters = _adapters_of(network)
        if self.adapters:
            _switch(network, self.adapters[0])
        self.engine = Engine(network, device, precision, tile, card.bytes_per_pixel if card else None)

    def __call__(
        self,
        picture: Input,
        *,
        task: str | Sequence[str] | None = None,
        strength: float = 1.0,
        adapter: str | None = None,
        on_tile: Callable[[int, int], None] | None = None,
    ) -> Restoration:
        """Restore one picture of any size.

        Args:
            picture: See :data:`Input`. Arrays are RGB, uint8, uint16 or float in [0, 1].
            task: What to remove (``derain``, or several); other damage is left. None: whatever is found.
            strength: How much of the change to apply: 0 gives the input, 1 the full restoration.
            adapter: The adapter that acts, by its name, or ``"none"``; None: the first that was loaded, if any was.
            on_tile: Called after every tile with tiles done and all tiles.

        Raises:
            PictureError: The file cannot be read.
            TensorShapeError, InvalidValueError: The array or tensor, or ``strength``, is not as described.
            UnknownNameError: An unknown task or adapter.
        """
        return self.batch([picture], task=task, strength=strength, adapter=adapter, on_tile=on_tile)[0]

    def batch(
        self,
        pictures: Iterable[Input],
        *,
        task: str | Sequence[str] | None = None,
        strength: float = 1.0,
        adapter: str | Sequence[str | None] | None = None,
        on_tile: Callable[[int, int], None] | None = None,
    ) -> list[Restoration]:
        """Restore several pictures; those of one size (and adapter) go through the network together.

        The results are those of restoring them one by one. Arguments as for a single picture; ``adapter`` may also be a
        name for each. Adapters are switched in the network itself: a restorer that has some serves one thread.
        """
        if not 0 <= strength <= 1:
            raise InvalidValueError(f"strength {strength!r} is outside 0..1: 0 gives the input, 1 the full restoration")
        types = self._types(task)
        opened = [as_picture(picture) for picture in pictures]
        names = self._names(adapter, len(opened))
        results: dict[int, Restoration] = {}
        alike: dict[tuple[int, int, str], list[int]] = {}
        for number, (picture, name) in enumerate(zip(opened, names, strict=True)):
            alike.setdefault((picture.height, picture.width, name), []).append(number)
        for (*_, name), group in alike.items():
            with self.acting(name):
                restored = self._same_size([opened[i] for i in group], types, strength, name, on_tile)
            results.update(zip(group, restored, strict=True))
        return [results[number] for number in range(len(opened))]

    def inspect(self, picture: Input) -> Inspection:
        """Say what is wrong with a picture, and which expert would restore it, without restoring it.

        Args:
            picture: As for restoring.

        Raises:
            PictureError: The file cannot be read.
            TensorShapeError: The array or tensor is not as described.

        Examples:
            >>> import torch
            >>> from moir.models import create_model
            >>> restorer = Restorer(create_model("test_compact"), "test_compact", device="cpu")
            >>> len(restorer.inspect(torch.rand(3, 20, 30)).estimate)
            7
        """
        return self.inspect_batch([as_picture(picture)])[0]

    def inspect_batch(self, pictures: Sequence[Picture]) -> list[Inspection]:
        """Inspect pictures of one size together; see :meth:`inspect`."""
        began = time.perf_counter()
        context = self.engine.analyse(torch.stack([prepare_colour(picture) for picture in pictures]))
        chosen = self.engine.network.account(context) or [(self.name, "all")] * len(pictures)
        seconds = (time.perf_counter() - began) / len(pictures)
        inspections = []
        for number, (picture, (expert, granularity)) in enumerate(zip(pictures, chosen, strict=True)):
            own = select(context, [number])
            inspections.append(
                Inspection(
                    picture.width,
                    picture.height,
                    read_estimate(own),
                    uncertainty(own),
                    model=self.name,
                    expert=expert,
                    granularity=granularity,
                    seconds=seconds,
                )
            )
        return inspections

    def _same_size(
        self,
        pictures: list[Picture],
        types: list[str] | None,
        strength: float,
        adapter: str,
        on_tile: Callable[[int, int], None] | None,
    ) -> list[Restoration]:
        began = time.perf_counter()
        colours = [prepare_colour(picture) for picture in pictures]
        x = torch.stack(colours) if len(colours) > 1 else colours[0][None]  # one large picture is not copied
        if self.ensemble:
            output = restore_ensemble(self.engine, x, types, on_tile)
        else:
            output = self.engine.restore(x, on_tile=on_tile, types=types)
        restored, context = output.pictures, output.context
        chosen = self.engine.network.account(context) or [(self.name, "all")] * len(pictures)
        if adapter != ALONE:
            chosen = [(adapter, "adapter")] * len(pictures)
        if strength < 1:
            restored = torch.lerp(enlarged(x, self.engine.network.scale), restored, strength)
        seconds = (time.perf_counter() - began) / len(pictures)
        results = []
        for number, (picture, rgb) in enumerate(zip(pictures, restored, strict=True)):
            own = select(context, [number])
            expert, granularity = chosen[number]
            results.append(
                Restoration(
                    picture.with_rgb(rgb),
                    read_estimate(own),
                    uncertainty(own),
                    model=self.name,
                    expert=expert,
                    granularity=granularity,
                    strength=strength,
                    tiles=output.tiles,
                    seconds=seconds,
                )
            )
        return results

    def _names(self, adapter: str | Sequence[str | None] | None, count: int) -> list[str]:
        """The adapter of each of ``count`` pictures; ``"none"`` where there is none."""
        wanted = [adapter] * count if adapter is None or isinstance(adapter, str) else list(adapter)
        if len(wanted) != count:
            raise InvalidValueError(f"{len(wanted)} names of adapters for {count} pictures; give one, or one for each")
        usual = self.adapters[0] if self.adapters else ALONE
        return [usual if name is None else check_name(name, (*self.adapters, ALONE), "adapter") for name in wanted]

    @contextmanager
    def acting(self, name: str | None) -> Iterator[None]:
        """Let an adapter act (``"none"``: no one; None: the first), and afterwards the first again.

        Raises:
            UnknownNameError: No adapter of that name was loaded.
        """
        (name,) = self._names(name, 1)
        if not self.adapters:
            yield
            return
        _switch(self.engine.network, name)
        try:
            yield
        finally:
            _switch(self.engine.network, self.adapters[0])

    def _types(self, task: str | Sequence[str] | None) -> list[str] | None:
        if task is None:
            return None
        tasks = [task] if isinstance(task, str) else list(task)
        if not tasks:
            raise InvalidValueError(f"no task was named; name some of {', '.join(TASKS)}, or leave the task out")
        return [TYPE_OF_TASK[check_name(t, TASKS, "task")] for t in tasks]


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    adapter: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    device: str | None = None,
    precision: str | None = None,
    tile: int | str | None = "auto",
    ensemble: bool = False,
) -> Restorer:
    """Load a model, ready to restore.

    Args:
        model: A name of shipped weights, the path of a ``.safetensors`` file with its card (``.json``) beside it, a
            published checkpoint (``.ckpt``, ``.pth``, ``.pt``, ``.pkl``; nothing in it is executed), or
            ``hf://owner/repo``; None: the shipped default.
        adapter: Files of adapters that ``moir adapt`` wrote for this model. The first one acts unless another is named
            for a picture; see :class:`Restorer`.
        device: ``cpu``, ``cuda``, ``mps``, ...; None: the best there is.
        precision: ``float32``, ``bf16``, ``fp16``; None: the fastest that the processor has and the network allows.
        tile: Side of tiles in pixels; ``auto``: from free memory; None: never tile.
        ensemble: Restore every picture in several orientations and take the mean: two to eight times slower, and a
            little better; see :mod:`moir.runtime.ensemble`.

    Raises:
        UnknownNameError: No weights of this name are shipped.
        CheckpointError: The file is missing, damaged, or does not fit its network; an adapter belongs to another one.
        InvalidValueError: Two adapters have one name.
        DeviceError: The device or precision is not to be had here.
    """
    network, card = load_model(os.fspath(model) if model is not None else DEFAULT)
    files = [adapter] if isinstance(adapter, str | os.PathLike) else adapter
    for file in files:  # before the network is moved or converted, which would change its fingerprint
        load_adapter(network, os.fspath(file), model=card.name)
    return Restorer(network, card.name, device=device, precision=precision, tile=tile, card=card, ensemble=ensemble)


def as_picture(source: Input) -> Picture:
    """Whatever was given, as a Picture."""
    if isinstance(source, Picture):
        return source
    if isinstance(source, torch.Tensor):
        return from_tensor(source)
    if isinstance(source, np.ndarray):
        return from_array(source)
    if isinstance(source, Image.Image):
        return from_pil(source)
    if isinstance(source, str | os.PathLike):
        return read(Path(source))
    raise TensorShapeError(
        f"cannot restore a {type(source).__name__}; give a path, a PIL image, a NumPy array or a tensor"
    )


def _adapters_of(network: RestorationNetwork) -> tuple[str, ...]:
    """Names of the adapters attached to a network.

    Restoring needs no adapters, so their room is not imported for this: where it has not been, nothing can have been
    attached.
    """
    if "moir.adapters" not in sys.modules:
        return ()
    from moir.adapters import attached

    return tuple(attached(network))


def _switch(network: RestorationNetwork, name: str) -> None:
    """Let one adapter act, or none."""
    from moir.adapters import set_active

    set_active(network, *(() if name == ALONE else (name,)))
