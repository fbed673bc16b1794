"""The long table: every method on every setting with confidence intervals, and everything that failed."""

from collections.abc import Sequence

from moir.evaluation.records import Evaluation, ImageScore, Summary
from moir.evaluation.report.intervals import mean_interval
from moir.evaluation.report.lines import METRICS
from moir.evaluation.report.tables import NAMES, escape_markdown, markdown_table

MISSING = "–"


def long_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Return means with 95% confidence intervals as Markdown, one row per method and setting.

    The gain is that of the prediction over the input, picture by picture, so its interval is that of paired
    differences: much narrower than the difference of two intervals of PSNR.
    """
    parts = [
        "# Confidence intervals",
        "In square brackets: the 95% interval of the mean over pictures (bootstrap, 10,000 resamples). Gain: PSNR over"
        " that of the input, dB.",
    ]
    for protocol in dict.fromkeys(one.protocol for one in evaluations):
        here = [one for one in evaluations if one.protocol == protocol]
        shown = [name for name in METRICS if any(name in s.means for one in here for s in one.summaries)]
        header = ["setting", "method", "n", "failed", "gain", *(NAMES[name] for name in shown)]
        rows = [
            _row(one, summary, shown)
            for setting in dict.fromkeys(s.setting for one in here for s in one.summaries)
            for one in here
            for summary in one.summaries
            if summary.setting == setting and summary.error is None
        ]
        parts += [f"## Protocol {escape_markdown(protocol)}", markdown_table(header, rows, left=2)]
    missing = [
        f"- {escape_markdown(f'{one.method}, {one.protocol}, {summary.setting}: {summary.error}')}"
        for one in evaluations
        for summary in one.summaries
        if summary.error is not None
    ]
    if missing:
        parts += ["# Settings that could not be run", "\n".join(missing)]
    failed = [
        f"- {escape_markdown(f'{one.method}, {one.protocol}, {score.setting}, {score.image}: {score.error}')}"
        for one in evaluations
        for score in one.images
        if score.error is not None
    ]
    if failed:
        parts += ["# Pictures that failed", "They are in none of the means above.", "\n".join(failed)]
    return "\n\n".join(parts) + "\n"


def gains(images: Sequence[ImageScore]) -> list[float]:
    """Return PSNR over that of the input, dB, of every picture that has both."""
    both = [score.metrics for score in images if {"psnr", "input_psnr"} <= score.metrics.keys()]
    return [metrics["psnr"] - metrics["input_psnr"] for metrics in both]


def _row(one: Evaluation, summary: Summary, shown: Sequence[str]) -> list[str]:
    gained = gains([score for score in one.images if score.setting == summary.setting])
    try:
        interval = mean_interval(gained)
    except ValueError:  # fewer than two, or infinite because a picture is equal to its target
        interval = None
    gain = f"{sum(gained) / len(gained):+.2f}" if gained else MISSING
    if gained and interval:
        gain += f" [{interval[0]:+.2f}, {interval[1]:+.2f}]"
    texts = []
    for name in shown:
        text = f"{summary.means[name]:.{METRICS[name] + 1}f}" if name in summary.means else MISSING
        if name in summary.means and name in summary.intervals:
            low, high = summary.intervals[name]
            text += f" [{low:.{METRICS[name] + 1}f}, {high:.{METRICS[name] + 1}f}]"
        texts.append(text)
    start = [escape_markdown(summary.setting), escape_markdown(one.method), str(summary.n), str(summary.failed)]
    return [*start, gain, *texts]
