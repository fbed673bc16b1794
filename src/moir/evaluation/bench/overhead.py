"""What every model of the registry costs: the overhead tables of the papers, measured on this machine."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.evaluation.cost import count_macs, count_parameters, measure_cost
from moir.models import create_model, list_models
from moir.runtime.device import choose_device

CHILD = "import sys; from moir.evaluation.bench.overhead import main; main(sys.argv[1])"

LIMIT = 300
"""GMACs per picture up to which a model is run; beyond, it is counted only."""


def overhead(
    models: Sequence[str] | None = None,
    *,
    size: int = 256,
    device: str | None = None,
    repeats: int = 3,
    limit: float = LIMIT,
) -> Iterator[dict[str, Any]]:
    """Parameters, MACs, memory and latency of straightforward modules with random weights, in float32.

    Every model is measured in a process of its own, so that one that breaks, or needs more memory than there is,
    costs only its own row. Counting needs no memory (meta tensors), except for networks that decide by values.

    Args:
        models: Names of the registry; None: all of it.
        size: Side of the square picture that is put in, pixels.
        device: See :func:`moir.runtime.choose_device`.
        repeats: Timed runs.
        limit: GMACs from which on a model is not run.

    Yields:
        ``{"model", "size", "device", "precision", "parameters", "macs", "peak_mb", "median_s"}``; what could not be
        measured is None, and ``note`` says why.

    Raises:
        UnknownNameError: A model that is not in the registry.
        InvalidValueError: A size or number of repeats below 1.
        DeviceError: The device is not to be had.
    """
    if size < 1 or repeats < 1:
        raise InvalidValueError(f"an overhead needs pictures of at least 1 px and one run, got {size} and {repeats}")
    names = [
        check_name(name, list_models(tests=True), "model") for name in (list_models() if models is None else models)
    ]
    where = str(choose_device(device))
    for name in names:
        task = {"model": name, "size": size, "device": where, "repeats": repeats, "limit": limit,
                "threads": torch.get_num_threads()}  # fmt: skip
        command = [sys.executable, "-c", CHILD, json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        row = {"model": name, "size": size, "device": where, "precision": "float32", "parameters": None, "macs": None,
               "peak_mb": None, "median_s": None}  # fmt: skip
        if done.stdout:
            row.update(json.loads(done.stdout.splitlines()[-1]))
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["killed; memory may have run out"])[-1]
            row["note"] = f"ended with exit code {done.returncode}: {last}"
        yield row


def main(task: str) -> None:
    """What the process does: count, print; run, print again."""
    asked = json.loads(task)
    torch.set_num_threads(asked["threads"])
    name, size = asked["model"], (asked["size"], asked["size"])
    with torch.device("meta"):
        shapes = create_model(name)
    row: dict[str, Any] = {"parameters": count_parameters(shapes)}
    try:
        row["macs"] = count_macs(shapes, size)
    except RuntimeError:  # it decides by values, so it can be counted only by being run
        row["macs"] = None
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()  # should running it break, this much is known
    if row["macs"] is not None and row["macs"] > asked["limit"] * 1e9:
        row["note"] = f"not run: over {asked['limit']:g} GMACs"
    else:
        device = torch.device(asked["device"])
        torch.manual_seed(0)
        network = create_model(name).eval().requires_grad_(False).to(device)

        @torch.inference_mode()
        def restore(x: torch.Tensor) -> torch.Tensor:
            return network(x[None].to(device)).cpu()

        cost = measure_cost(restore, size, network=network, device=device, repeats=asked["repeats"])
        peak = None if cost.peak_mb is None else round(cost.peak_mb, 1)
        row = {**row, "macs": cost.macs, "peak_mb": peak, "median_s": cost.seconds}
    sys.stdout.write(json.dumps(row) + "\n")
