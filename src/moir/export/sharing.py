"""The weights of several ONNX graphs in one file, each of them once."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SMALLEST = 1024
"""Weights below this many bytes stay in their graph: shapes and other constants that readers want at once."""

ALIGNMENT = 64


def share_weights(paths: Iterable[Path], target: Path, onnx: Any) -> None:
    """Move the weights of graphs into one file beside them, which the graphs then refer to.

    Weights that are equal, bit by bit, are kept once: experts that share most of their parameters take little more
    than one of them. (ONNX calls this external data; a graph names the file, the place and the length.)

    Args:
        paths: Graphs, in the folder of ``target``; rewritten.
        target: The file to make.
        onnx: The package.

    Raises:
        FileExistsError: ``target`` is there.
    """
    places: dict[bytes, int] = {}
    with target.open("xb") as file:
        for path in paths:
            model = onnx.load(path)
            for weight in model.graph.initializer:
                values = onnx.numpy_helper.to_array(weight)
                if values.nbytes < SMALLEST:
                    continue
                content = values.tobytes()
                key = hashlib.sha256(content).digest()
                if key not in places:
                    file.write(bytes(-file.tell() % ALIGNMENT))
                    places[key] = file.tell()
                    file.write(content)
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
                onnx.external_data_helper.set_external_data(weight, target.name, places[key], len(content))
                weight.ClearField("raw_data")
            onnx.save(model, path)
