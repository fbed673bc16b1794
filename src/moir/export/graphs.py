"""A network's ``analyse`` and ``forward`` recorded as ONNX graphs for any batch and size.

Recorded by torch's tracing exporter. The newer one, which reasons about sizes as symbols, needed 69 s where this one
needed 2 s for a tiny network, and two more packages; what tracing loses, decisions on sizes, the networks' layers
give it as tensor operations (:mod:`moir.layers.tracing`).
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moir.base.extras import needs_extra
from moir.export.errors import ExportError
from moir.export.tree import graphs_of
from moir.layers.tracing import sides
from moir.networks.base import PLACE, Context, RestorationNetwork
from moir.networks.bilateral_grid import BilateralGrid
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.router import RouterParts

OPSET = 18
"""Version of the ONNX operators: onnxruntime 1.14 (2023) and later run it."""

PICTURE, RESTORED = "picture", "restored"
EXAMPLE = (2, 3, 75, 99)
"""What is recorded: more than one picture, sides that are a multiple of nothing."""


@dataclass(frozen=True)
class Recorded:
    """Graphs on disk.

    Attributes:
        restore: File of the graph from picture and context to the restored picture.
        inputs: Context tensors that it takes.
        analyse: File of the graph from picture to context; None: the network decides nothing.
        context: Shape of each tensor of the context, for the batch that was recorded.
        experts: Where the context names an expert: by its number, the file of its graph; None: pictures stay as they
            are. Empty: there is one graph for all pictures.
        expert_inputs: Context tensors that any of these graphs takes.
    """

    restore: Path
    inputs: list[str]
    analyse: Path | None
    context: dict[str, list[int]]
    experts: list[Path | None] = field(default_factory=list)
    expert_inputs: list[str] = field(default_factory=list)

    @property
    def restoring(self) -> list[Path]:
        """The files of all graphs that restore, each once."""
        return list(dict.fromkeys([self.restore, *(path for path in self.experts if path is not None)]))


class _Analyse(nn.Module):
    def __init__(self, network: RestorationNetwork, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
        context = decided(self.network, picture)
        return tuple(context[name] for name in self.names)


def decided(network: RestorationNetwork, picture: torch.Tensor) -> Context:
    """What the graph that decides gives: the context, and with it that what it saw was a whole picture."""
    context = network.analyse(picture)
    if not isinstance(network, CompactUniRestorer | BilateralGrid) or not network.uses_place:
        return context
    height, width = sides(picture)
    zero = torch.zeros_like(height)
    return {**context, PLACE: torch.stack([zero, zero, height, width]).expand(picture.shape[0], 4)}


class _Restore(nn.Module):
    def __init__(self, network: RestorationNetwork, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, picture: torch.Tensor, *context: torch.Tensor) -> torch.Tensor:
        named: Context | None = dict(zip(self.names, context, strict=True)) or None
        restored: torch.Tensor = self.network(picture, named)
        return restored


def check_exportable(network: nn.Module) -> None:
    """Refuse a network that cannot be one pair of graphs.

    Raises:
        ExportError: It cannot; the message says why.
    """
    if not isinstance(network, RestorationNetwork):
        raise ExportError(f"{type(network).__name__} is not a network of moir, so it has no analyse() to export")
    if isinstance(network, RouterParts) and not isinstance(network, CompactUniRestorer):
        raise ExportError(
            "UniRestorer decides by an 8-bit resized copy of the picture, made by Pillow, and holds whole networks of "
            "which one runs; export the experts one by one"
        )


def record(network: RestorationNetwork, folder: Path) -> Recorded:
    """Record a network into ``analyse.onnx`` and ``restore.onnx``; experts of a tree into a graph each.

    Args:
        network: In evaluation mode, float32, on the CPU.
        folder: Where the files go.

    Raises:
        ExportError: The network cannot be exported; the message says why.
        MissingExtraError: onnx is not installed.
    """
    check_exportable(network)
    picture = torch.rand(EXAMPLE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        context = decided(network, picture)
    names, analyse = list(context), None

    def restoring(part: RestorationNetwork, path: Path) -> list[str]:
        _record(_Restore(part, names), (picture, *context.values()), [PICTURE, *names], [RESTORED], path)
        return _drop_unused(path)

    restore, experts = folder / "restore.onnx", list[Path | None]()
    if isinstance(network, CompactUniRestorer):
        inputs = restoring(network.base, restore)
        of_experts = dict.fromkeys(inputs)
        paths = {0: restore}
        for number in graphs_of(network):
            if number is not None and number not in paths:
                paths[number] = folder / f"restore-{number}.onnx"
                of_experts |= dict.fromkeys(restoring(network.expert(number), paths[number]))
            experts.append(None if number is None else paths[number])
    else:
        inputs, of_experts = restoring(network, restore), {}
    if names:
        analyse = folder / "analyse.onnx"
        _record(_Analyse(network, names), (picture,), [PICTURE], names, analyse)
    shapes = {name: list(value.shape) for name, value in context.items()}
    return Recorded(restore, inputs, analyse, shapes, experts, list(of_experts))


def halve_weights(path: Path) -> None:
    """Store a graph's float32 weights as float16, each followed by a cast, in place.

    Engines undo the casts when they load the graph: the file is half as large, and arithmetic stays float32.
    """
    onnx = import_onnx()
    model = onnx.load(path)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        name = weight.name
        half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype("float16"), name + ".fp16")
        weight.CopyFrom(half)
        casts.append(onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.save(model, path)


def import_onnx() -> Any:
    """The package onnx.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs_extra("export", "exporting needs onnx"):
        import onnx
        import onnx.external_data_helper
        import onnx.numpy_helper
    return onnx


def _record(
    module: nn.Module, args: tuple[torch.Tensor, ...], inputs: list[str], outputs: list[str], path: Path
) -> None:
    import_onnx()
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in (*inputs, *outputs)}
    axes[PICTURE] = {0: "batch", 2: "height", 3: "width"}
    if RESTORED in axes:
        axes[RESTORED] = {0: "batch", 2: "restored_height", 3: "restored_width"}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # It warns of itself, and of every decision on a shape that is the same for all pictures.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                args,
                str(path),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"torch cannot write {path.stem} of this network as an ONNX graph: {reason}") from error


def _drop_unused(path: Path) -> list[str]:
    """Remove inputs that no operation reads; returns the names of those left, without the picture."""
    onnx = import_onnx()
    model = onnx.load(path)
    used = {PICTURE}

    def collect(graph: Any) -> None:
        for node in graph.node:
            used.update(node.input)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    collect(attribute.g)

    collect(model.graph)
    left = [value for value in model.graph.input if value.name in used]
    if len(left) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(left)
        onnx.save(model, path)
    return [value.name for value in left if value.name != PICTURE]
