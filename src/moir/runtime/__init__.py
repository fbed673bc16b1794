"""Running a network on pictures of any size: device, precision, memory, tiles."""

from moir.runtime.device import choose_device, choose_precision
from moir.runtime.engine import Engine

__all__ = ["Engine", "choose_device", "choose_precision"]
