"""Make docs/adaptation-report.md and its pictures from the runs of study.py; what was not run is said to be missing.

    python benchmarks/adaptation/report.py RUNS.jsonl --data ROOT [--docs docs]

Tables come from the lines of the file. Pictures need the adapters that study.py kept beside it, too.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import torch
from damages import DAMAGES
from study import METHODS, Pictures, read_runs, runs

from moir.adapted import load_adapter
from moir.adapters import attached, set_active
from moir.adapters.adaptir import AdaptIR
from moir.models import load_model
from moir.picture import from_tensor, write

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAIRS = (20, 100, 500)
SIDE = 144
"""Side of the crops of a sheet, pixels."""

TEXT = """# Adapting the shipped network to new damage

What adapters can do on `compact`, for damage that it was not trained on, from few pairs: every method of
`moir.adapters` that the paper compares, full fine-tuning, and the weights that an expert of the shipped tree replaces.
Made by `benchmarks/adaptation/`: `damages.py` makes the damage, `study.py` the runs, `report.py` this page.

{protocol}

## Results

PSNR in dB on 8 unseen pictures (centre 192x192 px of four each of CID22's validation part and GB82), the mean, from
{some} pairs; input and network alone for comparison. `conv` is our own, see [adaptir.md](adaptir.md). "-": not run.

{table}

{extent}

{gains}

{numbers}

{sizes}

{sheet}

{branches}
"""

PROTOCOL = """Every run has one budget: {steps} steps of 4 patches of 48x48 px on one thread, AdamW with a cosine, one
learning rate per family and no search for each method's best (4e-3; 4e-4 and 8e-4 for the two that train whole weights;
1e-2 for AdaptFormer, whose change is scaled by 0.1). That is far from convergence: it compares how fast methods learn,
not where they end. Pairs are crops of 128x128 px of the training pictures, each from a picture of its own where there
are enough; a fifth of them, at most 8, chooses the state that is kept, as in `moir adapt`. No run saw a picture that it
is measured on."""


NOTE = """The pairs held out are crops of pictures that `compact` itself was trained on; the unseen ones are not, and
more of a damage fits into them. Where the two columns differ much, what was learnt does not carry over: believe the
unseen one. One seed, 8 pictures: small differences may be chance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, gallery = read_runs(options.runs), options.docs / "gallery" / "adaptation"
    gallery.mkdir(parents=True, exist_ok=True)
    adapters = options.runs.parent / "adapters"
    text = TEXT.format(
        protocol=PROTOCOL.format(steps=max((r["run"]["steps"] for r in found), default=0)),
        some=100,
        table=main_table(found),
        extent=extent(found),
        gains=gains(found),
        numbers=pairs_table(found),
        sizes=size_curve(found, gallery),
        sheet=sheet(adapters, Pictures(options.data), gallery),
        branches=branches(adapters, Pictures(options.data), gallery),
    )
    (options.docs / "adaptation-report.md").write_text(text.rstrip() + "\n")


def main_table(found: list[dict[str, Any]]) -> str:
    """Methods against damages, from 100 pairs."""
    lines = ["| | parameters | " + " | ".join(DAMAGES) + " | step, s | memory, MB |", "|---" * (len(DAMAGES) + 4) + "|"]
    for name, key in (("input", "input"), ("`compact` alone", "test")):
        base = {r["run"]["damage"]: mean(r[key]) for r in found if r["run"]["study"] == "base"}
        lines.append(f"| {name} | | " + " | ".join(_number(base.get(d)) for d in DAMAGES) + " | | |")
    for method in METHODS:
        runs = {d: _runs(found, study="main", damage=d, pairs=100, method=method, seed=0) for d in DAMAGES}
        some = [run for own in runs.values() for run in own]
        if not some:
            lines.append(f"| {method} | - | " + " | ".join("-" for _ in DAMAGES) + " | - | - |")
            continue
        cells = " | ".join(_number(mean(own[0]["test"]) if own else None) for own in runs.values())
        seconds = min(run["cpu_seconds"] / run["run"]["steps"] for run in some)
        memory = min(run["training_bytes"] for run in some) / 1e6
        lines.append(f"| {method} | {some[0]['parameters']:,} | {cells} | {seconds:.3f} | {memory:.0f} |")
    lines.append("")
    lines.append(
        "Step: processor seconds of a run, its scorings included, over its steps, the smallest of a method's runs.\n"
        "Memory: what a step keeps for the backward pass, gradients and AdamW's moments, without the network itself."
    )
    return "\n".join(lines)


def extent(found: list[dict[str, Any]]) -> str:
    """How much of the study there is."""
    done, planned = [r for r in found if r["run"]["study"] != "base"], len(list(runs(0)))
    if len(done) >= planned:
        return "All runs are done."
    return (
        f'{len(done)} of {planned} runs are done; "-" stands for the others, and nothing is said about them. The\n'
        "command at the head of `study.py` goes on where it was stopped."
    )


def gains(found: list[dict[str, Any]]) -> str:
    """For each damage with every method run: the largest gains, on how many pictures, and on the pairs held out."""
    base = {r["run"]["damage"]: r["test"] for r in found if r["run"]["study"] == "base"}
    lines = []
    for damage in DAMAGES:
        own = _runs(found, study="main", damage=damage, pairs=100, seed=0)
        if len(own) < len(METHODS):
            continue
        gain = {r["run"]["method"]: mean(r["test"]) - mean(base[damage]) for r in own}
        better = {r["run"]["method"]: sum(a > b for a, b in zip(r["test"], base[damage], strict=True)) for r in own}
        held = {r["run"]["method"]: mean(r["held_out_after"]) - mean(r["held_out_before"]) for r in own}
        for method in sorted(gain, key=gain.__getitem__, reverse=True):
            lines.append(f"| {damage} | {method} | {gain[method]:+.2f} | {better[method]} of 8 | {held[method]:+.2f} |")
    if not lines:
        return ""
    head = "Gain over `compact` alone, dB, the largest first:\n\n| damage | method | unseen | better on | held out |"
    lines.insert(0, "|---|---|---|---|---|")
    return "\n".join([head, *lines, "", NOTE])


def pairs_table(found: list[dict[str, Any]]) -> str:
    """The same from 20 and 500 pairs, for the damages that were run."""
    parts = []
    for damage in DAMAGES:
        rows = {
            method: [_runs(found, study="main", damage=damage, pairs=n, method=method, seed=0) for n in PAIRS]
            for method in METHODS
        }
        if not any(own[0] or own[2] for own in rows.values()):
            continue
        parts.append(f"| {damage} | " + " | ".join(f"{n} pairs" for n in PAIRS) + " |\n" + "|---" * 4 + "|")
        for method, own in rows.items():
            parts.append(f"| {method} | " + " | ".join(_number(mean(r[0]["test"]) if r else None) for r in own) + " |")
    missing = "" if parts else "Runs from 20 and 500 pairs: not run yet."
    return "\n".join(parts) or missing


def size_curve(found: list[dict[str, Any]], gallery: Path) -> str:
    """PSNR against parameters."""
    points: dict[str, list[tuple[int, float]]] = {}
    for run in _runs(found, study="size"):
        points.setdefault(run["run"]["method"], []).append((run["parameters"], mean(run["test"])))
    if not any(len(own) > 1 for own in points.values()):
        return "PSNR against parameters: not run yet."
    figure, axes = plt.subplots(figsize=(6, 4))
    for method, own in points.items():
        axes.plot(*zip(*sorted(own), strict=True), marker="o", label=method)
    axes.set(xscale="log", xlabel="trained parameters", ylabel="PSNR, dB", title="salt-and-pepper, 100 pairs")
    axes.legend()
    figure.tight_layout()
    figure.savefig(gallery / "sizes.png", dpi=90)
    return "![PSNR against parameters](gallery/adaptation/sizes.png)"


@torch.no_grad()
def sheet(adapters: Path, pictures: Pictures, gallery: Path) -> str:
    """Input, network alone, AdaptIR, the convolutional adapter, original."""
    rows = []
    shown = []
    for damage in DAMAGES:
        files = [adapters / f"{damage}_100_{method}.safetensors" for method in ("adaptir", "conv")]
        if not all(file.exists() for file in files):
            continue
        inputs, targets = pictures.test_pairs(damage)
        x, network = inputs[:1], load_model("compact")[0]
        row = [x, network(x)]
        for number, file in enumerate(files):
            load_adapter(network, file, f"n{number}")
            set_active(network, f"n{number}")
            row.append(network(x))
        rows.append(torch.cat([_crop(picture.clamp(0, 1)[0]) for picture in [*row, targets[:1]]], -1))
        shown.append(damage)
    if not rows:
        return "Pictures: no run from 100 pairs has kept its adapters yet."
    write(from_tensor(torch.cat(rows, -2)), gallery / "sheet.png", overwrite=True)
    return (
        "![damage and what is left of it](gallery/adaptation/sheet.png)\n\nFrom left to right: input, `compact` "
        f"alone, with AdaptIR, with `conv`, original; from top to bottom: {', '.join(shown)}. 100 pairs."
    )


@torch.no_grad()
def branches(adapters: Path, pictures: Pictures, gallery: Path) -> str:
    """Fourier magnitude of what AdaptIR's experts give, at half resolution, per damage (the paper's figure)."""
    found = {}
    for damage in DAMAGES:
        file = adapters / f"{damage}_100_adaptir.safetensors"
        if file.exists():
            found[damage] = _spectra(file, pictures.test_pairs(damage)[0])
    if not found:
        return "Fourier magnitude of AdaptIR's branches: no adapter to measure yet."
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True)
    for panel, branch in zip(panels, ("local", "frequency"), strict=True):
        for damage, spectra in found.items():
            values = spectra[branch]
            panel.plot(torch.linspace(0, 1, len(values)), values, label=damage)
        panel.set(title=f"{branch} expert", xlabel="frequency / Nyquist", yscale="log")
    panels[0].set_ylabel("mean magnitude, of that at 0")
    panels[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(gallery / "branches.png", dpi=90)
    return (
        "![Fourier magnitude of the branches](gallery/adaptation/branches.png)\n\nWhat AdaptIR's local and frequency "
        "experts give at half resolution: mean magnitude over rings of equal frequency, over channels, modules and "
        "pictures. Channel gating is one number per channel and has no spectrum."
    )


def _spectra(file: Path, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    network = load_model("compact")[0]
    load_adapter(network, file, "new")
    sums: dict[str, list[torch.Tensor]] = {"local": [], "frequency": []}

    def look(module: AdaptIR, features: torch.Tensor) -> None:
        z = module.BN(module.head(features))
        for branch in sums:
            sums[branch].append(_radial(getattr(module, branch)(z)))

    for placement in attached(network)["new"].placements:
        module, entry = placement.adapter, placement.entry
        if isinstance(module, AdaptIR) and entry is not None and placement.path.startswith(("encoder1", "decoder1")):
            entry.register_forward_pre_hook(lambda _, args, module=module: look(module, args[0]))
    network(inputs)
    return {branch: torch.stack(values).mean(0) for branch, values in sums.items()}


def _radial(features: torch.Tensor, rings: int = 24) -> torch.Tensor:
    magnitude = torch.fft.fftshift(torch.fft.fft2(features, norm="ortho").abs(), dim=(-2, -1)).mean((0, 1))
    height, width = magnitude.shape
    rows, columns = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    radius = torch.hypot(rows / (height / 2), columns / (width / 2))
    ring = (radius * rings).long().clamp(max=rings)
    total = torch.zeros(rings + 1).index_add_(0, ring.flatten(), magnitude.flatten())
    means = (total / torch.bincount(ring.flatten(), minlength=rings + 1))[:rings]
    return means / means[0]


def _runs(found: list[dict[str, Any]], **facts: Any) -> list[dict[str, Any]]:
    return [r for r in found if all(r["run"][key] == value for key, value in facts.items())]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _crop(picture: torch.Tensor) -> torch.Tensor:
    return picture[:, :SIDE, :SIDE]


if __name__ == "__main__":
    main()
