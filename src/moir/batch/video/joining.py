"""Joining segments, and the other streams of the source, into the finished clip: packets are copied, not decoded."""

import heapq
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moir.base.errors import PictureFormatError
from moir.batch.video.opening import Facts, opened, pyav

log = logging.getLogger(__name__)

COPIED = ("audio", "subtitle")


def join(segments: Sequence[Path], source: Path, facts: Facts, target: Path) -> list[str]:
    """Write the clip.

    Audio and subtitles are copied bit for bit with their timestamps, as are the title and other tags of the container,
    its chapters, and the rotation. Only the packets of a moment are in memory.

    Args:
        segments: From :func:`moir.batch.video.encoding.write_segment`, in order.
        source: The clip that was restored.
        facts: Of its video stream.
        target: Where to; the suffix decides the container.

    Returns:
        What could not be kept, in words.

    Raises:
        PictureFormatError: The container cannot hold the source's audio.
    """
    av = pyav()
    lost: list[str] = []
    options = {}
    if target.suffix.lower() in (".mp4", ".m4v", ".mov"):
        options["movflags"] = "+faststart"
        if facts.time_base.numerator == 1:
            options["video_track_timescale"] = str(facts.time_base.denominator)
    with opened(source) as original, av.open(str(target), "w", options=options) as container:
        container.metadata.update(original.metadata)
        for name in ("major_brand", "minor_version", "compatible_brands", "encoder"):
            container.metadata.pop(name, None)
        with av.open(str(segments[0])) as first:
            video = container.add_stream_from_template(first.streams.video[0])
        video.time_base = facts.time_base
        before = original.streams.video[0]
        video.metadata.update({k: v for k, v in before.metadata.items() if k in ("language", "title", "handler_name")})
        if facts.display_matrix is not None:
            video.set_display_matrix(facts.display_matrix)
        copied = {}
        for stream in original.streams:
            if stream.type in COPIED:
                try:
                    copied[stream.index] = container.add_stream_from_template(stream)
                    copied[stream.index].metadata.update(stream.metadata)
                except (ValueError, av.error.FFmpegError) as error:
                    what = f"{stream.type} stream {stream.index}"
                    if stream.type == "audio":
                        raise PictureFormatError(
                            f"{target.suffix} cannot hold the {what} of {source} ({error}); give an --output that "
                            "ends in .mkv"
                        ) from error
                    lost.append(what)
            elif stream.index != before.index:
                lost.append(f"{stream.type} stream {stream.index}")
        chapters = original.chapters()
        if chapters:
            container.set_chapters(chapters)
        container.start_encoding()
        kept = [original.streams[index] for index in copied]
        ways = [_pictures(segments, video)]
        if kept:
            ways.append(_others(original, kept, copied))
        for _, _, packet in heapq.merge(*ways, key=lambda item: item[:2]):
            container.mux(packet)
    if lost:
        log.warning("%s: left out, since they cannot be kept: %s", source, ", ".join(lost))
    return lost


def _pictures(segments: Sequence[Path], stream: Any) -> Iterator[tuple[float, int, Any]]:
    for path in segments:
        with pyav().open(str(path)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.dts is None:
                    continue
                packet.dts = packet.pts  # without reordering they are one; a decoder of the container may guess else
                time = float(packet.pts * packet.time_base)
                packet.stream = stream
                yield time, 0, packet


def _others(container: Any, streams: Sequence[Any], targets: dict[int, Any]) -> Iterator[tuple[float, int, Any]]:
    for packet in container.demux(*streams):
        if packet.dts is None:
            continue
        time = float(packet.dts * packet.time_base)
        packet.stream = targets[packet.stream_index]
        yield time, 1, packet
