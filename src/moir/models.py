"""The registry of models: names, builders, and loading with weights.

Entries are lazy ``module:function`` strings, so that names can be listed without importing torch.
"""

from __future__ import annotations

import fnmatch
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moir.base.errors import CheckpointError
from moir.base.names import check_name

if TYPE_CHECKING:
    from moir.checkpoints import Card
    from moir.networks.base import RestorationNetwork

WEIGHTS = Path(__file__).parent / "weights"
"""Shipped weights, each with its card."""

DEFAULT = "unirestorer_compact"
"""The model that ``moir.load()`` and ``moir restore`` use when none is named."""

FOREIGN = (".ckpt", ".pth", ".pt", ".pkl")
"""Suffixes of other programs' checkpoints that are read directly; see :mod:`moir.checkpoints.foreign`."""

ADAPTER = "moir-adapter"
"""What ``format`` in the header of an adapter's file begins with (:mod:`moir.adapted`); such a file is no network."""

_BUILDERS: dict[str, str] = {
    "bilateral_grid": "moir.networks.bilateral_grid:bilateral_grid",
    "compact": "moir.networks.compact:compact",
    "dehazeformer_l": "moir.networks.dehazeformer:dehazeformer_l",
    "edt_denoise": "moir.networks.edt:edt_denoise",
    "edt_derain": "moir.networks.edt:edt_derain",
    "edt_sr2": "moir.networks.edt:edt_sr2",
    "edt_sr3": "moir.networks.edt:edt_sr3",
    "edt_sr4": "moir.networks.edt:edt_sr4",
    "ipt": "moir.networks.ipt:ipt",
    "lora_restormer": "moir.networks.lora_restormer:lora_restormer",
    "moce_ir": "moir.networks.moce_ir:moce_ir",
    "moce_ir_s": "moir.networks.moce_ir:moce_ir_s",
    "nafnet": "moir.networks.nafnet:nafnet",
    "nafnet_local": "moir.networks.nafnet:nafnet_local",
    "promptir": "moir.networks.promptir:promptir",
    "restormer": "moir.networks.restormer:restormer",
    "retinexformer": "moir.networks.retinexformer:retinexformer",
    "test_bilateral_grid": "moir.networks.bilateral_grid:test_bilateral_grid",
    "test_compact": "moir.networks.compact:test_compact",
    "test_dehazeformer_l": "moir.networks.dehazeformer:test_dehazeformer_l",
    "test_edt": "moir.networks.edt:test_edt",
    "test_ipt": "moir.networks.ipt:test_ipt",
    "test_lora_restormer": "moir.networks.lora_restormer:test_lora_restormer",
    "test_moce_ir": "moir.networks.moce_ir:test_moce_ir",
    "test_nafnet": "moir.networks.nafnet:test_nafnet",
    "test_nafnet_local": "moir.networks.nafnet:test_nafnet_local",
    "test_promptir": "moir.networks.promptir:test_promptir",
    "test_restormer": "moir.networks.restormer:test_restormer",
    "test_retinexformer": "moir.networks.retinexformer:test_retinexformer",
    "test_unet": "moir.networks.unet:test_unet",
    "test_unirestorer": "moir.universal.network:test_unirestorer",
    "test_unirestorer_compact": "moir.universal.compact_tree:test_unirestorer_compact",
    "unet": "moir.networks.unet:unet",
    "unirestorer": "moir.universal.network:unirestorer",
    "unirestorer_compact": "moir.universal.compact_tree:unirestorer_compact",
}


_OPENERS = ("moir.universal.opening:try_open",)
"""Functions that open checkpoints which stay on disk: path to network and card, or None if it is of another kind."""


def list_models(pattern: str = "*", *, tests: bool = False) -> list[str]:
    """Names that :func:`create_model` accepts, sorted.

    Args:
        pattern: A shell-like pattern such as ``"moce*"``.
        tests: Also list the tiny ``test_...`` configurations.

    Examples:
        >>> "compact" in list_models()
        True
    """
    names = [n for n in _BUILDERS if tests or not n.startswith("test_")]
    return sorted(fnmatch.filter(names, pattern))


def create_model(name: str, *, adapter: str | None = None, **options: Any) -> RestorationNetwork:
    """Make a network with fresh weights.

    Args:
        name: A name of the registry; see :func:`list_models`.
        adapter: An adapter to attach (``"adaptir"``, ``"lora"``, ...; :data:`moir.adapters.METHODS`): everything else
            is frozen, and the output is that of the network alone until the adapter is trained.
        **options: Options of the network, under their published names; None means the default.

    Returns:
        The network, float32, in training mode, on the CPU.

    Raises:
        UnknownNameError: An unknown model or option; the message names near misses.

    Examples:
        >>> network = create_model("test_compact", width=4)
        >>> network.options["width"]
        4
    """
    module, function = _BUILDERS[check_name(name, _BUILDERS, "model")].split(":")
    builder = getattr(importlib.import_module(module), function)
    network: RestorationNetwork = builder(**{k: v for k, v in options.items() if v is not None})
    if adapter is None:
        return network
    from moir.adapters import attach

    attach(network, adapter)
    return network


def shipped() -> list[str]:
    """Names of the weights that come with the package, sorted."""
    return sorted(card.stem for card in WEIGHTS.glob("*.json"))


def find_weights(name: str) -> Path:
    """The weights file of a model.

    Args:
        name: A shipped name, the path of a ``.safetensors`` file or of a foreign checkpoint (``.ckpt``, ``.pth``,
            ``.pt``, ``.pkl``), the folder of a training run, or ``hf://owner/repo``.

    Raises:
        UnknownNameError: Neither a path nor a shipped name.
        CheckpointError: The file is not there, or is of another kind; or a folder without weights.
    """
    if name.startswith("hf://"):
        from moir.checkpoints.hub import fetch

        return fetch(name)
    path = Path(name).expanduser()
    if path.is_dir():  # a run's folder
        for file in ("weights.safetensors", "unirestorer.safetensors"):
            if (path / file).is_file():
                return path / file
        raise CheckpointError(f"the folder {path} holds no weights.safetensors or unirestorer.safetensors")
    if path.suffix in (".safetensors", *FOREIGN):
        return path
    if path.suffix or path.exists():
        kinds = ", ".join((".safetensors", *FOREIGN))
        raise CheckpointError(f"{name} has no suffix of a weights file ({kinds}); if it is one, try: moir convert")
    return WEIGHTS / f"{check_name(name, shipped(), 'shipped model')}.safetensors"


def load_model(name: str) -> tuple[RestorationNetwork, Card]:
    """Make a network with its weights, in evaluation mode, and read its card.

    A foreign checkpoint, or a ``.safetensors`` file without a card, is recognised by its names and shapes, and gets a
    card that says what is known of it. Nothing in a file is executed.

    Args:
        name: See :func:`find_weights`.

    Raises:
        UnknownNameError: See :func:`find_weights`.
        CheckpointError: A file is missing, unsafe or damaged, its checksum is not the card's, it does not fit the
            network, or it is an adapter.
    """
    from moir.checkpoints import Card, load_into, open_foreign, read_tensors
    from moir.checkpoints.blank import blank_weights
    from moir.checkpoints.card import sha256_of

    path = find_weights(name)
    if (base := adapts(path)) is not None:
        raise CheckpointError(
            f"{path} is an adapter for {base}, not a network; give that network (by name or file) and the adapter: "
            f"--model {base} --adapter {path}, or moir.load({base!r}, adapter={str(path)!r})"
        )
    card_path = path.with_suffix(".json")
    if path.suffix in FOREIGN or (path.is_file() and not card_path.exists()):
        for opener in _OPENERS:
            module, function = opener.split(":")
            opened = getattr(importlib.import_module(module), function)(path)
            if opened is not None:
                return opened
        network, card = open_foreign(path, create_model)
        return network.eval(), card
    tensors, _ = read_tensors(path)
    card = Card.read(card_path)
    if card.sha256 and sha256_of(path) != card.sha256:
        raise CheckpointError(f"{path} is not the file its card describes (sha256 differs); get both again")
    for prefix, part in card.parts.items():
        tensors |= {prefix + name: tensor for name, tensor in _shipped_part(part, path).items()}
    with blank_weights():
        network = create_model(card.model, **card.options)
    load_into(network, tensors, path)
    return network.eval(), card


def adapts(path: Path) -> str | None:
    """The name of the network that a file is an adapter for; None: the file is no adapter, or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            header = opened.metadata() or {}
    except (SafetensorError, OSError):
        return None
    if ADAPTER not in header.get("format", ""):
        return None
    return header.get("model", "").strip('"') or "its network"


def _shipped_part(part: dict[str, str], whose: Path) -> dict[str, Any]:
    """Tensors of shipped weights that others are built on.

    Raises:
        CheckpointError: The shipped weights are not those that these were trained with.
    """
    from moir.checkpoints import Card, read_tensors

    path = find_weights(part["weights"])
    if Card.read(path.with_suffix(".json")).sha256 != part["sha256"]:
        raise CheckpointError(
            f"{whose} was trained on other weights {part['weights']!r} than this version of moir ships; get both again"
        )
    return read_tensors(path)[0]
