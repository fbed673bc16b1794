"""Restormer: a U-shaped transformer that attends between channels.

Paper: "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, arXiv 2111.09881.
State-dict names and shapes are the published ones.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.layer_norm import LayerNormType
from moir.layers.padding import pad_to_multiple
from moir.layers.patch_embedding import PatchEmbedding
from moir.layers.resample import Downsample, Upsample
from moir.layers.transformer_block import transformer_blocks
from moir.layers.transposed_attention import name_attention
from moir.networks.base import Context, RestorationNetwork, build, check_pictures
from moir.networks.statistics import Statistics, shared_attention


class Restormer(RestorationNetwork):
    """Restormer (arXiv 2111.09881, section 3 and figure 2).

    Four levels of width ``dim``, ``2 dim``, ``4 dim``, ``8 dim``. The last decoder level and the refinement run at
    full resolution and width ``2 dim``: there the skip is concatenated and not reduced. Nothing is decided per
    picture, so the context is empty; but attention is a statistic of the whole input, which :meth:`measure` adds to the
    context for tiles: ``"<module>.attention"`` (B, heads, C / heads, C / heads) for each attention.

    Args:
        inp_channels: Channels of the input; moir's pictures have 3.
        out_channels: Channels of the output; moir's pictures have 3.
        dim: Width of the first level.
        num_blocks: Blocks per level, the latent one last; decoder levels have as many as their encoder level.
        num_refinement_blocks: Blocks after the decoder.
        heads: Attention heads per level.
        ffn_expansion_factor: Hidden width of the feed-forward halves over the blocks' width.
        bias: Whether convolutions have biases.
        LayerNorm_type: ``"WithBias"``, or ``"BiasFree"`` as published for denoising.
        dual_pixel_task: Published option for 6-channel dual-pixel pictures, which moir does not have.

    Raises:
        InvalidValueError: Other than 3 channels, a dual-pixel task, or lists that are not of four numbers.
    """

    measures: ClassVar[bool] = True
    size_multiple: ClassVar[int] = 8

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: LayerNormType = "WithBias",
        dual_pixel_task: bool = False,
    ) -> None:
        super().__init__()
        check_restormer_options(inp_channels, out_channels, num_blocks, heads)
        if dual_pixel_task:
            raise InvalidValueError("dual_pixel_task=True needs 6-channel pictures; moir restores colour pictures only")

        def blocks(level: int, width: int, count: int) -> nn.Sequential:
            return transformer_blocks(count, width, heads[level], ffn_expansion_factor, bias, LayerNorm_type)

        self.patch_embed = PatchEmbedding(3, dim, bias=False)
        self.encoder_level1 = blocks(0, dim, num_blocks[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = blocks(1, 2 * dim, num_blocks[1])
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = blocks(2, 4 * dim, num_blocks[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = blocks(3, 8 * dim, num_blocks[3])
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = blocks(2, 4 * dim, num_blocks[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = blocks(1, 2 * dim, num_blocks[1])
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = blocks(0, 2 * dim, num_blocks[0])
        self.refinement = blocks(0, 2 * dim, num_refinement_blocks)
        self.output = nn.Conv2d(2 * dim, 3, 3, padding=1, bias=bias)
        name_attention(self)

    def measure(self, x: torch.Tensor, context: Context) -> Context:
        """See :meth:`RestorationNetwork.measure`; the tensors are listed in the class docstring."""
        check_pictures(x)
        statistics = Statistics(None, len(x))
        self._restore(x, statistics)
        return {**context, **statistics.used}

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: What :meth:`measure` returned for the pictures that ``x`` was cut from; None or empty: attention is
                measured on ``x``.

        Returns:
            (B, 3, H, W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        return self._restore(x, shared_attention(context, x.shape[0]))

    def _restore(self, x: torch.Tensor, shared: Statistics | None) -> torch.Tensor:
        padded = pad_to_multiple(x, 8)
        level1 = self.encoder_level1(self.patch_embed(padded), shared)
        level2 = self.encoder_level2(self.down1_2(level1), shared)
        level3 = self.encoder_level3(self.down2_3(level2), shared)
        y = self.latent(self.down3_4(level3), shared)
        y = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(y), level3], dim=1)), shared)
        y = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(y), level2], dim=1)), shared)
        y = self.decoder_level1(torch.cat([self.up2_1(y), level1], dim=1), shared)
        out: torch.Tensor = self.output(self.refinement(y, shared)) + padded
        return out[..., : x.shape[2], : x.shape[3]]


def check_restormer_options(
    inp_channels: int, out_channels: int, num_blocks: Sequence[int], heads: Sequence[int]
) -> None:
    """Check the options that Restormer and PromptIR share.

    Raises:
        InvalidValueError: Other than 3 channels, or lists that are not of four numbers.
    """
    if (inp_channels, out_channels) != (3, 3):
        raise InvalidValueError(
            f"inp_channels={inp_channels}, out_channels={out_channels}: moir restores colour pictures (3 and 3)"
        )
    for name, values in (("num_blocks", num_blocks), ("heads", heads)):
        if len(values) != 4:
            raise InvalidValueError(f"{name} is {list(values)}, but the four levels need four numbers")


def restormer(**options: Any) -> Restormer:
    """Restormer as published: 26,126,644 parameters, or 26,111,668 with ``LayerNorm_type="BiasFree"``.

    Args:
        **options: Options of :class:`Restormer` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(Restormer, {}, options)


def test_restormer(**options: Any) -> Restormer:
    """A tiny Restormer for tests.

    Args:
        **options: Options of :class:`Restormer` that differ from the tiny ones.
    """
    tiny = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}
    return build(Restormer, tiny, options)


test_restormer.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
