"""Measure a model on pictures it was not trained on, and write the figures into its card.

    python benchmarks/quality/measure.py --data ROOT [--model NAME_OR_FILE] [--card CARD.json] [--output report.md]

ROOT holds the test sets in the layouts of docs/datasets.md; what is missing is left out, and said. Protocol ``moce_ir``
(of the MoCE-IR paper): whole pictures, centre-cropped to multiples of 16, prediction clamped and not rounded, PSNR over
RGB, averaged over pictures. Inputs are 8 bit. Three sources of damage, kept apart in the table:

- ``benchmark``: published sets, or damage as the benchmarks define it, made with NumPy and Pillow;
- ``other code``: noise and blur of scikit-image, JPEG of Pillow: damage that moir.degrade did not make;
- ``moir degrade``: every type and degree, and the paper's mixes, on clean photographs.
"""

import argparse
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.filters import gaussian
from skimage.util import random_noise

import moir
from moir import datasets, degrade
from moir.base.files import write_text
from moir.checkpoints import Card
from moir.metrics import psnr
from moir.picture import read

LEFT_OUT = {
    ("gb82", "haze-lossless"): "a photograph of real haze: the network removes it, and the reference keeps it",
}
"""Pictures that are no clean reference, with the reason."""

Damage = Callable[[torch.Tensor, int], torch.Tensor]
"""A clean picture (3, H, W) and a seed, to a damaged one."""


@dataclass(frozen=True)
class Row:
    """One row of the table: where the pictures come from, and what is done to them (None: the set has inputs)."""

    source: str
    name: str
    sets: tuple[str, ...]
    damage: Damage | None


def awgn(sigma: float) -> Damage:
    """Noise of the MoCE-IR protocol: added on the 8-bit scale, clipped, truncated to 8 bit."""

    def damage(clean: torch.Tensor, seed: int) -> torch.Tensor:
        noise = np.random.default_rng(seed).standard_normal(clean.shape)
        values = np.clip(clean.numpy() * 255 + sigma * noise, 0, 255).astype(np.uint8)
        return torch.from_numpy(values).float() / 255

    return damage


def jpeg(quality: int) -> Damage:
    """Pillow's JPEG, with its default chroma subsampling."""

    def damage(clean: torch.Tensor, seed: int) -> torch.Tensor:
        file = io.BytesIO()
        pixels = (clean.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255

    return damage


def skimage_noise(mode: str, **options: float) -> Damage:
    """A noise of skimage.util.random_noise."""

    def damage(clean: torch.Tensor, seed: int) -> torch.Tensor:
        noisy = random_noise(clean.numpy(), mode=mode, rng=seed, **options)
        return degrade.quantise(torch.from_numpy(noisy).float())

    return damage


def skimage_blur(sigma: float) -> Damage:
    """A Gaussian blur of skimage.filters."""

    def damage(clean: torch.Tensor, seed: int) -> torch.Tensor:
        return degrade.quantise(torch.from_numpy(gaussian(clean.numpy(), sigma, channel_axis=0)).float())

    return damage


def made(spec: str) -> Damage:
    """Damage of moir.degrade."""
    request = degrade.parse(spec)

    def damage(clean: torch.Tensor, seed: int) -> torch.Tensor:
        params = request.sample(torch.Generator().manual_seed(seed))
        return degrade.quantise(degrade.apply(clean[None], [params])[0])

    return damage


def rows() -> Iterator[Row]:
    """The table, from top to bottom."""
    for sigma in (15, 25, 50):
        yield Row("benchmark", f"CBSD68, noise sigma {sigma}", ("cbsd68",), awgn(sigma))
    for quality in (10, 20, 30, 40):
        yield Row("benchmark", f"LIVE1, JPEG quality {quality}", ("live1",), jpeg(quality))
    yield Row("benchmark", "Rain100H, first 25", ("rain100h_first25",), None)
    photographs = ("cid22_validation", "gb82")
    yield Row("other code", "clean", photographs, lambda clean, seed: clean)
    yield Row(
        "other code", "skimage Gaussian noise, sigma 25", photographs, skimage_noise("gaussian", var=(25 / 255) ** 2)
    )
    yield Row("other code", "skimage Poisson noise", photographs, skimage_noise("poisson"))
    yield Row("other code", "skimage speckle, variance 0.02", photographs, skimage_noise("speckle", var=0.02))
    for sigma in (1.0, 2.0):
        yield Row("other code", f"skimage Gaussian blur, sigma {sigma:g}", photographs, skimage_blur(sigma))
    for quality in (15, 50):
        yield Row("other code", f"Pillow JPEG, quality {quality}", photographs, jpeg(quality))
    for type_ in degrade.ORDER:
        for level in ("light", "medium", "heavy", "inside", "outside"):
            yield Row("moir degrade", f"{type_}={level}", photographs, made(f"{type_}={level}"))
    for mix in degrade.MIXES:
        for level in ("inside", "outside"):
            yield Row("moir degrade", f"{mix}={level}", photographs, made(f"{mix}={level}"))


def crop16(picture: torch.Tensor) -> torch.Tensor:
    """The centre, with sides that are multiples of 16."""
    height, width = (side // 16 * 16 for side in picture.shape[-2:])
    top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
    return picture[:, top : top + height, left : left + width]


def measure(restorer: moir.Restorer, row: Row, root: Path) -> dict[str, object]:
    """One row: mean PSNR of inputs and results, and what the estimate said."""
    before, after = [], []
    for name in row.sets:
        for pair in datasets.find(name, root).pairs:
            if (name, pair.name) in LEFT_OUT:
                continue
            clean = crop16(read(pair.target).rgb)
            seed = zlib.crc32(f"{name}/{pair.name}".encode())
            if row.damage is not None:
                damaged = row.damage(clean, seed)
            else:
                assert pair.input is not None
                damaged = crop16(read(pair.input).rgb)
            result = restorer(damaged).tensor
            # An unchanged clean picture has infinite PSNR; 100 dB stands for "exact".
            before.append(psnr(damaged[None], clean[None]).clamp(max=100).item())
            after.append(psnr(result[None], clean[None]).clamp(max=100).item())
    return {
        "source": row.source,
        "benchmark": row.name,
        "protocol": "moce_ir",
        "n": len(after),
        "psnr_input": round(float(np.mean(before)), 2),
        "psnr": round(float(np.mean(after)), 2),
        # A clean picture can gain nothing; its PSNR says how little was done to it.
        "gain": None if row.name == "clean" else round(float(np.mean(after) - np.mean(before)), 2),
        "better": sum(b > a for a, b in zip(before, after, strict=True)),
    }


def main() -> None:
    """Measure all rows whose sets are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--card", type=Path, help="write the figures into this card")
    parser.add_argument("--output", type=Path, help="write the table as Markdown")
    options = parser.parse_args()

    restorer = moir.load(options.model)
    found, lines = [], ["| damage | source | n | input, dB | restored, dB | gain, dB | pictures improved |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows():
        try:
            figures = measure(restorer, row, options.data)
        except datasets.DatasetError as error:
            print(f"left out: {row.name} ({error})")
            continue
        found.append(figures)
        gain = "" if figures["gain"] is None else f"{figures['gain']:+}"
        lines.append(
            "| {benchmark} | {source} | {n} | {psnr_input} | {psnr} | ".format(**figures)
            + f"{gain} | "
            + f"{figures['better']} |"
        )
        print(lines[-1], flush=True)
    engine = restorer.engine
    command = f"python benchmarks/quality/measure.py --data ROOT --model {restorer.name}"
    heading = (
        f"# {restorer.name}, blind, {engine.device.type} {engine.precision}\n\n`{command}`, protocol `moce_ir`\n\n"
    )
    heading += "".join(f"Left out: {name} of {set_}, {why}.\n\n" for (set_, name), why in LEFT_OUT.items())
    if options.output:
        write_text(options.output, heading + "\n".join(lines) + "\n", overwrite=True)
    if options.card:
        card = Card.read(options.card)
        card.metrics = [{**figures, "command": command} for figures in found]
        card.write(options.card, overwrite=True)
    print(f"{len(found)} rows")


if __name__ == "__main__":
    main()
