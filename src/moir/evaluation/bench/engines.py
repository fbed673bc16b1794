"""The ways to run a network that are compared: what each can do, and how it is made ready.

An engine joins the comparison by an entry in :data:`ENGINES`; one whose packages are not installed is left out unless
it is asked for by name.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from moir.base.errors import InvalidValueError
from moir.networks.base import RestorationNetwork
from moir.runtime import Engine

Run = Callable[[torch.Tensor], torch.Tensor]
"""From a picture (1, 3, H, W), float32, on the CPU to the restored one, float32, on the CPU, [0, 1]."""

Prepare = Callable[[RestorationNetwork, str, str], Run]
"""From a network of its own, the device and the precision to a :data:`Run`."""

YARDSTICK = "yardstick"
"""What everything is compared with: the module of ``moir.networks`` as it is written, in float32."""

ALL = ("float32", "bf16", "fp16")


@dataclass(frozen=True)
class EngineKind:
    """An engine that can be compared.

    Attributes:
        prepare: Makes it ready; what it then returns is timed.
        precisions: What it can compute in (further limits are the device's).
        devices: Kinds of device it runs on.
        needs: Packages that must be installed.
        by_name_only: Left out unless asked for by name (because making it ready takes minutes).
    """

    prepare: Prepare
    precisions: tuple[str, ...] = ALL
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    needs: tuple[str, ...] = ()
    by_name_only: bool = False

    @property
    def missing(self) -> list[str]:
        """The packages it needs that are not installed."""
        return [name for name in self.needs if find_spec(name) is None]


def yardstick(network: RestorationNetwork, device: str, precision: str) -> Run:
    """The straightforward module, with the memory layout it was made with."""
    where = torch.device(device)
    network = network.to(where).eval()

    @torch.inference_mode()
    def run(x: torch.Tensor) -> torch.Tensor:
        return network(x.to(where)).clamp(0, 1).cpu()

    return run


def plain(network: RestorationNetwork, device: str, precision: str) -> Run:
    """The runtime around the same module: channels-last, autocast; the picture is one tile."""
    return _through(Engine(network, device, precision, tile=None, engine="plain"))


def fast(network: RestorationNetwork, device: str, precision: str) -> Run:
    """The runtime around the network's fast twin.

    Raises:
        InvalidValueError: There is none for this network.
    """
    return _through(Engine(network, device, precision, tile=None, engine="fast"))


def graphs(network: RestorationNetwork, device: str, precision: str) -> Run:
    """The runtime around the same module recorded as CUDA graphs; the decision is made before, in float32."""
    return _through(Engine(network, device, precision, tile=None, engine="graphs"))


def compiled(network: RestorationNetwork, device: str, precision: str) -> Run:
    """The runtime around the module compiled by torch (TorchInductor), for each size of pictures anew.

    What is returned raises InvalidValueError where the network cannot be compiled, or there is no C++ compiler.
    """
    engine = Engine(network, device, precision, tile=None, engine="plain")
    through = _through(engine)
    uncompiled = engine.network.forward

    def run(x: torch.Tensor) -> torch.Tensor:
        if engine.network.forward == uncompiled:
            through(x)  # what is made when it is first needed (experts) must not be made inside the compiler
            engine.network.forward = torch.compile(uncompiled, dynamic=False)  # type: ignore[method-assign]
        try:
            return through(x)
        except (RuntimeError, AssertionError) as error:  # generated code asserts layouts
            reason = str(error).strip().splitlines()[0]
            raise InvalidValueError(f"torch.compile failed ({reason}); leave the engine 'compile' out") from error

    return run


def _through(engine: Engine) -> Run:
    def run(x: torch.Tensor) -> torch.Tensor:
        return engine.restore(x).pictures

    return run


def _exported(format_: str, engine: str) -> Prepare:
    """The network as a graph, written and checked as ``moir export`` does it, in another program's engine."""

    def prepare(network: RestorationNetwork, device: str, precision: str) -> Run:
        from moir.checkpoints import Card
        from moir.export import export, load_exported

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "graphs"
            export(network, folder, Card("bench", type(network).__name__, network.options), format_)
            exported = load_exported(folder, engine, precision, torch.get_num_threads())

        def run(x: torch.Tensor) -> torch.Tensor:
            return exported.forward(x, exported.analyse(x)).clamp(0, 1)

        return run

    return prepare


ENGINES: dict[str, EngineKind] = {
    "plain": EngineKind(plain),
    "fast": EngineKind(fast, ("float32", "bf16"), ("cpu",)),
    "graphs": EngineKind(graphs, devices=("cuda",), by_name_only=True),
    "compile": EngineKind(compiled, by_name_only=True),
    "onnxruntime": EngineKind(
        _exported("onnx", "onnxruntime"), ("float32",), ("cpu",), ("onnx", "onnxruntime"), by_name_only=True
    ),
    "openvino": EngineKind(
        _exported("openvino", "openvino"), ("float32", "bf16"), ("cpu",), ("openvino",), by_name_only=True
    ),
}
"""Every engine but the yardstick, by name."""
