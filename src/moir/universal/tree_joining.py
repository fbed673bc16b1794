"""Any expert can join the shipped tree: an adapter for the shared network, weights of it, or another network.

As in a pool (:mod:`moir.universal.joining`), a group that the tree has gets the newcomer in place of its expert, and a
new group becomes a leaf. A new leaf waits: nothing chooses it before the router is trained again.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from moir.adapted import card_path, load_adapter, read_adapter_facts
from moir.base.errors import CheckpointError, InvalidValueError
from moir.base.files import check_absent
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.models import ADAPTER, create_model, find_weights, load_model
from moir.networks.compact import Compact
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.expert_kinds import check_whole
from moir.universal.foreign_expert import SPANDREL
from moir.universal.joining_places import TRIAL, Joined, check_kept, expert_of, types_of
from moir.universal.recognising import recognised
from moir.universal.store import open_store
from moir.universal.tree import Leaf, Tree

UNNAMED = "unknown"
"""What is given as the types of a group of damage that is none of the known types."""

MODELS = ("unirestorer_compact", "test_unirestorer_compact")
"""Names in the registry of trees whose experts share one network."""


@dataclass(frozen=True)
class Newcomer:
    """A network that joins.

    Attributes:
        form: Of which kind it is; see :mod:`moir.universal.expert_kinds`.
        tensors: What it has of its own.
        licence: What is known of its licence.
    """

    form: dict[str, Any]
    tensors: Mapping[str, torch.Tensor]
    licence: str = ""


def is_tree(path: Path) -> bool:
    """Whether a weights file is, by its card, a tree whose experts share one network."""
    card = card_path(path)
    return path.suffix == ".safetensors" and card.exists() and Card.read(card).model in MODELS


def join_tree(
    source: str | Path,
    group: str,
    network: str | Path,
    output: str | Path,
    *,
    types: Sequence[str] = (),
    degree: str | None = None,
    overwrite: bool = False,
) -> Joined:
    """Make weights in which a network or adapter is the expert of a group.

    Args:
        source: The tree: a shipped name, or its weights.
        group: Name or number of a group of its tree, or the name of a new leaf.
        network: An adapter for the shared network; weights of a ``compact`` with the same estimator; or a shipped name,
            a weights file or another program's checkpoint of a network that decides nothing on whole pictures. Nothing
            in the file is executed.
        output: The weights to write, ``NAME.safetensors``, with a card beside them.
        types: Only for a new group: its degradation types, or ``unknown`` alone where it is none of those.
        degree: Only for a new group: how strong they are, if it is for one degree.
        overwrite: Replace files that are there.

    Raises:
        UnknownNameError: No such group (near misses are named), type or degree.
        InvalidValueError: Types for a group that is there; a group whose expert cannot be replaced; or a network that
            cannot be an expert of this tree.
        CheckpointError: A file is missing, unsafe or damaged, is not recognised, or does not restore pictures; or an
            adapter belongs to another network than the shared one.
        MissingExtraError: Only spandrel might know the network, and is not installed.
        OutputExistsError: ``output`` or its card exists and ``overwrite`` is false.
    """
    start, target = find_weights(str(source)), Path(output)
    if target.suffix != ".safetensors":
        raise InvalidValueError(f"{target} must be called NAME.safetensors")
    for path in (target, card_path(target)):
        check_absent(path, overwrite=overwrite)
    if target.exists() and target.samefile(start):
        raise InvalidValueError(f"{target} is the tree to start from; give another name")
    tree_network, card = load_model(str(start))
    assert isinstance(tree_network, CompactUniRestorer)
    newcomer = read_newcomer(find_weights(str(network)), tree_network.base)
    tree, expert = tree_network.tree, expert_of(tree_network.tree, group)
    is_new = expert is None
    if expert is not None:
        check_kept(group, expert, types, degree)
        _check_replaceable(tree, expert)
    else:
        named = types_of(group, types, tree, UNNAMED)
        tree, expert = with_leaf(tree, Leaf(group, named, (), degree, unnamed=not named))
    grown = _with_expert(tree_network, card.model, tree, expert, newcomer)
    _try(grown, expert, str(network))
    words = grown.kinds[expert].words
    said = f"Expert {expert} ({tree.name_of(expert)}): {words}, from {Path(network).name}."
    save_tree(
        grown,
        replace(
            card,
            name=target.stem,
            description=f"{card.description} {said}".strip(),
            licence="; ".join(dict.fromkeys(filter(None, (card.licence, newcomer.licence)))),
        ),
        target,
        overwrite=overwrite,
    )
    return Joined(target, expert, tree.name_of(expert), words, is_new)


def save_tree(network: CompactUniRestorer, card: Card, path: Path, *, overwrite: bool = False) -> None:
    """Write a tree and its card. What lies in other shipped weights is not written again.

    Args:
        network: The tree.
        card: Of the tree it was made from; what was measured on that is left out.
        path: A .safetensors file.
        overwrite: Replace files that are there.
    """
    shared = tuple(card.parts)
    tensors = {n: tensor for n, tensor in network.state_dict().items() if not n.startswith(shared or ("\0",))}
    write_tensors(path, tensors, overwrite=overwrite)
    replace(
        card,
        options=network.options,
        metrics=[],
        precision={},
        bytes_per_pixel=None,
        size_multiple=network.size_multiple,
        overlap=network.overlap,
        parameters=sum(p.numel() for p in network.parameters()),
        sha256=sha256_of(path),
    ).write(card_path(path), overwrite=overwrite)


def read_newcomer(path: Path, base: Compact) -> Newcomer:
    """What a file holds that may join, and of which kind it is.

    Args:
        path: An adapter, or weights of a network.
        base: The shared network.

    Raises:
        InvalidValueError, CheckpointError, MissingExtraError: See :func:`join_tree`.
    """
    if path.suffix == ".safetensors" and ADAPTER in str(open_store(path).facts.get("format", "")):
        return _adapter(path, base)
    if path.suffix == ".safetensors" and card_path(path).exists():
        network, card = load_model(str(path))  # also knows what lies in other shipped weights
        if type(network) is Compact:
            return _own_parameters(path, base, network, card.licence)
        check_whole(network, f"{path} ({card.model})")
        return Newcomer({"model": card.model, "options": dict(card.options)}, network.state_dict(), card.licence)
    source = recognised(path)
    tensors = source.tensors()
    if source.model == SPANDREL:
        shapes = {n: [str(tensor.dtype).removeprefix("torch."), *tensor.shape] for n, tensor in tensors.items()}
        return Newcomer({"model": SPANDREL, "tensors": shapes}, tensors, source.licence)
    check_whole(source.load(), f"{path} ({source.model})")
    return Newcomer({"model": source.model, "options": source.options}, tensors, source.licence)


def with_leaf(tree: Tree, leaf: Leaf) -> tuple[Tree, int]:
    """The tree with one leaf more, at the end.

    Args:
        tree: The tree.
        leaf: Its experts are not looked at: it stands below the group of its types, or, where there is none, below one
            of its own.

    Returns:
        The tree, and the number of the coarsest of the leaf's own experts, above which it has none.
    """
    finest = len(tree.levels) - 1
    kin = [x for x in tree.leaves if leaf.types and set(x.types) == set(leaf.types)]
    above = kin[-1].experts[:finest] if kin else tree.leaves[0].experts[: min(1, finest)]
    first = tree.experts
    own = range(first, first + 1 + finest - len(above))
    names = {**tree.names, **dict.fromkeys(own, leaf.name)}
    return Tree((*tree.leaves, replace(leaf, experts=(*above, *own))), tree.levels, names), first


def _adapter(path: Path, base: Compact) -> Newcomer:
    """An adapter, which must be one for the shared network."""
    from moir.adapters import adapter_state

    facts = read_adapter_facts(path)
    try:
        adapted = deepcopy(base)
        load_adapter(adapted, path, model="shared network")
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Only adapters for the tree's shared network can join it") from error
    form = {"adapter": {"method": facts.method, "options": facts.options}}
    return Newcomer(form, adapter_state(adapted, facts.name))


def _own_parameters(path: Path, base: Compact, expert: Compact, licence: str) -> Newcomer:
    """Weights of a compact network that shares the estimator: only what differs is its own."""
    shared, own = base.state_dict(), expert.state_dict()

    def differs(name: str) -> bool:
        return name not in shared or own[name].shape != shared[name].shape or not torch.equal(own[name], shared[name])

    changed = [name for name in own if differs(name)]
    if any(name.startswith("estimator.") for name in changed):
        raise InvalidValueError(
            f"{path} decides on whole pictures with an estimator that is not the shared network's, and tiles must "
            "share one decision; train from the shared network with its estimator left as it is (model.train in the "
            "recipe), or train an adapter (moir adapt)"
        )
    wrong = [name for name in changed if name in shared and own[name].shape != shared[name].shape]
    if wrong:
        raise InvalidValueError(
            f"{path} has another width than the shared network ({wrong[0]} is {tuple(own[wrong[0]].shape)}, there "
            f"{tuple(shared[wrong[0]].shape)}), so there is nothing to share"
        )
    blocks = {name: count for name, count in _blocks(expert).items() if count != _blocks(base)[name]}
    form = {"own": sorted({f"{name.split('.')[0]}.*" for name in changed if name in shared}), **blocks}
    own_names = [name for name in own if name not in shared or f"{name.split('.')[0]}.*" in form["own"]]
    return Newcomer(form, {name: own[name] for name in own_names}, licence)


def _blocks(network: Compact) -> dict[str, Any]:
    """How many blocks a network has at each scale, as its options say it."""
    return {
        "encoder_blocks": [len(network.encoder1), len(network.encoder2)],
        "middle_blocks": len(network.middle),
        "decoder_blocks": [len(network.decoder2), len(network.decoder1)],
    }


def _check_replaceable(tree: Tree, expert: int) -> None:
    """Check that a group's expert may be another one.

    Raises:
        InvalidValueError: It is the shared network, or an identity.
    """
    if expert == 0:
        raise InvalidValueError(
            "expert 0 (all) is the shared network, on which all others are built; replace a finer group's expert"
        )
    if tree.is_clean(expert):
        raise InvalidValueError(
            f"expert {expert} ({tree.name_of(expert)}) is of clean pictures, which are left as they are; name another "
            "group, or a new one"
        )


def _with_expert(
    network: CompactUniRestorer, model: str, tree: Tree, expert: int, newcomer: Newcomer
) -> CompactUniRestorer:
    """The network with a newcomer at a place of the tree. Leaves that are new wait."""
    before = len(network.tree.leaves)
    forms = {str(n): form for n, form in (network.options.get("forms") or {}).items()}
    options = {
        **network.options,
        "tree": tree.to_options(),
        "trained": sorted({*network.trained, expert}),
        "forms": {**forms, str(expert): newcomer.form},
        "waiting": [*network.waiting, *range(before, len(tree.leaves))],
    }
    grown = create_model(model, **options)
    assert isinstance(grown, CompactUniRestorer)
    prefix = f"experts.{expert}."
    state = {name: value for name, value in network.state_dict().items() if not name.startswith(prefix)}
    state |= {prefix + name: value for name, value in newcomer.tensors.items()}
    state[GATE] = with_rows(state[GATE], len(tree.leaves) - before)
    try:
        grown.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the newcomer does not fit what its file says it is: {error}") from error
    return grown.eval()


GATE = "lf_gate.0.weight"
"""The leaf gate's weights: the first half of the rows is the logits, the second the noise of training."""


def with_rows(gate: torch.Tensor, count: int) -> torch.Tensor:
    """The leaf gate's weights with so many leaves more at the end, of no evidence for or against."""
    halves = gate.chunk(2)
    return torch.cat([torch.cat([half, half.new_zeros(count, half.shape[1])]) for half in halves])


@torch.inference_mode()
def _try(network: CompactUniRestorer, expert: int, source: str) -> None:
    """Check that an expert restores a picture to its own size.

    Raises:
        CheckpointError: It does not.
    """
    x = torch.rand(TRIAL, generator=torch.Generator().manual_seed(0))
    y: Any = network.expert(expert)(x, network.steering(network.analyse(x), len(x)))
    if not isinstance(y, torch.Tensor) or y.shape != x.shape or not bool(y.isfinite().all()):
        made = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        raise CheckpointError(f"{source} made {made} of a picture {TRIAL}, or numbers that are not finite")
