"""Start-up: `moir restore` of one small picture in a fresh process, against `python -c "import torch"`.

    python benchmarks/speed/startup.py [--repeats 10] [--threads N] [--profile] [--model M]

The two take turns, so that whatever else the machine does falls on both. Printed: minima and medians of the wall clock
from the start of the process to its end, and the least processor time, which others disturb less. Files are in the page
cache (a first run, not counted, puts them there), and byte code is written once to a folder of this run, as an
installation has it beside its sources. `--profile` prints what the time beyond torch goes to: imports by `-X
importtime`, and the phases of loading and restoring in a process of their own, by its processor time.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PHASES = """
import json, sys, time
marks = [("start", 0.0)]
mark = lambda name: marks.append((name, time.process_time()))
mark("start the interpreter")
import gc
gc.disable()  # as `moir restore` does
import torch
mark("import torch")
import moir.cli.app
mark("import moir.cli (typer, rich)")
import moir.batch, moir.restore, moir.batch.pipeline, moir.batch.workers
mark("import moir's restoring")
gc.freeze()
gc.enable()
from moir.models import DEFAULT, load_model
network, card = load_model(sys.argv[2] if len(sys.argv) > 2 else DEFAULT)
mark("make the network, read and check the weights")
restorer = moir.restore.Restorer(network, card.name, card=card)
mark("prepare the engine (half-precision check included)")
picture = moir.picture.read(sys.argv[1])
mark("decode")
result = restorer(picture)
mark("estimate and restore")
moir.picture.encode(result.picture, ".png")
mark("encode")
steps = {name: round(1000 * (end - begun), 1) for (_, begun), (name, end) in zip(marks, marks[1:])}
print(json.dumps(steps))
"""


def picture(path: Path) -> None:
    """A small picture with gradients, edges and noise, 256x256."""
    rows, columns = np.mgrid[0:256, 0:256] / 255
    colour = np.stack([rows, columns, (rows + columns) * 4 % 1], -1)
    colour += 0.05 * np.random.default_rng(0).standard_normal(colour.shape)
    Image.fromarray((colour.clip(0, 1) * 255).astype(np.uint8)).save(path)


def seconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall clock and processor time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imports(command: list[str], environment: dict[str, str], most: int = 25) -> list[tuple[float, str]]:
    """What is imported beside torch, by the time of each module alone, milliseconds, the slowest first.

    Modules that were imported within torch's own import count as torch's.
    """
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], env=environment, check=True, capture_output=True, text=True
    )
    packages: dict[str, float] = {}
    within_torch: list[tuple[int, str, float]] = []
    for line in done.stderr.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) != 3 or not fields[0].strip().isdigit():
            continue
        depth = (len(fields[2]) - len(fields[2].lstrip()) - 1) // 2
        within_torch.append((depth, fields[2].strip(), int(fields[0]) / 1000))
    torch_depth: int | None = None
    for depth, name, own in reversed(within_torch):  # the log has children before parents
        if torch_depth is not None and depth <= torch_depth:
            torch_depth = None
        if torch_depth is None and name == "torch":
            torch_depth = depth
        package = "torch" if torch_depth is not None else name.split(".")[0]
        packages[package] = packages.get(package, 0) + own
    ranked = sorted(((spent, name) for name, spent in packages.items()), reverse=True)
    return ranked[:most]


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of the processes")
    parser.add_argument("--model", help="a shipped model or a weights file; default: the shipped default")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "small.png", Path(folder) / "restored.png"
        picture(source)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        if options.threads:
            environment["OMP_NUM_THREADS"] = str(options.threads)
        restore = [sys.executable, "-m", "moir", "restore", str(source), "-o", str(target), "--overwrite"]
        if options.model:
            restore += ["--model", options.model]
        commands = {"import torch": [sys.executable, "-c", "import torch"], "moir restore": restore}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for command in commands.values():
            seconds(command, environment)
        for _ in range(options.repeats):
            for name, command in commands.items():
                taken[name].append(seconds(command, environment))
        found = {
            name: {
                "min_s": round(min(wall for wall, _ in values), 3),
                "median_s": round(statistics.median(wall for wall, _ in values), 3),
                "min_processor_s": round(min(used for _, used in values), 3),
            }
            for name, values in taken.items()
        }
        ours, theirs = found["moir restore"], found["import torch"]
        ratio = {kind: round(ours[kind] / theirs[kind], 3) for kind in ours}
        print(json.dumps({**found, "ratio": ratio, "repeats": options.repeats}), flush=True)
        if options.profile:
            model = [options.model] if options.model else []
            phases = [
                json.loads(
                    subprocess.run(
                        [sys.executable, "-c", PHASES, str(source), *model],
                        env=environment, check=True, capture_output=True, text=True,
                    ).stdout
                )
                for _ in range(5)
            ]  # fmt: skip
            for name in phases[0]:
                print(f"{min(phase[name] for phase in phases):8.1f} ms  {name}")
            for spent, name in imports(restore, environment):
                print(f"{spent:8.1f} ms  import {name}")


if __name__ == "__main__":
    main()
