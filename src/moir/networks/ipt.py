"""IPT: one pre-trained transformer with a head and a tail per task, the first backbone of AdaptIR.

Papers: "Pre-Trained Image Processing Transformer", CVPR 2021, arXiv 2012.00364; adapted in AdaptIR (NeurIPS 2024,
arXiv 2312.08881), whose task names are used here. State-dict names and shapes are the published ones, so that
``IPT_pretrain.pt`` loads strictly.

The published code picks the task of a whole batch by its first picture, and restores only single pictures of at least
48x48 pixels. Here every picture of a batch may have its own task, and any size and batch works.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from moir.base.errors import InvalidValueError
from moir.base.names import TYPES, check_name
from moir.layers import tracing
from moir.layers.padding import reflect_pad
from moir.layers.precision import at_least_float32
from moir.layers.transposed_attention import check_heads
from moir.layers.upsampler import upsampler
from moir.networks import ipt_tracing
from moir.networks.adaptation_tasks import RGB_MEAN, TASK_SCALES, check_task
from moir.networks.base import Context, RestorationNetwork, build, check_pictures, recall
from moir.networks.ipt_body import Body
from moir.networks.ipt_tiling import Axis, blended_axis, published_axis, restore_tiles

PATH_SCALES = (2, 3, 4, 1, 1, 1)
"""Scales of the pairs of head and tail: super-resolution, rain, noise 30, noise 50."""

PATH_OF_TASK: dict[str, int] = {
    "sr_2": 0,
    "sr_3": 1,
    "sr_4": 2,
    "lr4_noise30": 2,
    "lr4_jpeg30": 2,
    "derainL": 3,
    "derainH": 3,
    "denoise_25": 4,
    "denoise_30": 4,
    "denoise_50": 5,
    "low_light": 5,
}
"""Which head, tail and query embedding a task uses; those without any of their own take the nearest (published)."""

TASK_OF_TYPE = {"noise": "denoise_50", "rain": "derainH"}
"""What an instruction to remove one type of damage means, if the network's own task is another."""

TILES_AT_ONCE = 64

Tiling = Literal["published", "blended"]


class IPT(RestorationNetwork):
    """IPT (arXiv 2012.00364, section 3): convolutional heads and tails per task, and one transformer between them.

    The transformer takes 48x48 pixels, as 256 tokens. Smaller pictures are mirrored up to this; larger ones are cut
    into tiles, inside ``forward``, also in training. The published tiling computes every pixel about 16 times;
    the blended one, with its default stride, about 4 times.

    The context holds each picture's path (see :data:`PATH_OF_TASK`), ``task_idx`` (B,), so that a batch may mix tasks
    of one scale. Heads and tails of other tasks than ``task`` do not require a gradient.

    Args:
        n_feats: Width of heads and tails.
        patch_size: Side of what the transformer takes, pixels.
        patch_dim: Side of a token, pixels; a token has ``n_feats * patch_dim**2`` numbers.
        num_heads: Attention heads.
        num_layers: Layers of the encoder, and of the decoder.
        task: One of :data:`~moir.networks.adaptation_tasks.TASK_SCALES`.
        tiling: How larger pictures are cut: ``published`` (a tile at every quarter of a patch), or ``blended``.
        stride: Distance of blended tiles, pixels; None: half a patch.

    Attributes:
        scale: How many times larger the result is; a matter of ``task``.

    Raises:
        UnknownNameError: Not a task, or not a tiling.
        InvalidValueError: Sizes that do not divide each other, or a stride that is not of 1 to ``patch_size`` pixels.
    """

    # Strides of a quarter, a half and three quarters of the patch keep their grid on these; and with this overlap
    # nothing that a tile lacks at its border reaches what is kept of it.
    size_multiple: ClassVar[int] = 72
    overlap: ClassVar[int] = 216

    def __init__(
        self,
        n_feats: int = 64,
        patch_size: int = 48,
        patch_dim: int = 3,
        num_heads: int = 12,
        num_layers: int = 12,
        task: str = "denoise_30",
        tiling: Tiling = "published",
        stride: int | None = None,
    ) -> None:
        super().__init__()
        if patch_dim < 1 or patch_size < 1 or patch_size % patch_dim or patch_size % 4:
            raise InvalidValueError(
                f"patch_size={patch_size}, patch_dim={patch_dim}: patch_size must be a multiple of patch_dim and of 4"
            )
        check_heads(n_feats * patch_dim**2, num_heads)
        if num_layers < 1:
            raise InvalidValueError(f"num_layers is {num_layers}; there must be at least one")
        check_name(tiling, ("published", "blended"), "tiling")
        if stride is not None and not 1 <= stride <= patch_size:
            raise InvalidValueError(f"stride is {stride}; tiles of {patch_size} px need one of 1 to {patch_size} px")
        self.task_idx = PATH_OF_TASK[check_task(task)]
        self.scale = TASK_SCALES[task]
        self.patch_size, self.tiling, self.stride = patch_size, tiling, patch_size // 2 if stride is None else stride

        self.sub_mean = MeanShift(-1)
        self.add_mean = MeanShift(1)
        self.head = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, n_feats, 3, padding=1), ResBlock(n_feats), ResBlock(n_feats))
            for _ in PATH_SCALES
        )
        self.body = Body(n_feats, patch_size, patch_dim, num_heads, num_layers, len(PATH_SCALES))
        self.tail = nn.ModuleList(
            nn.Sequential(upsampler(scale, n_feats), nn.Conv2d(n_feats, 3, 3, padding=1)) for scale in PATH_SCALES
        )
        for path in range(len(PATH_SCALES)):
            if path != self.task_idx:
                self.head[path].requires_grad_(False)
                self.tail[path].requires_grad_(False)

    def analyse(self, x: torch.Tensor) -> Context:
        """Say which path each picture takes: that of the network's task.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.

        Returns:
            ``task_idx`` (B,), int64.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        return {"task_idx": torch.full((x.shape[0],), self.task_idx, dtype=torch.int64, device=x.device)}

    def instruct(self, context: Context, types: Sequence[str]) -> Context:
        """The same context, with the path that removes noise, or that removes rain.

        Args:
            context: From :meth:`analyse`.
            types: One degradation type, ``noise`` or ``rain``.

        Raises:
            InvalidValueError: Several types, another type, or a network whose task is super-resolution.
            UnknownNameError: Not a degradation type.
        """
        for type_ in types:
            check_name(type_, TYPES, "degradation type")
        if self.scale != 1 or len(types) != 1 or types[0] not in TASK_OF_TYPE:
            raise InvalidValueError(
                f"IPT with this task (scale {self.scale}) cannot be told to remove {', '.join(types)}: "
                "for denoising and deraining, one type, noise or rain; otherwise choose the task at construction"
            )
        path = PATH_OF_TASK[TASK_OF_TYPE[types[0]]]
        if types[0] == "noise" and self.task_idx == PATH_OF_TASK["denoise_30"]:  # that of noise 25, too
            path = self.task_idx
        return {**context, "task_idx": torch.full_like(context["task_idx"], path)}

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: What :meth:`analyse` returned for the B pictures (or for the one picture all B tiles are from);
                None: all take the path of the network's task.

        Returns:
            (B, 3, scale * H, scale * W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
            InvalidValueError: The context does not fit, or asks for a path of another scale.
        """
        check_pictures(x)
        if context is None or torch.jit.is_tracing():  # a graph has one path
            return self._restore(x, self.task_idx)
        paths = [int(path) for path in recall(context, "task_idx", len(x))]
        if wrong := [p for p in paths if not 0 <= p < len(PATH_SCALES) or PATH_SCALES[p] != self.scale]:
            fit = [p for p, scale in enumerate(PATH_SCALES) if scale == self.scale]
            raise InvalidValueError(f"task_idx {wrong[0]} is not a path of scale {self.scale}; these are: {fit}")
        restored: list[torch.Tensor] = [x] * len(x)
        for path in sorted(set(paths)):
            members = [i for i, own in enumerate(paths) if own == path]
            results = self._restore(x if len(members) == len(x) else x[members], path)
            if len(members) == len(x):
                return results
            for i, result in zip(members, results, strict=True):
                restored[i] = result
        return torch.stack(restored)

    def _restore(self, x: torch.Tensor, path: int) -> torch.Tensor:
        """Pictures of one path, as one tile or many."""
        height, width = x.shape[-2:]
        side = self.patch_size

        def restore(tiles: torch.Tensor) -> torch.Tensor:
            return self._restore_patches(tiles, path)

        if torch.jit.is_tracing():  # for any size
            down, right = tracing.short_of(side, x)
            stride = None if self.tiling == "published" else self.stride
            restored = ipt_tracing.restore_tiles(restore, reflect_pad(x, 0, right, 0, down), side, self.scale, stride)
            return restored[..., : height * self.scale, : width * self.scale]
        padded = reflect_pad(x, 0, max(0, side - width), 0, max(0, side - height))
        if padded.shape[-2:] == (side, side):
            restored = restore(padded)
        else:
            rows, columns = (self._axis(length) for length in padded.shape[-2:])
            restored = restore_tiles(restore, padded, rows, columns, side, TILES_AT_ONCE)
        return restored[..., : height * self.scale, : width * self.scale]

    def _axis(self, length: int) -> Axis:
        if self.tiling == "published":
            return published_axis(length, self.patch_size, self.scale)
        return blended_axis(length, self.patch_size, self.stride, self.scale)

    def _restore_patches(self, x: torch.Tensor, path: int) -> torch.Tensor:
        """Map (N, 3, patch_size, patch_size) to (N, 3, scale * patch_size, scale * patch_size)."""
        features = self.head[path](self.sub_mean(x * 255))
        features = features + self.body(features, path)
        out: torch.Tensor = self.add_mean(self.tail[path](features)) / 255
        return out


class MeanShift(nn.Module):
    """Adds or takes away the mean colour; a 1x1 convolution in published files, and fixed.

    Args:
        sign: 1: add; -1: take away.
    """

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3)[:, :, None, None], requires_grad=False)
        self.bias = nn.Parameter(sign * 255 * torch.tensor(RGB_MEAN), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, H, W), values in [0, 255], to the same shape, in float32: levels do not fit into bfloat16."""
        mixed = (at_least_float32(x)[:, None] * self.weight[..., 0, 0][..., None, None]).sum(dim=2)
        return mixed + self.bias[:, None, None]


class ResBlock(nn.Module):
    """``x += conv(relu(conv(x)))`` with 5x5 convolutions.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 5, padding=2) for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        out: torch.Tensor = x + self.body(x)
        return out


def ipt(**options: Any) -> IPT:
    """IPT as published: 118,892,394 parameters, the heads and tails of all tasks among them.

    Args:
        **options: Options of :class:`IPT` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
    """
    return build(IPT, {}, options)


def test_ipt(**options: Any) -> IPT:
    """A tiny one for tests: the same parts on patches of 12 pixels.

    Args:
        **options: Options of :class:`IPT` that differ from the tiny ones.
    """
    return build(IPT, {"n_feats": 8, "patch_size": 12, "num_heads": 4, "num_layers": 2}, options)


test_ipt.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
