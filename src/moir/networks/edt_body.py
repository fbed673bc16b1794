"""The transformer of EDT: attention in lying and standing windows (arXiv 2112.10175, section 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from moir.layers import tracing
from moir.layers.tracing import OUTSIDE


def shift_mask(
    window: tuple[int, int],
    shift: tuple[int, int],
    last_row: bool,
    last_column: bool,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Which pixels of one window do not see each other, because the picture was rolled.

    Args:
        window: Height and width of the window, pixels.
        shift: By how much the picture was rolled up and left, pixels.
        last_row, last_column: Whether the window is in the last row, or column, of windows; only these have both ends
            of the picture in them.
        device: Where the mask is made.

    Returns:
        (T, T) with T pixels of a window, row by row; 0, or :data:`OUTSIDE`.
    """
    row = torch.arange(window[0], device=device) >= window[0] - shift[0]
    column = torch.arange(window[1], device=device) >= window[1] - shift[1]
    side = (2 * (row & last_row)[:, None] + (column & last_column)).flatten()
    return OUTSIDE * (side[:, None] != side).float()


def shift_masks(
    size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device | None = None
) -> torch.Tensor:
    """The masks of all windows of a picture, (windows, T, T), row by row: what published files hold."""
    down, across = size[0] // window[0], size[1] // window[1]
    return torch.stack(
        [shift_mask(window, shift, i == down - 1, j == across - 1, device) for i in range(down) for j in range(across)]
    )


class WindowAttention(nn.Module):
    """Self-attention within windows that are not square, and a convolution of the values for position.

    ``softmax(q k^T / sqrt(d)) v + depthwise(v)``, the convolution within the window too (LePE, arXiv 2107.00652).

    Args:
        dim: Channels C.
        heads: Attention heads.
        window: Height and width of a window, pixels.
        shift: By how much the grid of windows is moved, pixels.
    """

    def __init__(self, dim: int, heads: int, window: tuple[int, int], shift: tuple[int, int]) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.lepe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, qkv: torch.Tensor) -> torch.Tensor:
        """Map queries, keys and values (3, B, H, W, C), sides multiples of the window, to (B, H, W, C)."""
        _, batch, height, width, channels = qkv.shape
        rows, columns = self.window
        if any(self.shift):
            qkv = qkv.roll((-self.shift[0], -self.shift[1]), (2, 3))
        grid = (height // rows, width // columns)
        split = (3, batch, grid[0], rows, grid[1], columns, self.heads, channels // self.heads)
        # (3, B, windows down, windows across, heads, T, channels of a head)
        q, k, v = qkv.reshape(split).permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5, 6)
        out = attend_windows(q, k, v, self.window, self.shift) + self._position(v)
        out = out.unflatten(-2, self.window).permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels)
        return out.roll(self.shift, (1, 2)) if any(self.shift) else out

    def _position(self, v: torch.Tensor) -> torch.Tensor:
        """The convolution of the values, window by window."""
        lead = v.shape[:3]
        maps = v.flatten(0, 2).transpose(-1, -2).reshape(-1, self.lepe.in_channels, *self.window)
        out: torch.Tensor = self.lepe(maps)
        return out.reshape(*lead, self.heads, -1, v.shape[-2]).transpose(-1, -2)


@tracing.traced_as(tracing.attend_windows)
def attend_windows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: tuple[int, int], shift: tuple[int, int]
) -> torch.Tensor:
    """Attention within the windows of a picture that was rolled.

    Args:
        q, k, v: (B, windows down, windows across, heads, T, d).
        window: Height and width of a window, pixels; T of them.
        shift: By how much the picture was rolled up and left, pixels.

    Returns:
        The shape of ``v``.
    """
    if not any(shift):
        return _attention(q, k, v, None)
    # Only windows at the end of an axis are masked, all in one way: no mask of the whole picture is needed.
    parts = []
    for last_row, down in ((False, slice(0, q.shape[1] - 1)), (True, slice(q.shape[1] - 1, None))):
        line = []
        for last_column, across in ((False, slice(0, q.shape[2] - 1)), (True, slice(q.shape[2] - 1, None))):
            mask = None
            if last_row or last_column:
                mask = shift_mask(window, shift, last_row, last_column, q.device).to(q.dtype)
            line.append(_attention(q[:, down, across], k[:, down, across], v[:, down, across], mask))
        parts.append(torch.cat(line, dim=2))
    return torch.cat(parts, dim=1)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention over (B, windows down, windows across, heads, T, d); there may be no windows at all."""
    if q.numel() == 0:
        return v
    flat = F.scaled_dot_product_attention(q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2), attn_mask=mask)
    return flat.reshape(v.shape)


class FeedForward(nn.Module):
    """Linear, GELU, 5x5 depthwise convolution, GELU, linear.

    Args:
        dim: Channels C.
        hidden: Hidden width.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        y = F.gelu(self.fc1(x)).permute(0, 3, 1, 2)
        out: torch.Tensor = self.fc2(F.gelu(self.dwconv(y)).permute(0, 2, 3, 1))
        return out


class Block(nn.Module):
    """``x += attention(norm1(x))``; ``x += feed_forward(norm2(x))``, where training leaves out halves at random.

    Half of the channels attends in lying windows, half in standing ones.

    Args:
        dim: Channels C, even.
        heads: Attention heads of each half of the channels.
        window: Short and long side of a window, pixels.
        hidden: Hidden width of the feed-forward half.
        shifted: Whether the grids of windows are moved by half a window.
        drop: Probability that a half is left out for a picture, in training (stochastic depth, arXiv 1603.09382).
        masks: What published files hold for shifted blocks, and no one uses; see :class:`Body`.

    Attributes:
        adaptir: An adapter beside the feed-forward half, on its normalised input, (B, H, W, C) to the same shape;
            None: none.
    """

    adaptir: nn.Module | None

    def __init__(
        self,
        dim: int,
        heads: int,
        window: tuple[int, int],
        hidden: int,
        shifted: bool,
        drop: float,
        masks: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        super().__init__()
        self.drop = drop
        short, long = window
        self.norm1 = nn.LayerNorm(dim)
        self.attns = nn.ModuleList(
            WindowAttention(dim // 2, heads, side, (side[0] // 2, side[1] // 2) if shifted else (0, 0))
            for side in ((short, long), (long, short))
        )
        if shifted:
            self.register_buffer("attn_mask_h", masks[0])
            self.register_buffer("attn_mask_v", masks[1])
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, hidden)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.register_module("adaptir", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, H, W, C), sides multiples of the window's long one, to the same shape."""
        # (B, H, W, 3 C) to (3, B, H, W, C). Not unflatten(), which torch's exporter takes to be of one size for ever.
        qkv = self.qkv(self.norm1(x)).reshape(*x.shape[:3], 3, -1).permute(3, 0, 1, 2, 4)
        halves = [attend(half) for attend, half in zip(self.attns, qkv.chunk(2, dim=-1), strict=True)]
        x = x + self._dropped(self.proj(torch.cat(halves, dim=-1)))
        y = self.norm2(x)
        change = self.mlp(y) if self.adaptir is None else self.mlp(y) + self.adaptir(y)
        return x + self._dropped(change)

    def _dropped(self, change: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.drop:
            return change
        kept = torch.rand(len(change), 1, 1, 1, device=change.device) >= self.drop
        return change * kept / (1 - self.drop)


class Group(nn.Module):
    """Blocks in sequence, plus what came in; under the published names ``residual_group.blocks``.

    Args:
        blocks: The blocks.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, H, W, C) to the same shape."""
        y = x
        blocks = self.residual_group["blocks"]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            y = block(y)
        return x + y


class Body(nn.Module):
    """Norm, groups of blocks, norm, convolution, plus what came in.

    Published files hold the masks of shifted blocks for pictures of one size. These are kept in the state dict, and
    not used: the masks that a picture needs are made for its size.

    Args:
        dim: Channels C, even.
        depths: Blocks per group.
        heads: Attention heads per group.
        window: Short and long side of a window, pixels.
        ratio: Hidden width of the feed-forward halves over ``dim``.
        drop: Probability that the last block is left out in training; from 0, it rises block by block.
        img_size: Side of the pictures that the masks in the state dict are for, pixels.
    """

    def __init__(
        self,
        dim: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: tuple[int, int],
        ratio: float,
        drop: float,
        img_size: int,
    ) -> None:
        super().__init__()
        short, long = window
        size = (img_size, img_size)
        masks = (
            shift_masks(size, (short, long), (short // 2, long // 2)),
            shift_masks(size, (long, short), (long // 2, short // 2)),
        )
        count = sum(depths)
        rates = [drop * i / max(1, count - 1) for i in range(count)]
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList()
        for group, depth in enumerate(depths):
            first = sum(depths[:group])
            self.layers.append(
                Group(
                    [
                        Block(dim, heads[group], window, int(dim * ratio), i % 2 == 1, rates[first + i], masks)
                        for i in range(depth)
                    ]
                )
            )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W), sides multiples of the window's long one, to the same shape."""
        y = self.patch_embed["norm"](x.permute(0, 2, 3, 1))
        for group in self.layers:
            y = group(y)
        out: torch.Tensor = x + self.conv_after_body(self.norm(y).permute(0, 3, 1, 2))
        return out
