"""How large a tile may be: a measured memory model, and how much memory there is."""

import logging
import os

import torch

log = logging.getLogger(__name__)

BYTES_PER_PIXEL = 6000
"""Assumed peak memory per pixel of a tile for a network whose card gives no measurement."""

BUDGET = 512 * 2**20
"""Memory that tiles may take on a CPU, bytes. Larger tiles gain little: most of the overlap is saved well before."""

SMALLEST_TILE = 128
"""Below this no smaller tile is tried when memory runs out."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on the device now; None if it cannot be told."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        with open("/proc/meminfo") as file:  # noqa: PTH123 - a kernel file, not a path of the user
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError):
        return None


def tile_side(device: torch.device, bytes_per_pixel: float, overlap: int, multiple: int) -> int:
    """The side of a tile that fits into memory, a multiple of ``multiple``.

    On a CPU tiles take at most :data:`BUDGET` and a quarter of what is free; on a GPU 60% of what is free.
    """
    free = free_memory(device)
    if device.type == "cpu":
        budget = BUDGET if free is None else min(BUDGET, free // 4)
    else:
        budget = BUDGET if free is None else int(free * 0.6)
    side = int((budget / bytes_per_pixel) ** 0.5)
    smallest = max(SMALLEST_TILE, 2 * overlap + multiple)
    return max(smallest, side) // multiple * multiple


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out (CUDA, MPS and CPU say it differently)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
