"""What will be done to a clip: its shots, cut into segments that are finished one by one."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from moir.base.files import write_text
from moir.batch.video.opening import Facts, facts_of, frames, opened
from moir.batch.video.shots import CutDetector, small_of

LONGEST = 240
"""Frames of a segment: what a kill can cost, and how often an encoder begins anew within a long shot."""


@dataclass(frozen=True)
class Shot:
    """One shot.

    Attributes:
        samples: Timestamps of the frames that decide its routing, spread evenly.
        frames: How many it has.
    """

    samples: tuple[int, ...]
    frames: int


@dataclass(frozen=True)
class Segment:
    """Consecutive frames of one shot.

    Attributes:
        shot: Number of the shot.
        start: Timestamp of the first frame.
        frames: How many.
    """

    shot: int
    start: int
    frames: int


@dataclass(frozen=True)
class Plan:
    """A clip's shots and segments, and what its video stream says of itself."""

    facts: Facts
    shots: tuple[Shot, ...]
    segments: tuple[Segment, ...]

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return sum(shot.frames for shot in self.shots)


SAMPLES = 5
"""Frames of a shot that are looked at to decide its routing."""


def make_plan(source: Path, on_frame: Callable[[int], None] | None = None) -> Plan:
    """Read a clip once, to find its cuts. Memory does not depend on its length, but for 8 bytes per frame.

    Args:
        source: The clip.
        on_frame: Called with the number of frames read.

    Raises:
        PictureError: See :func:`moir.batch.video.opening.opened`; also a clip without frames.
    """
    from moir.base.errors import PictureCorruptError

    detector = CutDetector()
    cuts: list[int] = [0]
    times: list[int] = []
    facts: Facts | None = None
    with opened(source) as container:
        for frame in frames(container):
            facts = facts or facts_of(container, frame)
            times.append(frame.pts)
            cut = detector.push(small_of(frame))
            if cut is not None:
                cuts.append(cut)
            if on_frame is not None:
                on_frame(len(times))
    if facts is None:
        raise PictureCorruptError(f"{source} has a video stream without a frame; get it from its source again")
    last = detector.finish()
    if last is not None:
        cuts.append(last)
    shots, segments = [], []
    for number, (begin, end) in enumerate(zip(cuts, [*cuts[1:], len(times)], strict=True)):
        count = min(SAMPLES, end - begin)
        places = {begin + (end - begin) * (2 * i + 1) // (2 * count) for i in range(count)}
        shots.append(Shot(tuple(times[i] for i in sorted(places)), end - begin))
        segments += [Segment(number, times[i], min(LONGEST, end - i)) for i in range(begin, end, LONGEST)]
    return Plan(facts, tuple(shots), tuple(segments))


def save_plan(plan: Plan, path: Path, key: str, input_stat: tuple[int, int]) -> None:
    """Write a plan with what it depends on."""
    facts = {name: str(v) if isinstance(v, Fraction) else v for name, v in asdict(plan.facts).items()}
    content = {
        "key": key,
        "input_stat": input_stat,
        "facts": facts,
        "shots": [asdict(shot) for shot in plan.shots],
        "segments": [asdict(segment) for segment in plan.segments],
    }
    write_text(path, json.dumps(content) + "\n", overwrite=True)


def load_plan(path: Path, key: str, input_stat: tuple[int, int]) -> Plan | None:
    """Read a plan again; None if there is none, or it is of another clip or of other settings."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if content["key"] != key or tuple(content["input_stat"]) != input_stat:
            return None
        facts = content["facts"]
        for name in ("time_base", "rate", "aspect"):
            facts[name] = None if facts[name] is None else Fraction(facts[name])
        facts["display_matrix"] = None if facts["display_matrix"] is None else tuple(facts["display_matrix"])
        shots = tuple(Shot(tuple(s["samples"]), s["frames"]) for s in content["shots"])
        return Plan(Facts(**facts), shots, tuple(Segment(**segment) for segment in content["segments"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
