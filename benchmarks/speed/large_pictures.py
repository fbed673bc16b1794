"""Peak memory and time of restoring pictures of 1, 12 and 24 megapixels, each in a process of its own.

    python benchmarks/speed/large_pictures.py [--model M] [--tile T] [--device D] [--precision P] [--megapixels 1 12 24]

Memory is the peak resident set of the process (Linux: VmHWM) above what it held with the model loaded and one small
picture restored. A 24-megapixel picture takes 288 MB as float32 by itself, and so does its result. Also prints the
memory per pixel of a tile, from two runs with one tile each: the figure that belongs into a card (``bytes_per_pixel``).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SIZES = {1: (1024, 1024), 4: (1632, 2448), 12: (3000, 4000), 24: (4000, 6000)}


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
    result = restorer(picture)
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "megapixels": round(height * width / 1e6, 1),
                "seconds": round(seconds, 2),
                "tiles": result.tiles,
                "peak_mb_above_model": round((peak_bytes() - before) / 2**20),
                "model_mb": round(before / 2**20),
                "precision": restorer.engine.precision,
            }
        )
    )


def run(arguments: list[str]) -> dict[str, float]:
    """One measurement in a fresh process."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--device")
    parser.add_argument("--precision")
    parser.add_argument("--tile", default="auto")
    parser.add_argument("--megapixels", type=int, nargs="+", default=[1, 12, 24], choices=sorted(SIZES))
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options, *options.child)
        return
    given = sys.argv[1:]
    small, large = (run([*given, "--tile", "none", "--child", str(side), str(side)]) for side in (512, 1024))
    # The pictures themselves (float32 in, out and noise) are not the tile's.
    grown = (large["peak_mb_above_model"] - small["peak_mb_above_model"]) * 2**20 / (1024**2 - 512**2)
    print(json.dumps({"bytes_per_pixel": round(grown)}))
    for size in options.megapixels:
        height, width = SIZES[size]
        print(json.dumps(run([*given, "--child", str(height), str(width)])), flush=True)


if __name__ == "__main__":
    main()
