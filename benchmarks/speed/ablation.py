"""What each step towards a fast CPU twin brings: a row per step, all in one run, interleaved.

    python benchmarks/speed/ablation.py --model moce_ir_s --size 256 --repeats 5

Without ``--wall``, the clock is the processor time (user and system) of one thread, which other programs on the machine
disturb little; with it, the time on the wall with ``--threads`` threads. The yardstick is the module of
``moir.networks`` in float32. Weights are random: they change the routes, and so which experts run, but not the work of
anything else. PSNR is to the yardstick's output with the same decisions.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from moir.models import create_model
from moir.networks.base import Context, RestorationNetwork
from moir.networks.statistics import Statistics
from moir.runtime.fast import accelerate, blocks, layout, window

Forward = Callable[[torch.Tensor, Context | None], torch.Tensor]
NAMES = {torch.float32: "float32", torch.bfloat16: "bf16"}


@contextmanager
def patched(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def with_patch(forward: Forward, module: Any, name: str, value: Any) -> Forward:
    def run(x: torch.Tensor, context: Context | None) -> torch.Tensor:
        with patched(module, name, value):
            return forward(x, context)

    return run


def attention_in_two_steps(
    self: blocks.Attention, x: torch.Tensor, spare: torch.Tensor, shared: Statistics | None = None
) -> torch.Tensor:
    """Attention without the folding: values times the attention map, then the projection."""
    gram = blocks.ChannelGram(x.shape[1])
    for strip in blocks.strips(x, self.qk.weight.shape[0], self.qk_depthwise.padding):
        normed = self.norm(strip.widened(x))
        gram.add(strip.crop(self.qk_depthwise(self.qk(normed))))
        strip.of(spare).copy_(strip.crop(self.v_depthwise(self.v(normed))))
    measured = gram.attention(self.temperature, self.name, shared)
    attention, project = (m.to(x.dtype)[:, :, None, None] for m in (measured, self.project))
    for strip in blocks.strips(x, x.shape[1]):
        strip.of(x).add_(F.conv2d(F.conv2d(strip.of(spare), attention), project, self.bias))
    return x


def variants(network: RestorationNetwork) -> dict[str, Forward]:
    rows: dict[str, Forward] = {"yardstick: the module, float32": network}

    def autocast(module: RestorationNetwork) -> Forward:
        def run(x: torch.Tensor, context: Context | None) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return module(x, context)

        return run

    def channels_last(module: RestorationNetwork) -> Forward:
        def run(x: torch.Tensor, context: Context | None) -> torch.Tensor:
            return module(x.to(memory_format=torch.channels_last), context)

        return run

    rows["the module, channels-last, float32"] = channels_last(network)
    rows["the module, bf16 autocast"] = autocast(network)
    rows["the module, channels-last, bf16 autocast"] = channels_last(autocast(network))  # type: ignore[arg-type]
    for dtype, name in NAMES.items():
        twin = accelerate(network, dtype)
        if twin is None:
            raise SystemExit(f"{type(network).__name__} has no fast twin")
        rows[f"fast {name}"] = twin
        whole = with_patch(twin, layout, "STRIP_BYTES", 2**60)
        rows[f"fast {name}, whole maps instead of strips"] = whole
        for kilobytes in (256, 1024, 4096):
            rows[f"fast {name}, strips of {kilobytes} KiB"] = with_patch(twin, layout, "STRIP_BYTES", kilobytes * 1024)
        if any(isinstance(module, blocks.Attention) for module in twin.modules()):
            rows[f"fast {name}, attention and projection in two steps"] = with_patch(
                twin, blocks.Attention, "forward", attention_in_two_steps
            )
        if type(network).__name__ == "MoCEIR":
            rows[f"fast {name}, every window by FFT"] = with_patch(twin, window, "LARGEST_PRODUCT", 0)
    return rows


def ceilings() -> None:
    for dtype, name in NAMES.items():
        a = torch.randn(1024, 1024).to(dtype)
        seconds = min(timed(lambda a=a: a @ a) for _ in range(10))  # type: ignore[misc]
        print(f"matrix product 1024^3, {name}: {2 * 1024**3 / seconds / 1e9:.0f} GFLOP/s")
    source = torch.ones(64 * 2**20 // 4)
    target = torch.empty_like(source)
    seconds = min(timed(lambda: target.copy_(source)) for _ in range(10))
    print(f"copy of 64 MiB: {2 * source.numel() * 4 / seconds / 1e9:.1f} GB/s, read and written")


CLOCK = time.process_time


def timed(run: Callable[[], Any]) -> float:
    began = CLOCK()
    run()
    return CLOCK() - began


def main() -> None:
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="moce_ir_s")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="time on the wall instead of processor time")
    parser.add_argument("--rows", nargs="*", help="names of rows, beside the yardstick; without it: all")
    arguments = parser.parse_args()
    if not arguments.wall and arguments.threads != 1:
        parser.error("processor time is counted on one thread; give --wall for more")
    torch.set_num_threads(arguments.threads)
    CLOCK = time.perf_counter if arguments.wall else time.process_time
    clock = "wall" if arguments.wall else "processor time"
    print(f"{arguments.model} at {arguments.size}x{arguments.size}, {arguments.threads} threads, {clock}")
    ceilings()
    torch.manual_seed(0)
    network = create_model(arguments.model).eval()
    rows = {
        name: forward
        for name, forward in variants(network).items()
        if name.startswith("yardstick") or arguments.rows is None or name in arguments.rows
    }
    x = torch.rand(1, 3, arguments.size, arguments.size)
    with torch.inference_mode():
        context = network.analyse(x)
        for forward in rows.values():  # threads, caches and code paths warm up
            forward(x[..., :64, :64], context)
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        results: dict[str, torch.Tensor] = {}
        for _ in range(arguments.repeats):
            for name, forward in rows.items():
                began = CLOCK()
                results[name] = forward(x, context)
                seconds[name].append(CLOCK() - began)
    expected = next(iter(results.values()))
    yardstick = min(next(iter(seconds.values())))
    print("| step | median s | min s | ratio of minima | PSNR to the yardstick, dB |\n|---|---|---|---|---|")
    for name, taken in seconds.items():
        decibels = -10 * torch.log10((results[name] - expected).square().mean()).item()
        median, least = statistics.median(taken), min(taken)
        print(f"| {name} | {median:.3f} | {least:.3f} | {yardstick / least:.2f} | {decibels:.1f} |")


if __name__ == "__main__":
    main()
