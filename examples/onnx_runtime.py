"""Restore a picture with an exported model: `python onnx_runtime.py FOLDER INPUT OUTPUT`.

Needs onnxruntime, numpy and pillow; neither torch nor moir. FOLDER is what `moir export MODEL --output FOLDER` wrote.
"""

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
pixels = np.asarray(Image.open(source).convert("RGB"), dtype=np.float32) / 255
picture = {"picture": pixels.transpose(2, 0, 1)[None]}  # (1, 3, height, width), RGB, 0 to 1
analyse = folder / "analyse.onnx"  # what the whole picture decides; some networks decide nothing
context = run(analyse, picture) if analyse.exists() else {}
restored = run(folder / "restore.onnx", picture | context)["restored"][0].transpose(1, 2, 0)
Image.fromarray((restored.clip(0, 1) * 255).round().astype(np.uint8)).save(target)
