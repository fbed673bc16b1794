"""A UniRestorer checkpoint on disk into a network that runs, without loading what a picture does not need."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moir.base.errors import CheckpointError
from moir.checkpoints import Card
from moir.checkpoints.safetensors import check_fit
from moir.universal.daclip import DaClip
from moir.universal.network import UniRestorer
from moir.universal.pool import ExpertPool, LazyExpert
from moir.universal.store import TensorStore, open_store
from moir.universal.tree import Tree, official_tree

EXTRACTOR = "daclip_model."
MARKS = ("lf_gate.0.weight", "layer_gate.0.weight")
"""Names that only UniRestorer's state dicts have."""

_EXPERT = re.compile(r"l(\d{1,2})_experts\.(\d{1,4})\.")


def is_unirestorer(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a state dict is one of UniRestorer's, by its names."""
    return all(mark in shapes for mark in MARKS)


def open_unirestorer(path: str | Path, resident: int = 1, tree: Tree | Mapping[str, Any] | None = None) -> UniRestorer:
    """Open a checkpoint in the published layout: controller and router now, each expert when a picture needs it.

    CLIP's own towers (62% of the extractor) are checked by name and shape and never read. Architecture and options of
    each expert are told by its names and shapes.

    Args:
        path: A .safetensors file (mapped into memory), or the published .pth (read piece by piece, never executed).
        resident: Experts that are kept in memory at most.
        tree: The tree, or its options; None: the published one for the number of leaves in the file.

    Returns:
        The network in evaluation mode, on the CPU; experts follow the pictures' device.

    Raises:
        CheckpointError: The file is missing, unsafe, damaged or no UniRestorer; names are missing or unexpected; or an
            expert is not recognised.
        InvalidValueError: The tree does not fit the file's experts.
    """
    store = open_store(path)
    if not is_unirestorer(store.shapes):
        raise CheckpointError(f"{path} is no UniRestorer checkpoint: it has no {' and '.join(MARKS)}")
    counts = _expert_counts(store)
    leaves = store.shapes[MARKS[0]][0] // 2
    if not isinstance(tree, Tree):
        tree = Tree.from_options(tree) if tree else official_tree(leaves)
    prefixes = [f"l{level}_experts.{place}." for level, count in enumerate(counts) for place in range(count)]
    pool = ExpertPool(store, prefixes, resident)
    experts = iter([LazyExpert(pool, number) for number in range(len(prefixes))])
    extractor = {**extractor_options(store.shapes), "parts": "controller"}
    with torch.device("meta"):
        network = UniRestorer([[next(experts) for _ in range(count)] for count in counts], tree, extractor)
    # What the network holds itself; its state dict would fetch every expert's tensors.
    own = [name for name in store.shapes if not _EXPERT.match(name) and not _is_dead(name)]
    _check_dead(store)
    head = _Head(network)
    tensors = store.read(own)
    check_fit(head, tensors, path)
    head.load_state_dict(tensors, assign=True)
    specs = iter([[found.model, found.options] for found in pool.found])
    network.options = {
        "experts": [[next(specs) for _ in range(count)] for count in counts],
        "tree": tree.to_options(),
        "extractor": extractor,
    }
    return network.eval()


def try_open(path: Path) -> tuple[UniRestorer, Card] | None:
    """Open a checkpoint if it is one of UniRestorer's, for :func:`moir.models.load_model`.

    Returns:
        Network and card; None if the file is of another kind, or cannot be read (whoever reads it next says why).

    Raises:
        CheckpointError, InvalidValueError: It is one, but not whole; see :func:`open_unirestorer`.
    """
    try:
        if not is_unirestorer(open_store(path).shapes):
            return None
    except CheckpointError:
        return None
    network = open_unirestorer(path)
    card = Card(
        name=path.stem,
        model="unirestorer",
        options=network.options,
        description="UniRestorer (arXiv 2412.20157): one expert per picture, chosen by its degradation.",
        source=f"opened from {path.name}; nothing in the file says how it was trained",
        size_multiple=network.size_multiple,
        overlap=network.overlap,
    )
    return network, card


class _Head(torch.nn.Module):
    """The network without its experts, under the same names: shares the modules, and the parameters through them."""

    def __init__(self, network: UniRestorer) -> None:
        super().__init__()
        self._parameters = network._parameters
        self._buffers = network._buffers
        self._modules = {name: m for name, m in network._modules.items() if not _EXPERT.match(f"{name}.0.")}


def extractor_options(shapes: Mapping[str, tuple[int, ...]], prefix: str = EXTRACTOR) -> dict[str, Any]:
    """Options of :class:`~moir.universal.daclip.DaClip`, told by shapes.

    Args:
        shapes: Names to shapes.
        prefix: What the extractor's names begin with.

    Raises:
        CheckpointError: There is no controller.
    """
    control = f"{prefix}visual_control."
    try:
        width, _, patch, _ = shapes[f"{control}conv1.weight"]
        tokens, _ = shapes[f"{control}positional_embedding"]
        _, features = shapes[f"{control}proj"]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"it has no image controller ({control}conv1.weight and so on)") from error
    options: dict[str, Any] = {
        "features": features,
        "side": round((tokens - 1) ** 0.5) * patch,
        "patch": patch,
        "width": width,
        "layers": _layers(shapes, f"{control}transformer.transformer."),
    }
    texts, words = (shapes.get(f"{prefix}clip.{n}") for n in ("positional_embedding", "token_embedding.weight"))
    if texts and words and len(texts) == len(words) == 2:
        options |= {
            "text_width": texts[1],
            "text_layers": _layers(shapes, f"{prefix}clip.transformer."),
            "text_context": texts[0],
            "vocabulary": words[0],
        }
    return options


def _is_dead(name: str) -> bool:
    """Whether a tensor is the extractor's but not its controller's: never needed to restore."""
    return name.startswith(EXTRACTOR) and not name.startswith(f"{EXTRACTOR}visual_control.")


def _check_dead(store: TensorStore) -> None:
    """Check the names and shapes of what is never read; a file may do without all of it."""
    dead = {n.removeprefix(EXTRACTOR): torch.empty(s, device="meta") for n, s in store.shapes.items() if _is_dead(n)}
    if not dead:
        return
    with torch.device("meta"):
        whole = DaClip(**extractor_options(store.shapes))
    control = {n: t for n, t in whole.state_dict().items() if n.startswith("visual_control.")}
    check_fit(whole, {**control, **dead}, store.path)


def _expert_counts(store: TensorStore) -> list[int]:
    """Experts per level.

    Raises:
        CheckpointError: There are none, or one is missing between two.
    """
    found = {(int(m[1]), int(m[2])) for name in store.shapes if (m := _EXPERT.match(name))}
    levels = 1 + max((level for level, _ in found), default=-1)
    counts = [1 + max((place for at, place in found if at == level), default=-1) for level in range(levels)]
    if not counts or sum(counts) != len(found) or 0 in counts:
        have = ", ".join(f"l{level}_experts.{place}" for level, place in sorted(found)) or "none"
        raise CheckpointError(f"{store.path}: experts are missing; there are: {have}")
    return counts


def _layers(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}resblocks\.(\d{{1,3}})\.")
    return 1 + max((int(m[1]) for name in shapes if (m := pattern.match(name))), default=-1)
