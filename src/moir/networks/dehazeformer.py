"""DehazeFormer: windows of attention, normalised by the whole picture's statistics, for haze.

Paper: "Vision Transformers for Single Image Dehazing", IEEE TIP 2023, arXiv 2204.03883. State-dict names and shapes are
the published ones. The published code fails on pictures smaller than its windows; here borders are mirrored as often as
it takes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.padding import reflect_pad
from moir.layers.transposed_attention import check_heads
from moir.networks.base import Context, build, check_pictures
from moir.networks.dehazeformer_blocks import Layer, PatchMerge, PatchSplit, ReflectConv2d, RescaleLayerNorm, SKFusion
from moir.networks.statistics import MeasuringNetwork, Statistics


class DehazeFormer(MeasuringNetwork):
    """DehazeFormer (arXiv 2204.03883, section 3), in the form of its size L.

    Five layers at full, half, quarter, half and full resolution. The network predicts K (1 channel) and B (3 channels);
    the result is ``K x - B + x`` (soft reconstruction).

    Its norms use the mean and deviation of the whole picture, and its fusions the picture's mean features:
    :meth:`analyse` measures them, and tiles share them, so that haze is judged on the whole scene. Tiles lie on the
    grid of the windows. What remains different near the border of a tile is the mirrored surroundings.

    Args:
        in_chans: Channels of the input; moir's pictures have 3.
        out_chans: Channels of K and B together, 4.
        window_size: Side of an attention window, pixels of the layer's resolution. An even number, at most 8.
        embed_dims: Width per layer; layers 4 and 5 as wide as 2 and 1.
        mlp_ratios: Hidden width of the feed-forward halves over the width, per layer.
        depths: Blocks per layer.
        num_heads: Attention heads per layer.
        attn_ratio: Share of a layer's blocks, its last ones, that have attention.
        conv_type: Kind of the convolutions beside the attention, per layer. The published sizes other than L use
            ``"DWConv"`` in places, which moir does not have.

    Raises:
        InvalidValueError: Other channels, lists that are not of five numbers, widths that do not mirror each other,
            heads that do not divide a width, a window that is odd or too large, or another kind of convolution.
    """

    bounded_analysis: ClassVar[bool] = False
    # Windows of 8 pixels at a quarter of the resolution.
    size_multiple: ClassVar[int] = 32
    overlap: ClassVar[int] = 64

    def __init__(
        self,
        in_chans: int = 3,
        out_chans: int = 4,
        window_size: int = 8,
        embed_dims: Sequence[int] = (48, 96, 192, 96, 48),
        mlp_ratios: Sequence[float] = (2.0, 4.0, 4.0, 2.0, 2.0),
        depths: Sequence[int] = (16, 16, 16, 12, 12),
        num_heads: Sequence[int] = (2, 4, 6, 1, 1),
        attn_ratio: Sequence[float] = (1 / 4, 1 / 2, 3 / 4, 0, 0),
        conv_type: Sequence[str] = ("Conv",) * 5,
    ) -> None:
        super().__init__()
        if (in_chans, out_chans) != (3, 4):
            raise InvalidValueError(
                f"in_chans={in_chans}, out_chans={out_chans}: moir restores colour pictures through K and B (3 and 4)"
            )
        lists = {"embed_dims": embed_dims, "mlp_ratios": mlp_ratios, "depths": depths, "num_heads": num_heads}
        for name, values in {**lists, "attn_ratio": attn_ratio, "conv_type": conv_type}.items():
            if len(values) != 5:
                raise InvalidValueError(f"{name} is {list(values)}, but the five layers need five values")
        if list(embed_dims[3:]) != [embed_dims[1], embed_dims[0]]:
            raise InvalidValueError(f"embed_dims is {list(embed_dims)}, but layers 4 and 5 must be as wide as 2 and 1")
        if any(kind != "Conv" for kind in conv_type):
            raise InvalidValueError(f"conv_type is {list(conv_type)}; moir has 'Conv' only, which size L uses")
        if window_size % 2 or not 2 <= window_size <= 8 or 8 % window_size:
            raise InvalidValueError(f"window_size is {window_size}; it must be 2, 4 or 8")
        for dim, heads in zip(embed_dims, num_heads, strict=True):
            check_heads(dim, heads)

        def layer(i: int) -> Layer:
            return Layer(embed_dims[i], depths[i], num_heads[i], mlp_ratios[i], window_size, attn_ratio[i])

        self.patch_embed = _Projection(ReflectConv2d(3, embed_dims[0]))
        self.layer1 = layer(0)
        self.patch_merge1 = PatchMerge(embed_dims[0], embed_dims[1])
        self.skip1 = nn.Conv2d(embed_dims[0], embed_dims[0], 1)
        self.layer2 = layer(1)
        self.patch_merge2 = PatchMerge(embed_dims[1], embed_dims[2])
        self.skip2 = nn.Conv2d(embed_dims[1], embed_dims[1], 1)
        self.layer3 = layer(2)
        self.patch_split1 = PatchSplit(embed_dims[2], embed_dims[3])
        self.fusion1 = SKFusion(embed_dims[3])
        self.layer4 = layer(3)
        self.patch_split2 = PatchSplit(embed_dims[3], embed_dims[4])
        self.fusion2 = SKFusion(embed_dims[4])
        self.layer5 = layer(4)
        # Published as a pixel shuffle by 1 after the convolution, hence the number in the name.
        self.patch_unembed = _Projection(nn.Sequential(ReflectConv2d(embed_dims[4], 4)))
        for name, module in self.named_modules():
            if isinstance(module, RescaleLayerNorm | SKFusion):
                module.name = name

    def analyse(self, x: torch.Tensor) -> Context:
        """Measure what norms and fusions need to know of whole pictures.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.

        Returns:
            Per norm, by its name: mean and deviation (B, 2). Per fusion: weights (B, 2, C, 1, 1).

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        statistics = Statistics(None, x.shape[0])
        self._features(_padded(x), statistics)
        return statistics.used

    def _run(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        padded = _padded(x)
        y = self.patch_unembed(self._features(padded, statistics))
        out: torch.Tensor = y[:, :1] * padded - y[:, 1:] + padded
        return out[..., : x.shape[2], : x.shape[3]]

    def _features(self, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        level1 = self.layer1(self.patch_embed(x), statistics)
        level2 = self.layer2(self.patch_merge1(level1), statistics)
        level3 = self.layer3(self.patch_merge2(level2), statistics)
        y = self.patch_split1(level3)
        y = self.layer4(self.fusion1(y, self.skip2(level2), statistics) + y, statistics)
        y = self.patch_split2(y)
        out: torch.Tensor = self.layer5(self.fusion2(y, self.skip1(level1), statistics) + y, statistics)
        return out


class _Projection(nn.Module):
    """Holds a layer under the published name ``proj``."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.proj(x)
        return out


def _padded(x: torch.Tensor) -> torch.Tensor:
    return reflect_pad(x, 0, -x.shape[3] % 4, 0, -x.shape[2] % 4)


def dehazeformer_l(**options: Any) -> DehazeFormer:
    """DehazeFormer-L: 25,451,652 parameters.

    Args:
        **options: Options of :class:`DehazeFormer` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(DehazeFormer, {}, options)


def test_dehazeformer_l(**options: Any) -> DehazeFormer:
    """A tiny one for tests: the same parts, attention at three resolutions.

    Args:
        **options: Options of :class:`DehazeFormer` that differ from the tiny ones.
    """
    tiny = {
        "embed_dims": (8, 16, 24, 16, 8),
        "depths": (2, 2, 2, 1, 1),
        "num_heads": (2, 2, 3, 1, 1),
        "attn_ratio": (1 / 2, 1, 1, 0, 0),
    }
    return build(DehazeFormer, tiny, options)


test_dehazeformer_l.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
