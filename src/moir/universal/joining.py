"""Any network can join a pool as the expert of a group; then the router is trained again.

A group that the tree has gets the network in place of its expert. A new group becomes a leaf: below the group of its
types where the tree has one, and below one of its own, with the same network, where it has none. Until the router is
trained again, a new leaf is never chosen: it has the logits of another leaf that stands before it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moir.base.errors import CheckpointError, InvalidValueError
from moir.base.files import check_absent
from moir.models import find_weights
from moir.universal.clustering import Label
from moir.universal.joining_places import TRIAL, Joined, check_kept, expert_of, types_of
from moir.universal.network import UniRestorer
from moir.universal.opening import MARKS, head_of, open_unirestorer
from moir.universal.pool import OWN, Builders, ExpertSource, fingerprint
from moir.universal.pool_file import CENTRES, Member, Pool, expert_prefixes, pool_of, relocated, write_pool
from moir.universal.recognising import recognised
from moir.universal.store import open_store
from moir.universal.tree import Leaf, Tree
from moir.universal.tree_joining import is_tree

log = logging.getLogger(__name__)


def join(
    source: str | Path,
    group: str,
    network: str | Path,
    output: str | Path,
    *,
    types: Sequence[str] = (),
    degree: str | None = None,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    whole: bool = False,
    builders: Builders | None = None,
    overwrite: bool = False,
) -> Joined:
    """Make a pool in which a network is the expert of a group.

    The new pool holds extractor, router and the joining network, and refers to the others where they are, unless
    ``whole``.

    Args:
        source: A pool, or a checkpoint in the published layout.
        group: Name of a group of its tree, or of a new leaf.
        network: A shipped name; weights of moir; another program's checkpoint of a network that moir recognises; or of
            one that spandrel does. Nothing in the file is executed.
        output: The pool to write, ``NAME.safetensors``.
        types: Only for a new group: its degradation types.
        degree: Only for a new group: how strong they are, if it is for one degree.
        model: The network's name in the registry, or ``own:NAME`` of ``builders``; None: told by card or names.
        options: Its options, with ``model``.
        whole: Write all experts into the new file, too; needed if ``source`` is no .safetensors file.
        builders: Makers of networks of the user's own: name to a function of options.
        overwrite: Replace a file that is there.

    Raises:
        UnknownNameError: No such group (near misses are named), type, degree, model or option.
        InvalidValueError: Types for a group that is there; a ``source`` that cannot be referred to, or whose experts
            share one network.
        CheckpointError: A file is missing, unsafe or damaged, is not recognised, or does not restore pictures.
        MissingExtraError: Only spandrel might know the network, and is not installed.
        OutputExistsError: ``output`` exists and ``overwrite`` is false.
    """
    target = Path(output)
    check_absent(target, overwrite=overwrite)
    start = find_weights(str(source))
    if target.exists() and target.samefile(start):
        raise InvalidValueError(f"{target} is the pool to start from; give another name")
    if is_tree(start):
        raise InvalidValueError(f"the experts of {start} share one network; use moir.universal.tree_joining.join_tree")
    opened = open_unirestorer(start, builders=builders)
    store = open_store(start)
    pool = pool_of(store) or pool_in_file(opened)
    if not whole and start.suffix != ".safetensors":
        raise InvalidValueError(f"{start} is no .safetensors file and cannot be referred to; write everything: --whole")
    joining = recognised(find_weights(str(network)), model, options)
    _try(joining, builders)
    member = Member(
        joining.model, joining.options, joining.licence, f"from {joining.store.path.name}",
        fingerprint(joining.tensors()),
    )  # fmt: skip

    # -- the place in the tree ---------------------------------------------------------------------------------------
    if not whole:
        pool = replace(pool, members=tuple(tuple(relocated(m, start, target) for m in level) for level in pool.members))
    expert, is_new = expert_of(pool.tree, group), False
    head = dict(head_of(opened).state_dict())
    centres = store.read([CENTRES])[CENTRES] if CENTRES in store.shapes else None
    if expert is not None:
        check_kept(group, expert, types, degree)
        grown = pool.tree
        members = _replaced(pool.members, expert, member)
    else:
        is_new = True
        grown, members, expert, sibling = _with_leaf(
            pool, Leaf(group, types_of(group, types, pool.tree), (0,), degree), member
        )
        head[MARKS[0]] = _with_logits_of(head[MARKS[0]], sibling)
        if centres is not None:  # not known yet: the router's training measures it
            centres = torch.cat([centres, torch.full_like(centres[:1], torch.nan)])
    if centres is not None:
        head[CENTRES] = centres

    # -- what is written --------------------------------------------------------------------------------------------
    embedded: dict[str, torch.Tensor] = {}
    homes: dict[tuple[Path, str], str] = {}  # an expert may stand at several levels; it is written once
    kept = dict(zip(map(id, pool.numbered), opened.experts[0].pool.found, strict=True))
    placed: list[Member] = []
    for name, m in zip(expert_prefixes([len(level) for level in members]), _flat(members), strict=True):
        if m is not member and not whole:
            placed.append(m)
            continue
        lies = joining if m is member else kept[id(m)]
        home = homes.setdefault((lies.store.path, lies.prefix), name)
        if home == name:
            embedded.update({name + key: value for key, value in lies.tensors().items()})
        placed.append(replace(m, file=None, prefix=home))
    filled = iter(placed)
    final = Pool(grown, pool.extractor, tuple(tuple(next(filled) for _ in level) for level in members), pool.notes)
    write_pool(target, final, head, embedded, overwrite=overwrite)
    return Joined(target, expert, group, joining.model, is_new)


def pool_in_file(network: UniRestorer) -> Pool:
    """What the header of a published checkpoint would say, if it had one.

    Args:
        network: From :func:`~moir.universal.opening.open_unirestorer`; its experts are in the file it was opened from.
    """
    sources = network.experts[0].pool.found
    numbered = iter(
        Member(s.model, s.options, s.licence, f"from {s.store.path.name}", fingerprint(s.tensors()), None, s.prefix)
        for s in sources
    )
    counts = [len(level) for level in network.options["experts"]]
    return Pool(network.tree, {}, tuple(tuple(next(numbered) for _ in range(count)) for count in counts))


def centres_by_label(
    tree: Tree,
    points: np.ndarray,
    labels: Sequence[Label],
    leaf_probability: np.ndarray,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Centres of the leaves, where no clustering gives them: means of the representations that fit a leaf's label.

    A picture fits the leaves of its types and, where these stand for a degree, of its degree; of several, it counts for
    the one that the router, as it is, finds most probable.

    Args:
        tree: The tree.
        points: (N, features), representations.
        labels: N labels.
        leaf_probability: (N, leaves), the router's.
        known: (leaves, features): centres that are kept, except where they are not finite.

    Returns:
        (leaves, features) float64.

    Raises:
        InvalidValueError: No picture fits a leaf.
    """
    probability = np.array(leaf_probability, dtype=np.float64)
    fits = np.array(
        [
            [set(leaf.types) == set(label.types) and leaf.degree in (None, label.degree) for leaf in tree.leaves]
            for label in labels
        ]
    )
    chosen = np.where(fits, probability, -1.0).argmax(axis=1)
    centres = np.full((len(tree.leaves), points.shape[1]), np.nan) if known is None else np.array(known, np.float64)
    for number, leaf in enumerate(tree.leaves):
        if np.isfinite(centres[number]).all():
            continue
        # A new leaf has the logits of another: all that fit it are its own, whoever else they fit.
        mine = fits[:, number] if known is not None else fits[:, number] & (chosen == number)
        mine = mine if mine.any() else fits[:, number]
        if not mine.any():
            said = " ".join(filter(None, (leaf.degree, "-".join(leaf.types) or "clean pictures")))
            raise InvalidValueError(
                f"no training picture fits the leaf {leaf.name} ({said}); add such damage to data.settings"
            )
        centres[number] = points[mine].mean(axis=0)
    return centres


def _try(joining: ExpertSource, builders: Builders | None) -> None:
    """Check that a network restores a picture to its own size."""
    expert: Any = joining.load(builders)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        x = torch.rand(TRIAL, generator=generator)
        y = expert(x)
    if not isinstance(y, torch.Tensor) or y.shape != x.shape or not bool(y.isfinite().all()):
        made = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        own = f"; it is {joining.model}" if joining.model.startswith(OWN) else ""
        raise CheckpointError(f"{joining.label} made {made} of a picture {TRIAL}, or numbers that are not finite{own}")


Members = tuple[tuple[Member, ...], ...]


def _replaced(members: Members, expert: int, member: Member) -> Members:
    numbers = iter(range(sum(len(level) for level in members)))
    return tuple(tuple(member if next(numbers) == expert else m for m in level) for level in members)


def _with_leaf(pool: Pool, leaf: Leaf, member: Member) -> tuple[Tree, Members, int, int]:
    """The tree and the experts with one leaf more.

    Returns:
        The tree, the experts per level, the number of the new leaf's own expert, and the leaf whose logits it takes.
    """
    tree, finest = pool.tree, len(pool.tree.levels) - 1
    kin = [n for n, other in enumerate(tree.leaves) if set(other.types) == set(leaf.types)]
    # With leaves of its types: below their parent. Without: its own network at every level but the coarsest.
    own_from = finest if kin else min(1, finest)
    members = tuple((*level, member) if number >= own_from else level for number, level in enumerate(pool.members))
    sizes = [len(level) for level in pool.members]
    starts = [sum(len(level) for level in members[:number]) for number in range(len(members))]

    def moved(row: Sequence[int]) -> tuple[int, ...]:
        """The numbers of a row when the levels before have grown."""
        return tuple(expert - sum(sizes[:n]) + starts[n] for n, expert in enumerate(row))

    sibling = kin[-1] if kin else 0
    above = moved(tree.rows[sibling])[:own_from]
    row = (*above, *(starts[n] + sizes[n] for n in range(own_from, finest + 1)))
    leaves = [replace(other, experts=moved(other.experts)) for other in tree.leaves]
    numbers = {old: new for leaf in tree.leaves for old, new in zip(leaf.experts, moved(leaf.experts), strict=True)}
    names = {numbers[expert]: name for expert, name in tree.names.items() if expert in numbers}
    names |= dict.fromkeys(row[own_from:], leaf.name)
    grown = Tree((*leaves, replace(leaf, experts=row)), tree.levels, names)
    return grown, members, row[-1], sibling


def _with_logits_of(weight: torch.Tensor, sibling: int) -> torch.Tensor:
    """The leaf gate's weights with a leaf more at the end; the first half of the rows is the logits, then the noise."""
    logits, noise = weight.chunk(2)
    grown = [torch.cat([half, half[sibling : sibling + 1]]) for half in (logits, noise)]
    return torch.cat(grown)


def _flat(members: Members) -> list[Member]:
    return [member for level in members for member in level]
