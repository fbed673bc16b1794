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
from moir.universal.daclip_weights import extractor_options
from moir.universal.network import UniRestorer
from moir.universal.pool import Builders, ExpertPool, LazyExpert, recognise
from moir.universal.pool_file import CENTRES, expert_prefixes, pool_of
from moir.universal.store import TensorStore, open_store
from moir.universal.tree import Tree, official_tree

EXTRACTOR = "daclip_model."
MARKS = ("lf_gate.0.weight", "layer_gate.0.weight")
"""Names that only UniRestorer's state dicts have."""

_EXPERT = re.compile(r"l(\d{1,2})_experts\.(\d{1,4})\.")


def is_unirestorer(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a state dict is one of UniRestorer's, by its names."""
    return all(mark in shapes for mark in MARKS)


def open_unirestorer(
    path: str | Path,
    resident: int = 1,
    tree: Tree | Mapping[str, Any] | None = None,
    builders: Builders | None = None,
) -> UniRestorer:
    """Open a checkpoint in the published layout, or a pool: controller and router now, experts when pictures need them.

    CLIP's own towers (62% of the extractor) are checked by name and shape and never read. A pool's header says what
    its experts are (:mod:`moir.universal.pool_file`); those of other files are told by their names and shapes.

    Args:
        path: A .safetensors file (mapped into memory), or the published .pth (read piece by piece, never executed).
        resident: Experts that are kept in memory at most.
        tree: The tree, or its options; None: the pool's, or the published one for the number of leaves in the file.
        builders: Makers of the user's own networks; see :func:`moir.universal.joining.join`.

    Returns:
        The network in evaluation mode, on the CPU; experts follow the pictures' device.

    Raises:
        CheckpointError: The file is missing, unsafe, damaged or no UniRestorer; names are missing or unexpected; an
            expert is not recognised; or a file that a pool refers to is not there.
        InvalidValueError: The tree does not fit the file's experts.
    """
    store = open_store(path)
    if not is_unirestorer(store.shapes):
        raise CheckpointError(f"{path} is no UniRestorer checkpoint: it has no {' and '.join(MARKS)}")
    pool = pool_of(store)
    if pool is None:
        counts = _expert_counts(store)
        sources = [recognise(store, prefix) for prefix in expert_prefixes(counts)]
        usual = tree or official_tree(store.shapes[MARKS[0]][0] // 2)
    else:
        counts = [len(level) for level in pool.members]
        sources = pool.sources(store)
        usual = tree or pool.tree
    tree = usual if isinstance(usual, Tree) else Tree.from_options(usual)
    experts = ExpertPool(sources, resident, builders)
    lazy = iter([LazyExpert(experts, number) for number in range(len(sources))])
    extractor = {**extractor_options(store.shapes, EXTRACTOR), "parts": "controller"}
    with torch.device("meta"):
        network = UniRestorer([[next(lazy) for _ in range(count)] for count in counts], tree, extractor)
    # What the network holds itself; its state dict would fetch every expert's tensors.
    own_names = [n for n in store.shapes if not _EXPERT.match(n) and not _is_dead(n) and n != CENTRES]
    _check_dead(store)
    head = head_of(network)
    tensors = store.read(own_names)
    check_fit(head, tensors, path)
    head.load_state_dict(tensors, assign=True)
    specs = iter([[found.model, found.options] for found in sources])
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
    licences = dict.fromkeys(source.licence for source in network.experts[0].pool.found if source.licence)
    card = Card(
        name=path.stem,
        model="unirestorer",
        options=network.options,
        description="UniRestorer (arXiv 2412.20157): one expert per picture, chosen by its degradation.",
        source=f"opened from {path.name}; nothing in the file says how it was trained",
        licence="; ".join(licences),
        size_multiple=network.size_multiple,
        overlap=network.overlap,
    )
    return network, card


def head_of(network: UniRestorer) -> torch.nn.Module:
    """The network without its experts, under the same names: shares the modules, and the parameters through them.

    For loading and saving: a router's checkpoint needs no experts.
    """
    return _Head(network)


class _Head(torch.nn.Module):
    def __init__(self, network: UniRestorer) -> None:
        super().__init__()
        self._parameters = network._parameters
        self._buffers = network._buffers
        self._modules = {name: m for name, m in network._modules.items() if not _EXPERT.match(f"{name}.0.")}


def _is_dead(name: str) -> bool:
    """Whether a tensor is the extractor's but not its controller's: never needed to restore."""
    return name.startswith(EXTRACTOR) and not name.startswith(f"{EXTRACTOR}visual_control.")


def _check_dead(store: TensorStore) -> None:
    """Check the names and shapes of what is never read; a file may do without all of it."""
    dead = {n.removeprefix(EXTRACTOR): torch.empty(s, device="meta") for n, s in store.shapes.items() if _is_dead(n)}
    if not dead:
        return
    with torch.device("meta"):
        whole = DaClip(**extractor_options(store.shapes, EXTRACTOR))
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
