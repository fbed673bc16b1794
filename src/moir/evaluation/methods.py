"""What can be scored: a model of ours, pictures restored elsewhere, or anything that maps pictures to pictures."""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch

from moir.base.errors import (
    CheckpointError,
    InvalidValueError,
    MissingExtraError,
    PictureCorruptError,
    PictureNotFoundError,
    TensorShapeError,
)
from moir.base.names import TASK_OF_TYPE
from moir.datasets import FolderMissingError
from moir.evaluation.records import Cost
from moir.evaluation.settings import Setting
from moir.picture import is_picture_name, read

if TYPE_CHECKING:
    from moir.restore import Restorer

TOLD = "setting"
"""As a task: tell the model what is in the inputs of each setting, as in the papers' tables of models that are told."""


@runtime_checkable
class Method(Protocol):
    """Anything that restores.

    Attributes:
        name: Its name in tables.
    """

    name: str

    def restore(self, x: torch.Tensor, *, setting: Setting | None) -> torch.Tensor:
        """Restore one picture.

        Args:
            x: (3, H, W), float32, [0, 1].
            setting: Where the picture comes from, for methods that are told; blind ones do not look at it.

        Returns:
            (3, sH, sW), floating, s the setting's scale; it is clamped to [0, 1] before it is scored.
        """
        ...

    def cost(self, size: tuple[int, int]) -> Cost | None:
        """What a picture of this height and width costs; None if that cannot be said."""
        ...


class ModelMethod:
    """A model of the registry, a weights file or a published checkpoint, run by :class:`moir.Restorer`.

    Args:
        model: As for :func:`moir.load`; None: the shipped default. A Restorer is taken as it is; of its adapters the
            first one acts.
        adapter: File of an adapter for the model; None: the model alone.
        name: Name in tables; None: the model's own, with the adapter's (``compact + glass``).
        task: What it is told to remove; :data:`TOLD`: what is in each setting; None: nothing, it works blind.
        device, precision, tile, ensemble: As for :func:`moir.load`. With an ensemble the model's own name gets a ``+``,
            as in the papers. (A Restorer is taken as it is.)

    Raises:
        UnknownNameError, CheckpointError, DeviceError: See :func:`moir.load`.
        InvalidValueError: An adapter for a Restorer, which has to be loaded with it.
    """

    def __init__(
        self,
        model: "str | Path | Restorer | None" = None,
        *,
        adapter: str | Path | None = None,
        name: str | None = None,
        task: str | Sequence[str] | None = None,
        device: str | None = None,
        precision: str | None = None,
        tile: int | str | None = "auto",
        ensemble: bool = False,
    ) -> None:
        from moir.adapted import card_path
        from moir.models import DEFAULT, find_weights
        from moir.restore import Restorer, load

        self.files: tuple[Path, ...] = ()
        if isinstance(model, Restorer):
            if adapter is not None:
                raise InvalidValueError(
                    f"the adapter {adapter} cannot be attached to a Restorer that is there already; load both "
                    "together: moir.load(model, adapter=...)"
                )
            self.restorer = model
        else:
            adapters = () if adapter is None else (Path(adapter).expanduser(),)
            self.restorer = load(
                model, adapter=adapters, device=device, precision=precision, tile=tile, ensemble=ensemble
            )
            weights = find_weights(str(model) if model is not None else DEFAULT)
            parts = self.restorer.card.parts.values() if self.restorer.card else ()
            shared = [find_weights(part["weights"]) for part in parts]
            with_cards = [path for file in adapters for path in (file, card_path(file))]
            files = (weights, weights.with_suffix(".json"), *shared, *with_cards)
            self.files = tuple(path for path in files if path.is_file())
        self.task = task
        plus = "+" if self.restorer.ensemble else ""
        self.name = name or " + ".join((f"{self.restorer.name}{plus}", *self.restorer.adapters[:1]))

    def restore(self, x: torch.Tensor, *, setting: Setting | None) -> torch.Tensor:
        """See :class:`Method`."""
        task = self.task
        if task == TOLD:
            task = [TASK_OF_TYPE[type_] for type_ in setting.types] if setting is not None else []
            if not task and self.restorer.engine.network.scale == 1:
                return x  # nothing is to be removed
            task = task or None
        return self.restorer(x, task=task).tensor

    def cost(self, size: tuple[int, int]) -> Cost | None:
        """See :class:`Method`."""
        from moir.evaluation.cost import measure_cost

        engine = self.restorer.engine
        return measure_cost(
            lambda x: self.restorer(x).tensor,
            size,
            network=engine.network,
            device=engine.device,
            precision=engine.precision,
        )

    def options(self) -> dict[str, Any]:
        """What the results depend on besides the weights."""
        engine = self.restorer.engine
        found: dict[str, Any] = {} if self.files else {"state_sha256": _state_sha256(engine.network)}
        if engine.network.options:  # they come from the card, which is not among the files that scores depend on
            text = json.dumps(engine.network.options, sort_keys=True, default=str)
            found["options_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        if self.restorer.adapters:  # without any, an account is what it was before there were adapters
            found["adapter"] = self.restorer.adapters[0]
        if self.restorer.ensemble:
            found["ensemble"] = True
        return {
            **found,
            "task": self.task,
            "device": engine.device.type,
            "precision": engine.precision,
            "tile": engine.tile,
        }


def _state_sha256(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # Channels-last or not, the same values in the same order; bf16 is unknown to NumPy, and exact in float32.
        plain = value.detach().cpu().contiguous(memory_format=torch.contiguous_format)
        digest.update((plain.float() if plain.is_floating_point() else plain).numpy().tobytes())
    return digest.hexdigest()


class Predictions:
    """Pictures that another program restored.

    Those of a setting lie in ``FOLDER/SETTING/`` or, where one setting alone is scored, in ``FOLDER/``. They have the
    names of the inputs (of the clean pictures where the damage is made here), with any extension, whatever the case: 8-
    and 16-bit pictures, TIFF with floats in [0, 1], and NumPy's ``.npy``, (H, W, 3) or (3, H, W), uint8, uint16, or
    floats where 1 is white. Scenes are folders.

    Args:
        folder: The folder.
        name: Name in tables; None: the folder's.

    Raises:
        FolderMissingError: The folder does not exist or holds no pictures.
    """

    def __init__(self, folder: str | Path, *, name: str | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.name = name or self.folder.resolve().name
        if not self.folder.is_dir():
            raise FolderMissingError(f"predictions folder {self.folder} does not exist; give a folder of pictures")
        self._listed: dict[str, dict[str, list[Path]]] = {}
        self._lock = threading.Lock()
        if not any(_is_prediction(path) for path in self.folder.rglob("*")):
            raise FolderMissingError(f"predictions folder {self.folder} holds no pictures; give a folder of pictures")

    def find(self, setting: str, image: str, *, alone: bool = True) -> Path:
        """The file of one picture.

        Args:
            setting, image: Their names.
            alone: No other setting is scored, so that the pictures may lie in the folder itself. (Otherwise those of
                one noise level would be scored as those of another, since the names are the same.)

        Raises:
            PictureNotFoundError: There is none, or there are several.
        """
        place = self.folder / setting
        if not place.is_dir():
            if not alone:
                raise PictureNotFoundError(
                    f"no folder {place}; where several settings are scored, each needs a folder of its name"
                )
            place = self.folder
        with self._lock:
            if str(place) not in self._listed:
                self._listed[str(place)] = _by_name(place)
        found = self._listed[str(place)].get(image.lower(), [])
        if not found:
            raise PictureNotFoundError(f"no prediction {image}.* in {place}")
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise PictureNotFoundError(f"several predictions of {image} in {place}: {names}; keep one")
        return found[0]

    def read(self, path: Path) -> torch.Tensor:
        """Decode one prediction: (3, H, W), float32.

        Raises:
            PictureError: It cannot be read.
        """
        return _array(path) if path.suffix.lower() == ".npy" else read(path).rgb


def _is_prediction(path: Path) -> bool:
    visible = not path.name.startswith(".")
    return visible and (is_picture_name(path.name) or path.suffix.lower() == ".npy") and path.is_file()


def _by_name(place: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(place.rglob("*")):
        if _is_prediction(path):
            name = path.relative_to(place).with_suffix("").as_posix().lower()
            found.setdefault(name, []).append(path)
    return found


def _array(path: Path) -> torch.Tensor:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PictureCorruptError(f"{path} is no NumPy array that can be read: {error}") from error
    if not isinstance(values, np.ndarray):
        raise PictureCorruptError(f"{path} holds several arrays; save one with numpy.save")
    if values.ndim == 3 and values.shape[2] != 3 and values.shape[0] == 3:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] != 3 or 0 in values.shape:
        raise TensorShapeError(f"{path} has the shape {values.shape}; expected (H, W, 3) or (3, H, W)")
    if values.dtype == np.uint8 or values.dtype == np.uint16:
        values = values.astype(np.float32) / np.iinfo(values.dtype).max
    elif values.dtype.kind != "f":
        raise InvalidValueError(f"{path} holds {values.dtype}; expected uint8, uint16, or floats where 1 is white")
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))


def model_method(model: str | Path | None = None, **options: Any) -> Method:
    """A model by whatever reads it: ours, or, if we do not know the network of a file, spandrel (extra ``peers``).

    Args:
        model: As for :func:`moir.load`.
        **options: As for :class:`ModelMethod`; a network of spandrel's takes ``name`` and ``device`` only.

    Raises:
        UnknownNameError, DeviceError: See :func:`moir.load`.
        CheckpointError: Neither reads it, it is an adapter, or the adapter in ``options`` is not for it.
        InvalidValueError: A network of spandrel's, and an ensemble.
    """
    from moir.models import adapts

    try:
        return ModelMethod(model, **options)
    except CheckpointError as ours:
        path = None if model is None else Path(model).expanduser()
        if path is None or not path.is_file() or options.get("adapter") is not None or adapts(path) is not None:
            raise
        if options.get("ensemble"):
            raise InvalidValueError(f"--ensemble is for networks that moir has itself, and {path} is none") from ours
        from moir.evaluation.peers import peer

        try:
            found = peer(path, device=options.get("device"))
        except MissingExtraError as theirs:
            raise CheckpointError(f"{ours}; if spandrel knows it: {theirs}") from ours
        except CheckpointError as theirs:
            raise CheckpointError(f"{ours}; nor does spandrel read it: {theirs}") from ours
        found.name = options.get("name") or found.name
        return found
