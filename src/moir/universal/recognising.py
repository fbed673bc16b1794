"""Which network a file holds: as the caller says, as its card says, by its names, or by spandrel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moir.base.errors import CheckpointError, MissingExtraError
from moir.checkpoints import Card
from moir.universal.foreign_expert import SPANDREL
from moir.universal.pool import ExpertSource, recognise
from moir.universal.store import open_store


def recognised(path: Path, model: str | None = None, options: Mapping[str, Any] | None = None) -> ExpertSource:
    """Find out which network a file holds.

    Args:
        path: Weights of moir, or another program's checkpoint. Nothing in it is executed.
        model: Its name in the registry, if the caller knows it.
        options: Its options, with ``model``.

    Raises:
        CheckpointError: The file is missing, unsafe or damaged, or nobody knows the network.
        MissingExtraError: Only spandrel might know it, and is not installed.
    """
    store = open_store(path)
    card = path.with_suffix(".json")
    if model is not None:
        return ExpertSource(store, "", model, dict(options or {}))
    if path.suffix == ".safetensors" and card.exists():
        described = Card.read(card)
        return ExpertSource(store, "", described.model, dict(described.options), described.licence)
    try:
        return recognise(store, "")
    except CheckpointError as unknown:
        source = ExpertSource(store, "", SPANDREL)
        try:
            source.load()
        except MissingExtraError as error:
            raise MissingExtraError(f"{unknown}; other projects' networks: {error}") from error
        return source
