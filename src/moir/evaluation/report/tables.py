"""Comparison tables in Markdown and LaTeX: methods as rows, settings as columns, the papers' numbers below ours."""

import re
from collections.abc import Callable, Sequence

from moir.evaluation.records import Cost, Evaluation
from moir.evaluation.report.lines import METRICS, Block, Cell, Line, blocks, whole

NAMES = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
Escape = Callable[[str], str]


def markdown(evaluations: Sequence[Evaluation], *, with_published: bool = True) -> str:
    """Return the comparison as Markdown tables with numbered notes.

    Args:
        evaluations: Of any methods, settings and protocols; each protocol gets a table of its own.
        with_published: Add the papers' numbers for the same settings.
    """
    parts = ["# Comparison"]
    for block in blocks(evaluations, with_published=with_published):
        notes = _Notes()
        table = _grid(block, notes, escape_markdown, lambda text: f"**{text}**", " / ", "–")
        parts += [
            f"## {_title(block, escape_markdown)}",
            legend(block, escape_markdown),
            markdown_table(table[0], [row for section in table[1] for row in section], left=3),
            "\n".join(f"- [{number}] {escape_markdown(text)}" for number, text in notes.numbered()),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(evaluations: Sequence[Evaluation], *, with_published: bool = True) -> str:
    """Return the comparison as LaTeX tables (packages booktabs, graphicx and hyperref; UTF-8).

    Args:
        evaluations: Of any methods, settings and protocols; each protocol gets a table of its own.
        with_published: Add the papers' numbers for the same settings.
    """
    parts = [r"% Needs \usepackage{booktabs,graphicx,hyperref}."]
    for block in blocks(evaluations, with_published=with_published):
        notes = _Notes()
        header, sections = _grid(block, notes, escape_latex, lambda text: rf"\textbf{{{text}}}", "/", "--")
        rules = "\n\\midrule\n".join("\n".join(" & ".join(row) + r" \\" for row in section) for section in sections)
        listed = "\n".join(rf"[{number}] {escape_latex(text)}\par" for number, text in notes.numbered())
        lines = [
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{_title(block, escape_latex)}. {legend(block, escape_latex)}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{lll{'c' * (len(header) - 3)}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            rules,
            r"\bottomrule",
            r"\end{tabular}}",
        ]
        if listed:
            lines += [r"\par\smallskip", r"{\footnotesize\raggedright", listed, "}"]
        parts.append("\n".join([*lines, r"\end{table*}"]))
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    r"""Escape what Markdown would take for formatting; underscores inside words are safe.

    Examples:
        >>> escape_markdown("a|b *c* rain100h_first25 _d"), escape_markdown("<x> 2`y`")
        ('a\\|b \\*c\\* rain100h_first25 \\_d', '&lt;x> 2\\`y\\`')
    """
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text).replace("<", "&lt;")


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}", "²": r"\textsuperscript{2}", "σ": r"$\sigma$",
    "×": r"$\times$", "–": "--", "±": r"$\pm$", '"': "''", "*": "{*}",
    **{character: "\\" + character for character in "&%$#_{}"},
}  # fmt: skip


def escape_latex(text: str) -> str:
    r"""Escape what LaTeX would take for a command; addresses become ``\url``.

    Examples:
        >>> print(escape_latex("LR4&Noise30, 100% of rain_x, M²IR"))
        LR4\&Noise30, 100\% of rain\_x, M\textsuperscript{2}IR
        >>> print(escape_latex("see https://arxiv.org/abs/2412.20157"))
        see \url{https://arxiv.org/abs/2412.20157}
    """
    parts = re.split(r"(https?://[^\s{}\\^]+)", " ".join(text.split()))
    return "".join(
        # In the argument of another command, such as a caption, \url takes no bare % or #.
        rf"\url{{{re.sub('([%#])', _BACKSLASHED, part)}}}" if part.startswith(("http://", "https://"))
        else "".join(_LATEX.get(character, character) for character in part)
        for part in parts
    )  # fmt: skip


_BACKSLASHED = r"\\\1"


class _Notes:
    """Numbers notes in the order in which they are first needed."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        return f"[{self._numbers.setdefault(text, len(self._numbers) + 1)}]" if text else ""

    def numbered(self) -> list[tuple[int, str]]:
        return [(number, text) for text, number in self._numbers.items()]


def _title(block: Block, escape: Escape) -> str:
    return f"Protocol {escape(block.protocol)}: {escape(', '.join(block.counts))}"


def legend(block: Block, escape: Escape = escape_markdown) -> str:
    """Say in words how the cells of a table are to be read."""
    sentences = [
        f"Each cell: {', '.join(NAMES[name] + (' (dB)' if name == 'psnr' else '') for name in block.metrics)},"
        " mean over n pictures."
    ]
    if any(not line.measured for line in block.lines):
        sentences.append(
            "Lines marked measured are of this run; the others are published, copied as printed, and of the whole set."
            f" In brackets: numbers of another protocol than {block.protocol}, of one not stated, or on other pictures;"
            " their PSNR may be of other channels, and their SSIM is not comparable."
        )
        if part := [setting for setting, n in block.counts.items() if not whole(setting, n)]:
            sentences.append(f"Not known to be the whole published set: {', '.join(part)}.")
    sentences.append("Best in bold, among numbers not in brackets that are means over the same number of pictures.")
    if block.has_average:
        sentences.append("The average is over the settings, where all are there; published ones are as printed.")
    if place := _place(block):
        sentences.append(f"Cost of one picture of {place}.")
    return escape(" ".join(sentences))


def _grid(
    block: Block, notes: _Notes, escape: Escape, bold: Escape, separator: str, missing: str
) -> tuple[list[str], list[list[list[str]]]]:
    """The header, and the rows in sections: measured, then one for each source."""
    costs = _costs(block)
    header = ["method", "from", "protocol", *(f"{escape(name)} (n={n})" for name, n in block.counts.items())]
    header += ["average"] * block.has_average + [escape(name) for name in costs]
    sections: dict[str, list[list[str]]] = {}

    def cell(line: Line, value: Cell | None) -> str:
        if value is None:
            return missing
        texts = [
            (bold if name in value.best else str)(f"{value.values[name]:.{METRICS[name]}f}")
            if name in value.values
            else missing
            for name in block.metrics
        ]
        text = separator.join(texts)
        if not value.comparable:
            text = f"({text})"
        return f"{text} {notes.mark(value.note)}".rstrip()

    for number, line in enumerate(block.lines):
        row = [escape(line.method), "measured" if line.measured else f"{escape(line.table)} {notes.mark(line.source)}"]
        row.append(escape(line.protocol or "not stated"))
        for setting, most in block.counts.items():
            value = line.cells.get(setting)
            text = cell(line, value)
            if value is not None and value.n is not None and value.n != most:
                text += f" (n={value.n})"
            if value is not None and value.failed:
                text += f" ({value.failed} failed)"
            row.append(text)
        if block.has_average:
            row.append(cell(line, line.average))
        row += [escape(texts[number]) or missing for texts in costs.values()]
        sections.setdefault("" if line.measured else line.source.split(";")[0], []).append(row)
    return header, list(sections.values())


def _where(cost: Cost) -> str:
    return f"{cost.size[0]}x{cost.size[1]}, {cost.device}, {cost.precision}"


def _place(block: Block) -> str:
    """What all costs were measured on, if it is the same."""
    places = {_where(line.cost) for line in block.lines if line.cost}
    return places.pop() if len(places) == 1 else ""


def _costs(block: Block) -> dict[str, list[str]]:
    """The cost columns that hold anything: by heading, the text of each line."""
    columns: dict[str, list[str]] = {name: [] for name in ("parameters", "GMACs", "peak MB", "seconds", "cost of")}
    for line in block.lines:
        cost = line.cost or Cost(None, None, (0, 0), None, None, "", "")
        columns["parameters"].append(line.parameters if cost.parameters is None else _count(cost.parameters))
        columns["GMACs"].append("" if cost.macs is None else f"{cost.macs / 1e9:.2f}")
        columns["peak MB"].append("" if cost.peak_mb is None else f"{cost.peak_mb:.0f}")
        columns["seconds"].append("" if cost.seconds is None else f"{cost.seconds:.3f}")
        columns["cost of"].append(_where(cost) if line.cost and not _place(block) else "")
    return {name: texts for name, texts in columns.items() if any(texts)}


def _count(number: int) -> str:
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return str(number)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay out a Markdown table whose columns line up in the raw text too.

    Args:
        header: Escaped texts.
        rows: Escaped texts, as many in each row.
        left: How many columns are flush left; the others are flush right.
    """
    widths = [max(3, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 2) if i < left else "-" * (width + 1) + ":" for i, width in enumerate(widths))
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])
