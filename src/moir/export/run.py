"""Run exported graphs on tensors, as a network would."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moir.base.errors import InvalidValueError
from moir.base.extras import needs_extra
from moir.base.names import check_name
from moir.export.errors import ExportError
from moir.export.graphs import PICTURE, RESTORED
from moir.export.manifest import Manifest
from moir.networks.base import Context, check_pictures, recall

ENGINES = ("onnxruntime", "openvino")

Session = Callable[[Mapping[str, np.ndarray[Any, Any]]], dict[str, np.ndarray[Any, Any]]]
"""A graph that is loaded: named arrays in, of which it takes what it needs, named arrays out."""


class Exported:
    """An exported network, on the CPU. Made by :func:`load_exported`.

    Attributes:
        manifest: The export's description.
        engine: ``onnxruntime`` or ``openvino``.
        precision: Of the arithmetic: ``float32`` or ``bf16``.
    """

    def __init__(
        self,
        manifest: Manifest,
        engine: str,
        precision: str,
        analyse: Session | None,
        restore: Callable[[str], Session],
    ) -> None:
        self.manifest, self.engine, self.precision = manifest, engine, precision
        self._analyse, self._restore = analyse, restore

    def analyse(self, x: torch.Tensor) -> Context:
        """Decide, on whole pictures, what their tiles share.

        Args:
            x: (B, 3, H, W), float32, [0, 1].

        Returns:
            Named tensors with B as first dimension; empty if the network decides nothing.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        if self._analyse is None or self.manifest.analyse is None:
            return {}
        decided = self._analyse({PICTURE: _array(x)})
        return {name: torch.from_numpy(decided[name]) for name in self.manifest.analyse.outputs}

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles.

        Args:
            x: (B, 3, H, W), float32, [0, 1].
            context: What :meth:`analyse` returned for the B pictures (or for the one picture all B tiles are from);
                None: analyse ``x``.

        Returns:
            (B, 3, scale * H, scale * W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
            InvalidValueError: The context does not fit.
        """
        check_pictures(x)
        context = self.analyse(x) if context is None else context
        experts = self.manifest.experts
        wanted = (experts and experts.inputs) or self.manifest.restore.inputs
        names = [name for name in wanted if name != PICTURE]
        given = {PICTURE: _array(x), **{name: _array(recall(context, name, len(x))) for name in names}}
        if experts is None:
            return self._run(self.manifest.restore.file, given)
        chosen = recall(context, experts.input, len(x)).tolist()
        restored = x.clone()
        for number in sorted(set(chosen)):
            if not 0 <= number < len(experts.files):
                raise InvalidValueError(f"there is no expert {number}; this export has 0 to {len(experts.files) - 1}")
            file = experts.files[number]
            if file is not None:
                rows = [row for row, own in enumerate(chosen) if own == number]
                restored[rows] = self._run(file, {name: value[rows] for name, value in given.items()})
        return restored

    def _run(self, file: str, given: Mapping[str, np.ndarray[Any, Any]]) -> torch.Tensor:
        return torch.from_numpy(self._restore(file)(given)[RESTORED])

    __call__ = forward


def load_exported(
    folder: str | Path, engine: str = "onnxruntime", precision: str = "float32", threads: int | None = None
) -> Exported:
    """Load an exported network.

    Args:
        folder: What ``moir export`` wrote.
        engine: ``onnxruntime`` (for ONNX), or ``openvino`` (for both formats).
        precision: Of the arithmetic of ``restore``: ``float32``; or, with OpenVINO, ``bf16``. ``analyse`` is always
            float32.
        threads: Threads of the engine; None: its own choice.

    Raises:
        ExportError: The folder holds no whole export, or the engine cannot read its format.
        UnknownNameError: Another engine or precision.
        InvalidValueError: A precision that the engine does not have.
        MissingExtraError: The engine is not installed.
    """
    check_name(engine, ENGINES, "engine")
    check_name(precision, ("float32", "bf16"), "precision")
    manifest = Manifest.read(folder)
    if engine == "onnxruntime":
        if manifest.format != "onnx":
            raise ExportError(f"{folder} is in OpenVINO's format; use the engine 'openvino', or export it as onnx")
        if precision != "float32":
            raise InvalidValueError("onnxruntime computes in float32 on a CPU; use 'float32', or the engine 'openvino'")

    def opened(file: str, inside: str) -> Session:
        path = Path(folder) / file
        if engine == "onnxruntime":
            return open_onnxruntime(path, threads)
        return open_openvino(path, inside, threads)

    @cache
    def restore(file: str) -> Session:  # experts are loaded when they are first chosen
        return opened(file, precision)

    restore(manifest.restore.file)
    analyse = None if manifest.analyse is None else opened(manifest.analyse.file, "float32")
    return Exported(manifest, engine, precision, analyse, restore)


def open_onnxruntime(path: Path, threads: int | None = None) -> Session:
    """Load an ONNX graph into ONNX Runtime, on the CPU.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ExportError: It cannot run the graph.
    """
    with needs_extra("export", "this needs onnxruntime"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise ExportError(f"onnxruntime cannot load {path}: {_first_line(error)}") from error
    names = [output.name for output in session.get_outputs()]
    needed = [given.name for given in session.get_inputs()]
    return lambda inputs: dict(zip(names, session.run(names, {n: inputs[n] for n in needed}), strict=True))


def open_openvino(path: Path, precision: str = "float32", threads: int | None = None) -> Session:
    """Load an ONNX or OpenVINO graph into OpenVINO, on the CPU.

    Raises:
        MissingExtraError: openvino is not installed.
        ExportError: It cannot run the graph.
    """
    core = openvino_core()
    # Left to itself, it computes in bfloat16 wherever the processor can.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[precision]}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = core.compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot load {path}: {_first_line(error)}") from error
    request = compiled.create_infer_request()
    needed = {name for given in compiled.inputs for name in given.get_names()}

    def run(inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        results = request.infer({n: value for n, value in inputs.items() if n in needed}, share_inputs=True)
        # It gives an output more names than the graph does, so that each is returned under all of them.
        return {name: np.array(value) for output, value in results.items() for name in output.get_names()}

    return run


def import_openvino() -> Any:
    """The package openvino.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs_extra("export", "this needs openvino"):
        import openvino
    return openvino


@cache
def openvino_core() -> Any:
    """OpenVINO itself, loaded once per process and never let go.

    Its CPU plugin gives the thread that loads it another stack for signal handlers, and frees that stack when the
    plugin goes; if a garbage collection on another thread let it go, the next signal would end the process.

    Raises:
        MissingExtraError: openvino is not installed.
    """
    return import_openvino().Core()


def _array(x: torch.Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = x.detach().cpu().contiguous().numpy()
    return array


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
