"""The card beside a weights file: what it is, where it comes from, what it may be used for, how good it is."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from moir.base.errors import CheckpointError
from moir.base.files import write_text
from moir.base.names import check_name


@dataclass
class Card:
    """Everything a user should know about a weights file; JSON on disk, ``NAME.json`` beside ``NAME.safetensors``.

    Attributes:
        name: Name of the weights.
        model: Name of the network in the registry.
        options: Options the network is built with.
        description: A sentence.
        source: Who made them, and how (recipe, or the file they were converted from).
        licence: Licence of the weights.
        training_data: One entry per source: name, number of pictures, licence, where it is had.
        compute: Hardware, steps, samples and hours of training.
        metrics: One entry per measured row: benchmark, protocol, n, values, and the command that measured it.
        weaknesses: What it does badly.
        size_multiple, overlap: Tiling policy, pixels.
        bytes_per_pixel: Measured peak memory per pixel of a tile, bytes; None: not measured.
        precision: Precisions it may run in, with the PSNR between each and float32, dB.
        parameters: Number of parameters.
        sha256: Of the weights file.
        parts: Tensors that lie in other weights: what their names begin with here, and which shipped weights they are
            (``{"base.": {"weights": "compact", "sha256": ...}}``).
    """

    name: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    source: str = ""
    licence: str = ""
    training_data: list[dict[str, Any]] = field(default_factory=list)
    compute: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    weaknesses: list[str] = field(default_factory=list)
    size_multiple: int = 1
    overlap: int = 0
    bytes_per_pixel: float | None = None
    precision: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    sha256: str = ""
    parts: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """Read a card.

        Raises:
            CheckpointError: The file is missing or no card.
        """
        file = Path(path)
        try:
            content = json.loads(file.read_text())
            for key in content:
                check_name(key, [f.name for f in fields(cls)], "key of a card")
            return cls(**content)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{file} is not a readable card: {error}") from error

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the card as indented JSON."""
        write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", overwrite=overwrite)


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
