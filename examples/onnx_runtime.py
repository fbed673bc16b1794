"""Restore a picture with an exported model: `python onnx_runtime.py FOLDER INPUT OUTPUT`.

Needs onnxruntime, numpy and pillow; neither torch nor moir. FOLDER is what `moir export MODEL --output FOLDER` wrote.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def run(graph: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph on what it takes of the inputs."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    arrays = session.run(None, {tensor.name: inputs[tensor.name] for tensor in session.get_inputs()})
    return {tensor.name: array for tensor, array in zip(session.get_outputs(), arrays, strict=True)}


folder, source, target = map(Path, sys.argv[1:])
manifest = json.loads((folder / "moir.json").read_text())
pixels = np.asarray(Image.open(source).convert("RGB"), dtype=np.float32) / 255
picture = {"picture": pixels.transpose(2, 0, 1)[None]}  # (1, 3, height, width), RGB, 0 to 1
# What the whole picture decides; some networks decide nothing. One of several experts restores, or none if it is clean.
context = run(folder / manifest["analyse"]["file"], picture) if manifest["analyse"] else {}
experts = manifest["experts"]
graph = experts["files"][int(context[experts["input"]][0])] if experts else manifest["restore"]["file"]
restored = run(folder / graph, picture | context)["restored"] if graph else picture["picture"]
Image.fromarray((restored[0].transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8)).save(target)
