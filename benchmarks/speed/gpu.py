"""Networks on a GPU: precision, layout, torch.compile, CUDA graphs, batches of tiles, and a training step.

    python benchmarks/speed/gpu.py                                  # everything; one JSON object per row
    python benchmarks/speed/gpu.py --models moce_ir_s --sizes 256 512 --only graphs bf16
    python benchmarks/speed/gpu.py --device cpu --tiny              # a rehearsal: does it run?

Every row is compared with ``eager float32``, channels first, of the same run: ``ratio`` is how many times faster the
fastest pass is, ``psnr`` how close the result is, dB (150: equal; null: not finite).

``wait`` is the share of a pass that the host spends queueing it: near 1, the device is waiting for the host, and graphs
or compilation help; near 0, arithmetic is the limit.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from torch import nn

from moir.metrics import psnr
from moir.models import create_model
from moir.networks.base import Context, RestorationNetwork
from moir.runtime.graphs import GraphRunner
from moir.runtime.pipeline import TilePipeline, host_routes
from moir.runtime.tiling import plan
from moir.training.faster import use_faster_forms
from moir.training.optimisers import make_optimiser
from moir.training.recipe import Optimiser

MODELS = ("moce_ir_s", "compact", "restormer")
TINY = ("test_moce_ir", "test_compact", "test_restormer")
KINDS = ("float32", "bf16", "fp16", "compile", "graphs", "tiles", "training")

Row = dict[str, object]


def picture(side: int, batch: int = 1) -> torch.Tensor:
    """Gradients, edges and noise, (B, 3, side, side)."""
    ramp = torch.linspace(0, 1, side)
    clean = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), (ramp[:, None] + ramp) * 4 % 1])
    noise = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (clean + 0.1 * noise).clamp(0, 1)


class Clock:
    """Times passes: on a GPU after everything queued has been done."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measure(self, run: Callable[[], object]) -> Row:
        """Seconds per pass: fastest, median; the host's share; peak memory above what was there."""
        for _ in range(min(3, self.repeats)):
            run()
        self.wait()
        before = 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        whole, queued = [], []
        for _ in range(self.repeats):
            self.wait()
            began = time.perf_counter()
            run()
            queued.append(time.perf_counter() - began)
            self.wait()
            whole.append(time.perf_counter() - began)
        row: Row = {"min_s": min(whole), "median_s": statistics.median(whole), "wait": min(queued) / min(whole)}
        if self.device.type == "cuda":
            row["peak_mb"] = round((torch.cuda.max_memory_allocated() - before) / 2**20)
        return row


def forward_of(
    network: nn.Module, device: torch.device
) -> Callable[[torch.Tensor, Context, torch.dtype], torch.Tensor]:
    """The network's forward in any precision, as the runtime calls it."""

    def forward(x: torch.Tensor, context: Context, dtype: torch.dtype) -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
            result: torch.Tensor = network(x, context)
        return result

    return forward


@torch.inference_mode()
def inference(options: argparse.Namespace, name: str, side: int, clock: Clock) -> Iterator[Row]:
    """Rows of one network at one size."""
    device = clock.device
    torch.manual_seed(0)
    plain = create_model(name).eval().requires_grad_(False).to(device)
    x = picture(side).to(device)
    context = plain.analyse(x)
    there = host_routes(context)
    exact = plain(x, context)
    base = clock.measure(lambda: plain(x, context))

    def row(what: str, run: Callable[[], torch.Tensor]) -> Row:
        taken = base if what == "eager float32" else clock.measure(run)
        result = run().float()
        close = float(psnr(result.cpu(), exact.cpu()).clamp(max=150)[0]) if bool(result.isfinite().all()) else None
        ratio = float(base["min_s"]) / float(taken["min_s"])  # type: ignore[arg-type]
        return {"model": name, "size": side, "row": what, **taken, "ratio": ratio, "psnr": close}

    yield row("eager float32", lambda: plain(x, context))
    yield row("float32, routes on the host", lambda: plain(x, there))
    network = deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    laid = x.contiguous(memory_format=torch.channels_last)
    forward = forward_of(network, device)
    precisions = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for label, dtype in precisions.items():
        if label in options.only and (label != "fp16" or device.type != "cpu"):
            yield row(f"channels-last {label}", lambda dtype=dtype: forward(laid, there, dtype))
            if label != "float32" and device.type == "cuda":
                # Weights in half precision from the start: what autocast's casts cost.
                yield row(f"{label}, faster forms", _with_faster_forms(network, device, laid, there, dtype))
    half = torch.bfloat16
    if "graphs" in options.only and device.type == "cuda":
        for label, dtype in precisions.items():
            runner = GraphRunner(forward, after=1)
            yield row(f"graph {label}", lambda runner=runner, dtype=dtype: runner(laid, there, dtype))
    if "compile" in options.only:
        torch._dynamo.reset()
        compiled = torch.compile(network, backend="eager" if options.tiny else "inductor")
        began = time.perf_counter()
        fast = forward_of(compiled, device)
        fast(laid, there, half)
        clock.wait()
        seconds = time.perf_counter() - began
        yield row("compile bf16", lambda: fast(laid, there, half)) | {"compile_s": seconds}
    if "tiles" in options.only:
        yield from tiles(network, side, clock)


def _with_faster_forms(
    network: RestorationNetwork, device: torch.device, x: torch.Tensor, context: Context, dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    fast = deepcopy(network)
    use_faster_forms(fast)
    forward = forward_of(fast, device)
    return lambda: forward(x, context, dtype)


def tiles(network: RestorationNetwork, side: int, clock: Clock) -> Iterator[Row]:
    """A picture of 3 x 3 tiles of this size, one by one and several at once, pinned and pipelined."""
    multiple, overlap = network.size_multiple, network.overlap
    tile = max(side, 2 * overlap + multiple) // multiple * multiple
    length = 3 * (tile - overlap) + overlap
    whole = picture(length)
    division = plan(length, length, tile, overlap, multiple)
    context = network.analyse(whole[..., :tile, :tile].to(clock.device))
    for at_once in (1, 3, 9):
        pipeline = TilePipeline(forward_of(network, clock.device), clock.device, torch.bfloat16, at_once=at_once)
        taken = clock.measure(lambda pipeline=pipeline: pipeline.restore(whole, context, division))
        speed = length**2 / 1e6 / float(taken["min_s"])  # type: ignore[arg-type]
        yield {"model": type(network).__name__, "size": tile, "row": f"{division.count} tiles, {at_once} at once",
               **taken, "megapixels_per_s": speed}  # fmt: skip


def training(name: str, clock: Clock, patch: int, batch: int) -> Iterator[Row]:
    """A training step: float32 channels first, and what the loop offers."""
    device = clock.device
    x = picture(patch, batch).to(device)
    base = 0.0
    for label, half, faster, fused in (
        ("float32, channels first", False, False, False),
        ("bf16, channels-last", True, False, False),
        ("bf16, channels-last, fused_optimiser", True, False, True),
        ("bf16, channels-last, fused_optimiser, faster_forms", True, True, True),
    ):
        torch.manual_seed(0)
        network = create_model(name).train().to(device)
        given = x
        if half:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            given = x.contiguous(memory_format=torch.channels_last)
        if faster:
            use_faster_forms(network)
        optimiser = make_optimiser(network, Optimiser(), fused=fused)
        taken = clock.measure(_training_step(network, optimiser, given, half))
        base = base or float(taken["min_s"])  # type: ignore[arg-type]
        yield {"model": name, "size": patch, "row": f"training: {label}", **taken,
               "ratio": base / float(taken["min_s"])}  # type: ignore[arg-type]  # fmt: skip


def _training_step(
    network: RestorationNetwork, optimiser: torch.optim.Optimizer, x: torch.Tensor, half: bool
) -> Callable[[], None]:
    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            loss = (network(x).float() - 0.5).abs().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def main() -> None:
    """Measure every network at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--tiny", action="store_true", help="tiny networks and sizes: a rehearsal")
    options = parser.parse_args()
    device = torch.device(options.device)
    clock = Clock(device, options.repeats or (1 if options.tiny else 20))
    models = options.models or (TINY if options.tiny else MODELS)
    sizes = options.sizes or ([32] if options.tiny else [256, 512, 1024])
    if device.type == "cuda":
        facts = {"device": torch.cuda.get_device_name(device), "torch": torch.__version__, "cuda": torch.version.cuda}
        print(json.dumps(facts), flush=True)
    for name in models:
        for side in sizes:
            for row in inference(options, name, side, clock):
                print(json.dumps(_rounded(row)), flush=True)
        if "training" in options.only:
            for row in training(name, clock, 32 if options.tiny else 128, 2 if options.tiny else 8):
                print(json.dumps(_rounded(row)), flush=True)


def _rounded(row: Row) -> Row:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


if __name__ == "__main__":
    main()
