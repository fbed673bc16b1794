"""Attention within windows, with a learned bias for every distance (DehazeFormer's form)."""

import torch
from torch import nn

from moir.layers.padding import reflect_pad


class WindowAttention(nn.Module):
    """Self-attention of the pixels of a window, after Swin (arXiv 2103.14030) as in DehazeFormer (arXiv 2204.03883).

    ``softmax(q k^T / sqrt(d) + bias) v``. The bias is a small network's answer to the signed logarithmic distance
    ``sign(d) log(1 + |d|)`` in rows and columns, per head.

    Args:
        heads: Attention heads.
        window: Side of a window, pixels.
    """

    relative_positions: torch.Tensor

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        places = torch.stack([rows.flatten(), columns.flatten()], dim=1).float()
        distance = places[:, None] - places[None]
        self.register_buffer("relative_positions", distance.sign() * distance.abs().log1p())
        self.meta = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, heads))

    def forward(self, qkv: torch.Tensor, shift: int = 0) -> torch.Tensor:
        """Attend within windows on the grid that starts ``shift`` pixels left of and above the features.

        Windows that reach over the border are filled by mirroring; nothing wraps around.

        Args:
            qkv: (B, 3 C, H, W), queries, keys and values, each of consecutive heads; any H, W >= 1.
            shift: How far the grid is moved, 0 to ``window - 1``.

        Returns:
            (B, C, H, W).
        """
        height, width = qkv.shape[-2:]
        side = self.window
        qkv = reflect_pad(qkv, shift, -(width + shift) % side, shift, -(height + shift) % side)
        batch, channels, rows, columns = qkv.shape
        grid = (rows // side, columns // side)
        per_head = (batch, 3, self.heads, channels // (3 * self.heads), grid[0], side, grid[1], side)
        # (3, B, windows down, windows across, heads, pixels, channels of a head)
        q, k, v = qkv.reshape(per_head).permute(1, 0, 4, 6, 2, 5, 7, 3).flatten(5, 6)
        bias = self.meta(self.relative_positions).permute(2, 0, 1)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + bias).softmax(dim=-1)
        out = (weights.to(v.dtype) @ v).unflatten(-2, (side, side))
        out = out.permute(0, 3, 6, 1, 4, 2, 5).reshape(batch, channels // 3, rows, columns)
        return out[..., shift : shift + height, shift : shift + width]
