"""Tiles against the whole picture: how far apart they are, with one decision shared by all tiles, and without.

    python benchmarks/speed/tiles.py [--cases compact moce_ir_s ...] [--side 320] [--tile 192]

For each network, on a damaged photograph (noise, where nothing else is said): the PSNR between what tiles give and what
the whole picture gives

- `shared`: as the runtime does it, with the decision made once (`analyse`), what layers measure on the whole picture
  measured once, on a sample of it (`measure`, `moir.runtime.sample`), and tiles that know where they lie (PromptIR);
- `exact`: the same measured on the whole picture, which the runtime does not do, since it may not fit into memory;
- `alone`: every tile deciding for itself, for comparison;

and `change`, the PSNR between the restored picture and its input: a network that changes nothing would agree with
itself in any tiles, so `shared` must be read beside it. Shipped weights where there are any; otherwise random ones, the
published depths with a width that a CPU can do, and residual branches that begin at zero switched on. The tree of
experts is told what is there, so that each of its ways is seen: one network, several one after the other, the grid. The
exact mode (`tile=None`) is the whole picture itself; its memory and time are in large_pictures.py (`--tile none`).
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from skimage import data

import moir
from moir import degrade
from moir.metrics import psnr
from moir.models import shipped
from moir.networks.base import Context, RestorationNetwork
from moir.runtime.pipeline import Forward, TilePipeline
from moir.runtime.sample import mosaic
from moir.runtime.tiling import plan


@dataclass(frozen=True)
class Case:
    """A network and what it is given.

    Attributes:
        model: Its name.
        options: What makes it narrower than published; depth, and so the field of view, is as published.
        damage: What is done to the photograph, as for `moir degrade`.
        types: What the network is told to remove; empty: it is told nothing.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    damage: tuple[str, ...] = ("noise=25",)
    types: tuple[str, ...] = ()


TREE = "unirestorer_compact"

CASES: Mapping[str, Case] = {
    "compact": Case("compact"),
    "tree-noise": Case(TREE, types=("noise",)),
    "tree-haze": Case(TREE, damage=("haze=medium",), types=("haze",)),
    "tree-noise-haze": Case(TREE, damage=("haze=medium", "noise=25"), types=("noise", "haze")),
    "tree-lowlight": Case(TREE, damage=("lowlight=medium",), types=("lowlight",)),
    "tree-steps": Case(
        TREE, damage=("noise=25", "rain=medium", "haze=medium", "jpeg=30"), types=("noise", "rain", "haze", "jpeg")
    ),
    "moce_ir_s": Case("moce_ir_s"),
    "restormer": Case("restormer", {"dim": 16}),
    "nafnet": Case("nafnet", {"width": 16}),
    "promptir": Case("promptir", {"dim": 16}),
    "retinexformer": Case("retinexformer", {"n_feat": 16}),
}


def open_network(name: str, options: Mapping[str, Any]) -> tuple[RestorationNetwork, str]:
    """The network and what its weights are."""
    if name in shipped():
        return moir.load(name, device="cpu", precision="float32").engine.network, "shipped"
    torch.manual_seed(0)
    network = moir.create_model(name, **options).eval().requires_grad_(False)
    for parameter in network.parameters():
        if not bool(parameter.any()):
            parameter.normal_(std=0.1)
    return network, "random" + "".join(f", {key} {value}" for key, value in options.items())


def picture(side: int, damage: tuple[str, ...]) -> torch.Tensor:
    """A photograph with damage, (1, 3, side, side)."""
    pixels = torch.from_numpy(data.astronaut()[:side, :side].copy()).permute(2, 0, 1)[None].float() / 255
    generator = torch.Generator().manual_seed(0)
    return degrade.apply(pixels, [[params for spec in damage for params in degrade.parse(spec).sample(generator)]])


@torch.inference_mode()
def measure(name: str, side: int, tile: int) -> dict[str, Any]:
    """One case's figures."""
    case = CASES[name]
    network, weights = open_network(case.model, case.options)
    smallest = 2 * network.overlap + network.size_multiple
    tile = max(tile, smallest) // network.size_multiple * network.size_multiple
    x = picture(side, case.damage)
    began = time.perf_counter()

    def decided(part: torch.Tensor) -> Context:
        context = network.analyse(part)
        return network.instruct(context, case.types) if case.types else context

    context = decided(x)
    whole = network(x, context).clamp(0, 1)
    sampled = network.measure(mosaic(x, tile, network.size_multiple), context)
    measured = network.measure(x, context)
    division = plan(side, side, tile, network.overlap, network.size_multiple)

    def tiled(forward: Forward, context: Context) -> torch.Tensor:
        pipeline = TilePipeline(forward, x.device, x.dtype, uses_place=network.uses_place)
        return pipeline.restore(x, context, division)

    shared = tiled(lambda part, known, _: network(part, known), sampled)
    exact = tiled(lambda part, known, _: network(part, known), measured)
    alone = tiled(lambda part, _, __: network(part, decided(part)), {})
    error = (shared - whole).abs().max().item()
    return {
        "case": name,
        "weights": weights,
        "restored_by": [expert for expert, _ in network.account(context) or []],
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
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--tile", type=int, default=192)
    options = parser.parse_args()
    for name in options.cases:
        print(json.dumps(measure(name, options.side, options.tile)), flush=True)


if __name__ == "__main__":
    main()
