"""Which device, and which precision on it."""

import logging

import torch

from moir.base.errors import DeviceError
from moir.base.names import check_name

log = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """The device to run on.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ...; None or ``auto``: CUDA, or MPS, or the CPU.

    Raises:
        DeviceError: No such device here.
    """
    if name in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(str(name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"device {name!r} is not available here ({reason}); use 'cpu' or 'auto'") from error
    return device


def choose_precision(name: str | None, device: torch.device) -> torch.dtype:
    """The precision of the arithmetic; pictures, estimates and results stay float32.

    Args:
        name: ``float32``, ``bf16``, ``fp16``; None or ``auto``: bf16 where the processor has instructions for it
            (AMX or AVX-512 BF16; CUDA from Ampere on), float32 elsewhere, where bf16 would be slower.
        device: Where it will run.

    Raises:
        UnknownNameError: Not a precision.
        DeviceError: fp16 on a CPU, which would be slow and overflow.
    """
    if name in (None, "auto"):
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    precision = PRECISIONS[check_name(str(name), PRECISIONS, "precision")]
    if precision is torch.float16 and device.type == "cpu":
        raise DeviceError("precision 'fp16' is for GPUs; on a CPU use 'bf16' or 'float32'")
    return precision


def mixed_precision(name: str, device: torch.device) -> str:
    """What accelerate calls the precision of training: ``no`` (float32), ``bf16`` or ``fp16``.

    Args:
        name: One of these, or ``auto``: bf16 where the processor has instructions for it, float32 elsewhere, where bf16
            would take up to a hundred times as long.
        device: Where it will train.
    """
    if name != "auto":
        return name
    return "bf16" if has_fast_bf16(device) else "no"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the processor computes in bf16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # These two probes are private in torch, but the only ones there are across 2.6 to 2.13.
        probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(probe() for probe in probes if probe is not None)
    return False
