"""Weights from the Hugging Face hub: a repository with ``model.safetensors`` and its card ``model.json``."""

from pathlib import Path

from moir.base.errors import CheckpointError
from moir.base.extras import needs_extra


def fetch(address: str) -> Path:
    """Download (or find in the cache) the weights and card of ``hf://owner/repo``.

    Returns:
        The path of the weights file; the card lies beside it.

    Raises:
        CheckpointError: The address is wrong, or the files cannot be had.
        MissingExtraError: ``huggingface_hub`` is not installed.
    """
    with needs_extra("hub", f"{address} needs huggingface_hub"):
        import huggingface_hub
    repository = address.removeprefix("hf://")
    if repository.count("/") != 1 or repository.startswith("/") or repository.endswith("/"):
        raise CheckpointError(f"{address!r} is not an address of the form hf://owner/repo")
    try:
        card = huggingface_hub.hf_hub_download(repository, "model.json")
        weights = huggingface_hub.hf_hub_download(repository, "model.safetensors", revision=Path(card).parent.name)
    except Exception as error:  # the hub's client raises many types, none of which a user knows
        raise CheckpointError(f"cannot get {address}: {error}") from error
    return Path(weights)
