"""Knowledge distillation (Hinton et al. 2015): another network whose results are learnt from."""

import torch

from moir.base.names import TYPES
from moir.models import load_model
from moir.networks.base import select
from moir.training.start import lay_out


class Teacher:
    """A network with its weights, which does not learn.

    Args:
        weights: As :func:`moir.models.load_model` takes them.
        device: Where it runs.
    """

    def __init__(self, weights: str, device: torch.device) -> None:
        network, _ = load_model(weights)
        self.network = network.to(device).eval().requires_grad_(False)
        lay_out(self.network)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, remove: torch.Tensor) -> torch.Tensor:
        """What it makes of a batch, told the same where anything was told.

        Args:
            x: (B, 3, H, W).
            remove: (B, 8), what shall be removed, and last whether that was said.

        Returns:
            (B, 3, H, W), float32, clamped to [0, 1].
        """
        context = {name: value.clone() for name, value in self.network.analyse(x).items()}
        rows_of: dict[tuple[str, ...], list[int]] = {}
        for row, (*flags, is_told) in enumerate(remove.tolist()):
            if is_told and self.network.estimates:
                types = tuple(type_ for type_, flag in zip(TYPES, flags, strict=True) if flag)
                rows_of.setdefault(types, []).append(row)
        for types, rows in rows_of.items():
            for name, value in self.network.instruct(select(context, rows), types).items():
                context[name][rows] = value
        restored: torch.Tensor = self.network(x, context)
        return restored.float().clamp(0, 1)
