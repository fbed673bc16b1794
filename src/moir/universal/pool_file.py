"""A pool on disk: one .safetensors file with extractor and router, and experts in it or beside it.

The header says what the file is: the tree, and for each expert its network, its licence, the fingerprint of its
tensors, and where they are: in this file under the published names (``l1_experts.3.``), or in another .safetensors
file, which this one refers to. So a router is saved without its experts (882 million numbers as published). Nothing but
tensors and plain values is ever in a pool.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from moir.base.errors import CheckpointError, InvalidValueError
from moir.base.files import atomic_path
from moir.universal.pool import ExpertSource
from moir.universal.store import SafetensorsStore, TensorStore, facts_text
from moir.universal.tree import Tree

FORMAT = "moir-pool-1"
CENTRES = "pool.centres"
"""Name of the tensor (leaves, features) with the centres of the finest groups, where they are known."""


@dataclass(frozen=True)
class Member:
    """One expert of a pool.

    Attributes:
        model: A name of the registry; ``spandrel``; or ``own:NAME``.
        options: The network's options.
        licence: What is known of its licence.
        source: Where it came from, in words.
        fingerprint: Of its tensors.
        file: The .safetensors file they are in, relative to the pool's folder; None: the pool's own file.
        prefix: What their names begin with there.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    source: str = ""
    fingerprint: str = ""
    file: str | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Pool:
    """What the header of a pool's file says.

    Attributes:
        tree: The tree.
        extractor: Options of :class:`~moir.universal.daclip.DaClip`.
        members: Experts per level, the coarsest first.
        notes: How it was trained, as far as it is known.
    """

    tree: Tree
    extractor: Mapping[str, Any]
    members: tuple[tuple[Member, ...], ...]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbered(self) -> tuple[Member, ...]:
        """The experts, by number."""
        return tuple(member for level in self.members for member in level)

    def to_options(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "format": FORMAT,
            "tree": self.tree.to_options(),
            "extractor": dict(self.extractor),
            "members": [[asdict(member) for member in level] for level in self.members],
            "notes": dict(self.notes),
        }

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Pool":
        """What :meth:`to_options` gave, also after a way through JSON.

        Raises:
            InvalidValueError: It is no such thing.
        """
        try:
            if options["format"] != FORMAT:
                raise InvalidValueError(f"this pool has the format {options['format']!r}; this moir reads {FORMAT!r}")
            members = tuple(tuple(Member(**member) for member in level) for level in options["members"])
            return cls(Tree.from_options(options["tree"]), dict(options["extractor"]), members, dict(options["notes"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidValueError(f"this is not a pool (tree, extractor, members): {error!r}") from error

    def sources(self, store: TensorStore) -> list[ExpertSource]:
        """Where the experts lie, by number.

        Args:
            store: The pool's own file.

        Raises:
            CheckpointError: A file it refers to is missing, damaged or not .safetensors.
        """
        stores: dict[Path, TensorStore] = {}
        found = []
        for number, member in enumerate(self.numbered):
            own = store
            if member.file is not None:
                path = Path(os.path.normpath(store.path.parent / member.file))
                if path.suffix != ".safetensors" or not path.is_file():
                    raise CheckpointError(
                        f"{store.path}: expert {number} ({self.tree.name_of(number)}) is in {path}, which is not "
                        "there; put it back, or make a pool that holds everything: moir expert add ... --whole"
                    )
                own = stores.setdefault(path, SafetensorsStore(path))
            options = dict(member.options)
            found.append(ExpertSource(own, member.prefix, member.model, options, member.licence, member.fingerprint))
        return found


def pool_of(store: TensorStore) -> Pool | None:
    """What a file's header says of its pool; None: it is no pool's file (the published checkpoints are not).

    Raises:
        CheckpointError: It says something that cannot be.
    """
    if "pool" not in store.facts:
        return None
    try:
        return Pool.from_options(store.facts["pool"])
    except InvalidValueError as error:
        raise CheckpointError(f"{store.path}: {error}") from error


def write_pool(
    path: str | Path,
    pool: Pool,
    head: Mapping[str, torch.Tensor],
    embedded: Mapping[str, torch.Tensor] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a pool's file.

    Args:
        path: ``NAME.safetensors``. No card goes beside it: the header says what it is.
        pool: What the header shall say.
        head: Extractor, router, and perhaps :data:`CENTRES`.
        embedded: Experts' tensors under their full names. Mapped ones are written without being copied.
        overwrite: Replace a file that is there.

    Raises:
        InvalidValueError: Another suffix.
        OutputExistsError: The file exists and ``overwrite`` is false.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise InvalidValueError(f"{file} must end in .safetensors; that is what is written")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in {**head, **(embedded or {})}.items()}
    with atomic_path(file, overwrite=overwrite) as temporary:
        save_file(tensors, temporary, metadata={"pool": facts_text(pool.to_options())})


def relocated(member: Member, own: Path, target: Path) -> Member:
    """The same member for a pool's file elsewhere, which refers to where the tensors are now.

    Args:
        member: As the pool's file ``own`` has it.
        own: That file.
        target: The file that shall refer to it.
    """
    file = own if member.file is None else own.parent / member.file
    return replace(member, file=os.path.relpath(file.resolve(), target.resolve().parent))


def expert_prefixes(counts: Sequence[int]) -> list[str]:
    """The published names' beginnings, by number.

    Examples:
        >>> expert_prefixes([1, 2])
        ['l0_experts.0.', 'l1_experts.0.', 'l1_experts.1.']
    """
    return [f"l{level}_experts.{place}." for level, count in enumerate(counts) for place in range(count)]
