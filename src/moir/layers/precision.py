"""Steps that need more than half precision: statistics, norms, Fourier transforms, routing."""

import torch


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Raise bfloat16 and float16 to float32; leave float32 and float64 as they are.

    Args:
        x: Any shape, floating point.

    Returns:
        ``x`` itself, or a float32 copy.
    """
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
