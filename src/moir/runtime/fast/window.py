"""Circular convolution inside small windows, on channels-last maps: a matrix product or a Fourier transform."""

from functools import lru_cache

import torch
import torch.nn.functional as F

LARGEST_PRODUCT = 8
"""Largest window, pixels, whose transform is a matrix product; beyond it the fast Fourier transform is faster."""


def circular_convolution(q: torch.Tensor, k: torch.Tensor, window: int) -> torch.Tensor:
    """Convolve ``q`` with ``k``, circularly, inside non-overlapping windows; in float32 whatever the input's precision.

    The same as :func:`moir.networks.moce_ir_expert.window_circular_convolution`, in another memory format.

    Args:
        q: (1, C, H, W), channels last; padded with zeros at the bottom and right to whole windows.
        k: (1, C, H, W), likewise.
        window: Side of a window, in pixels.

    Returns:
        (1, C, H, W), channels last, in the precision of ``q``.
    """
    height, width = q.shape[-2:]
    bottom, right = -height % window, -width % window
    rows, columns = (height + bottom) // window, (width + right) // window

    def windows(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x.permute(0, 2, 3, 1)[0].float(), (0, 0, 0, right, 0, bottom))
        return x.view(rows, window, columns, window, -1)

    convolve = _by_product if window <= LARGEST_PRODUCT else _by_fft
    mixed = convolve(windows(q), windows(k)).reshape(1, height + bottom, width + right, -1)
    return mixed[:, :height, :width].to(q.dtype).contiguous().permute(0, 3, 1, 2)


def _by_fft(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    window = q.shape[1]
    spectrum = torch.fft.rfft2(q, dim=(1, 3)).mul_(torch.fft.rfft2(k, dim=(1, 3)))
    return torch.fft.irfft2(spectrum, s=(window, window), dim=(1, 3))


def _by_product(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The two-dimensional transform of a whole window as one real matrix: of 4x4 pixels, (24, 16)."""
    rows, window, columns, _, channels = q.shape
    forward, backward = _transform(window)
    half = len(forward) // 2

    def spectrum(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = forward @ x.permute(1, 3, 0, 2, 4).reshape(window * window, -1)
        return parts[:half], parts[half:]

    (q_real, q_imag), (k_real, k_imag) = spectrum(q), spectrum(k)
    product = torch.cat([q_real * k_real - q_imag * k_imag, q_real * k_imag + q_imag * k_real])
    mixed = (backward @ product).view(window, window, rows, columns, channels)
    return mixed.permute(2, 0, 3, 1, 4)


@lru_cache
def _transform(window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices from a window's pixels to its half spectrum (real parts above imaginary ones), and back."""
    pixels = torch.eye(window * window, dtype=torch.float64).view(-1, window, window)
    spectra = torch.fft.rfft2(pixels)
    forward = torch.cat([spectra.real.flatten(1), spectra.imag.flatten(1)], dim=1).t()
    half = len(forward) // 2
    parts = torch.eye(2 * half, dtype=torch.float64)
    basis = torch.complex(parts[:, :half], parts[:, half:]).view(-1, *spectra.shape[1:])
    backward = torch.fft.irfft2(basis, s=(window, window)).flatten(1).t()
    return forward.float().contiguous(), backward.float().contiguous()
