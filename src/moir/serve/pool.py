"""The models a server offers, loaded when first asked for."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from moir.base.names import check_name
from moir.checkpoints import Card
from moir.models import DEFAULT, WEIGHTS, shipped
from moir.networks.base import RestorationNetwork
from moir.restore import Restorer, load
from moir.runtime.memory import tile_side

log = logging.getLogger(__name__)


class Pool:
    """Restorers by name. Clients choose among the names; only the operator may name files.

    Args:
        restorers: Restorers that are there already.
        device, precision, tile: For those to be loaded; see :func:`moir.restore.load`.
        shipped_too: Also offer the weights that come with the package.
        default: The name used when a client names none; None: the shipped default, or the first of ``restorers``.
    """

    def __init__(
        self,
        restorers: Mapping[str, Restorer] | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        tile: int | str | None = "auto",
        shipped_too: bool = True,
        default: str | None = None,
    ) -> None:
        self._loaded = dict(restorers or {})
        self._options: dict[str, Any] = {"device": device, "precision": precision, "tile": tile}
        self._lock = threading.Lock()
        self.names = list(dict.fromkeys([*self._loaded, *(shipped() if shipped_too else ())]))
        first = next(iter(self._loaded), DEFAULT)
        self.default = check_name(default or first, self.names, "model")

    def check(self, name: str | None) -> str:
        """The name of an offered model; None: of the default.

        Raises:
            UnknownNameError: Not offered.
        """
        return check_name(name, self.names, "model") if name else self.default

    def get(self, name: str) -> Restorer:
        """The restorer, loaded if need be; one thread loads at a time."""
        with self._lock:
            if name not in self._loaded:
                log.info("loading %s", name)
                self._loaded[name] = load(name, **self._options)
            return self._loaded[name]

    def loaded(self, name: str) -> bool:
        """Whether a model is in memory."""
        return name in self._loaded

    def together(self, name: str, pixels: int, most: int) -> int:
        """How many pictures of this many pixels may run as one batch: together no more than one tile's pixels."""
        restorer = self._loaded.get(name)
        if restorer is None:
            return 1
        engine = restorer.engine
        if isinstance(engine.tile, int):
            side = engine.tile
        else:
            network = engine.network
            side = tile_side(engine.device, engine.bytes_per_pixel, network.overlap, network.size_multiple)
        return max(1, min(most, side**2 // pixels))

    def describe(self) -> list[dict[str, Any]]:
        """What clients are told of each model."""
        return [self._describe(name) for name in self.names]

    def _describe(self, name: str) -> dict[str, Any]:
        restorer = self._loaded.get(name)
        card = restorer.card if restorer else Card.read(WEIGHTS / f"{name}.json")
        facts: dict[str, Any] = {"name": name, "default": name == self.default, "loaded": restorer is not None}
        if card is not None:
            facts |= {
                "network": card.model,
                "parameters": card.parameters,
                "licence": card.licence,
                "description": card.description,
            }
        if restorer is not None:
            engine = restorer.engine
            told = type(engine.network).instruct is not RestorationNetwork.instruct
            facts |= {"device": str(engine.device), "precision": engine.precision, "takes_task": told}
        return facts


def pool_of(
    models: Sequence[str],
    *,
    device: str | None = None,
    precision: str | None = None,
    tile: int | str | None = "auto",
) -> Pool:
    """A pool for an operator: the named models loaded, the first of them the default, and the shipped ones on demand.

    Raises:
        UnknownNameError, CheckpointError, DeviceError: As :func:`moir.restore.load`.
    """
    restorers: dict[str, Restorer] = {}
    for model in models or (DEFAULT,):
        restorer = load(model, device=device, precision=precision, tile=tile)
        restorers[restorer.name] = restorer
    return Pool(restorers, device=device, precision=precision, tile=tile)
