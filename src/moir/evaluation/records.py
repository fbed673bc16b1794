"""What an evaluation found: one score per picture, one summary per setting, one account of the whole run."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ImageScore:
    """One picture under one protocol.

    Attributes:
        setting: Name of the benchmark or setting.
        image: Name of the picture, unique in its setting.
        width, height: Of the pictures that were compared, before the protocol's crop, pixels.
        metrics: By name: ``psnr`` (dB) and ``ssim`` of the prediction, ``input_psnr`` of the input where there is one
            of the target's size, ``lpips`` if it was asked for. Empty if the picture failed.
        seconds: Time to restore it; None for pictures restored elsewhere.
        error: Why it could not be scored; None if it was.
    """

    setting: str
    image: str
    width: int
    height: int
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Cost:
    """What a method costs.

    Attributes:
        parameters: Trained numbers; None if the method has none to count.
        macs: Multiply-accumulates for one picture of ``size``; None if they cannot be counted.
        size: Height and width of the picture that MACs, memory and seconds are of, pixels.
        peak_mb: Memory above what was held before the picture came, MB; None if not measured.
        seconds: Median time for that picture; None if not measured.
        device: Where it was measured, e.g. ``cpu``.
        precision: Of the arithmetic, e.g. ``bf16``.
    """

    parameters: int | None
    macs: int | None
    size: tuple[int, int]
    peak_mb: float | None
    seconds: float | None
    device: str
    precision: str


@dataclass(frozen=True)
class Summary:
    """The mean over the pictures of one setting.

    Attributes:
        setting: Name of the benchmark or setting.
        n: Pictures that were scored, which the means are over.
        failed: Pictures that were not (missing, broken, not finite); they are listed in the CSV.
        means: By metric.
        intervals: By metric: the 95% confidence interval of the mean over pictures (bootstrap); absent for n < 2.
        source: The data set or folder that the pictures come from.
        made: The damage that was made here, in words (``noise:gaussian=25``, ``H-R=inside``); None if the inputs came
            with the set.
        limited: Fewer pictures were asked for than there are (a limit, or pictures left out by name).
        error: Why the setting could not be run at all (a data set that is missing); then n and failed are 0.
    """

    setting: str
    n: int
    failed: int
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    source: str = ""
    made: str | None = None
    limited: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """One method on any number of settings, under one protocol.

    Attributes:
        method: Name of the model, baseline, or of the program that made the predictions.
        protocol: Name of the protocol.
        summaries: In the order the settings were asked for.
        images: Every picture's score.
        cost: What the method costs; None for predictions.
        provenance: How it came about: versions, seeds, options, and the SHA-256 of every file that was read.
    """

    method: str
    protocol: str
    summaries: tuple[Summary, ...]
    images: tuple[ImageScore, ...]
    cost: Cost | None
    provenance: dict[str, Any]
