"""Random fields and convolutions that several degradations share."""

import math

import torch
import torch.nn.functional as F


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """A generator on the device. The same seed gives the same field on one kind of device, another on another kind."""
    return torch.Generator(device=device).manual_seed(seed)


def smooth_field(
    height: int, width: int, generator: torch.Generator, cells: float = 3.0, octaves: int = 3
) -> torch.Tensor:
    """A smooth random field in [0, 1]: value noise, each octave twice as fine and half as strong.

    Args:
        height, width: Size in pixels.
        generator: Source of randomness; the field lies on its device.
        cells: Cells of the coarsest octave along the longer side.
        octaves: How many octaves are added.

    Returns:
        (H, W), smallest value 0 and largest 1 (a constant 0.5 for one pixel).
    """
    field = torch.zeros(height, width, device=generator.device)
    longer = max(height, width)
    for octave in range(octaves):
        step = cells * 2**octave
        rows, columns = (max(2, math.ceil(step * side / longer) + 1) for side in (height, width))
        grid = torch.rand(1, 1, rows, columns, generator=generator, device=generator.device)
        layer = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=True)
        field += layer[0, 0] * 0.5**octave
    low, high = field.min(), field.max()
    return torch.full_like(field, 0.5) if high - low < 1e-8 else (field - low) / (high - low)


def convolve(images: torch.Tensor, kernels: torch.Tensor, *, reflect: bool) -> torch.Tensor:
    """Convolve each picture with its own kernel, by FFT (kernels here are large and differ from picture to picture).

    Args:
        images: (B, C, H, W).
        kernels: (B, K, K), K odd.
        reflect: Mirror the picture at its border (photographs); otherwise zeros lie outside (sparse maps).

    Returns:
        (B, C, H, W), the "same" part of the convolution.
    """
    height, width = images.shape[-2:]
    radius = kernels.shape[-1] // 2
    if reflect:
        padded = images[..., _mirrored(height, radius, images.device), :][..., _mirrored(width, radius, images.device)]
    else:
        padded = F.pad(images, (radius, radius, radius, radius))
    size = tuple(_fast_length(side) for side in padded.shape[-2:])
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(kernels[:, None], s=size)
    full = torch.fft.irfft2(spectrum, s=size)
    # Circular convolution shifts by the kernel's corner; the valid part begins at 2 * radius.
    return full[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def _mirrored(side: int, radius: int, device: torch.device) -> torch.Tensor:
    """Indices -radius .. side + radius, mirrored at both borders, as often as it takes on tiny pictures."""
    period = max(2 * (side - 1), 1)
    index = torch.arange(-radius, side + radius, device=device).remainder(period)
    return torch.minimum(index, period - index)


def _fast_length(length: int) -> int:
    """The next length with no prime factor above 5: FFTs of prime lengths take several times as long."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def line_kernel(
    length: float, width: float, angle: float, device: torch.device, size: int | None = None
) -> torch.Tensor:
    """An anti-aliased straight line with a Gaussian profile across, not normalised (peak about 1).

    Args:
        length: Length in pixels.
        width: Standard deviation of the profile across, in pixels.
        angle: Tilt from the vertical in degrees, positive leaning to the right at the top.
        device: Where the kernel lies.
        size: Odd side of the kernel; None: as large as needed.

    Returns:
        (K, K).
    """
    radius = size // 2 if size is not None else math.ceil(length / 2 + 3 * width + 1)
    axis = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    tilt = math.radians(angle)
    along = -y * math.cos(tilt) + x * math.sin(tilt)
    across = y * math.sin(tilt) + x * math.cos(tilt)
    inside = (length / 2 + 0.5 - along.abs()).clamp(0, 1)
    return inside * torch.exp(-0.5 * (across / max(width, 0.3)) ** 2)


def gaussian_kernel(
    sigma: float, device: torch.device, sigma2: float | None = None, angle: float = 0.0
) -> torch.Tensor:
    """A normalised Gaussian, round or elongated.

    Args:
        sigma: Standard deviation along the first axis, pixels.
        device: Where the kernel lies.
        sigma2: Standard deviation along the second axis; None: round.
        angle: Rotation of the axes in degrees.

    Returns:
        (K, K), sum 1.
    """
    other = sigma if sigma2 is None else sigma2
    radius = max(1, math.ceil(3 * max(sigma, other)))
    axis = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    turn = math.radians(angle)
    u, v = x * math.cos(turn) + y * math.sin(turn), -x * math.sin(turn) + y * math.cos(turn)
    kernel = torch.exp(-0.5 * ((u / sigma) ** 2 + (v / other) ** 2))
    return kernel / kernel.sum()


def stack_kernels(kernels: list[torch.Tensor]) -> torch.Tensor:
    """Centre kernels of different odd sizes in one (B, K, K) tensor."""
    side = max(kernel.shape[-1] for kernel in kernels)
    return torch.stack([F.pad(k, ((side - k.shape[-1]) // 2,) * 4) for k in kernels])


def column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    """One number per picture, shaped (B, 1, 1, 1) to act on a batch."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None, None]
