"""The degradation extractor of UniRestorer: the image controller of DA-CLIP, a vision transformer.

Papers: CLIP (arXiv 2103.00020), DA-CLIP (arXiv 2310.01018, section 3), UniRestorer (arXiv 2412.20157, section 3.1).
State-dict names are the published ones. UniRestorer needs ``visual_control`` alone; the rest of CLIP (62% of the
parameters) is only made if asked for, for training the controller and for the full published state dict.
"""

import math
from collections import OrderedDict
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn

from moir.base.errors import TensorShapeError
from moir.base.names import check_name

Parts = Literal["all", "controller"]

SIDE = 224
"""Side of the picture that the published extractor looks at, pixels."""

HEAD_WIDTH = 64
"""Channels per attention head, in every CLIP."""


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a feed-forward of four times the width with the exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD_WIDTH), batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=nn.GELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, width) to the same; ``mask`` (N, N) is added to the attention logits."""
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        out: torch.Tensor = tokens + self.mlp(self.ln_2(tokens))
        return out


class Transformer(nn.Module):
    """A stack of blocks, under CLIP's name ``resblocks``."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width) for _ in range(layers)])


class ControlTransformer(nn.Module):
    """A stack of blocks, with a linear layer after each whose output (0 at first) is handed to CLIP's own tower."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.transformer = Transformer(width, layers)
        self.zero_modules = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        for linear in self.zero_modules.parameters():
            nn.init.zeros_(linear)


class VisionTower(nn.Module):
    """CLIP's vision transformer around ``transformer``.

    Args:
        transformer: The stack of blocks.
        side: Side of the input, pixels.
        patch: Side of a patch, pixels.
        width: Channels of a token.
        features: Length of the result.
    """

    transformer: Any  # Transformer, or ControlTransformer

    def __init__(self, transformer: nn.Module, side: int, patch: int, width: int, features: int) -> None:
        super().__init__()
        scale = width**-0.5
        self.side = side
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn((side // patch) ** 2 + 1, width))
        self.proj = nn.Parameter(scale * torch.randn(width, features))
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = transformer
        self.ln_post = nn.LayerNorm(width)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, side, side), normalised, to tokens (B, 1 + patches, width), the class token first."""
        patches = self.conv1(x).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches.dtype).expand(len(x), 1, -1)
        tokens: torch.Tensor = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        return tokens

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """The class token, projected: (B, features)."""
        pooled: torch.Tensor = self.ln_post(tokens[:, 0]) @ self.proj
        return pooled


class Clip(nn.Module):
    """CLIP: a vision tower and a text tower.

    Args:
        visual: The vision tower.
        features: Length of both towers' results.
        width: Channels of a text token.
        layers: Blocks of the text tower.
        context: Tokens of a text.
        vocabulary: Number of different tokens.
    """

    def __init__(
        self, visual: VisionTower, features: int, width: int, layers: int, context: int, vocabulary: int
    ) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context, width))
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, features))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.visual = visual
        self.transformer = Transformer(width, layers)
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.ln_final = nn.LayerNorm(width)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Features of texts.

        Args:
            tokens: (B, context) int64, CLIP's byte-pair tokens; the end token has the highest number, 0 fills up.

        Returns:
            (B, features), not normalised.
        """
        length = tokens.shape[1]
        mask = torch.full((length, length), -torch.inf, device=tokens.device).triu(1)
        hidden = self.token_embedding(tokens) + self.positional_embedding
        for block in self.transformer.resblocks:
            hidden = block(hidden, mask)
        ends = self.ln_final(hidden)[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=1)]
        features: torch.Tensor = ends @ self.text_projection
        return features


class Features(NamedTuple):
    """What DA-CLIP says of pictures: their content and their degradation, each (B, features), not normalised."""

    content: torch.Tensor
    degradation: torch.Tensor


class DaClip(nn.Module):
    """DA-CLIP with ViT-B/32 (246,213,634 parameters), or its image controller alone (94,936,320).

    Args:
        parts: ``"all"``: the published wrapper, with CLIP. ``"controller"``: only what UniRestorer runs.
        features: Length of the features.
        side: Side of the input, pixels.
        patch: Side of a patch, pixels.
        width: Channels of the vision towers.
        layers: Blocks of the vision towers.
        text_width: Channels of the text tower.
        text_layers: Blocks of the text tower.
        text_context: Tokens of a text.
        vocabulary: Number of different tokens.
    """

    def __init__(
        self,
        parts: Parts = "all",
        features: int = 512,
        side: int = SIDE,
        patch: int = 32,
        width: int = 768,
        layers: int = 12,
        text_width: int = 512,
        text_layers: int = 12,
        text_context: int = 77,
        vocabulary: int = 49408,
    ) -> None:
        super().__init__()
        check_name(parts, get_args(Parts), "part of DA-CLIP")
        self.features = features
        self.visual_control = VisionTower(ControlTransformer(width, layers), side, patch, width, features)
        if parts == "all":
            visual = VisionTower(Transformer(width, layers), side, patch, width, features)
            self.clip = Clip(visual, features, text_width, text_layers, text_context, vocabulary)
            self.visual = visual  # published state dicts have this tower twice
            self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The degradation features, which are all that UniRestorer uses.

        Args:
            x: (B, 3, 224, 224), from :func:`~moir.universal.daclip_input.preprocess`.

        Returns:
            (B, 512), not normalised.

        Raises:
            TensorShapeError: Another size.
        """
        self._check(x)
        control = self.visual_control
        tokens = control.embed(x)
        for block in control.transformer.transformer.resblocks:
            tokens = block(tokens)
        return control.pool(tokens)

    def encode_image(self, x: torch.Tensor) -> Features:
        """Content and degradation features (DA-CLIP, section 3.1). Needs ``parts="all"``.

        After each block of CLIP's tower the controller's output is added, the controller's last block first.

        Args:
            x: As for :meth:`forward`.
        """
        self._check(x)
        control = self.visual_control
        tokens, steering = control.embed(x), []
        stack = control.transformer
        for block, zero in zip(stack.transformer.resblocks, stack.zero_modules, strict=True):
            tokens = block(tokens)
            steering.append(zero(tokens))
        hidden = self.clip.visual.embed(x)
        for block, added in zip(self.clip.visual.transformer.resblocks, reversed(steering), strict=True):
            hidden = block(hidden) + added
        return Features(self.clip.visual.pool(hidden), control.pool(tokens))

    def _check(self, x: torch.Tensor) -> None:
        side = self.visual_control.side
        if x.dim() != 4 or tuple(x.shape[1:]) != (3, side, side):
            raise TensorShapeError(
                f"the extractor looks at (B, 3, {side}, {side}), got {tuple(x.shape)}; use preprocess() first"
            )
