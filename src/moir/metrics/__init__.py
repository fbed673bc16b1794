"""Image quality: PSNR (more metrics, with their published variants, join here)."""

from moir.metrics.psnr import psnr

__all__ = ["psnr"]
