"""One network on one device: analyse whole pictures once, restore them tile by tile."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.networks.base import Context, RestorationNetwork, check_pictures
from moir.runtime.device import choose_device, choose_precision
from moir.runtime.fast import accelerate
from moir.runtime.graphs import GraphRunner
from moir.runtime.memory import BYTES_PER_PIXEL, SMALLEST_TILE, free_memory, is_out_of_memory, tile_side
from moir.runtime.pipeline import TilePipeline, tiles_at_once
from moir.runtime.sample import mosaic
from moir.runtime.tiling import plan

log = logging.getLogger(__name__)

TOLERANCE = 45.0
"""PSNR in dB that a half precision must reach against float32 on a test picture, or float32 is used."""

EngineName = Literal["auto", "plain", "fast", "graphs"]

Progress = Callable[[int, int], None]
"""Called with tiles done and all tiles."""


@dataclass(frozen=True)
class Output:
    """What the engine returns.

    Attributes:
        pictures: (B, 3, s H, s W), float32, on the CPU, in [0, 1]; s is the network's scale.
        tiles: Into how many tiles they were cut.
        context: What was decided about them.
    """

    pictures: torch.Tensor
    tiles: int
    context: Context


class Engine:
    """Runs a network.

    Args:
        network: The network; it is moved to the device, set to evaluation and laid out channels-last.
        device: See :func:`moir.runtime.device.choose_device`.
        precision: See :func:`moir.runtime.device.choose_precision`. With ``auto`` a half precision is checked once
            against float32 on a small test picture, and given up if they differ by more than :data:`TOLERANCE`.
        tile: Side of a tile in pixels; ``auto``: from free memory; None: never tile.
        bytes_per_pixel: Measured peak memory per pixel of a tile (the card's), for ``auto``.
        engine: ``plain``: the network as it is defined. ``fast``: its fast twin (:mod:`moir.runtime.fast`), which
            gives the same on a CPU in less time; it has the weights as they are now. ``graphs``: the network as it is
            defined, recorded as CUDA graphs (:mod:`moir.runtime.graphs`), which pays where many tiles of one size
            follow each other. ``auto``: the twin, where there is one.

    Raises:
        DeviceError, UnknownNameError: The device, precision or engine is not to be had.
        InvalidValueError: The tile is too small for the network's overlap; there is no fast twin and ``engine`` is
            ``fast``; or it is ``graphs``, and the device is not CUDA's.
    """

    def __init__(
        self,
        network: RestorationNetwork,
        device: str | None = None,
        precision: str | None = None,
        tile: int | str | None = "auto",
        bytes_per_pixel: float | None = None,
        engine: EngineName = "auto",
    ) -> None:
        check_name(engine, get_args(EngineName), "engine")
        self.device = choose_device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):  # other tensors may have five dimensions
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bytes_per_pixel = bytes_per_pixel or BYTES_PER_PIXEL
        self.tile = self._check_tile(tile)
        self.dtype = choose_precision(precision, self.device)
        self._twins: dict[torch.dtype, RestorationNetwork | None] = {}
        self._fast = engine in ("auto", "fast") and self._twin(self.dtype) is not None
        if engine == "fast" and not self._fast:
            raise InvalidValueError(
                f"{type(network).__name__} has no fast twin on {self.device.type} in {self.precision}; "
                "use the engine 'auto' or 'plain'"
            )
        if engine == "graphs" and self.device.type != "cuda":
            raise InvalidValueError(
                f"the engine 'graphs' records CUDA graphs, and the device is {self.device.type}; use 'auto'"
            )
        self._graphs = GraphRunner(self._forward) if engine == "graphs" else None
        if precision in (None, "auto") and self.dtype is not torch.float32 and not self._holds():
            self.dtype = torch.float32

    @property
    def precision(self) -> str:
        """The precision in use: ``float32``, ``bf16`` or ``fp16``."""
        return {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    @torch.inference_mode()
    def analyse(self, pictures: torch.Tensor, types: Sequence[str] | None = None) -> Context:
        """The one decision for each picture, shared by its tiles; always in float32.

        A network whose analysis runs over every pixel sees a picture that is larger than a tile shrunk to the size of
        one, unless ``tile`` is None, which asks for the exact decision whatever it costs.

        Args:
            pictures: (B, 3, H, W), float32, [0, 1].
            types: Damage that shall be removed, and no other; None: whatever is found.

        Raises:
            InvalidValueError: The network cannot be told what to remove.
        """
        check_pictures(pictures)
        if not self.network.bounded_analysis and self.tile is not None:
            side = self._side() if self.tile == "auto" else int(self.tile)
            height, width = pictures.shape[-2:]
            if height * width > side**2:
                scale = side / (height * width) ** 0.5
                size = (max(1, round(height * scale)), max(1, round(width * scale)))
                log.info("analysed at %dx%d instead of %dx%d px", size[1], size[0], width, height)
                pictures = F.interpolate(pictures, size=size, mode="bilinear", antialias=True)
        pictures = pictures.to(self.device)
        # A decision that runs the network is as costly as restoring; one that does not is the network's own.
        costly = self._fast and not self.network.bounded_analysis
        context = ((self._twin(torch.float32) if costly else None) or self.network).analyse(pictures)
        if types is not None:
            context = self.network.prepare(pictures, self.network.instruct(context, types))
        return context

    @torch.inference_mode()
    def restore(
        self,
        pictures: torch.Tensor,
        context: Context | None = None,
        on_tile: Progress | None = None,
        types: Sequence[str] | None = None,
    ) -> Output:
        """Restore pictures of one size.

        When memory runs out, the tile is halved and the work begun again, down to :data:`SMALLEST_TILE`.

        Args:
            pictures: (B, 3, H, W), float32, [0, 1].
            context: From :meth:`analyse`, for these pictures. None: decided here. That saves a pass where the network
                decides while it restores (MoCE-IR, PromptIR) and the picture is one tile; such decisions are then made
                in the precision that restores.
            on_tile: Called after every tile.
            types: See :meth:`analyse`; only without a context.

        Raises:
            InvalidValueError: The network cannot be told what to remove.
        """
        check_pictures(pictures)
        if context is None and (types is not None or self.network.bounded_analysis):
            context = self.analyse(pictures, types)
        tile = self._side() if self.tile == "auto" else self.tile
        assert tile is None or isinstance(tile, int)
        while True:
            try:
                return self._restore(pictures, context, tile, on_tile)
            except Exception as error:
                smaller = self._smaller(tile, max(pictures.shape[-2:]))
                if not is_out_of_memory(error) or smaller is None:
                    raise
                log.warning("memory ran out with tiles of %s px; trying again with %d px", tile or "any", smaller)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            tile = smaller
            if self.tile == "auto":
                # The model was too hopeful here; later pictures profit from what was learnt.
                self.bytes_per_pixel *= 4

    def _restore(
        self, pictures: torch.Tensor, context: Context | None, tile: int | None, on_tile: Progress | None
    ) -> Output:
        height, width = pictures.shape[-2:]
        division = plan(height, width, tile, self.network.overlap, self.network.size_multiple)
        if context is None and division.count == 1 and self._graphs is None:
            restored, context = self._restore_whole(pictures)
            if on_tile is not None:
                on_tile(1, 1)
            return Output(restored.clamp_(0, 1), 1, context)
        if context is None:
            context = self.analyse(pictures)
        tiled = context
        if division.count > 1 and self.network.measures:
            tiled = self._measured(pictures, context, tile or max(height, width))
        restored = self._pipeline(tile).restore(pictures, tiled, division, on_tile)
        return Output(restored, division.count, context)

    def _pipeline(self, tile: int | None) -> TilePipeline:
        """What takes tiles of this side through the network."""
        at_once = 1
        if tile is not None and self.device.type == "cuda":
            at_once = tiles_at_once(free_memory(self.device), self.bytes_per_pixel, tile**2)
        network = self.network
        forward = self._graphs or self._forward
        return TilePipeline(forward, self.device, self.dtype, network.scale, at_once, network.uses_place)

    def _measured(self, pictures: torch.Tensor, context: Context, tile: int) -> Context:
        """The context with the statistics that tiles share, measured in float32 on as much as a tile holds."""
        sample = mosaic(pictures, tile, self.network.size_multiple).to(self.device)
        network = (self._twin(torch.float32) if self._fast else None) or self.network
        return network.measure(sample, context)

    def _restore_whole(self, pictures: torch.Tensor) -> tuple[torch.Tensor, Context]:
        """Whole pictures through the network in one pass that also decides."""
        x = pictures.to(self.device, memory_format=torch.channels_last)
        network = (self._twin(self.dtype) if self._fast else None) or self.network
        with torch.autocast(self.device.type, self.dtype, enabled=network is self.network and self._is_half):
            result, context = network.restore_whole(x)
        if self._is_half and not bool(torch.isfinite(result).all()):
            log.warning("%s gave values that are not finite; it is computed again in float32", self.precision)
            context = self.analyse(pictures)  # what was decided on such features is worth nothing either
            result = self._forward(x, context, torch.float32)
        return result.float().cpu(), context

    @property
    def _is_half(self) -> bool:
        return self.dtype is not torch.float32

    @property
    def engine(self) -> str:
        """The engine in use: ``plain``, ``fast`` or ``graphs``."""
        return "graphs" if self._graphs else "fast" if self._fast else "plain"

    def _twin(self, dtype: torch.dtype) -> RestorationNetwork | None:
        """The network's fast twin in a precision, made when it is first asked for; None if there is none."""
        if dtype not in self._twins:
            possible = self.device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)
            self._twins[dtype] = accelerate(self.network, dtype) if possible else None
        return self._twins[dtype]

    def _forward(self, x: torch.Tensor, context: Context, dtype: torch.dtype) -> torch.Tensor:
        twin = self._twin(dtype) if self._fast else None
        if twin is not None:
            return twin(x, context)
        if dtype is torch.float32:
            return self.network(x, context)
        with torch.autocast(self.device.type, dtype=dtype):
            return self.network(x, context)

    @torch.inference_mode()
    def _holds(self) -> bool:
        """Whether the half precision agrees with float32 on a test picture with edges, gradients and noise."""
        generator = torch.Generator().manual_seed(0)
        ramp = torch.linspace(0, 1, 96)
        picture = torch.stack([ramp.expand(96, 96), ramp[:, None].expand(96, 96), ((ramp[:, None] + ramp) * 4 % 1)])
        picture = (picture + 0.05 * torch.randn(picture.shape, generator=generator)).clamp(0, 1)[None].to(self.device)
        exact, context = self.network.restore_whole(picture)  # the definition, whatever the engine
        half = self._forward(picture, context, self.dtype).float()
        error = (exact - half).square().mean().item()
        if not error <= 10 ** (-TOLERANCE / 10):  # also when it is not a number
            log.warning("%s differs from float32 by %.2e (mean square) here; float32 is used", self.precision, error)
            return False
        return True

    def _side(self) -> int:
        return tile_side(self.device, self.bytes_per_pixel, self.network.overlap, self.network.size_multiple)

    def _smaller(self, tile: int | None, longest: int) -> int | None:
        """The next smaller tile, or None if there is none worth trying."""
        multiple = self.network.size_multiple
        side = (tile or longest) // 2 // multiple * multiple
        return side if side >= max(SMALLEST_TILE, 2 * self.network.overlap + multiple) else None

    def _check_tile(self, tile: int | str | None) -> int | str | None:
        if tile is None or tile == "auto":
            return tile
        multiple, overlap = self.network.size_multiple, self.network.overlap
        smallest = 2 * overlap + multiple
        if not isinstance(tile, int) or tile < smallest:
            raise InvalidValueError(
                f"tile {tile!r} is not possible: this network needs at least {smallest} px (twice its overlap of "
                f"{overlap} px and its size multiple, {multiple}); or use 'auto'"
            )
        return tile // multiple * multiple
