"""The same damaged pictures after every so many steps: a number for each damage, and pictures to look at."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from moir import datasets, degrade
from moir.base.errors import TrainingError
from moir.metrics import psnr
from moir.networks.base import RestorationNetwork
from moir.picture import from_tensor, write
from moir.training.data import load_pictures
from moir.training.pairs import add_noise
from moir.training.recipe import Validation


class Validator:
    """Holds the damaged pictures and measures a network on them.

    Args:
        settings: The section of the recipe.
        training_folders: Where training pictures come from, which must not be validated on.
        root: Where benchmarks lie, if the section does not say.
        scale: How many times larger the network makes pictures.
        told: Degradation types that the network is told to remove, as it is in training; empty: it is told nothing.

    Raises:
        TrainingError: A validation folder is also a training folder, pictures are too small, or a benchmark's targets
            are not as much larger as the network makes pictures.
        DatasetError: A benchmark is missing or not whole; see :func:`moir.datasets.find`.
    """

    def __init__(
        self,
        settings: Validation,
        training_folders: list[str],
        root: str | None = None,
        scale: int = 1,
        told: Sequence[str] = (),
    ) -> None:
        self.told = tuple(told)
        shared = set(settings.folders) & set(training_folders)
        if shared:
            raise TrainingError(f"{', '.join(shared)} is in data.folders and in validation.folders; keep them apart")
        self.pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if settings.folders and scale != 1:
            raise TrainingError(
                f"validation.folders: this network makes pictures {scale} times larger; use validation.benchmarks"
            )
        if settings.folders:
            pictures = load_pictures(settings.folders, settings.crop)[: settings.limit]
            clean = torch.stack([_centre(p, settings.crop) for p in pictures]).float() / 255
            for number, spec in enumerate(settings.damages):
                self.pairs[spec] = (clean if spec == "clean" else _damaged(clean, spec, number), clean)
        place = os.path.expandvars(settings.root or root or "")
        for name in settings.benchmarks:
            for benchmark in datasets.benchmarks(name):
                if benchmark.scale != scale:
                    raise TrainingError(
                        f"validation.benchmarks: targets of {benchmark.name} are {benchmark.scale} times larger than "
                        f"inputs, but this network makes pictures {scale} times larger; leave it out"
                    )
                self.pairs[benchmark.name] = _pairs_of(benchmark, place, settings)

    @torch.inference_mode()
    def run(self, network: RestorationNetwork, device: torch.device, sheet: Path) -> dict[str, float]:
        """Measure, and write a sheet: a row for each damage with input, restored, clean.

        Returns:
            Mean PSNR (RGB, not rounded) for each damage, dB, and the mean over all but ``clean`` as ``mean``.
        """
        was_training = network.training
        network.eval()
        scores, rows = {}, []
        for spec, (inputs, targets) in self.pairs.items():
            restored = torch.cat([self._restored(network, x[None].to(device)).cpu() for x in inputs])
            # A clean picture returned untouched has infinite PSNR; 100 dB stands for "exact".
            scores[spec] = float(psnr(restored, targets).clamp(max=100).mean())
            shown = F.interpolate(inputs[:1], size=targets.shape[-2:], mode="nearest")[0]
            rows.append(torch.cat([shown, restored[0], targets[0]], -1))
        damaged = [value for spec, value in scores.items() if spec != "clean"]
        scores["mean"] = sum(damaged) / max(1, len(damaged))
        widest = max(row.shape[-1] for row in rows)  # benchmarks of several scales are as wide as the largest
        rows = [F.pad(row, (0, widest - row.shape[-1])) for row in rows]
        write(from_tensor(torch.cat(rows, -2)), sheet, overwrite=True)
        network.train(was_training)
        return scores

    def _restored(self, network: RestorationNetwork, x: torch.Tensor) -> torch.Tensor:
        context = network.instruct(network.analyse(x), self.told) if self.told else None
        restored: torch.Tensor = network(x, context).clamp(0, 1)
        return restored


def _damaged(clean: torch.Tensor, spec: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    request = degrade.parse(spec)
    return degrade.quantise(degrade.apply(clean, [request.sample(generator) for _ in clean]))


def _pairs_of(benchmark: datasets.Benchmark, root: str, settings: Validation) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of some pictures of a benchmark, spread over the whole of it.

    (n, 3, crop, crop) both; where targets are s times larger than inputs, they are (n, 3, s * crop, s * crop).
    """
    found = datasets.find(benchmark.name, root)
    larger = settings.crop * found.scale
    inputs, targets = [], []
    for pair in found.pairs[:: max(1, len(found) // settings.limit)][: settings.limit]:
        example = found.load(pair)
        if min(example.target.shape[-2:]) < larger:
            raise TrainingError(
                f"{pair.target} is smaller than {larger} px, which validation.crop {settings.crop} needs; choose less"
            )
        place = _middle(example.target if example.input is None else example.input, settings.crop)
        targets.append(_part(example.target, place, settings.crop, found.scale))
        inputs.append(targets[-1] if example.input is None else _part(example.input, place, settings.crop))
    source, target = torch.stack(inputs), torch.stack(targets)
    made = benchmark.synthesis
    if made is not None and made.type == "noise" and not isinstance(made.level, str):
        source = add_noise(source, made.level, torch.Generator().manual_seed(0))
    elif made is not None:
        source = _damaged(source, made.spec, 0)
    return source, target


def _centre(picture: torch.Tensor, side: int) -> torch.Tensor:
    return _part(picture, _middle(picture, side), side)


def _middle(picture: torch.Tensor, side: int) -> tuple[int, int]:
    height, width = picture.shape[-2:]
    return (height - side) // 2, (width - side) // 2


def _part(picture: torch.Tensor, place: tuple[int, int], side: int, scale: int = 1) -> torch.Tensor:
    """The square whose top left corner and side, in pixels of the input, are given."""
    top, left = (start * scale for start in place)
    return picture[:, top : top + side * scale, left : left + side * scale]
