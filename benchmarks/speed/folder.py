"""A folder of 100 pictures of 256x256: `moir restore` against a plain loop, and with one and two workers.

    python benchmarks/speed/folder.py [--repeats 3] [--pictures 100] [--model M]

Every way is a process of its own, and they take turns. For each: pictures per second between the first result and the
last (without start-up), the wall clock of the whole process, and its processor time, workers included: where two ways
differ in processor time, one of them wastes it (threads that wait for each other by spinning, cores promised twice).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from skimage import data

SIDE = 256

LOOP = """
import json, sys
from pathlib import Path
import moir
source, target, *model = sys.argv[1:]
restorer = moir.load(*model, device="cpu")
for path in sorted(Path(source).iterdir()):
    restorer(path).save(Path(target) / path.name, overwrite=True)
    print(json.dumps({"input": str(path)}), flush=True)
"""


def make_pictures(folder: Path, count: int) -> None:
    """Crops of two photographs, as JPEG."""
    folder.mkdir()
    for number in range(count):
        photograph = (data.astronaut(), data.coffee())[number % 2]
        top, left = (7 * number) % (photograph.shape[0] - SIDE), (11 * number) % (photograph.shape[1] - SIDE)
        Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(folder / f"{number:03}.jpg", quality=90)


def watch(command: list[str]) -> dict[str, float]:
    """Run a command that prints a line per picture; rate, wall clock and processor time."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    times = [time.perf_counter() for _ in process.stdout]
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "pictures_per_s": (len(times) - 1) / (times[-1] - times[0]),
        "wall_s": time.perf_counter() - began,
        "processor_s": used.ru_utime + used.ru_stime,
    }


def main() -> None:
    """Measure every way, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--model")
    options = parser.parse_args()
    model = [options.model] if options.model else []
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "in", Path(temporary) / "out"
        make_pictures(source, options.pictures)
        target.mkdir()
        restore = [sys.executable, "-m", "moir", "restore", str(source), "-o", str(target), "--overwrite", "--json",
                   "--device", "cpu", *(["--model", *model] if model else [])]  # fmt: skip
        ways = {
            "plain loop": [sys.executable, "-c", LOOP, str(source), str(target), *model],
            "moir restore --jobs 1": [*restore, "--jobs", "1"],
            "moir restore --jobs 2": [*restore, "--jobs", "2"],
            "moir restore": restore,
        }
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, command in ways.items():
                taken[name].append(watch(command))
    for name, runs in taken.items():
        best = {
            "best_pictures_per_s": round(max(run["pictures_per_s"] for run in runs), 2),
            "median_pictures_per_s": round(statistics.median(run["pictures_per_s"] for run in runs), 2),
            "min_wall_s": round(min(run["wall_s"] for run in runs), 2),
            "min_processor_s": round(min(run["processor_s"] for run in runs), 2),
        }
        print(json.dumps({"way": name, **best}), flush=True)


if __name__ == "__main__":
    main()
