"""Turn the weights of a training run into shipped ones: bf16, with a card that says everything.

    python scripts/publish.py runs/compact recipes/cards/compact.yaml

Writes src/moir/weights/NAME.safetensors and NAME.json. The words come from the YAML; steps and samples from the run;
the agreement of precisions is measured here; figures of quality join through
`python benchmarks/quality/standing.py --card src/moir/weights/NAME.json`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from skimage import data

from moir import degrade
from moir.checkpoints import Card, write_tensors
from moir.checkpoints.card import sha256_of
from moir.metrics import psnr
from moir.models import WEIGHTS, create_model, load_model
from moir.networks.base import RestorationNetwork

FEW = 64
"""Numbers that are not worth rounding."""


def agreement(network: RestorationNetwork, other: RestorationNetwork, half: bool) -> float:
    """Lowest PSNR, dB, between two networks (or float32 and bf16 arithmetic) over damaged photographs."""
    lowest = float("inf")
    pictures = [data.chelsea()[:256, 100:356], data.coffee()[60:316, 180:436], data.astronaut()[:256, 100:356]]
    for number, spec in enumerate(
        ("noise=25", "rain=heavy", "haze=medium", "jpeg=20", "H-N-R=medium", "lowlight=medium")
    ):
        clean = torch.from_numpy(pictures[number % 3].copy()).permute(2, 0, 1)[None].float() / 255
        damaged = degrade.apply(clean, [degrade.parse(spec).sample(torch.Generator().manual_seed(number))])
        exact = network(damaged)
        context = other.analyse(damaged)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            lowest = min(lowest, psnr(other(damaged, context).float(), exact).item())
    return round(lowest, 1)


def to_half(tensor: torch.Tensor) -> torch.Tensor:
    """Weights of layers as bf16; statistics, biases, counters and calibration, which are few, as they are."""
    is_layer = tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() > FEW
    return tensor.to(torch.bfloat16) if is_layer else tensor


@torch.inference_mode()
def main() -> None:
    """Publish one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("words", type=Path)
    options = parser.parse_args()

    words = yaml.safe_load(options.words.read_text())
    made = Card.read(options.run / "weights.json")
    network, _ = load_model(str(options.run / "weights.safetensors"))
    rounded = create_model(made.model, **made.options).eval()
    small = {name: to_half(tensor) for name, tensor in network.state_dict().items()}
    rounded.load_state_dict(small)

    halved, stored = agreement(rounded, rounded, half=True), agreement(network, rounded, half=False)
    target = WEIGHTS / f"{made.name}.safetensors"
    own = {name: tensor for name, tensor in small.items() if not name.startswith(tuple(made.parts))}
    write_tensors(target, own, overwrite=True)
    compute = {**made.compute, **words.pop("compute"), "samples": words.pop("samples", made.compute["samples"])}
    card = replace(
        made,
        **words,
        compute=compute,
        sha256=sha256_of(target),
        precision={
            "stored": "bf16",
            "float32": "exact",
            "bf16": f"{halved} dB to float32, lowest of 6 damaged photographs",
            "stored_against_trained": f"{stored} dB, lowest of the same",
        },
    )
    card.write(target.with_suffix(".json"), overwrite=True)
    print(f"{target}: {target.stat().st_size / 2**20:.1f} MB; {card.precision}")


if __name__ == "__main__":
    main()
