"""NAFNet: a restoration U-net without nonlinear activations, and its variant with local pooling.

Papers: "Simple Baselines for Image Restoration", ECCV 2022, arXiv 2204.04676; "Improving Image Restoration by
Revisiting Global Information Aggregation", ECCV 2022, arXiv 2112.04491 (local pooling, TLC). State-dict names and
shapes are the published ones, and the same for both variants: pooling has no weights.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.local_pool import local_mean
from moir.layers.precision import at_least_float32
from moir.networks.base import Context, build, check_pictures
from moir.networks.statistics import MeasuringNetwork, Statistics

EPSILON = 1e-6  # added to the variance, as published


class NAFNet(MeasuringNetwork):
    """NAFNet (arXiv 2204.04676, sections 3 and 4).

    The channel attention of every block pools over the whole picture: :meth:`analyse` measures these means, and tiles
    share them. The picture is padded with zeros, as published, so the means depend a little on the padding.

    Args:
        img_channel: Channels of input and output; moir's pictures have 3.
        width: Channels at full resolution; doubled at each coarser one.
        middle_blk_num: Blocks at the coarsest resolution.
        enc_blk_nums: Encoder blocks per resolution, finest first; one to four numbers.
        dec_blk_nums: Decoder blocks per resolution, **coarsest first**; as many numbers.

    Raises:
        InvalidValueError: Other than 3 channels, or numbers of blocks that do not fit together.
    """

    bounded_analysis: ClassVar[bool] = False
    size_multiple: ClassVar[int] = 16
    overlap: ClassVar[int] = 64

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 64,
        middle_blk_num: int = 12,
        enc_blk_nums: Sequence[int] = (2, 2, 4, 8),
        dec_blk_nums: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        if img_channel != 3:
            raise InvalidValueError(f"img_channel={img_channel}: moir restores colour pictures (3)")
        levels = len(enc_blk_nums)
        if not 1 <= levels <= 4 or len(dec_blk_nums) != levels:
            raise InvalidValueError(
                f"enc_blk_nums is {list(enc_blk_nums)} and dec_blk_nums {list(dec_blk_nums)}; "
                "both need the same count of numbers, one to four"
            )
        self.padding = 2**levels
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        self.ups, self.downs = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(enc_blk_nums):
            channels = width * 2**level
            self.encoders.append(_blocks(count, channels, level))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
        self.middle_blks = _blocks(middle_blk_num, width * 2**levels, levels)
        for level, count in zip(reversed(range(levels)), dec_blk_nums, strict=True):
            channels = width * 2**level
            unfold = nn.Conv2d(2 * channels, 4 * channels, 1, bias=False)
            self.ups.append(nn.Sequential(unfold, nn.PixelShuffle(2)))
            self.decoders.append(_blocks(count, channels, level))
        for name, module in self.named_modules():
            if isinstance(module, NAFBlock):
                module.name = name

    def analyse(self, x: torch.Tensor) -> Context:
        """Measure, on whole pictures, what every block's channel attention pools.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.

        Returns:
            Per block, by its name: (B, C, 1, 1).

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        return self.restore_whole(x)[1]

    def _window(self, level: int) -> tuple[int, int] | None:
        """What channel attention pools over at a level, pixels; None: the whole picture."""
        return None

    def _run(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % self.padding, 0, -height % self.padding))

        def through(blocks: nn.Module, y: torch.Tensor) -> torch.Tensor:
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                assert isinstance(block, NAFBlock)
                y = block(y, statistics, self._window(block.level))
            return y

        y = self.intro(padded)
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            y = through(blocks, y)
            skips.append(y)
            y = down(y)
        y = through(self.middle_blks, y)
        for blocks, up in zip(self.decoders, self.ups, strict=True):
            y = through(blocks, up(y) + skips.pop())
        out: torch.Tensor = self.ending(y) + padded
        return out[..., :height, :width]


class NAFNetLocal(NAFNet):
    """NAFNet whose channel attention pools over a window, 1.5 times the size of the training patches (TLC).

    Windows have the same extent in the picture at every resolution: 384 pixels for patches of 256. Up to that size the
    pooling is global. Nothing is decided per picture, so the context is empty: a tile pools over what it has of the
    windows, which is less than the whole picture has within half a window (192 pixels) of the tile's border.

    Args:
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums: See :class:`NAFNet`.
        train_size: Shape of the patches it was trained on, (1, 3, height, width).
        fast_imp: Published option, an approximation of the pooling, which moir does not have.

    Raises:
        InvalidValueError: See :class:`NAFNet`; a training size that is no shape; or the approximation.
    """

    bounded_analysis: ClassVar[bool] = True

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 64,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (1, 1, 1, 28),
        dec_blk_nums: Sequence[int] = (1, 1, 1, 1),
        train_size: Sequence[int] = (1, 3, 256, 256),
        fast_imp: bool = False,
    ) -> None:
        super().__init__(img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums)
        if len(train_size) != 4 or min(train_size) < 1:
            raise InvalidValueError(f"train_size is {list(train_size)}, but it is a shape (1, 3, height, width)")
        if fast_imp:
            raise InvalidValueError("fast_imp=True approximates the pooling; moir computes it as fast_imp=False does")
        self.train_size = (int(train_size[2]), int(train_size[3]))

    def analyse(self, x: torch.Tensor) -> Context:
        """Nothing is decided per picture.

        Returns:
            An empty context.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        return {}

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`NAFNet.forward`; the context is ignored."""
        return super().forward(x, None)

    def _window(self, level: int) -> tuple[int, int]:
        def extent(side: int) -> int:
            padded = side + -side % self.padding
            return padded // 2**level * int(1.5 * side) // side

        return extent(self.train_size[0]), extent(self.train_size[1])


class NAFBlock(nn.Module):
    """A block of two gated halves, each a residual with a learned weight per channel (figure 3c).

    ``x += beta * conv3(attention(gate(conv2(conv1(norm1(x))))))``, then ``x += gamma * conv5(gate(conv4(norm2(x))))``.
    The gate multiplies one half of the channels by the other; the attention scales channels by a linear map of their
    pooled means.

    Args:
        channels: Channels C.
        level: How often the resolution was halved.
    """

    name: str = ""  # set by the network: under which the pooled means are shared

    def __init__(self, channels: int, level: int) -> None:
        super().__init__()
        self.level = level
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        # Place 0 is the published pooling layer, which has no weights.
        self.sca = nn.Sequential(nn.Identity(), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor, statistics: Statistics, window: tuple[int, int] | None) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W), pooling over a window, or over everything if it is None."""
        y = _gate(self.conv2(self.conv1(self.norm1(x))))
        if window is None:
            means = statistics.get(self.name, lambda: at_least_float32(y).mean(dim=(2, 3), keepdim=True))
        else:
            means = local_mean(y, window)
        x = x + self.beta * self.conv3(y * self.sca(means.to(y.dtype)))
        out: torch.Tensor = x + self.gamma * self.conv5(_gate(self.conv4(self.norm2(x))))
        return out


class LayerNorm2d(nn.Module):
    """Normalise every pixel over its channels, with the biased variance, in float32.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W) to the same shape and precision."""
        wide = at_least_float32(x)
        variance, mean = torch.var_mean(wide, dim=1, keepdim=True, correction=0)
        normal = (wide - mean) * torch.rsqrt(variance + EPSILON)
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _gate(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second


def _blocks(count: int, channels: int, level: int) -> nn.ModuleList:
    return nn.ModuleList(NAFBlock(channels, level) for _ in range(count))


def nafnet(**options: Any) -> NAFNet:
    """NAFNet of width 64, with the numbers of blocks published for denoising (SIDD): 115,982,915 parameters.

    Args:
        **options: Options of :class:`NAFNet` that differ from these.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(NAFNet, {}, options)


def nafnet_local(**options: Any) -> NAFNetLocal:
    """NAFNet with local pooling, width 64, as published for deblurring (GoPro) and in UniRestorer.

    67,888,835 parameters.

    Args:
        **options: Options of :class:`NAFNetLocal` that differ from these.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(NAFNetLocal, {}, options)


TINY: dict[str, Any] = {"width": 8, "middle_blk_num": 1, "enc_blk_nums": (1, 1), "dec_blk_nums": (1, 1)}


def test_nafnet(**options: Any) -> NAFNet:
    """A tiny NAFNet for tests.

    Args:
        **options: Options of :class:`NAFNet` that differ from the tiny ones.
    """
    return build(NAFNet, TINY, options)


def test_nafnet_local(**options: Any) -> NAFNetLocal:
    """A tiny NAFNet with local pooling for tests; windows of 24 pixels.

    Args:
        **options: Options of :class:`NAFNetLocal` that differ from the tiny ones.
    """
    return build(NAFNetLocal, {**TINY, "train_size": (1, 3, 16, 16)}, options)


for _tiny in (test_nafnet, test_nafnet_local):
    _tiny.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
