"""Networks as ONNX or OpenVINO graphs, for programs without torch: write them, check them, run them.

An export is a folder: ``analyse`` (whole pictures to the context; missing if the network decides nothing), ``restore``
(pictures or tiles, and the context, to restored ones) and ``moir.json``, which says everything that a program needs to
know (:class:`~moir.export.manifest.Manifest`; docs/export.md).

:func:`export` writes and checks one; :func:`load_exported` runs one on tensors, as a network would::

    exported = load_exported("compact-onnx", engine="onnxruntime")
    context = exported.analyse(x)            # (B, 3, H, W), float32, to named tensors
    restored = exported.forward(x, context)  # (B, 3, H, W); without a context, x is analysed first

Needs the extra ``export`` (``pip install 'moir[export]'``).
"""

from moir.export.check import Agreement
from moir.export.errors import ExportError
from moir.export.manifest import Manifest
from moir.export.run import Exported, load_exported
from moir.export.writing import export

__all__ = ["Agreement", "ExportError", "Exported", "Manifest", "export", "load_exported"]
