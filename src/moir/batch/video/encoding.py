"""Encoding segments, each a file of its own that can be joined to the others without encoding again."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from moir.base.files import atomic_path
from moir.batch.video.colour import range_of, to_frame
from moir.batch.video.opening import Facts, pyav

log = logging.getLogger(__name__)

# No frames out of order (B-frames, hidden frames): a segment then needs nothing of its neighbours, and its timestamps
# can be anything. Constant quality, high enough not to put back what was removed.
_OPTIONS = {
    "libx264": {"preset": "medium", "crf": "16", "bf": "0"},
    "libx265": {"preset": "medium", "crf": "18", "x265-params": "log-level=error:bframes=0"},
    "libvpx-vp9": {
        "crf": "20",
        "b": "0",
        "auto-alt-ref": "0",
        "lag-in-frames": "0",
        "deadline": "good",
        "cpu-used": "4",
    },
}


def encoder_of(facts: Facts, output: Path) -> tuple[str, str]:
    """Name of the encoder and of its pixel format: the source's codec and format where they can be written.

    VP9 in ``.webm`` and where the source is VP9, HEVC where it is, H.264 everywhere else.
    """
    webm = output.suffix.lower() == ".webm"
    name = "libvpx-vp9" if webm or facts.codec in ("vp9", "libvpx-vp9") else "libx264"
    if facts.codec == "hevc" and not webm:
        name = "libx265"
    known = {found.name for found in pyav().Codec(name, "w").video_formats}
    wanted = facts.pixel_format.replace("yuvj", "yuv")
    if wanted not in known:
        wanted = "yuv420p10le" if "10" in wanted or "12" in wanted or "16" in wanted else "yuv420p"
    if "420" in wanted and (facts.width % 2 or facts.height % 2):
        wanted = wanted.replace("420", "444")  # half the colours of an odd side are no whole number of pixels
    return name, wanted


def write_segment(path: Path, pictures: Iterable[tuple[int, int, torch.Tensor]], facts: Facts, output: Path) -> int:
    """Encode a segment; the file appears whole or not at all.

    Args:
        path: Of the segment, a ``.nut`` file: that container keeps any time base exactly.
        pictures: Timestamp, duration (0: unknown) and picture (3, H, W) of every frame, in units of the time base.
        facts: Of the source.
        output: The clip that this will be part of; its suffix bears on the codec.

    Returns:
        The number of frames written.
    """
    av = pyav()
    encoder, pixel_format = encoder_of(facts, output)
    count = 0
    with atomic_path(path, overwrite=True) as temporary, av.open(str(temporary), "w", format="nut") as container:
        stream = container.add_stream(encoder, rate=facts.rate, options=_OPTIONS[encoder])
        _describe(stream, facts, pixel_format)
        durations: dict[int, int] = {}
        for time, duration, rgb in pictures:
            frame = to_frame(rgb, facts, pixel_format)
            frame.pts, frame.time_base = time, facts.time_base
            durations[time] = duration
            for packet in stream.encode(frame):
                _mux(container, packet, durations, facts)
            count += 1
        for packet in stream.encode(None):
            _mux(container, packet, durations, facts)
    return count


def _describe(stream: Any, facts: Facts, pixel_format: str) -> None:
    context = stream.codec_context
    stream.width, stream.height, stream.pix_fmt = facts.width, facts.height, pixel_format
    context.time_base = stream.time_base = facts.time_base
    context.gop_size = 120
    context.thread_count = max(1, torch.get_num_threads())
    if context.name != "libvpx-vp9":
        context.max_b_frames = 0
    context.color_primaries, context.color_trc, context.colorspace = facts.primaries, facts.transfer, facts.matrix
    context.color_range = range_of(facts) if facts.pixel_format.startswith("yuvj") else facts.range
    if facts.aspect is not None:
        context.sample_aspect_ratio = facts.aspect


def _mux(container: Any, packet: Any, durations: dict[int, int], facts: Facts) -> None:
    if packet.time_base == facts.time_base and packet.pts in durations:
        packet.duration = durations.pop(packet.pts) or packet.duration
    container.mux(packet)
