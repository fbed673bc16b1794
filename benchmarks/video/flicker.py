"""How much less a clip flickers when a shot has one routing.

python benchmarks/video/flicker.py [--output FILE.md]

A window moves over photographs, 2 pixels a frame. The damage of a clip is sampled once; what differs from frame to
frame in the world too (noise, streaks of rain, flakes) is drawn anew for every frame, haze and darkness stay. The same
frames are restored by the routing of their shot and each by its own. Flicker is `moir.batch.video.flicker`: the
change of the error from frame to frame, in 8-bit levels, so that the movement itself does not count.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from skimage import data

import moir
from moir import degrade
from moir.batch.video import flicker
from moir.batch.video.clip import restore_frames
from moir.batch.video.plan import SAMPLES
from moir.batch.video.routing import medoid
from moir.metrics import psnr

DAMAGE = (
    "noise=15",
    "noise=50",
    "rain=medium",
    "snow=medium",
    "haze=medium",
    "lowlight=medium",
    "jpeg=20",
    "haze=medium,rain=medium",
    "lowlight=medium,noise=15",
)


def clips(frames: int, side: int) -> dict[str, torch.Tensor]:
    """Clean clips, (T, 3, side, side) each."""
    result = {}
    for name in ("astronaut", "coffee", "chelsea"):
        picture = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1).float() / 255
        top = (picture.shape[1] - side) // 2
        result[name] = torch.stack([picture[:, top : top + side, 2 * i : 2 * i + side] for i in range(frames)])
    return result


def renewed(params: Sequence[Any], frame: int) -> list[Any]:
    """The damage of a frame: that of the clip, with grain, streaks and flakes of its own."""
    return [replace(p, seed=p.seed + frame) if p.type in ("noise", "rain", "snow") else p for p in params]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    restorer = moir.load(options.model)
    rows = [
        "| damage | damaged | routed per frame | routed per shot | less | PSNR per frame | PSNR per shot |",
        "|---|---|---|---|---|---|---|",
    ]
    sums = torch.zeros(3)
    for spec in DAMAGE:
        request = degrade.parse(spec)
        values = []
        for clean in clips(options.frames, options.side).values():
            generator = torch.Generator().manual_seed(0)
            params = request.sample(generator)
            damaged = torch.cat([degrade.apply(x[None], [renewed(params, i)]) for i, x in enumerate(clean)])
            places = {options.frames * (2 * i + 1) // (2 * SAMPLES) for i in range(SAMPLES)}
            context = medoid([restorer.engine.analyse(damaged[i : i + 1]) for i in sorted(places)])
            shot = torch.stack([picture for picture, _ in restore_frames(damaged, restorer, context)])
            single = torch.stack([picture for picture, _ in restore_frames(damaged, restorer, None)])
            quality = [
                float(torch.stack([psnr(a[None], b[None]).mean() for a, b in zip(x, clean, strict=True)]).mean())
                for x in (single, shot)
            ]
            values.append([flicker(damaged, clean), flicker(single, clean), flicker(shot, clean), *quality])
        mean = torch.tensor(values).mean(0)
        sums += mean[:3]
        less = 1 - float(mean[2] / mean[1])
        rows.append(
            f"| {spec} | {mean[0]:.2f} | {mean[1]:.2f} | {mean[2]:.2f} | {less:.0%} | {mean[3]:.2f} | {mean[4]:.2f} |"
        )
        print(rows[-1], flush=True)
    mean = sums / len(DAMAGE)
    rows.append(f"| mean | {mean[0]:.2f} | {mean[1]:.2f} | {mean[2]:.2f} | {1 - float(mean[2] / mean[1]):.0%} | | |")
    print("\n".join(rows))
    if options.output:
        options.output.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
