"""Loading exports: what is wrong with a folder is said; the example runs without torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moir.base.errors import InvalidValueError, TensorShapeError, UnknownNameError
from moir.export import ExportError, load_exported

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_runtime.py"


def test_a_folder_that_is_no_export(tmp_path):
    with pytest.raises(ExportError, match=r"moir\.json"):
        load_exported(tmp_path)
    (tmp_path / "moir.json").write_text('{"colour": "blue"}')
    with pytest.raises(ExportError, match="colour"):
        load_exported(tmp_path)


def test_a_graph_that_was_changed_is_refused(compact, tmp_path):
    shutil.copytree(compact[1], tmp_path / "copy")
    with (tmp_path / "copy" / "restore.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ExportError, match=r"restore\.onnx is missing or not the file"):
        load_exported(tmp_path / "copy")


def test_wrong_engines_precisions_and_inputs(compact):
    with pytest.raises(UnknownNameError, match="onnx"):
        load_exported(compact[1], "onnx")
    with pytest.raises(InvalidValueError, match="float32"):
        load_exported(compact[1], "onnxruntime", "bf16")
    exported = load_exported(compact[1], threads=1)
    with pytest.raises(TensorShapeError, match="3, 8, 8"):
        exported.forward(torch.rand(3, 8, 8))
    with pytest.raises(InvalidValueError, match="no 'embedding'"):
        exported.forward(torch.rand(1, 3, 8, 8), {})


def test_openvino_runs_onnx_graphs_in_both_precisions(compact):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'moir[export]'")
    network, folder = compact
    x = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        wanted = network(x)
    torch.testing.assert_close(load_exported(folder, "openvino").forward(x), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(load_exported(folder, "openvino", "bf16").forward(x), wanted, atol=0.1, rtol=0)


def test_a_signal_after_openvino_ends_nothing(compact):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'moir[export]'")
    script = f"""
import gc, signal
from moir.export import load_exported

exported = load_exported({str(compact[1])!r}, "openvino")
del exported
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_the_example_needs_neither_torch_nor_moir(compact, tmp_path, photograph):
    network, folder = compact
    pixels = (photograph[:, :75, :90].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    for name in ("torch", "moir"):  # importing either fails
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')")
    command = [sys.executable, str(EXAMPLE), str(folder), str(tmp_path / "in.png"), str(tmp_path / "out.png")]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    with torch.no_grad():
        wanted = network(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0].clamp(0, 1)
    got = torch.from_numpy(np.array(Image.open(tmp_path / "out.png"))).permute(2, 0, 1)
    assert ((wanted * 255).round() - got).abs().max() <= 1  # rounding


def test_the_example_is_short():
    body = EXAMPLE.read_text().split('"""', 2)[2].splitlines()
    code = [line for line in body if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= 20
