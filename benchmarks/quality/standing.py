"""The standing of a model: on pictures it was not trained on, beside what one would use otherwise.

    make quality
    python benchmarks/quality/standing.py --data ROOT [--model NAME_OR_FILE] [--card CARD.json] [--output FILE.md]

ROOT holds CBSD68, LIVE1, Rain100H_first25, cid22_validation and gb82 in the layouts of docs/datasets.md. All their
pictures are scored, or nothing is written: a set that is not whole, or a picture that fails, is an error. (For a part
there is `moir evaluate`.) Scores are kept in a file, so that an interrupted run goes on, and a second one scores only
what changed: weights, methods, versions, pictures.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from sections import LEFT_OUT, Section, origin, sections

from moir.base.errors import MissingExtraError, MoirError
from moir.base.files import write_text
from moir.checkpoints import Card
from moir.datasets import WrongCountWarning
from moir.evaluation.baselines import baseline
from moir.evaluation.methods import Method, ModelMethod
from moir.evaluation.protocols import PROTOCOLS
from moir.evaluation.records import Cost, Evaluation, ImageScore, Summary
from moir.evaluation.report.tables import escape_markdown, markdown_table
from moir.evaluation.run import Options, Step, evaluate

PROTOCOL = "moce_ir"
SIZE = (256, 256)
"""Of the picture that costs are measured on, pixels."""


@dataclass(frozen=True)
class Standing:
    """Everything that was measured.

    Attributes:
        model: Name of the model.
        tables: A section, with an evaluation of the model and of each baseline.
        absent: Baselines that could not be run, with the reason.
        costs: By method.
    """

    model: str
    tables: tuple[tuple[Section, tuple[Evaluation, ...]], ...]
    absent: dict[str, str]
    costs: dict[str, Cost]

    @property
    def failures(self) -> list[ImageScore]:
        """Pictures that could not be scored."""
        return [score for _, found in self.tables for e in found for score in e.images if score.error is not None]


def measure(
    method: ModelMethod,
    root: Path,
    journal: Path | None,
    *,
    jobs: int = 1,
    limit: int | None = None,
    titles: Sequence[str] | None = None,
) -> Standing:
    """Score a model and the baselines on all sections.

    Args:
        method: The model.
        root: The data root.
        journal: Where scores are kept; None: nowhere.
        jobs: Pictures at a time, one thread each.
        limit: Pictures of each setting, for tests of this file; not to be had from the command line.
        titles: Of the sections to score; None: all.

    Raises:
        DatasetError, WrongCountWarning: A set is missing, or not whole (with ``limit`` the number does not matter).
    """
    # A card holds figures that come from here: were it part of what scores depend on, none would ever be found again.
    method.files = tuple(path for path in method.files if path.suffix != ".json")
    with warnings.catch_warnings():
        warnings.simplefilter("error" if limit is None else "ignore", WrongCountWarning)
        wanted = [section for section in sections(root) if titles is None or section.title in titles]
    names = dict.fromkeys(name for section in wanted for name in section.baselines)
    absent = {name: why for name in names if (why := _missing(name))}
    others: dict[str, Method] = {name: baseline(name) for name in names if name not in absent}
    costs = {m.name: cost for m in (method, *others.values()) if (cost := m.cost(SIZE)) is not None}

    torch.set_num_threads(1)  # pictures side by side use the cores better than threads inside one
    cv2.setNumThreads(1)
    options = Options(PROTOCOLS[PROTOCOL], exclude=tuple(LEFT_OUT), limit=limit, jobs=jobs)
    tables = []
    for section in wanted:
        methods = [method, *(others[name] for name in section.baselines if name in others)]
        said = _Said(section, len(methods))
        tables.append((section, tuple(evaluate(methods, section.settings, options, journal=journal, on_step=said))))
    return Standing(method.name, tuple(tables), absent, costs)


def _missing(name: str) -> str:
    try:
        baseline(name).restore(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)))
    except MissingExtraError as error:
        return str(error)
    return ""


class _Said:
    """One line on stderr for every setting that is done."""

    def __init__(self, section: Section, methods: int) -> None:
        self.began, self.done, self.new = time.perf_counter(), "", 0
        self.section, self.methods = section, methods

    def __call__(self, step: Step) -> None:
        if step.setting.name != self.done:
            print(f"{self.section.title}: {step.setting.name}, {self.methods} methods", file=sys.stderr, flush=True)
            self.done = step.setting.name


def text(standing: Standing, command: str) -> str:
    """The standing as Markdown."""
    first = standing.tables[0][1][0]
    options, versions = first.provenance["method"]["options"], first.provenance["versions"]
    weights = ", ".join(sha for path, sha in first.provenance["method"]["files"].items())
    parts = [
        f"# {standing.model} beside what one would use otherwise",
        f"Made by `{command}`.",
        f"Protocol `{PROTOCOL}`: centre cut to multiples of 16 px, prediction not rounded, PSNR (dB) / SSIM over RGB, "
        "mean over n pictures. All methods are blind. Best PSNR in bold. `inside` and `outside` are the published in- "
        "and out-of-distribution ranges. Damage is of a `benchmark`, of `other code` (scikit-image, Pillow), or of "
        "`moir degrade`, which the model was trained with.",
        f"{standing.model}: {options['device']}, {options['precision']}; weights sha256 `{weights or 'none'}`. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        *(f"Left out: {name}, {why}." for name, why in LEFT_OUT.items()),
        *(f"Not run: {why}." for why in standing.absent.values()),
    ]
    for section, found in standing.tables:
        header = ["damage", "by", "input", *(escape_markdown(e.method) for e in found)]
        rows = []
        for number, setting in enumerate(section.settings):
            summaries = [e.summaries[number] for e in found]
            best = max(round(s.means["psnr"], 2) for s in summaries)
            entry = f"{summaries[0].means['input_psnr']:.2f} (n={summaries[0].n})"
            cells = [_cell(s, best) for s in summaries]
            rows.append([escape_markdown(setting.name), origin(setting), entry, *cells])
        parts += [f"## {section.title}", markdown_table(header, rows, left=2)]
    parts += ["## Cost", _costs(standing)]
    parts += ["## Methods", "\n".join(f"- {line}" for line in _described(standing))]
    return "\n\n".join(parts) + "\n"


def _cell(summary: Summary, best: float) -> str:
    decibels = f"{summary.means['psnr']:.2f}"
    shown = f"**{decibels}**" if float(decibels) == best else decibels
    return f"{shown} / {summary.means['ssim']:.4f} (n={summary.n})"


def _costs(standing: Standing) -> str:
    rows = []
    for name, cost in standing.costs.items():
        figures = (
            "–" if cost.parameters is None else f"{cost.parameters / 1e6:.2f} M",
            "–" if cost.macs is None else f"{cost.macs / 1e9:.2f}",
            "–" if cost.peak_mb is None else f"{cost.peak_mb:.0f}",
            "–" if cost.seconds is None else f"{cost.seconds:.3f}",
        )
        rows.append([escape_markdown(name), *figures, f"{cost.device}, {cost.precision}"])
    size = f"{SIZE[0]}x{SIZE[1]}"
    intro = f"One picture of {size} px; memory above what is held before; median time, which depends on the machine."
    return f"{intro}\n\n" + markdown_table(["method", "parameters", "GMACs", "peak MB", "seconds", "on"], rows)


def _described(standing: Standing) -> list[str]:
    names = [name for name in standing.costs if name != standing.model]
    return [f"`{name}`: {baseline(name).description}. {baseline(name).source}." for name in names]


def card_metrics(standing: Standing, command: str) -> list[dict[str, object]]:
    """The model's rows, for its card."""
    rows: list[dict[str, object]] = []
    for section, (found, *_) in standing.tables:
        for setting, summary in zip(section.settings, found.summaries, strict=True):
            scores = [s.metrics for s in found.images if s.setting == setting.name and s.error is None]
            before, after = summary.means["input_psnr"], summary.means["psnr"]
            rows.append(
                {
                    "source": origin(setting),
                    "benchmark": setting.name,
                    "pictures": setting.source,
                    "protocol": PROTOCOL,
                    "n": summary.n,
                    "psnr_input": round(before, 2),
                    "psnr": round(after, 2),
                    "ssim": round(summary.means["ssim"], 4),
                    # A clean picture can gain nothing; its PSNR says how little was done to it.
                    "gain": None if setting.name == "clean" else round(after - before, 2),
                    "better": sum(m["psnr"] > m["input_psnr"] for m in scores),
                    "command": command,
                }
            )
    return rows


def _default_root() -> Path | None:
    """MOIR_DATA, or its folder ``test`` if it keeps training pictures apart."""
    if not os.environ.get("MOIR_DATA"):
        return None
    root = Path(os.environ["MOIR_DATA"])
    return root / "test" if (root / "test").is_dir() else root


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the table and the card; the exit code is 0 only if all pictures were scored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=_default_root(), help="data root; default: MOIR_DATA")
    parser.add_argument("--model", help="as for moir restore")
    parser.add_argument("--card", type=Path, help="write the model's figures into this card")
    parser.add_argument("--output", type=Path, help="the table; default: NAME.md beside this file")
    parser.add_argument("--sections", nargs="+", help="titles of tables, for a network that is made for these alone")
    parser.add_argument("--journal", type=Path, default=Path("runs/quality.jsonl"), help="where scores are kept")
    parser.add_argument("--fresh", action="store_true", help="score everything again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="pictures at a time")
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.limit is not None:
        parser.error("the standing table is made of all pictures; for some of them: moir evaluate --limit")
    if options.data is None:
        parser.error("give the folder of the benchmarks with --data ROOT, or set MOIR_DATA")
    if options.fresh:
        options.journal.unlink(missing_ok=True)

    if options.sections:
        known = [section.title for section in sections(options.data)]
        for title in options.sections:
            if title not in known:
                parser.error(f"there is no section {title!r}; known: {', '.join(known)}")
    method = ModelMethod(options.model)
    try:
        standing = measure(method, options.data, options.journal, jobs=options.jobs, titles=options.sections)
    except (MoirError, WrongCountWarning) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for score in standing.failures:
        print(f"failed: {score.setting} {score.image}: {score.error}", file=sys.stderr)
    if standing.failures:
        print(f"error: {len(standing.failures)} pictures failed; nothing was written", file=sys.stderr)
        return 1
    command = f"python benchmarks/quality/standing.py --data ROOT --model {method.name}"
    if options.sections:
        command += " --sections " + " ".join(f"'{title}'" for title in options.sections)
    output = options.output or Path(__file__).parent / f"{method.name}.md"
    write_text(output, text(standing, command), overwrite=True)
    print(output)
    if options.card:
        card = Card.read(options.card)
        card.metrics = card_metrics(standing, command)
        card.write(options.card, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
