"""Train one arm on the samples of samples.py, and measure it on pictures it never saw.

    python benchmarks/arms/train.py ARM --samples FOLDER --data ROOT --output FOLDER [--optimiser muon] [--loss l1=1]

One pass over the samples, 32 a step. Writes NAME.jsonl: every so many steps the PSNR of each damage, of the moving
average of the weights. A run that was stopped begins anew.
"""

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from networks import ARMS

from moir.base.files import write_text
from moir.training.loop import update_average
from moir.training.losses import terms
from moir.training.recipe import Loss, Validation
from moir.training.validation import Validator

BATCH = 32
DAMAGES = ["clean", "noise=15", "noise=25", "noise=50", "rain=medium", "haze=medium"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--samples", required=True, type=Path)
    parser.add_argument("--data", required=True, help="folder with test/gb82")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--loss", default="l1=0.7,log_l1=0.03,presence=0.1")
    parser.add_argument("--name", default="", help="of the run; default: the arm's")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, help="default: all samples")
    parser.add_argument("--reports", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    weights = Loss(**{key: float(value) for key, value in (part.split("=") for part in options.loss.split(","))})
    network = ARMS[options.arm]().train().to(memory_format=torch.channels_last)
    average = deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    inputs, targets = (np.load(options.samples / f"{name}.npy", mmap_mode="r") for name in ("input", "target"))
    labels = dict(np.load(options.samples / "labels.npz"))
    validator = Validator(Validation(folders=[f"{options.data}/test/gb82"], limit=6, damages=DAMAGES), [])
    steps = options.steps or len(inputs) // BATCH
    name = options.name or options.arm
    lines: list[str] = []
    spent = 0.0
    for step in range(1, steps + 1):
        began = time.perf_counter()
        rows = slice((step - 1) * BATCH, step * BATCH)
        sample = {key: torch.from_numpy(value[rows]) for key, value in labels.items()}
        sample["degree"] = sample["degree"].long()
        x, sample["target"] = (torch.from_numpy(np.array(values[rows])).float() / 255 for values in (inputs, targets))
        x = x.contiguous(memory_format=torch.channels_last)
        for group in optimiser.param_groups:  # rises over 100 steps, falls to 0 over the last 40%
            group["lr"] = options.rate * min(1, step / 100, (steps - step) / (0.4 * steps) + 1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            if network.estimates:
                context = dict(network.analyse(x))
                told = sample["remove"]
                context["remove"] = torch.where(told[:, -1:] > 0, told, context["remove"])
                output = network(x, context)
            else:
                context, output = {}, network(x)
        loss = torch.stack(list(terms(network, output.float(), context, sample, weights).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        update_average(average, network, min(0.99, (1 + step) / (10 + step)))
        spent += time.perf_counter() - began
        if step % (steps // options.reports) == 0:
            options.output.mkdir(parents=True, exist_ok=True)
            scores = validator.run(average, torch.device("cpu"), options.output / f"{name}.png")
            record = {"arm": name, "step": step, "samples": step * BATCH, "loss": options.loss, "seconds": round(spent)}
            lines.append(json.dumps({**record, **{key: round(value, 3) for key, value in scores.items()}}))
            write_text(options.output / f"{name}.jsonl", "\n".join(lines) + "\n", overwrite=True)
            print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
