"""The shipped default: a small residual U-net of dense convolutions, steered by one look at the whole picture.

Design, and why:

- Dense 3x3 convolutions on few channels, and nothing else in the main path. On CPUs with bf16 matrix instructions
  they run at several times the arithmetic rate of depthwise convolutions, layer norms and attention.
- All work happens at half resolution and below: the picture is folded into channels first (pixel unshuffle, as in
  FFDNet, Zhang et al. 2018), so no detail is lost, and a convolution costs a quarter.
- No normalisation and no statistics of the picture inside the network: a tile with enough context around it gives
  exactly what the whole picture gives.
- What a tile cannot know (how dark the scene is, how dense the haze, which damage there is at all) is estimated once,
  from a thumbnail of the whole picture and a grid of crops at native resolution, where noise and JPEG blocks are not
  resized away. The estimate steers every block by a scale and a shift per channel (FiLM, Perez et al. 2018).
- The estimate can be overruled: told which damage to remove, the network is trained to remove that and leave the rest.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from moir.base.names import DEGREES, TYPES
from moir.layers.padding import pad_to_multiple
from moir.layers.views import feature_statistics, native_crops, thumbnail, view_features
from moir.networks.base import Context, build, check_pictures
from moir.networks.instructed import InstructedNetwork, by_estimate


class Compact(InstructedNetwork):
    """Residual U-net on three scales (1/2, 1/4, 1/8) with an estimator that steers it.

    Context (:meth:`analyse`):
        ``presence`` (B, 7): logits that a degradation is there, in the order of ``moir.base.names.TYPES``.
        ``degree`` (B, 7, 3): logits of light, medium, heavy for each type, meant given that it is there.
        ``embedding`` (B, E): what else the estimator saw.
        ``remove`` (B, 8): how far each type shall be removed, 0..1, and 1 if that was an instruction.

    Args:
        width: Channels at half resolution; doubled at each coarser scale.
        encoder_blocks: Residual blocks on the way down at 1/2 and 1/4.
        middle_blocks: Residual blocks at 1/8.
        decoder_blocks: Residual blocks on the way up at 1/4 and 1/2.
        embedding: Size of the embedding.
        estimator_width: Channels of the estimator's first convolution.
    """

    size_multiple = 8
    overlap = 120  # 52 px of context on either side, beyond which nothing measurable counts; tiles from 248 px

    def __init__(
        self,
        width: int = 48,
        encoder_blocks: Sequence[int] = (2, 2),
        middle_blocks: int = 3,
        decoder_blocks: Sequence[int] = (2, 3),
        embedding: int = 64,
        estimator_width: int = 32,
    ) -> None:
        super().__init__()
        c1, c2, c3 = width, 2 * width, 4 * width
        condition = embedding + len(TYPES) + 1
        self.estimator = Estimator(estimator_width, embedding)

        def blocks(scale: int, count: int, channels: int) -> nn.ModuleList:
            return nn.ModuleList([self.block(scale, channels, condition) for _ in range(count)])

        self.stem = nn.Conv2d(12, c1, 3, padding=1)
        self.encoder1 = blocks(2, encoder_blocks[0], c1)
        self.down1 = nn.Conv2d(c1, c2, 2, stride=2)
        self.encoder2 = blocks(4, encoder_blocks[1], c2)
        self.down2 = nn.Conv2d(c2, c3, 2, stride=2)
        self.middle = blocks(8, middle_blocks, c3)
        self.up2 = nn.Conv2d(c3, 4 * c2, 1)
        self.decoder2 = blocks(4, decoder_blocks[0], c2)
        self.up1 = nn.Conv2d(c2, 4 * c1, 1)
        self.decoder1 = blocks(2, decoder_blocks[1], c1)
        self.head = nn.Conv2d(c1, 12, 3, padding=1)
        for module in self.estimator.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        with torch.no_grad():
            for block in self.modules():
                if isinstance(block, Block):  # at first the picture does not steer
                    block.film.weight.zero_()
                    block.film.bias.zero_()
            # The untrained network is nearly the identity: training starts from "do no harm".
            self.head.weight.mul_(0.1)

    def block(self, scale: int, channels: int, condition: int) -> nn.Module:
        """One block of the main path; variants of the network make other ones.

        Args:
            scale: The picture's side over the feature map's: 2, 4 or 8.
            channels: Of the feature map, C.
            condition: Numbers that steer the block.

        Returns:
            A module from (B, C, h, w) and (B, condition) to (B, C, h, w).
        """
        return Block(channels, condition)

    def analyse(self, x: torch.Tensor) -> Context:
        """See :meth:`RestorationNetwork.analyse`; the tensors are listed in the class docstring."""
        check_pictures(x)
        presence, degree, embedding = self.estimator(x)
        return {
            "presence": presence,
            "degree": degree,
            "embedding": embedding,
            "remove": by_estimate(presence),
        }

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """See :meth:`RestorationNetwork.forward`."""
        check_pictures(x)
        if context is None:
            context = self.analyse(x)
        condition = torch.cat([context["embedding"], context["remove"]], 1)
        height, width = x.shape[-2:]
        return self.restore(pad_to_multiple(x, self.size_multiple), condition)[..., :height, :width].to(x.dtype)

    def restore(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The main path: (B, 3, H, W), H and W multiples of 8, and (B, condition), to (B, 3, H, W)."""
        # Centred and scaled to about unit deviation: without normalisation layers, training would be slow otherwise.
        fine = run_blocks(self.encoder1, self.stem(F.pixel_unshuffle((x - 0.5) * 4, 2)), condition)
        middle = run_blocks(self.encoder2, self.down1(fine), condition)
        coarse = run_blocks(self.middle, self.down2(middle), condition)
        middle = run_blocks(self.decoder2, middle + F.pixel_shuffle(self.up2(coarse), 2), condition)
        fine = run_blocks(self.decoder1, fine + F.pixel_shuffle(self.up1(middle), 2), condition)
        return x + F.pixel_shuffle(self.head(fine), 2)


class Block(nn.Module):
    """x + conv(relu(scale * conv(x) + shift)), scale and shift given by the condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(condition, 2 * channels)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, condition) to (B, C, H, W)."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
        return x + self.conv2(torch.relu(torch.addcmul(shift, self.conv1(x), 1 + scale)))


class Estimator(nn.Module):
    """What is wrong with the picture, from its thumbnail and a grid of native-resolution crops."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.detail = view_features(width)
        self.scene = view_features(width)
        self.mix = nn.Sequential(nn.Linear(12 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, embedding))
        self.presence = nn.Linear(embedding, len(TYPES))
        self.degree = nn.Linear(embedding, len(TYPES) * len(DEGREES))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) to presence (B, 7), degree (B, 7, 3) and embedding (B, E)."""
        with torch.autocast(x.device.type, enabled=False):
            crops = native_crops(x.float())
            batch, count = crops.shape[:2]
            detail = feature_statistics(self.detail((crops.flatten(0, 1) - 0.5) * 4)).view(batch, count, -1).mean(1)
            scene = feature_statistics(self.scene((thumbnail(x.float()) - 0.5) * 4))
            embedding = self.mix(torch.cat([detail, scene], 1))
            degree = self.degree(embedding).view(batch, len(TYPES), len(DEGREES))
            return self.presence(embedding), degree, embedding


def run_blocks(blocks: nn.ModuleList, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """Blocks in sequence, each steered by the condition."""
    for block in blocks:
        x = block(x, condition)
    return x


def compact(**options: Any) -> Compact:
    """The shipped default size."""
    return build(Compact, {}, options)


def test_compact(**options: Any) -> Compact:
    """A tiny one, for tests."""
    tiny = {
        "width": 8,
        "encoder_blocks": (1, 1),
        "middle_blocks": 1,
        "decoder_blocks": (1, 1),
        "embedding": 8,
        "estimator_width": 4,
    }
    return build(Compact, tiny, options)
