"""Tiles against the whole picture: how far apart they are, with one decision shared by all tiles, and without.

    python benchmarks/speed/tiles.py [--models compact moce_ir_s ...] [--side 320] [--tile 192]

For each network, on a photograph with noise: the PSNR between what tiles give and what the whole picture gives

- `shared`: as the runtime does it, with the decision made once (`analyse`), what layers measure on the whole picture
  measured once, on a sample of it (`measure`, `moir.runtime.sample`), and tiles that know where they lie (PromptIR);
- `exact`: the same measured on the whole picture, which the runtime does not do, since it may not fit into memory;
- `alone`: every tile deciding for itself, for comparison;

and `change`, the PSNR between the restored picture and its input: a network that changes nothing would agree with
itself in any tiles, so `shared` must be read beside it. Shipped weights where there are any; otherwise random ones, the
published depths with a width that a CPU can do, and residual branches that begin at zero switched on. The exact mode
(`tile=None`) is the whole picture itself; its memory and time are in large_pictures.py (`--tile none`).
"""

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from skimage import data

import moir
from moir.metrics import psnr
from moir.models import shipped
from moir.networks.base import Context, RestorationNetwork
from moir.runtime.pipeline import Forward, TilePipeline
from moir.runtime.sample import mosaic
from moir.runtime.tiling import plan

NETWORKS: Mapping[str, dict[str, Any]] = {
    "compact": {},
    "moce_ir_s": {},
    "restormer": {"dim": 16},
    "nafnet": {"width": 16},
    "promptir": {"dim": 16},
    "retinexformer": {"n_feat": 16},
}
"""Networks and the options that make them narrower than published; depth, and so the field of view, is as published."""


def open_network(name: str, options: dict[str, Any]) -> tuple[RestorationNetwork, str]:
    """The network and what its weights are."""
    if name in shipped():
        return moir.load(name, device="cpu", precision="float32").engine.network, "shipped"
    torch.manual_seed(0)
    network = moir.create_model(name, **options).eval().requires_grad_(False)
    for parameter in network.parameters():
        if not bool(parameter.any()):
            parameter.normal_(std=0.1)
    return network, "random" + "".join(f", {key} {value}" for key, value in options.items())


def picture(side: int) -> torch.Tensor:
    """A photograph with noise of sigma 25, (1, 3, side, side)."""
    pixels = torch.from_numpy(data.astronaut()[:side, :side].copy()).permute(2, 0, 1)[None].float() / 255
    return (pixels + 25 / 255 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


@torch.inference_mode()
def measure(name: str, options: dict[str, Any], side: int, tile: int) -> dict[str, Any]:
    """One network's figures."""
    network, weights = open_network(name, options)
    smallest = 2 * network.overlap + network.size_multiple
    tile = max(tile, smallest) // network.size_multiple * network.size_multiple
    x = picture(side)
    began = time.perf_counter()
    context = network.analyse(x)
    whole = network(x, context).clamp(0, 1)
    sampled = network.measure(mosaic(x, tile, network.size_multiple), context)
    measured = network.measure(x, context)
    division = plan(side, side, tile, network.overlap, network.size_multiple)

    def tiled(forward: Forward, context: Context) -> torch.Tensor:
        pipeline = TilePipeline(forward, x.device, x.dtype, uses_place=network.uses_place)
        return pipeline.restore(x, context, division)

    shared = tiled(lambda part, known, _: network(part, known), sampled)
    exact = tiled(lambda part, known, _: network(part, known), measured)
    alone = tiled(lambda part, _, __: network(part), {})
    error = (shared - whole).abs().max().item()
    return {
        "model": name,
        "weights": weights,
        "side": side,
        "tile": tile,
        "tiles": division.count,
        "overlap": network.overlap,
        "shared_db": round(psnr(shared, whole).item(), 1) if error else None,
        "exact_db": round(psnr(exact, whole).item(), 1) if not torch.equal(exact, whole) else None,
        "alone_db": round(psnr(alone, whole).item(), 1) if not torch.equal(alone, whole) else None,
        "change_db": round(psnr(whole, x).item(), 1),
        "largest_error": round(error, 5),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Measure, one JSON object per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--tile", type=int, default=192)
    options = parser.parse_args()
    for name in options.models:
        print(json.dumps(measure(name, NETWORKS[name], options.side, options.tile)), flush=True)


if __name__ == "__main__":
    main()
