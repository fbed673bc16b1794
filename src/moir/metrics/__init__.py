"""Image quality: PSNR, SSIM in its published forms, MATLAB's luminance, and LPIPS (extra ``perceptual``)."""

from moir.metrics.lpips import lpips
from moir.metrics.luminance import luminance
from moir.metrics.psnr import psnr
from moir.metrics.ssim import SsimForm, ssim

__all__ = ["SsimForm", "lpips", "luminance", "psnr", "ssim"]
