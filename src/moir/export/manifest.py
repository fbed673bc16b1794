"""``moir.json``: what a program must know to use an exported network."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from moir.base.names import check_name
from moir.checkpoints.card import sha256_of
from moir.export.errors import ExportError

NAME = "moir.json"
FORMAT = "moir-export-1"


@dataclass(frozen=True)
class Graph:
    """One graph of an export.

    Attributes:
        file: Its file in the folder.
        sha256: Of each file it consists of, by name; OpenVINO keeps weights in a file of their own.
        inputs: Names of its inputs; the first is ``picture``.
        outputs: Names of its outputs.
    """

    file: str
    sha256: dict[str, str]
    inputs: list[str]
    outputs: list[str]

    @classmethod
    def of(cls, file: Path, inputs: list[str], outputs: list[str]) -> "Graph":
        """Describe a graph on disk, ``.onnx`` or ``.xml`` with its ``.bin``."""
        files = [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]
        return cls(file.name, {part.name: sha256_of(part) for part in files}, inputs, outputs)


@dataclass(frozen=True)
class Experts:
    """The graphs of a model whose context names the expert that restores.

    Attributes:
        input: The context's tensor that holds each picture's expert, by number.
        files: File of each expert's graph, by number; None: the picture stays as it is.
        sha256: Of each file, by name, and of the one with the weights that they share, if there is one.
        inputs: Names of the inputs that any of the graphs takes, ``picture`` first; each takes some of them. Empty, in
            exports of before 0.2: those of ``restore``.
    """

    input: str
    files: list[str | None]
    sha256: dict[str, str]
    inputs: list[str] = field(default_factory=list)


@dataclass
class Manifest:
    """Everything about an export but the numbers.

    Attributes:
        model: Name of the model.
        network: Name of the network in moir's registry.
        format: ``onnx`` or ``openvino``.
        precision: How weights are stored: ``float32``, or ``fp16`` (those of ``restore``; arithmetic is the engine's).
        restore: The graph from pictures and context to restored pictures; where there are experts, that of expert 0.
        analyse: The graph from whole pictures to the context; None: the network decides nothing about them.
        context: Shape of each context tensor by name; first comes ``batch``.
        experts: One graph per expert, of which the context names the one to run; None: ``restore`` is all there is.
        scale: How many times larger the result is.
        size_multiple: Tiles start at multiples of this, pixels. (The graphs take any size and pad inside.)
        overlap: How far neighbouring tiles overlap so that no seam is seen, pixels.
        bounded_analysis: Whether ``analyse`` costs little whatever the picture's size.
        instruction: How to say what to remove; None: the network cannot be told. ``input`` names the tensor of
            ``restore`` to replace, ``order`` its columns: 1 for each type to remove and 0 for the others, then 1.
            Experts are chosen blindly: it is ``restore`` that is told.
        description, source, licence, weights_sha256: From the card of the weights.
        check: How far the graphs were from PyTorch when they were written; :class:`~moir.export.check.Agreement`.
        moir: Version that wrote it.
        kind: Of the folder's contents.
    """

    model: str
    network: str
    format: str
    precision: str
    restore: Graph
    analyse: Graph | None = None
    context: dict[str, list[int | str]] = field(default_factory=dict)
    experts: Experts | None = None
    scale: int = 1
    size_multiple: int = 1
    overlap: int = 0
    bounded_analysis: bool = True
    instruction: dict[str, Any] | None = None
    description: str = ""
    source: str = ""
    licence: str = ""
    weights_sha256: str = ""
    check: list[dict[str, Any]] = field(default_factory=list)
    moir: str = ""
    kind: str = FORMAT

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file of the export but this description, by name."""
        parts = [part for part in (self.analyse, self.restore, self.experts) if part is not None]
        return {name: sha for part in parts for name, sha in part.sha256.items()}

    def write(self, folder: Path) -> None:
        """Write ``moir.json`` into a folder of graphs."""
        (folder / NAME).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Read an export's ``moir.json``, and check that its graphs are the ones it describes.

        Raises:
            ExportError: The folder holds no export, or its files are missing or were changed.
        """
        path = Path(folder) / NAME
        try:
            content = json.loads(path.read_text())
            for key in content:
                check_name(key, [f.name for f in fields(cls)], "key of moir.json")
            content["restore"] = Graph(**content["restore"])
            content["analyse"] = Graph(**content["analyse"]) if content.get("analyse") else None
            content["experts"] = Experts(**content["experts"]) if content.get("experts") else None
            manifest = cls(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExportError(f"{path} is not an export's description: {error}; make one with: moir export") from error
        if manifest.kind != FORMAT:
            raise ExportError(f"{path} is of kind {manifest.kind!r}, but {FORMAT!r} is read here; export it again")
        for name, expected in manifest.hashes.items():
            file = path.parent / Path(name).name
            if not file.is_file() or sha256_of(file) != expected:
                raise ExportError(f"{file} is missing or not the file that {NAME} describes; export it again")
        return manifest
