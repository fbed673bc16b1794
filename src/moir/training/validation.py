"""The same damaged pictures after every so many steps: a number for each damage, and pictures to look at."""

from pathlib import Path

import torch

from moir import degrade
from moir.base.errors import TrainingError
from moir.metrics import psnr
from moir.networks.base import RestorationNetwork
from moir.picture import from_tensor, write
from moir.training.data import load_pictures
from moir.training.recipe import Validation


class Validator:
    """Holds the damaged pictures and measures a network on them.

    Args:
        settings: The section of the recipe.
        training_folders: Where training pictures come from, which must not be validated on.

    Raises:
        TrainingError: A validation folder is also a training folder, or no picture is large enough.
    """

    def __init__(self, settings: Validation, training_folders: list[str]) -> None:
        shared = set(settings.folders) & set(training_folders)
        if shared:
            raise TrainingError(f"{', '.join(shared)} is in data.folders and in validation.folders; keep them apart")
        pictures = load_pictures(settings.folders, settings.crop)[: settings.limit]
        self.clean = torch.stack([_centre(p, settings.crop) for p in pictures]).float() / 255
        self.inputs: dict[str, torch.Tensor] = {}
        for number, spec in enumerate(settings.damages):
            generator = torch.Generator().manual_seed(number)
            damaged = self.clean
            if spec != "clean":
                request = degrade.parse(spec)
                damaged = degrade.apply(self.clean, [request.sample(generator) for _ in self.clean])
            self.inputs[spec] = degrade.quantise(damaged)

    @torch.inference_mode()
    def run(self, network: RestorationNetwork, device: torch.device, sheet: Path) -> dict[str, float]:
        """Measure, and write a sheet: a row for each damage with input, restored, clean.

        Returns:
            Mean PSNR (RGB, not rounded) for each damage, dB, and the mean over all but ``clean`` as ``mean``.
        """
        was_training = network.training
        network.eval()
        scores, rows = {}, []
        for spec, inputs in self.inputs.items():
            restored = torch.cat([network(x[None].to(device)).clamp(0, 1).cpu() for x in inputs])
            # A clean picture returned untouched has infinite PSNR; 100 dB stands for "exact".
            scores[spec] = float(psnr(restored, self.clean).clamp(max=100).mean())
            rows.append(torch.cat([inputs[0], restored[0], self.clean[0]], -1))
        damaged = [value for spec, value in scores.items() if spec != "clean"]
        scores["mean"] = sum(damaged) / max(1, len(damaged))
        write(from_tensor(torch.cat(rows, -2)), sheet, overwrite=True)
        network.train(was_training)
        return scores


def _centre(picture: torch.Tensor, side: int) -> torch.Tensor:
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    return picture[:, top : top + side, left : left + side]
