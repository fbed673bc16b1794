"""Clips: restored shot by shot, with everything else of the file kept. Needs the extra ``video`` (PyAV)."""

from moir.batch.video.clip import restore_clip, restore_clips
from moir.batch.video.flicker import flicker
from moir.batch.video.shots import CutDetector

__all__ = ["CutDetector", "flicker", "restore_clip", "restore_clips"]
