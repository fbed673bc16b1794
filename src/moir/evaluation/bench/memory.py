"""Peak memory of one case, in a process of its own.

In the process that does the timing, other engines' buffers and caches lie about, and would be counted or reused.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from moir.base.errors import MoirError
from moir.evaluation.cost import example, peak_memory

if TYPE_CHECKING:
    from moir.evaluation.bench.plan import Case

CHILD = "import sys; from moir.evaluation.bench.memory import main; main(sys.argv[1])"

SMALL = 64
"""A first picture of this side, pixels, loads what is loaded once (kernels, thread pools) and is not counted."""


def peak_of(case: "Case") -> float | None:
    """Memory above the loaded model while one picture is restored, MB; None if it cannot be told here.

    On a CPU the peak of the resident set, on CUDA that of the allocator; see
    :func:`moir.evaluation.cost.peak_memory`.

    Raises:
        MoirError: The process ended without an answer (memory ran out, for instance).
    """
    task = json.dumps({"case": asdict(case), "threads": torch.get_num_threads()})
    command = [sys.executable, "-c", CHILD, task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MoirError(
            f"measuring the memory of {case.model} at {case.size} px ({case.engine}, {case.precision}) ended with "
            f"exit code {done.returncode}: {last}; try a smaller --size, or --no-memory"
        )
    found: float | None = json.loads(done.stdout.splitlines()[-1])
    return found


def main(task: str) -> None:
    """What the process does: print the peak in MB, or null."""
    from moir.evaluation.bench.models import open_model
    from moir.evaluation.bench.plan import Case
    from moir.evaluation.bench.run import prepare

    asked = json.loads(task)
    torch.set_num_threads(asked["threads"])
    case = Case(**asked["case"])
    network, _ = open_model(case.model)
    run = prepare(case, network)
    run(example((SMALL, SMALL))[None])
    x = example((case.size, case.size))[None]
    with peak_memory(torch.device(case.device)) as peak:
        run(x)
    sys.stdout.write(json.dumps(None if peak.bytes is None else round(peak.bytes / 2**20, 1)) + "\n")
