"""Write an export: record, convert, describe, check; and only then let it appear."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import moir
from moir.base.errors import InvalidValueError
from moir.base.files import check_absent
from moir.base.names import TYPES, check_name
from moir.checkpoints import Card
from moir.checkpoints.card import sha256_of
from moir.export import manifest as manifests
from moir.export.check import check
from moir.export.graphs import PICTURE, RESTORED, Recorded, halve_weights, import_onnx, record
from moir.export.manifest import Experts, Graph, Manifest
from moir.export.run import import_openvino, load_exported
from moir.export.sharing import share_weights
from moir.export.tree import EXPERT
from moir.networks.base import RestorationNetwork

FORMATS = ("onnx", "openvino")
PRECISIONS = ("float32", "fp16")
SIZE = 128
"""Side of the pictures that an export is checked on, pixels, unless told otherwise."""
SMALLEST = 40
WEIGHTS = "weights.bin"
"""What the ONNX graphs of experts share."""


def export(
    network: RestorationNetwork,
    output: str | Path,
    card: Card,
    format: str = "onnx",
    precision: str = "float32",
    size: int = SIZE,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Write a network as graphs, and check them against it on pictures.

    Args:
        network: The network with its weights, and adapters if any; it is set to evaluation, in float32, on the CPU.
        output: The folder to make. It appears only if all graphs agree with the network.
        card: What is known of the weights.
        format: ``onnx``, checked with ONNX Runtime, or ``openvino``, checked with OpenVINO.
        precision: How the weights of ``restore`` are stored: ``float32``, or ``fp16``, half as large.
        size: About the side of the largest picture to check on, pixels.
        overwrite: Replace an export that is there. (Anything else that is there is never replaced.)

    Returns:
        What ``moir.json`` says.

    Raises:
        OutputExistsError: ``output`` is there already.
        ExportError: The network cannot be exported, or a graph does not agree with it; nothing is left on disk.
        UnknownNameError: Another format or precision.
        InvalidValueError: A size that is too small; or ``overwrite`` of something that is no export.
        MissingExtraError: onnx, onnxruntime or openvino is not installed.
    """
    check_name(format, FORMATS, "format")
    check_name(precision, PRECISIONS, "precision")
    if size < SMALLEST:
        raise InvalidValueError(f"size {size} is too small for the check; use {SMALLEST} px or more")
    network = network.cpu().float().eval().requires_grad_(False)
    with _folder(Path(output), overwrite) as folder:
        recorded = record(network, folder)
        if format == "onnx":
            if precision == "fp16":
                for path in recorded.restoring:
                    halve_weights(path)
            if recorded.experts:
                share_weights(recorded.restoring, folder / WEIGHTS, import_onnx())
        if format == "openvino":
            recorded = _convert(recorded, compress=precision == "fp16")
        described = _describe(network, card, recorded, format, precision)
        described.write(folder)
        engine = "onnxruntime" if format == "onnx" else "openvino"
        agreements = check(network, load_exported(folder, engine), size)
        described.check = [asdict(agreement) for agreement in agreements]
        described.write(folder)
    return described


def _convert(recorded: Recorded, compress: bool) -> Recorded:
    """ONNX files to OpenVINO's, which take their place."""
    openvino = import_openvino()
    converted: dict[Path, Path] = {}
    for path in [*recorded.restoring, *([recorded.analyse] if recorded.analyse else [])]:
        converted[path] = path.with_suffix(".xml")
        model = openvino.convert_model(str(path))
        openvino.save_model(model, str(converted[path]), compress_to_fp16=compress and path != recorded.analyse)
        path.unlink()
    return replace(
        recorded,
        restore=converted[recorded.restore],
        analyse=recorded.analyse and converted[recorded.analyse],
        experts=[path and converted[path] for path in recorded.experts],
    )


def _describe(network: RestorationNetwork, card: Card, recorded: Recorded, format: str, precision: str) -> Manifest:
    names = list(recorded.context)
    analyse = None if recorded.analyse is None else Graph.of(recorded.analyse, [PICTURE], names)
    instruction = None
    if network.estimates and "remove" in recorded.inputs:
        instruction = {"input": "remove", "order": [*TYPES, "instructed"]}
    return Manifest(
        model=card.name,
        network=card.model,
        format=format,
        precision=precision,
        restore=Graph.of(recorded.restore, [PICTURE, *recorded.inputs], [RESTORED]),
        analyse=analyse,
        context={name: ["batch", *shape[1:]] for name, shape in recorded.context.items()},
        experts=_experts(recorded),
        scale=network.scale,
        size_multiple=network.size_multiple,
        overlap=network.overlap,
        bounded_analysis=network.bounded_analysis,
        instruction=instruction,
        description=card.description,
        source=card.source,
        licence=card.licence,
        weights_sha256=card.sha256,
        moir=moir.__version__,
    )


def _experts(recorded: Recorded) -> Experts | None:
    if not recorded.experts:
        return None
    hashes = {name: sha for path in recorded.restoring for name, sha in Graph.of(path, [], []).sha256.items()}
    shared = recorded.restore.parent / WEIGHTS
    if shared.exists():
        hashes[WEIGHTS] = sha256_of(shared)
    inputs = [PICTURE, *recorded.expert_inputs]
    return Experts(EXPERT, [None if path is None else path.name for path in recorded.experts], hashes, inputs)


@contextmanager
def _folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that becomes ``output`` if the block ends well, and vanishes if it does not.

    Raises:
        OutputExistsError: ``output`` is there and ``overwrite`` is false.
        InvalidValueError: It is there and is not an export.
    """
    check_absent(output, overwrite=overwrite)
    there = output.exists() or output.is_symlink()
    if there and not (output / manifests.NAME).is_file():
        raise InvalidValueError(f"{output} is not an export (it has no {manifests.NAME}), so it is not replaced")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:40]}.", suffix=".part", dir=output.parent) as work:
        new, old = Path(work) / "new", Path(work) / "old"
        new.mkdir()
        yield new
        if there:
            output.rename(old)
        try:
            new.rename(check_absent(output))
        except BaseException:
            if there:
                old.rename(output)
            raise
