"""How the table describes a data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from moir.datasets.pairing import SAME, Pairing

Role = Literal["train", "test", "masks"]


@dataclass(frozen=True)
class Source:
    """Where one or several sets come from.

    Attributes:
        title: The name in papers.
        get: Project page, or the paper.
        licence: What is known of the terms of use.
        unverified: What this table says without our having seen the files.
    """

    title: str
    get: str
    licence: str = "not stated here; read the terms at the source"
    unverified: str = ""


class Folders(NamedTuple):
    """Input and target folder below the place of a set.

    A ``*`` stands for every folder that fits. If input and target have as many, the folders that it stands for are
    scenes, which must agree; otherwise the pictures of all of them are taken together.

    Attributes:
        input: Folder of the inputs; None for sets of clean pictures.
        target: Folder of the targets; ``.`` for the place itself.
        pairing: The rule in this layout, where it is not the set's.
    """

    input: str | None
    target: str
    pairing: Pairing | None = None


class Layout(NamedTuple):
    """One accepted layout: folders below the data root, with ``/`` and possibly ``*``."""

    input: str | None
    target: str
    pairing: Pairing

    def __str__(self) -> str:
        if self.input is None:
            return f"{self.target}/"
        if self.input == self.target:
            return f"{self.target}/ (both)"
        common, one, other = _split(self.input, self.target)
        if not common:
            return f"{self.input}/ and {self.target}/"
        return f"{'/'.join(common)}/{{{one or '.'},{other or '.'}}}/"


@dataclass(frozen=True)
class DataSet:
    """One published set (or one part of it) in its accepted layouts.

    Attributes:
        name: The name here, lower case.
        role: For training, for testing, or masks to make damage with.
        source: Where it comes from.
        places: Folders below the data root in which it may lie, the recommended one first; ``.`` is the root.
        folders: The accepted pairs of folders below each place, the recommended one first.
        pairing: Which target belongs to which input.
        counts: Numbers of pairs (or of clean pictures) that published versions have; empty where we know none.
        scale: How many times larger the target is than the input.
        family: One name for sets that differ in nothing but a folder name, such as ``cdd11_*``.
    """

    name: str
    role: Role
    source: Source
    places: tuple[str, ...]
    folders: tuple[Folders, ...] = (Folders(None, "."),)
    pairing: Pairing = SAME
    counts: tuple[int, ...] = ()
    scale: int = 1
    family: str = ""

    @property
    def paired(self) -> bool:
        """Whether inputs come with the set (otherwise it is one of clean pictures, or of masks)."""
        return self.folders[0].input is not None

    def layouts(self) -> Iterator[Layout]:
        """Every accepted layout, the recommended one first."""
        for place in self.places:
            for below in self.folders:
                source = None if below.input is None else _below(place, below.input)
                yield Layout(source, _below(place, below.target), below.pairing or self.pairing)

    def expected(self) -> str:
        """The published number of pictures, in words."""
        return " or ".join(map(str, self.counts)) or "?"


def _below(place: str, folder: str) -> str:
    return "/".join(part for part in (place, folder) if part != ".") or "."


def _split(one: str, other: str) -> tuple[list[str], str, str]:
    first, second = one.split("/"), other.split("/")
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    return first[:same], "/".join(first[same:]), "/".join(second[same:])
