"""Make docs/adaptation-report.md and its pictures from the runs of study.py; what was not run is said to be missing.

    python benchmarks/adaptation/report.py RUNS.jsonl --data ROOT [--docs docs] [--findings FILE.md]

Tables come from the lines of the file. Pictures need the adapters that study.py kept beside it, too: they are drawn by
figures.py. What a reader should take from the figures is for a person to say, in FILE.md; it is put at the head.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from damages import DAMAGES
from figures import branches, sheet, size_curve
from study import METHODS, RATE, RATES, Pictures, read_runs, runs

PAIRS = (20, 100, 500)

TEXT = """# Adapting the shipped network to new damage

What adapters can do on `compact`, for damage that it was not trained on, from few pairs: every method of
`moir.adapters` that the paper compares, full fine-tuning, and the weights that an expert of the shipped tree replaces.
Made by `benchmarks/adaptation/`: `damages.py` makes the damage, `study.py` the runs, `report.py` and
`figures.py` this page.

{findings}## How it was measured

{protocol}

{extent}

## Every method, every damage, 100 pairs

PSNR in dB on 8 unseen pictures (centre 192x192 px of four each of CID22's validation part and GB82), the mean; the
best of each column in bold. `conv` is our own, see [adaptir.md](adaptir.md). "-": not run.

{table}

{gains}

{sheet}

## From 20, 100 and 500 pairs

{numbers}

## PSNR against parameters

{sizes}

## Learning rates

{rates}

## Seeds

{seeds}

## What AdaptIR's branches do

{branches}
"""

PROTOCOL = """Every run has one budget: {steps} steps of 4 patches of 48x48 px on one thread, AdamW with a cosine, one
learning rate per family and no search for each method's best (4e-3; 4e-4 and 8e-4 for the two that train whole weights;
1e-2 for AdaptFormer, whose change is scaled by 0.1). That is far from convergence: it compares how fast methods learn,
not where they end. Pairs are crops of 128x128 px of the training pictures, each from a picture of its own where there
are enough; a fifth of them, at most 8, chooses the state that is kept, as in `moir adapt`. No run saw a picture that it
is measured on."""

NOTE = """The pairs held out are crops of pictures that `compact` itself was trained on; the unseen ones are not, and
more of a damage fits into them. Where the two tables differ much, what was learnt does not carry over: believe the
first. One seed, 8 pictures: small differences may be chance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--findings", type=Path, help="Markdown that is put at the head of the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, gallery = read_runs(options.runs), options.docs / "gallery" / "adaptation"
    gallery.mkdir(parents=True, exist_ok=True)
    adapters, pictures = options.runs.parent / "adapters", Pictures(options.data)
    findings = options.findings.read_text().strip() + "\n\n" if options.findings else ""
    text = TEXT.format(
        findings=findings,
        protocol=PROTOCOL.format(steps=max((r["run"]["steps"] for r in found), default=0)),
        extent=extent(found),
        table=main_table(found),
        gains=gains(found),
        sheet=sheet(adapters, gallery),
        numbers=pairs_table(found),
        sizes=size_table(found, gallery),
        rates=rates_table(found),
        seeds=seeds_table(found),
        branches=branches(adapters, pictures, gallery),
    )
    (options.docs / "adaptation-report.md").write_text(text.rstrip() + "\n")


def main_table(found: list[dict[str, Any]]) -> str:
    """Methods against damages, from 100 pairs."""
    lines = [_row("", "parameters", *DAMAGES, "step, s", "memory, MB"), _rule(len(DAMAGES) + 4)]
    for name, key in (("input", "input"), ("`compact` alone", "test")):
        base = {r["run"]["damage"]: mean(r[key]) for r in found if r["run"]["study"] == "base"}
        lines.append(_row(name, "", *(_number(base.get(d)) for d in DAMAGES), "", ""))
    by_method = {method: _main(found, method, 100) for method in METHODS}
    best = {d: max((mean(own[d]["test"]) for own in by_method.values() if d in own), default=None) for d in DAMAGES}
    for method, own in by_method.items():
        if not own:
            lines.append(_row(method, *("-" for _ in range(len(DAMAGES) + 3))))
            continue
        cells = [_number(mean(own[d]["test"]) if d in own else None, best[d]) for d in DAMAGES]
        seconds = min(run["cpu_seconds"] / run["run"]["steps"] for run in own.values())
        memory = min(run["training_bytes"] for run in own.values()) / 1e6
        count = next(iter(own.values()))["parameters"]
        lines.append(_row(method, f"{count:,}", *cells, f"{seconds:.3f}", f"{memory:.0f}"))
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
        return f"All {planned} runs are done."
    return (
        f'{len(done)} of {planned} runs are done; "-" stands for the others, and nothing is said about them. The\n'
        "command at the head of `study.py` goes on where it was stopped."
    )


def gains(found: list[dict[str, Any]]) -> str:
    """Gains from 100 pairs, on unseen pictures and on the pairs held out."""
    base = {r["run"]["damage"]: r["test"] for r in found if r["run"]["study"] == "base"}
    by_method = {method: own for method in METHODS if (own := _main(found, method, 100))}
    if not by_method or not base:
        return ""
    heading = [_row("", *DAMAGES), _rule(len(DAMAGES) + 1)]
    unseen, held = list(heading), list(heading)
    for method, own in by_method.items():
        cells = []
        for d in DAMAGES:
            better = sum(a > b for a, b in zip(own[d]["test"], base[d], strict=True)) if d in own else 0
            cells.append(f"{mean(own[d]['test']) - mean(base[d]):+.2f} ({better})" if d in own else "-")
        unseen.append(_row(method, *cells))
        held.append(_row(method, *(f"{_held_out_gain(own[d]):+.2f}" if d in own else "-" for d in DAMAGES)))
    return "\n".join([
        "Gain over `compact` alone, dB; in brackets, on how many of the 8 pictures there is one:\n", *unseen, "",
        "The same on the pairs held out, which chose the state:\n", *held, "", NOTE,
    ])  # fmt: skip


def pairs_table(found: list[dict[str, Any]]) -> str:
    """PSNR from 20, 100 and 500 pairs, for the damages that were run."""
    base = {r["run"]["damage"]: mean(r["test"]) for r in found if r["run"]["study"] == "base"}
    tables = []
    for damage in DAMAGES:
        rows = {method: [_main(found, method, n).get(damage) for n in PAIRS] for method in METHODS}
        if not any(few or many for few, _, many in rows.values()):
            continue
        lines = [_row(damage, *(f"{n} pairs" for n in PAIRS)), _rule(4)]
        lines.append(_row("`compact` alone", *(_number(base.get(damage)) for _ in PAIRS)))
        lines += [_row(m, *(_number(mean(r["test"]) if r else None) for r in own)) for m, own in rows.items()]
        tables.append("\n".join(lines))
    if not tables:
        return "Not run yet: only 100 pairs."
    left = [d for d in DAMAGES if not any(f"| {d} |" in table for table in tables)]
    note = f"\n\nOnly from 100 pairs so far: {', '.join(left)}." if left else ""
    return "PSNR in dB on the unseen pictures; the number of steps is the same.\n\n" + "\n\n".join(tables) + note


def size_table(found: list[dict[str, Any]], gallery: Path) -> str:
    """The curve, and its points."""
    points: dict[str, list[tuple[int, float]]] = {}
    for run in _runs(found, study="size"):
        points.setdefault(run["run"]["method"], []).append((run["parameters"], mean(run["test"])))
    if not any(len(own) > 1 for own in points.values()):
        return "Not run yet."
    level = {
        name: (own["salt-and-pepper"]["parameters"], mean(own["salt-and-pepper"]["test"]))
        for name in ("replaced", "full")
        if "salt-and-pepper" in (own := _main(found, name, 100))
    }
    base = [mean(r["test"]) for r in _runs(found, study="base", damage="salt-and-pepper")]
    size_curve(points, level, base[0] if base else None, gallery / "sizes.png")
    lines = [_row("salt-and-pepper, 100 pairs", "parameters: PSNR, dB"), _rule(2)]
    lines += [_row(m, ", ".join(f"{n:,}: {value:.2f}" for n, value in sorted(own))) for m, own in points.items()]
    picture = "![PSNR against parameters](gallery/adaptation/sizes.png)"
    return f"{picture}\n\nOne learning rate for all sizes of a method.\n\n" + "\n".join(lines)


def rates_table(found: list[dict[str, Any]]) -> str:
    """What other learning rates give, on the pairs held out alone."""
    lines = []
    for method in METHODS:
        usual = _main(found, method, 100).get("salt-and-pepper")
        if usual is None:
            continue
        rate = RATES.get(method, RATE)
        own = {round(r["run"]["rate"] / rate, 3): r for r in _runs(found, study="rates", method=method)}
        if not own:
            continue
        cells = [f"{_held_out_gain(r):+.2f}" if r else "-" for r in (own.get(0.3), usual, own.get(3.0))]
        lines.append(_row(method, f"{rate:g}", *cells))
    if not lines:
        return "Other rates: not run yet."
    about = (
        "Gain on the pairs held out, dB (salt-and-pepper, 100 pairs), at 0.3, 1 and 3 times the rate that all other\n"
        "runs have. Where the last column is the largest, a method was run at too small a rate for this budget, and a\n"
        "comparison of methods at their best rates would come out otherwise."
    )
    return "\n".join([about, "", _row("", "rate", "x 0.3", "x 1", "x 3"), _rule(5), *lines])


def seeds_table(found: list[dict[str, Any]]) -> str:
    """How much of a difference between runs is chance."""
    lines = []
    for method in METHODS:
        own = {
            r["run"]["seed"]: r for r in _runs(found, study="main", method=method, damage="salt-and-pepper", pairs=100)
        }
        if len(own) > 1:
            lines.append(_row(method, *(_number(mean(own[s]["test"]) if s in own else None) for s in (0, 1, 2))))
    if not lines:
        return "Other seeds: not run yet, so how much of a difference is chance was not measured."
    about = (
        "PSNR in dB on the unseen pictures (salt-and-pepper, 100 pairs) with other pairs, first weights and patches:"
    )
    return "\n".join([about, "", _row("", *(f"seed {s}" for s in (0, 1, 2))), _rule(4), *lines])


def _main(found: list[dict[str, Any]], method: str, pairs: int) -> dict[str, dict[str, Any]]:
    """The runs of the main study of one method, by damage."""
    return {r["run"]["damage"]: r for r in _runs(found, study="main", method=method, pairs=pairs, seed=0)}


def _runs(found: list[dict[str, Any]], **facts: Any) -> list[dict[str, Any]]:
    return [r for r in found if all(r["run"][key] == value for key, value in facts.items())]


def _held_out_gain(run: dict[str, Any]) -> float:
    return mean(run["held_out_after"]) - mean(run["held_out_before"])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: int) -> str:
    return "|---" * columns + "|"


def _number(value: float | None, best: float | None = None) -> str:
    if value is None:
        return "-"
    return f"**{value:.2f}**" if best is not None and f"{value:.2f}" == f"{best:.2f}" else f"{value:.2f}"


if __name__ == "__main__":
    main()
