"""PromptIR: Restormer whose decoder is told by learned prompts what to restore.

Paper: "PromptIR: Prompting for All-in-One Blind Image Restoration", NeurIPS 2023, arXiv 2306.13090. Written from the
paper; the published code's licence is non-commercial and none of it is here. The paper leaves some widths open; those,
the state-dict names, and the six convolutions that are stored but never used follow public descriptions of the
published model. **Not verified**: there is no checkpoint or fixture of the published model to compare with. The
parameter count (35,592,263) agrees with the 35.59 M that comparison tables print for PromptIR.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.errors import InvalidValueError
from moir.layers.layer_norm import LayerNormType
from moir.layers.padding import pad_to_multiple
from moir.layers.patch_embedding import PatchEmbedding
from moir.layers.resample import Downsample, Upsample
from moir.layers.transformer_block import TransformerBlock, transformer_blocks
from moir.layers.transposed_attention import name_attention
from moir.networks.base import PLACE, Context, RestorationNetwork, build, check_pictures, recall
from moir.networks.restormer import check_restormer_options
from moir.networks.statistics import Statistics, shared_attention

MULTIPLE = 8
"""Pictures are padded to multiples of this, in pixels."""


class PromptGenerator(nn.Module):
    """Prompt generation module: a mixture of learned prompts, weighted by the features (section 3.1.1, eq. 2).

    ``weights = softmax(linear(avgpool(features)))``; the weighted sum of the prompts is resized to the features
    (bilinear) and passed through a 3x3 convolution.

    Args:
        dim: Channels of the features.
        prompt_dim: Channels of a prompt.
        prompt_len: Number of prompts N.
        prompt_size: Side of a stored prompt, in pixels.
    """

    def __init__(self, dim: int, prompt_dim: int, prompt_len: int, prompt_size: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, prompt_len, prompt_dim, prompt_size, prompt_size))
        self.linear_layer = nn.Linear(dim, prompt_len)
        self.conv3x3 = nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1, bias=False)

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """How much of each prompt the features (B, C, H, W) call for: (B, N), summing to 1."""
        logits: torch.Tensor = self.linear_layer(features.mean(dim=(2, 3)))
        return logits.softmax(dim=1)

    def forward(self, weights: torch.Tensor, height: int, width: int, grid: torch.Tensor | None = None) -> torch.Tensor:
        """Mix the prompts with weights (B, N) into (B, prompt_dim, height, width).

        Args:
            weights: From :meth:`weights`.
            height, width: Of the features.
            grid: Where the features of tiles lie in the prompts of their pictures, from :func:`prompt_grid`; None: the
                features are those of whole pictures.
        """
        mixed = torch.einsum("bn,nchw->bchw", weights, self.prompt_param[0])
        if grid is None:
            resized = F.interpolate(mixed, (height, width), mode="bilinear", align_corners=False)
        else:
            sampled = F.grid_sample(mixed.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
            resized = sampled.to(mixed.dtype)
        prompt: torch.Tensor = self.conv3x3(resized)
        return prompt


def prompt_grid(place: torch.Tensor, height: int, width: int, stride: int) -> torch.Tensor:
    """Where the features of tiles lie in prompts that are stretched over whole pictures.

    Sampling there gives what resizing the prompts to the features of the whole picture gives at the tile.

    Args:
        place: Where the tiles lie, see :data:`moir.networks.base.PLACE`; rows and columns are multiples of ``stride``.
        height, width: Of the features of a tile.
        stride: Pixels per feature along each axis.

    Returns:
        (B, height, width, 2), float32: x and y from -1 to 1 over the padded picture, for ``F.grid_sample`` with
        ``align_corners=False``.
    """

    def axis(start: torch.Tensor, whole: torch.Tensor, count: int) -> torch.Tensor:
        centres = start[:, None] + (torch.arange(count, device=place.device) + 0.5) * stride
        padded = (whole + MULTIPLE - 1) // MULTIPLE * MULTIPLE
        return 2 * centres / padded[:, None] - 1

    top, left, whole_height, whole_width = place.unbind(1)
    x, y = axis(left, whole_width, width), axis(top, whole_height, height)
    return torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)


class PromptIR(RestorationNetwork):
    """PromptIR (arXiv 2306.13090, section 3 and figure 2), with every published option.

    Between the decoder levels, prompt interaction modules concatenate the prompt to the features, run a transformer
    block over both and reduce the channels with a 1x1 convolution (section 3.1.2).

    The weights of the prompts are a decision on the whole picture and make up the context. The prompts themselves are
    stretched over the whole picture; a tile gets its part of them if the context says where it lies
    (:data:`moir.networks.base.PLACE`), and else all of them, as the published model would.

    Args:
        inp_channels: Channels of the input; moir's pictures have 3.
        out_channels: Channels of the output; moir's pictures have 3.
        dim: Width of the first level.
        num_blocks: Blocks per level, the latent one last.
        num_refinement_blocks: Blocks after the decoder.
        heads: Attention heads per level; the interaction modules use those of the third.
        ffn_expansion_factor: Hidden width of the feed-forward halves over the blocks' width.
        bias: Whether convolutions have biases.
        LayerNorm_type: ``"WithBias"`` or ``"BiasFree"``.
        decoder: Whether there are prompts in the decoder. The published constructor says False by default, with which
            its widths do not fit; only True, the model of the paper, can be built.
        prompt_len: Prompts to mix at each level (not a published option; 5 there).
        prompt_dims: Channels of the prompts of levels 1 to 3 (not a published option).
        prompt_sizes: Sides of the stored prompts of levels 1 to 3, in pixels (not a published option).

    Raises:
        InvalidValueError: Options that do not fit together.
    """

    bounded_analysis: ClassVar[bool] = False
    measures: ClassVar[bool] = True
    uses_place: ClassVar[bool] = True
    size_multiple: ClassVar[int] = MULTIPLE

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
        decoder: bool = True,
        prompt_len: int = 5,
        prompt_dims: Sequence[int] = (64, 128, 320),
        prompt_sizes: Sequence[int] = (64, 32, 16),
    ) -> None:
        super().__init__()
        check_restormer_options(inp_channels, out_channels, num_blocks, heads)
        if not decoder:
            raise InvalidValueError(
                "decoder=False leaves widths that do not fit; for a network without prompts use restormer"
            )
        if len(prompt_dims) != 3 or len(prompt_sizes) != 3:
            raise InvalidValueError(
                f"prompt_dims {list(prompt_dims)} and prompt_sizes {list(prompt_sizes)} need three numbers each"
            )

        def blocks(level: int, width: int, count: int) -> nn.Sequential:
            return transformer_blocks(count, width, heads[level], ffn_expansion_factor, bias, LayerNorm_type)

        def interaction(width: int) -> TransformerBlock:
            return TransformerBlock(width, heads[2], ffn_expansion_factor, bias, LayerNorm_type)

        def generator(level: int) -> PromptGenerator:
            return PromptGenerator(2**level * dim, prompt_dims[level - 1], prompt_len, prompt_sizes[level - 1])

        def mix(channels: int, width: int) -> nn.Conv2d:
            return nn.Conv2d(channels, width, 1, bias=bias)

        p1, p2, p3 = prompt_dims
        self.patch_embed = PatchEmbedding(3, dim, bias=False)
        self.prompt1, self.prompt2, self.prompt3 = generator(1), generator(2), generator(3)
        self.encoder_level1 = blocks(0, dim, num_blocks[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = blocks(1, 2 * dim, num_blocks[1])
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = blocks(2, 4 * dim, num_blocks[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = blocks(3, 8 * dim, num_blocks[3])

        self.noise_level3 = interaction(8 * dim + p3)
        self.reduce_noise_level3 = mix(8 * dim + p3, 4 * dim)
        self.up4_3 = Upsample(4 * dim)
        self.reduce_chan_level3 = mix(2 * dim + 4 * dim, 4 * dim)
        self.decoder_level3 = blocks(2, 4 * dim, num_blocks[2])

        self.noise_level2 = interaction(4 * dim + p2)
        self.reduce_noise_level2 = mix(4 * dim + p2, 4 * dim)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = mix(2 * dim + 2 * dim, 2 * dim)
        self.decoder_level2 = blocks(1, 2 * dim, num_blocks[1])

        self.noise_level1 = interaction(2 * dim + p1)
        self.reduce_noise_level1 = mix(2 * dim + p1, 2 * dim)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = blocks(0, 2 * dim, num_blocks[0])
        self.refinement = blocks(0, 2 * dim, num_refinement_blocks)
        self.output = nn.Conv2d(2 * dim, 3, 3, padding=1, bias=bias)

        # In the published state dict but never used; frozen, so that distributed training does not wait for them.
        self.chnl_reduce1 = mix(p1, p1)
        self.chnl_reduce2 = mix(p2, p2)
        self.chnl_reduce3 = mix(p3, 256)
        self.reduce_noise_channel_1 = mix(dim + p1, dim)
        self.reduce_noise_channel_2 = mix(2 * dim + p2, 2 * dim)
        self.reduce_noise_channel_3 = mix(4 * dim + 256, 4 * dim)
        for unused in (
            self.chnl_reduce1,
            self.chnl_reduce2,
            self.chnl_reduce3,
            self.reduce_noise_channel_1,
            self.reduce_noise_channel_2,
            self.reduce_noise_channel_3,
        ):
            unused.requires_grad_(False)
        name_attention(self)

    def analyse(self, x: torch.Tensor) -> Context:
        """Decide the weights of the prompts on whole pictures.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.

        Returns:
            ``"prompt1"``, ``"prompt2"``, ``"prompt3"``: (B, prompt_len) each, summing to 1.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        return self._features(pad_to_multiple(x, MULTIPLE), None, None)[1]

    def measure(self, x: torch.Tensor, context: Context) -> Context:
        """See :meth:`RestorationNetwork.measure`: ``"<module>.attention"`` (B, heads, C / heads, C / heads) each.

        The prompts are stretched over ``x``, also where it is a mosaic of a picture, whose pieces are spread evenly.
        """
        check_pictures(x)
        statistics = Statistics(None, len(x))
        self._restore(x, context, statistics)
        return {**context, **statistics.used}

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles, with the prompt weights of ``context`` or their own.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: What :meth:`analyse` returned for the B pictures (or for the one picture all B tiles are from);
                with :data:`moir.networks.base.PLACE` if they are tiles.

        Returns:
            (B, 3, H, W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
            InvalidValueError: The context does not fit.
        """
        check_pictures(x)
        return self._restore(x, context, shared_attention(context, x.shape[0]))[0]

    def restore_whole(self, x: torch.Tensor) -> tuple[torch.Tensor, Context]:
        """See :meth:`RestorationNetwork.restore_whole`; one pass."""
        check_pictures(x)
        return self._restore(x, None, None)

    def _restore(
        self, x: torch.Tensor, context: Context | None, shared: Statistics | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The restored pictures, and the prompt weights that were decided or recalled."""
        padded = pad_to_multiple(x, MULTIPLE)
        features, used = self._features(padded, context, shared)
        out: torch.Tensor = self.output(self.refinement(self.decoder_level1(features, shared), shared)) + padded
        return out[..., : x.shape[2], : x.shape[3]], used

    def _features(
        self, x: torch.Tensor, context: Context | None, shared: Statistics | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Everything before the first decoder level, and the prompt weights used."""
        used: dict[str, torch.Tensor] = {}
        place = recall(context, PLACE, x.shape[0]) if context is not None and PLACE in context else None

        def with_prompt(name: str, features: torch.Tensor) -> torch.Tensor:
            generator = getattr(self, name)
            if context is None:
                used[name] = generator.weights(features)
            else:
                used[name] = recall(context, name, features.shape[0])
            height, width = features.shape[-2:]
            grid = None if place is None else prompt_grid(place, height, width, x.shape[-1] // width)
            prompt = generator(used[name], height, width, grid)
            return torch.cat([features, prompt.to(features.dtype)], dim=1)

        level1 = self.encoder_level1(self.patch_embed(x), shared)
        level2 = self.encoder_level2(self.down1_2(level1), shared)
        level3 = self.encoder_level3(self.down2_3(level2), shared)
        y = self.latent(self.down3_4(level3), shared)
        y = self.reduce_noise_level3(self.noise_level3(with_prompt("prompt3", y), shared))
        y = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(y), level3], dim=1)), shared)
        y = self.reduce_noise_level2(self.noise_level2(with_prompt("prompt2", y), shared))
        y = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(y), level2], dim=1)), shared)
        y = self.reduce_noise_level1(self.noise_level1(with_prompt("prompt1", y), shared))
        return torch.cat([self.up2_1(y), level1], dim=1), used


def promptir(**options: Any) -> PromptIR:
    """PromptIR as published (with prompts): 35,592,263 parameters, of which 215,296 are stored but never used.

    Args:
        **options: Options of :class:`PromptIR` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(PromptIR, {}, options)


def test_promptir(**options: Any) -> PromptIR:
    """A tiny PromptIR for tests.

    Args:
        **options: Options of :class:`PromptIR` that differ from the tiny ones.
    """
    tiny = {
        "dim": 8,
        "num_blocks": (1, 1, 1, 1),
        "num_refinement_blocks": 1,
        "prompt_dims": (8, 8, 8),
        "prompt_sizes": (8, 4, 4),
    }
    return build(PromptIR, tiny, options)


test_promptir.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
