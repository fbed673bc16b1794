"""Opening clips: PyAV where it is installed, what a video stream says of itself, and frames from any time on."""

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from moir.base.errors import (
    PictureCorruptError,
    PictureFormatError,
    PictureNotFoundError,
)
from moir.base.extras import needs_extra

log = logging.getLogger(__name__)

UNSPECIFIED = 2
"""H.273's code for primaries, transfer and matrix that the file does not name."""


def pyav() -> Any:
    """The module ``av``.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs_extra("video", "clips need PyAV"):
        import av
    return av


@dataclass(frozen=True)
class Facts:
    """What a video stream says of itself, all of which the result keeps.

    Attributes:
        codec: FFmpeg's name, ``h264``, ``hevc``, ``vp9``, ...
        width, height: Of the stored frames, before rotation, pixels.
        pixel_format: FFmpeg's name, ``yuv420p``, ...
        time_base: Seconds per unit of the timestamps.
        rate: Mean frames per second.
        aspect: Width over height of a pixel; None: not said.
        primaries, transfer, matrix, range: H.273 codes; 2: not said (range: 0 not said, 1 limited, 2 full).
        display_matrix: Nine numbers that rotate or mirror the frames when shown; None: shown as stored.
    """

    codec: str
    width: int
    height: int
    pixel_format: str
    time_base: Fraction
    rate: Fraction
    aspect: Fraction | None
    primaries: int
    transfer: int
    matrix: int
    range: int
    display_matrix: tuple[int, ...] | None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a clip for reading.

    Raises:
        PictureNotFoundError: There is no such file.
        PictureFormatError: Not a clip that FFmpeg reads, or without a video stream.
        PictureCorruptError: The file is damaged.
    """
    av = pyav()
    if not path.is_file():
        raise PictureNotFoundError(f"{path} does not exist or is no file; check the name and the folder")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise PictureFormatError(f"{path} has no video stream; there is nothing to restore in it")
            yield container
    except (av.error.FFmpegError, EOFError) as error:
        kind = PictureFormatError if isinstance(error, av.error.InvalidDataError) else PictureCorruptError
        raise kind(f"{path} cannot be read as a clip: {error}; try to play it, or get it from its source again") from (
            error
        )


def frames(container: Any, start: int | None = None) -> Iterator[Any]:
    """The frames of the first video stream in order of time, from timestamp ``start`` on.

    Every frame has a timestamp, larger than that of the one before (a decoder that repeats one loses that frame: no
    file could hold both).
    """
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    if start is not None:
        container.seek(start, stream=stream, backward=True, any_frame=False)
    last: int | None = None
    step = max(1, round(1 / (float(stream.average_rate or 25) * float(stream.time_base))))
    for frame in container.decode(stream):
        if frame.pts is None:  # some old files have none; they are evenly spaced
            frame.pts = 0 if last is None else last + step
        if last is not None and frame.pts <= last:
            log.warning("a frame repeats the time %s and is left out", frame.time)
            continue
        last = frame.pts
        if start is None or frame.pts >= start:
            yield frame


def facts_of(container: Any, frame: Any) -> Facts:
    """What the first video stream says of itself; the frame is its first."""
    stream = container.streams.video[0]
    context = stream.codec_context
    aspect = stream.sample_aspect_ratio
    return Facts(
        codec=context.name,
        width=frame.width,
        height=frame.height,
        pixel_format=frame.format.name,
        time_base=stream.time_base,
        rate=Fraction(stream.average_rate or stream.guessed_rate or 25),
        aspect=Fraction(aspect) if aspect else None,
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        range=int(frame.color_range),
        display_matrix=_display_matrix(frame),
    )


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", bytes(data)[:36])
