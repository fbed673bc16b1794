"""Peak memory and time against picture size, 1 to 48 megapixels, each picture in a process of its own.

    python benchmarks/speed/large_pictures.py [--model M] [--tile T] [--device D] [--precision P]
        [--task dehaze denoise] [--megapixels 1 4 12 24 48] [--plot curve.png]

Memory is the peak resident set of the process (Linux: VmHWM) above what it held with the model loaded and one small
picture restored. A 24-megapixel picture takes 288 MB as float32 by itself, and so does its result; the curve shows both
as a line, so that what is above it are tiles and copies. Also prints the memory per pixel of a tile, from two runs with
one tile each: the figure that belongs into a card (``bytes_per_pixel``). The pictures are noise, and what is done about
it depends on what the model takes them for; ``--task`` says what to do instead.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SIZES = {1: (1024, 1024), 4: (1632, 2448), 12: (3000, 4000), 24: (4000, 6000), 48: (6000, 8000)}

TARGET_MB = 2048
"""What restoring 24 megapixels on a CPU may take above the loaded model."""


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def child(options: argparse.Namespace, height: int, width: int) -> None:
    """Restore one synthetic picture and print what it took."""
    import torch

    import moir

    tile = {"auto": "auto", "none": None}.get(options.tile) if options.tile in ("auto", "none") else int(options.tile)
    restorer = moir.load(options.model, device=options.device, precision=options.precision, tile=tile)
    restorer(torch.rand(3, 64, 64))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = peak_bytes()
    picture = torch.rand(3, height, width)
    began = time.perf_counter()
    result = restorer(picture, task=options.task)
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "megapixels": round(height * width / 1e6, 1),
                "seconds": round(seconds, 2),
                "expert": result.expert,
                "tiles": result.tiles,
                "peak_mb_above_model": round((peak_bytes() - before) / 2**20),
                "model_mb": round(before / 2**20),
                "precision": restorer.engine.precision,
            }
        )
    )


def run(arguments: list[str]) -> dict[str, float]:
    """One measurement in a fresh process."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the measurement {' '.join(arguments)} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def plot(points: list[dict[str, float]], name: str, path: Path) -> None:
    """The memory curve, beside what the picture and its result take and the target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    sizes = [point["megapixels"] for point in points]
    axes.plot(sizes, [point["peak_mb_above_model"] for point in points], "o-", label="measured peak")
    both = [2 * 12 * size * 1e6 / 2**20 for size in (0, max(sizes))]
    axes.plot([0, max(sizes)], both, "--", color="grey", label="picture and result, float32")
    top = 1.25 * max(point["peak_mb_above_model"] for point in points)
    if max(sizes) >= 24:
        top = max(top, 1.1 * TARGET_MB)
        axes.plot([24], [TARGET_MB], "v", color="tab:red", label="target: at most this at 24 megapixels")
    for point in points:
        axes.annotate(
            f"{point['peak_mb_above_model']:.0f} MB\ntiles: {point['tiles']:.0f}",
            (point["megapixels"], point["peak_mb_above_model"]),
            xytext=(-2, 6),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
        )
    axes.set_xlabel("megapixels")
    axes.set_ylabel("peak memory above the loaded model, MB")
    axes.set_title(f"{name} on a CPU, tiles by free memory")
    axes.set_xlim(-0.06 * max(sizes), 1.06 * max(sizes))
    axes.set_ylim(0, top)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--device")
    parser.add_argument("--precision")
    parser.add_argument("--tile", default="auto")
    parser.add_argument("--task", nargs="+", help="as `moir restore --task`")
    parser.add_argument("--megapixels", type=int, nargs="+", default=list(SIZES), choices=sorted(SIZES))
    parser.add_argument("--plot", type=Path, help="draw the curve here")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options, *options.child)
        return
    given = ["--tile", options.tile]
    for name in ("model", "device", "precision"):
        if getattr(options, name):
            given += [f"--{name}", getattr(options, name)]
    if options.task:
        given += ["--task", *options.task]
    small, large = (run([*given, "--tile", "none", "--child", str(side), str(side)]) for side in (512, 1024))
    # The pictures themselves (float32 in, out and noise) are not the tile's.
    grown = (large["peak_mb_above_model"] - small["peak_mb_above_model"]) * 2**20 / (1024**2 - 512**2)
    print(json.dumps({"bytes_per_pixel": round(grown)}), flush=True)
    points = []
    for size in options.megapixels:
        height, width = SIZES[size]
        points.append(run([*given, "--child", str(height), str(width)]))
        print(json.dumps(points[-1]), flush=True)
    if options.plot:
        from moir.models import DEFAULT

        plot(points, options.model or DEFAULT, options.plot)


if __name__ == "__main__":
    main()
