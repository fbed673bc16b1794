"""RetinexFormer: estimates the light, brightens the picture with it, and cleans what the dark hid.

Paper: "Retinexformer: One-stage Retinex-based Transformer for Low-light Image Enhancement", ICCV 2023,
arXiv 2303.06705. State-dict names and shapes are the published ones, sizes those of UniRestorer's low-light experts.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.padding import pad_to_multiple
from moir.layers.transposed_attention import attend_channels, channel_attention
from moir.networks.base import Context, build
from moir.networks.statistics import MeasuringNetwork, Statistics


class RetinexFormer(MeasuringNetwork):
    """RetinexFormer (arXiv 2303.06705, section 3).

    Each stage estimates illumination features and a map that lights the picture up, and passes both to a U-shaped
    transformer whose attention runs between channels and is guided by the illumination. Attention maps are statistics
    of the whole picture: :meth:`analyse` measures them, and tiles share them, so that tiles agree on brightness.

    Args:
        in_channels: Channels of the input; moir's pictures have 3.
        out_channels: Channels of the output; moir's pictures have 3.
        n_feat: Width at full resolution, and width of an attention head. A multiple of 4.
        stage: Stages in sequence, each with its own weights.
        num_blocks: Blocks at full, half and quarter resolution; the decoder has as many as the encoder.

    Raises:
        InvalidValueError: Other than 3 channels, a width that is no multiple of 4, no stage, or not three numbers of
            blocks.
    """

    bounded_analysis: ClassVar[bool] = False
    size_multiple: ClassVar[int] = 4
    # With shared attention maps a pixel depends on about 60 pixels around it.
    overlap: ClassVar[int] = 64

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        n_feat: int = 40,
        stage: int = 1,
        num_blocks: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        if (in_channels, out_channels) != (3, 3):
            raise InvalidValueError(
                f"in_channels={in_channels}, out_channels={out_channels}: moir restores colour pictures (3 and 3)"
            )
        if n_feat < 4 or n_feat % 4:
            raise InvalidValueError(f"n_feat is {n_feat}, but the estimator's 4 groups need a multiple of 4")
        if stage < 1 or len(num_blocks) != 3:
            raise InvalidValueError(
                f"stage={stage}, num_blocks={list(num_blocks)}: at least one stage, and numbers for three resolutions"
            )
        self.body = nn.Sequential(*(Stage(n_feat, num_blocks) for _ in range(stage)))
        for name, module in self.named_modules():
            if isinstance(module, IlluminationGuidedAttention):
                module.name = name

    def analyse(self, x: torch.Tensor) -> Context:
        """Measure every block's attention map on whole pictures.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.

        Returns:
            Per attention module, by its name: (B, heads, n_feat, n_feat).

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        return self.restore_whole(x)[1]

    def _run(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        # The published network wants multiples of 4 and leaves the padding to the caller.
        y = pad_to_multiple(x, 4)
        for stage in self.body:
            y = stage(y, statistics)
        return y[..., : x.shape[2], : x.shape[3]]


class Stage(nn.Module):
    """Light up, then clean (arXiv 2303.06705, section 3.1).

    Args:
        n_feat: Width at full resolution.
        num_blocks: Blocks at full, half and quarter resolution.
    """

    def __init__(self, n_feat: int, num_blocks: Sequence[int]) -> None:
        super().__init__()
        self.estimator = IlluminationEstimator(n_feat)
        self.denoiser = Denoiser(n_feat, num_blocks)

    def forward(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Map (B, 3, H, W), H and W multiples of 4, to the same shape."""
        features, light = self.estimator(x)
        out: torch.Tensor = self.denoiser(x * light + x, features, statistics)
        return out


class IlluminationEstimator(nn.Module):
    """From the picture and its channel mean to illumination features and a light-up map (section 3.1).

    Args:
        n_feat: Channels of the features.
    """

    def __init__(self, n_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, n_feat, 1)
        self.depth_conv = nn.Conv2d(n_feat, n_feat, 5, padding=2, groups=4)
        self.conv2 = nn.Conv2d(n_feat, 3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, 3, H, W) to features (B, n_feat, H, W) and map (B, 3, H, W)."""
        features = self.depth_conv(self.conv1(torch.cat([x, x.mean(dim=1, keepdim=True)], dim=1)))
        return features, self.conv2(features)


class Denoiser(nn.Module):
    """The illumination-guided transformer, a U-net over three resolutions (section 3.2).

    Args:
        dim: Width at full resolution; doubled at each coarser one.
        num_blocks: Blocks at full, half and quarter resolution.
    """

    def __init__(self, dim: int, num_blocks: Sequence[int]) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, dim, 3, padding=1, bias=False)
        self.encoder_layers = nn.ModuleList()
        self.decoder_layers = nn.ModuleList()
        for level, count in enumerate(num_blocks[:2]):
            width = dim * 2**level
            halve, halve_light = (nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False) for _ in range(2))
            self.encoder_layers.append(nn.ModuleList([GuidedBlocks(count, width, dim), halve, halve_light]))
        self.bottleneck = GuidedBlocks(num_blocks[2], 4 * dim, dim)
        for level in (1, 0):
            width = dim * 2**level
            double, fuse = nn.ConvTranspose2d(2 * width, width, 2, 2), nn.Conv2d(2 * width, width, 1, bias=False)
            self.decoder_layers.append(nn.ModuleList([double, fuse, GuidedBlocks(num_blocks[level], width, dim)]))
        self.mapping = nn.Conv2d(dim, 3, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor, light: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Clean a lit-up picture (B, 3, H, W), guided by illumination features (B, dim, H, W)."""
        y = self.embedding(x)
        skips = []
        for layer in self.encoder_layers:
            assert isinstance(layer, nn.ModuleList)
            blocks, halve, halve_light = layer
            y = blocks(y, light, statistics)
            skips.append((y, light))
            y, light = halve(y), halve_light(light)
        y = self.bottleneck(y, light, statistics)
        for layer in self.decoder_layers:
            assert isinstance(layer, nn.ModuleList)
            double, fuse, blocks = layer
            skip, light = skips.pop()
            y = blocks(fuse(torch.cat([double(y), skip], dim=1)), light, statistics)
        return x + self.mapping(y)


class GuidedBlocks(nn.Module):
    """Blocks of ``x += attention(x, light)``, without a norm as published, and ``x += feed_forward(norm(x))``.

    Args:
        count: Number of blocks.
        width: Channels C.
        head: Channels of an attention head.
    """

    def __init__(self, count: int, width: int, head: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList([IlluminationGuidedAttention(width, width // head), NormedFeedForward(width)])
            for _ in range(count)
        )

    def forward(self, x: torch.Tensor, light: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W), guided by (B, C, H, W)."""
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            attention, feed_forward = block
            x = x + attention(x, light, statistics)
            x = x + feed_forward(x)
        return x


class IlluminationGuidedAttention(nn.Module):
    """Attention between channels whose values are weighted by the illumination, IG-MSA (section 3.2).

    Args:
        dim: Channels C.
        heads: Attention heads.
    """

    name: str = ""  # set by the network: under which the attention map is shared

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.rescale = nn.Parameter(torch.ones(heads, 1, 1))
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.pos_emb = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
        )

    def forward(self, x: torch.Tensor, light: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W), guided by (B, C, H, W)."""
        pixels = x.permute(0, 2, 3, 1)

        def measure() -> torch.Tensor:
            q, k = self.to_q(pixels), self.to_k(pixels)
            # Rows of the published map belong to the keys: softmax(k q^T).
            return channel_attention(k.permute(0, 3, 1, 2), q.permute(0, 3, 1, 2), self.rescale)

        v = self.to_v(pixels).permute(0, 3, 1, 2)
        mixed = attend_channels(statistics.get(self.name, measure), v * light)
        out: torch.Tensor = self.proj(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out + self.pos_emb(v)


class NormedFeedForward(nn.Module):
    """Layer norm over channels, then 1x1 to four times the width, GELU, depthwise 3x3, GELU, 1x1 back.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fn = FeedForward(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        out: torch.Tensor = self.fn(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return out


class FeedForward(nn.Module):
    """The feed-forward half, under the published name ``net``.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, 4 * dim, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(4 * dim, 4 * dim, 3, padding=1, groups=4 * dim, bias=False),
            nn.GELU(),
            nn.Conv2d(4 * dim, dim, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        out: torch.Tensor = self.net(x)
        return out


def retinexformer(**options: Any) -> RetinexFormer:
    """RetinexFormer of one stage and width 40, as in UniRestorer: 1,605,701 parameters.

    Args:
        **options: Options of :class:`RetinexFormer` that differ from these.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(RetinexFormer, {}, options)


def test_retinexformer(**options: Any) -> RetinexFormer:
    """A tiny one for tests.

    Args:
        **options: Options of :class:`RetinexFormer` that differ from the tiny ones.
    """
    return build(RetinexFormer, {"n_feat": 8, "num_blocks": (1, 1, 1)}, options)


test_retinexformer.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
