"""Reading a bilateral grid at each pixel's place and brightness (HDRNet, Gharbi et al. 2017, section 3.3)."""

import torch
import torch.nn.functional as F

from moir.layers import tracing


@tracing.traced_as(tracing.slice_grid)
def slice_grid(grid: torch.Tensor, guide: torch.Tensor, place: torch.Tensor | None = None) -> torch.Tensor:
    """Interpolate a grid, linearly along both sides of the picture and along brightness.

    Args:
        grid: (B, C, bins, G, G), stretched over whole pictures.
        guide: (B, H, W), [0, 1], the brightness of the pixels of pictures or tiles; 0 is the first bin, 1 the last.
        place: (B, 4), int64: first row and column of each tile in its picture, height and width of the picture, pixels;
            None: whole pictures.

    Returns:
        (B, C, H, W).
    """
    batch, height, width = guide.shape
    bins = grid.shape[2]

    def axis(start: torch.Tensor, whole: torch.Tensor, count: int) -> torch.Tensor:
        return 2 * (start[:, None] + torch.arange(count, device=guide.device) + 0.5) / whole[:, None] - 1

    if place is None:
        place = torch.tensor([[0, 0, height, width]], device=guide.device)
    top, left, whole_height, whole_width = place.unbind(1)
    rows = axis(top, whole_height, height)[:, :, None].expand(batch, height, width)
    columns = axis(left, whole_width, width)[:, None].expand(batch, height, width)
    brightness = (2 * guide * (bins - 1) + 1) / bins - 1
    points = torch.stack([columns, rows, brightness], dim=-1)[:, None]
    return F.grid_sample(grid, points, padding_mode="border", align_corners=False)[:, :, 0]
