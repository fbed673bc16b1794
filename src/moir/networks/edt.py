"""EDT: a window transformer between convolutional heads and tails, the second backbone of AdaptIR.

Papers: "On Efficient Transformer-Based Image Pre-training for Low-Level Vision", IJCAI 2023, arXiv 2112.10175 (size B);
adapted in AdaptIR (NeurIPS 2024, arXiv 2312.08881), whose task names are used here. State-dict names and shapes are
the published ones.

The published code has no head for the hybrid tasks and for low light, and adds the first picture of a batch to the
results of all when it denoises or derains. Here hybrids use the head of their scale, low light that of noise 50 (as in
IPT), and every picture is its own residual.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from moir.base.errors import InvalidValueError
from moir.base.names import check_name
from moir.layers import tracing
from moir.layers.transposed_attention import check_heads
from moir.networks.adaptation_tasks import RGB_MEAN, TASK_SCALES, check_task
from moir.networks.base import Context, RestorationNetwork, build, check_pictures
from moir.networks.edt_body import Body
from moir.networks.edt_heads import Head, Tail

HEAD_SCALES: dict[str, int] = {"sr_x2": 2, "sr_x3": 3, "sr_x4": 4, "dn_g30": 1, "dn_g50": 1, "dr_H": 1}
"""Heads and tails, by their published names, to scales."""

HEAD_OF_TASK: dict[str, str] = {
    "sr_2": "sr_x2",
    "sr_3": "sr_x3",
    "sr_4": "sr_x4",
    "lr4_noise30": "sr_x4",
    "lr4_jpeg30": "sr_x4",
    "denoise_30": "dn_g30",
    "denoise_25": "dn_g30",
    "denoise_50": "dn_g50",
    "low_light": "dn_g50",
    "derainL": "dr_H",  # both rain tasks, as published
    "derainH": "dr_H",
}
"""Which head and tail a task uses."""


class EDT(RestorationNetwork):
    """EDT (arXiv 2112.10175, section 3), of size B by default.

    Super-resolution runs the transformer at the input's resolution, the other tasks at a quarter of it. In evaluation
    a picture is mirrored to the next multiple of the window that is larger than the picture, as published; in training
    only one that is no multiple.

    Args:
        task: One of :data:`~moir.networks.adaptation_tasks.TASK_SCALES`.
        heads: Heads and tails to have, of :data:`HEAD_SCALES`; None: that of the task. Published files of the
            super-resolution pre-training have three. Those that the task does not use do not require a gradient.
        num_feat: Width of the head's first convolution.
        embed_dim: Width of the transformer, even.
        depths: Blocks per group of the transformer.
        num_heads: Attention heads per group, for each half of the channels.
        window_size: Short and long side of an attention window, pixels of the transformer's resolution.
        mlp_ratio: Hidden width of the feed-forward halves over ``embed_dim``.
        drop_path_rate: Probability that the last block is left out in training (stochastic depth).
        img_size: Side of the pictures that the attention masks in published files are for; nothing else depends on it.

    Attributes:
        scale: How many times larger the result is; a matter of ``task``.

    Raises:
        UnknownNameError: Not a task, or not a head.
        InvalidValueError: Sizes that do not divide each other, lists of different lengths, or heads without the task's.
    """

    # Windows of 24 pixels at a quarter of the resolution.
    size_multiple: ClassVar[int] = 96
    overlap: ClassVar[int] = 96
    mean: torch.Tensor

    def __init__(
        self,
        task: str = "sr_4",
        heads: Sequence[str] | None = None,
        num_feat: int = 32,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 6,
        num_heads: Sequence[int] = (6,) * 6,
        window_size: Sequence[int] = (6, 24),
        mlp_ratio: float = 2.0,
        drop_path_rate: float = 0.1,
        img_size: int = 48,
    ) -> None:
        super().__init__()
        self.head_name = HEAD_OF_TASK[check_task(task)]
        self.scale = TASK_SCALES[task]
        names = [self.head_name] if heads is None else [check_name(name, HEAD_SCALES, "head of EDT") for name in heads]
        if self.head_name not in names:
            raise InvalidValueError(f"heads are {names}, but the task {task} needs {self.head_name}")
        if len(depths) != len(num_heads) or not depths:
            raise InvalidValueError(f"depths={list(depths)}, num_heads={list(num_heads)}: both, one number per group")
        if len(window_size) != 2 or any(s < 2 or s % 2 for s in window_size) or window_size[1] % window_size[0]:
            raise InvalidValueError(f"window_size is {list(window_size)}; two even sides, the second a multiple")
        if embed_dim % 2:
            raise InvalidValueError(f"embed_dim is {embed_dim}; two kinds of windows share it, so it must be even")
        for count in num_heads:
            check_heads(embed_dim // 2, count)
        if not 0 <= drop_path_rate < 1:
            raise InvalidValueError(f"drop_path_rate is {drop_path_rate}; it must be at least 0 and below 1")
        short, long = window_size
        if img_size < long or img_size % long:
            raise InvalidValueError(f"img_size is {img_size}; it must be a multiple of the window's {long} px")
        self.multiple = long if self.scale != 1 else 4 * long
        for name in names:
            small = HEAD_SCALES[name] == 1
            head = Head(num_feat, embed_dim, down=small)
            tail = Tail(num_feat, embed_dim, up=small, scale=HEAD_SCALES[name])
            self.add_module(f"head_{name}", head.requires_grad_(name == self.head_name))
            self.add_module(f"tail_{name}", tail.requires_grad_(name == self.head_name))
        self.body = Body(embed_dim, depths, num_heads, (short, long), mlp_ratio, drop_path_rate, img_size)
        self.register_buffer("mean", torch.tensor(RGB_MEAN)[:, None, None], persistent=False)

    def forward(self, x: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Restore pictures or tiles.

        Args:
            x: (B, 3, H, W), float32, [0, 1], any H, W >= 1.
            context: Not used; EDT decides nothing about whole pictures.

        Returns:
            (B, 3, scale * H, scale * W), about [0, 1], not clamped.

        Raises:
            TensorShapeError: ``x`` is not a batch of colour pictures.
        """
        check_pictures(x)
        centred = mirrored(x, self.multiple, beyond=not self.training) - self.mean
        features, skips = self.get_submodule(f"head_{self.head_name}")(centred)
        change = self.get_submodule(f"tail_{self.head_name}")(self.body(features), skips)
        if self.scale != 1:
            centred = F.interpolate(centred, scale_factor=self.scale, mode="bilinear", align_corners=False)
        out: torch.Tensor = centred + change + self.mean
        return out[..., : self.scale * x.shape[2], : self.scale * x.shape[3]]


@tracing.traced_as(tracing.mirrored)
def mirrored(x: torch.Tensor, multiple: int, beyond: bool) -> torch.Tensor:
    """Mirror the picture, its last row and column too, to the right and below, as often as it takes.

    Args:
        x: (B, 3, H, W), any H, W >= 1.
        multiple: Both sides become multiples of this.
        beyond: Whether a side that is a multiple already goes on to the next one.

    Returns:
        (B, 3, H', W').
    """
    for axis in (2, 3):
        length = x.shape[axis]
        target = length + (multiple - length % multiple if beyond else -length % multiple)
        if target > length:
            place = torch.arange(target, device=x.device) % (2 * length)
            x = x.index_select(axis, torch.minimum(place, 2 * length - 1 - place))
    return x


def _edt(name: str, tasks: Sequence[str], defaults: Mapping[str, Any], options: Mapping[str, Any]) -> EDT:
    network = build(EDT, {"task": tasks[0], **defaults}, options)
    task = network.options["task"]
    if task not in tasks:
        raise InvalidValueError(f"{name} cannot have the task {task}; its tasks are: {', '.join(tasks)}")
    return network


def edt_sr2(**options: Any) -> EDT:
    """EDT-B for super-resolution x2: 11,479,355 parameters.

    Args:
        **options: Options of :class:`EDT` that differ from the published ones.

    Raises:
        UnknownNameError: An option that the network does not have.
        InvalidValueError: A task that is not for this model.
    """
    return _edt("edt_sr2", ["sr_2"], {}, options)


def edt_sr3(**options: Any) -> EDT:
    """EDT-B for super-resolution x3: 11,663,995 parameters. See :func:`edt_sr2`."""
    return _edt("edt_sr3", ["sr_3"], {}, options)


def edt_sr4(**options: Any) -> EDT:
    """EDT-B for super-resolution x4, also of noisy and of JPEG pictures: 11,627,067 parameters. See :func:`edt_sr2`."""
    return _edt("edt_sr4", ["sr_4", "lr4_noise30", "lr4_jpeg30"], {}, options)


def edt_denoise(**options: Any) -> EDT:
    """EDT-B for noise, sigma 25 to 50, and for low light: 11,503,163 parameters. See :func:`edt_sr2`."""
    return _edt("edt_denoise", ["denoise_30", "denoise_25", "denoise_50", "low_light"], {}, options)


def edt_derain(**options: Any) -> EDT:
    """EDT-B for rain: 11,503,163 parameters. See :func:`edt_sr2`."""
    return _edt("edt_derain", ["derainH", "derainL"], {}, options)


def test_edt(**options: Any) -> EDT:
    """A tiny one for tests, by default for noise.

    Args:
        **options: Options of :class:`EDT` that differ from the tiny ones.
    """
    tiny = {
        "task": "denoise_30",
        "num_feat": 4,
        "embed_dim": 12,
        "depths": (2, 1),
        "num_heads": (2, 3),
        "window_size": (2, 8),
        "img_size": 16,
    }
    return build(EDT, tiny, options)


test_edt.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
