"""The parts of DehazeFormer (arXiv 2204.03883)."""

import torch
import torch.nn.functional as F
from torch import nn

from moir.layers.padding import reflect_pad
from moir.layers.precision import at_least_float32
from moir.layers.window_attention import WindowAttention
from moir.networks.statistics import Statistics

EPSILON = 1e-5  # added to the variance, as published


class ReflectConv2d(nn.Conv2d):
    """3x3 convolution that mirrors at the border, for features of any size.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to (B, out_channels, H, W)."""
        return F.conv2d(reflect_pad(x, 1, 1, 1, 1), self.weight, self.bias)


class RescaleLayerNorm(nn.Module):
    """Normalise a picture's features as a whole, and say how to undo it: rescale layer norm, RLN (section 3.2).

    Mean and deviation are those of all channels and pixels of a picture; the layer that follows works on normalised
    features, and its output is rescaled by linear maps of both.

    Args:
        dim: Channels C.
    """

    name: str = ""  # set by the network: under which mean and deviation are shared

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.meta1 = nn.Conv2d(1, dim, 1)
        self.meta2 = nn.Conv2d(1, dim, 1)
        for meta, start in ((self.meta1, 1.0), (self.meta2, 0.0)):  # at first: about what plain normalisation does
            nn.init.uniform_(meta.weight, -0.03, 0.03)
            nn.init.constant_(meta.bias, start)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, statistics: Statistics) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Normalise (B, C, H, W); also return the scale and the shift for what follows, both (B, C, 1, 1)."""
        wide = at_least_float32(x)

        def measure() -> torch.Tensor:
            variance, mean = torch.var_mean(wide, dim=(1, 2, 3), correction=0)
            return torch.stack([mean, (variance + EPSILON).sqrt()], dim=1)

        mean, deviation = statistics.get(self.name, measure)[:, :, None, None, None].unbind(1)
        normal = ((wide - mean) / deviation * self.weight + self.bias).to(x.dtype)
        return normal, self.meta1(deviation), self.meta2(mean)


class Attention(nn.Module):
    """Window attention and a convolution of the values side by side, or convolutions alone (section 3.4).

    Args:
        dim: Channels C.
        heads: Attention heads.
        window: Side of a window, pixels.
        shift: How far the grid of windows is moved.
        attend: False: two convolutions with ReLU between, and no attention.
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int, attend: bool) -> None:
        super().__init__()
        self.shift, self.attend = shift, attend
        self.conv = nn.Sequential(ReflectConv2d(dim, dim), nn.ReLU(), ReflectConv2d(dim, dim))
        if attend:
            self.V = nn.Conv2d(dim, dim, 1)
            self.proj = nn.Conv2d(dim, dim, 1)
            self.QK = nn.Conv2d(dim, 2 * dim, 1)
            self.attn = WindowAttention(heads, window)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        if not self.attend:
            convolved: torch.Tensor = self.conv(x)
            return convolved
        v = self.V(x)
        attended = self.attn(torch.cat([self.QK(x), v], dim=1), self.shift)
        out: torch.Tensor = self.proj(self.conv(v) + attended)
        return out


class FeedForward(nn.Module):
    """1x1 convolution to the hidden width, ReLU, 1x1 back; under the published name ``mlp``.

    Args:
        dim: Channels C.
        hidden: Hidden width.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, dim, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        out: torch.Tensor = self.mlp(x)
        return out


class Block(nn.Module):
    """``x += attention(norm(x)) * scale + shift``, or ``x += convolutions(x)``; then ``x += feed_forward(x)``.

    Args:
        dim: Channels C.
        heads: Attention heads.
        hidden: Hidden width of the feed-forward half.
        window: Side of a window, pixels.
        shift: How far the grid of windows is moved.
        attend: Whether the block has attention, and with it a norm.
    """

    def __init__(self, dim: int, heads: int, hidden: int, window: int, shift: int, attend: bool) -> None:
        super().__init__()
        self.norm1 = RescaleLayerNorm(dim) if attend else None
        self.attn = Attention(dim, heads, window, shift, attend)
        self.mlp = FeedForward(dim, hidden)

    def forward(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        if self.norm1 is None:
            x = x + self.attn(x)
        else:
            normal, scale, shift = self.norm1(x, statistics)
            x = x + self.attn(normal) * scale + shift
        out: torch.Tensor = x + self.mlp(x)
        return out


class Layer(nn.Module):
    """The blocks of one resolution; the last ones have attention, and every other grid of windows is moved by half.

    Args:
        dim: Channels C.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward halves over ``dim``.
        window: Side of a window, pixels.
        attn_ratio: Share of the blocks that have attention.
    """

    def __init__(self, dim: int, depth: int, heads: int, mlp_ratio: float, window: int, attn_ratio: float) -> None:
        super().__init__()
        hidden, first = int(dim * mlp_ratio), depth - attn_ratio * depth
        self.blocks = nn.ModuleList(
            Block(dim, heads, hidden, window, window // 2 if i % 2 else 0, i >= first) for i in range(depth)
        )

    def forward(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        for block in self.blocks:
            x = block(x, statistics)
        return x


class PatchMerge(nn.Module):
    """2x2 convolution with stride 2, under the published name ``proj``.

    Args:
        channels: Channels of the input.
        dim: Channels of the output.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W), H and W even, to (B, dim, H/2, W/2)."""
        out: torch.Tensor = self.proj(x)
        return out


class PatchSplit(nn.Module):
    """1x1 convolution and pixel shuffle to twice the resolution.

    Args:
        channels: Channels of the input.
        dim: Channels of the output.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(channels, 4 * dim, 1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, H, W) to (B, dim, 2H, 2W)."""
        out: torch.Tensor = self.proj(x)
        return out


class SKFusion(nn.Module):
    """Weigh two feature maps per channel by what they hold on the whole picture (section 3.3, after SKNet).

    Args:
        dim: Channels C.
    """

    name: str = ""  # set by the network: under which the weights are shared

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(dim // 8, 4)
        self.mlp = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, 2 * dim, 1, bias=False)
        )

    def forward(self, first: torch.Tensor, second: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Fuse (B, C, H, W) and (B, C, H, W) to (B, C, H, W)."""

        def measure() -> torch.Tensor:
            means = at_least_float32(first + second).mean(dim=(2, 3), keepdim=True)
            logits: torch.Tensor = self.mlp(means)
            return logits.float().unflatten(1, (2, -1)).softmax(dim=1)

        weights = statistics.get(self.name, measure).to(first.dtype)
        return first * weights[:, 0] + second * weights[:, 1]
