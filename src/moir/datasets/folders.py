"""Folders below a data root: found whatever the case of their names, with ``*``, and listed without opening a file."""

import fnmatch
import os
from pathlib import Path

from moir.datasets.errors import DatasetError, RootMissingError
from moir.datasets.pairing import Named
from moir.picture import is_picture_name


def checked_root(root: str | Path) -> Path:
    """Return the root as a path.

    Raises:
        RootMissingError: There is no such folder.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise RootMissingError(f"data root {path} {what}; give the folder below which the data sets lie")
    return path


class Tree:
    """The folders below a root; each is listed once, however many sets ask for it."""

    def __init__(self, root: str | Path) -> None:
        self.root = checked_root(root)
        self._listed: dict[Path, tuple[list[str], list[Path]]] = {}

    def find(self, pattern: str) -> list[tuple[str, Path]]:
        """Find the folders that a pattern of the table means.

        Args:
            pattern: Folder names joined by ``/``, below the root; ``*`` stands for any part of one name. Upper and
                lower case count only where several folders differ in nothing else.

        Returns:
            (what the ``*`` names were, joined by ``/``, and the folder) for each, sorted.
        """
        found = [("", self.root)]
        for part in [] if pattern == "." else pattern.split("/"):
            found = [step for scene, folder in found for step in self._below(scene, folder, part)]
        return found

    def pictures(self, pattern: str, *, scenes: bool = False) -> list[Named]:
        """List the pictures in the folders that a pattern means, sorted by folder and name.

        Args:
            pattern: As for :meth:`find`.
            scenes: What ``*`` stands for is part of the name.
        """
        folders = self.find(pattern)
        return [(scene if scenes else "", path) for scene, folder in folders for path in self._list(folder)[1]]

    def _below(self, scene: str, folder: Path, part: str) -> list[tuple[str, Path]]:
        names = self._list(folder)[0]
        if "*" in part:
            fitting = [name for name in names if fnmatch.fnmatchcase(name.lower(), part.lower())]
            return [(f"{scene}/{name}" if scene else name, folder / name) for name in fitting]
        if part not in names:
            names = [name for name in names if name.lower() == part.lower()]
            part = names[0] if names else ""
        return [(scene, folder / part)] if part else []

    def _list(self, folder: Path) -> tuple[list[str], list[Path]]:
        if folder not in self._listed:
            self._listed[folder] = _listing(folder)
        return self._listed[folder]


def _listing(folder: Path) -> tuple[list[str], list[Path]]:
    folders, pictures = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):  # .DS_Store, ._0001.png and the like
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif is_picture_name(entry.name):
                    pictures.append(folder / entry.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}; check its permissions") from error
    return sorted(folders), sorted(pictures)
