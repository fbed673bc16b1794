"""What one picture costs, for docs/scale.md.

python benchmarks/scale/measure.py FOLDER [--jobs N ...] [--device D]

Restores with `moir restore` into new temporary folders: first one picture of FOLDER alone, which is mostly the start of
the program, then all of them, once for each number of jobs. Time per picture is counted from the first record on.
Processor time is that of all processes, less that of the start, so that it holds on a machine that is busy with other
things too, while pictures per second do not.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def run(inputs: list[str], jobs: int, device: str) -> dict[str, Any]:
    """One run: seconds to the first record and from it on, processor seconds, and the records."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "moir", "restore", *inputs, "--output", f"{folder}/out", "--json",
                   "--jobs", str(jobs), "--device", device, "--manifest", f"{folder}/manifest.jsonl"]  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first, records = 0.0, []
        for line in process.stdout:
            first = first or time.perf_counter()
            records.append(json.loads(line))
        process.wait()
        ended = time.perf_counter()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = [json.loads(line) for line in (Path(folder) / "manifest.jsonl").read_text().splitlines()]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sizes = [line["output_stat"][0] for line in lines if "output_stat" in line]
    pixels = sum(record.get("width", 0) * record.get("height", 0) for record in records)
    return {"start": first - began, "rest": ended - first, "cpu": cpu, "n": len(records), "pixels": pixels,
            "bytes": sum(sizes) / max(1, len(sizes))}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    one = run([str(sorted(file for file in options.folder.iterdir() if file.is_file())[0])], 1, options.device)
    print(f"start and one picture: {one['start']:.1f} s, {one['cpu']:.1f} s of a core")
    print("| jobs | pictures | MP each | CPU s/picture | CPU s/MP | s/picture | pictures/s | bytes/output |")
    print("|---|---|---|---|---|---|---|---|")
    for jobs in options.jobs:
        all_ = run([str(options.folder)], jobs, options.device)
        count, megapixels = all_["n"], all_["pixels"] / all_["n"] / 1e6
        # Every worker starts once; the parent of several starts too.
        starts = jobs + 1 if jobs > 1 else 1
        cpu = (all_["cpu"] - starts * one["cpu"]) / (count - starts)
        span = all_["rest"] / (count - 1)
        print(
            f"| {jobs} | {count} | {megapixels:.2f} | {cpu:.3f} | {cpu / megapixels:.2f} | {span:.3f} | {1 / span:.2f} "
            f"| {all_['bytes']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
