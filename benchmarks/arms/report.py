"""Draw the curves of the arms, time them side by side, and print the table.

    python benchmarks/arms/report.py FOLDER [--curves curves.png] [--repeats 30] [--threads 2]

FOLDER holds the JSONL files of train.py. Times are minima over repeats, the arms interleaved, for a 256x256 picture;
judge them on an idle machine. The order is called stable from the first report after which it never changes.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib
import torch
from networks import ARMS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DAMAGES = ("noise=15", "noise=25", "noise=50", "rain=medium", "haze=medium")


def curves_of(folder: Path) -> dict[str, list[dict[str, float]]]:
    """The reports of each run, by name."""
    return {p.stem: [json.loads(line) for line in p.read_text().splitlines()] for p in sorted(folder.glob("*.jsonl"))}


def stable_from(curves: dict[str, list[dict[str, float]]]) -> float | None:
    """The share of training after which the order of the mean no longer changes; None if it changes at the end."""
    reports = min(len(c) for c in curves.values())
    orders = [sorted(curves, key=lambda name: -curves[name][i]["mean"]) for i in range(reports)]
    first = next(i for i in range(reports) if all(order == orders[-1] for order in orders[i:]))
    return None if first == reports - 1 else (first + 1) / reports


def times(repeats: int, threads: int) -> dict[tuple[str, str], float]:
    """Shortest time of each arm and precision, seconds."""
    torch.set_num_threads(threads)
    networks = {name: make().eval().to(memory_format=torch.channels_last) for name, make in ARMS.items()}
    x = torch.rand(1, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    best: dict[tuple[str, str], float] = {}
    for _ in range(repeats):
        for name, network in networks.items():
            for precision in ("bf16", "float32"):
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    began = time.perf_counter()
                    network(x)
                    spent = time.perf_counter() - began
                best[name, precision] = min(best.get((name, precision), spent), spent)
    return best


def draw(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """PSNR against samples, a panel for each damage and for the mean."""
    figure, panels = plt.subplots(2, 3, figsize=(13, 7), sharex=True)
    for panel, damage in zip(panels.flat, (*DAMAGES, "mean"), strict=True):
        for name, reports in curves.items():
            panel.plot([r["samples"] for r in reports], [r[damage] for r in reports], marker=".", label=name)
        panel.set_title(damage)
        panel.grid(alpha=0.3)
        panel.set_ylabel("PSNR, dB")
    for panel in panels[1]:
        panel.set_xlabel("samples (64x64)")
    panels[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--curves", type=Path)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    curves = curves_of(options.folder)
    if options.curves:
        draw(curves, options.curves)
    best = times(options.repeats, options.threads)
    print("| arm | parameters | bf16, ms | float32, ms | " + " | ".join(DAMAGES) + " | mean |")
    print("|---" * (5 + len(DAMAGES)) + "|")
    for name, reports in sorted(curves.items(), key=lambda item: -item[1][-1]["mean"]):
        last = reports[-1]
        speed, count = ["", ""], ""
        if name in ARMS:
            speed = [f"{1e3 * best[name, precision]:.0f}" for precision in ("bf16", "float32")]
            count = f"{sum(p.numel() for p in ARMS[name]().parameters()):,}"
        figures = [f"{last[damage]:.2f}" for damage in (*DAMAGES, "mean")]
        print("| " + " | ".join([name, count, *speed, *figures]) + " |")
    arms = {name: reports for name, reports in curves.items() if name in ARMS}
    share = stable_from(arms)
    print(
        f"\nThe order of the arms is stable from {share:.0%} of training on." if share else "\nThe order still changes."
    )


if __name__ == "__main__":
    main()
