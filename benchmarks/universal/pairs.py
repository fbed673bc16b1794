"""Two kinds of damage at once, of which no group of the tree is: what the steps are worth.

    python benchmarks/universal/pairs.py --data ROOT [--model TREE] [--pictures N] [--output F.md]

On cid22_validation and gb82, whose pictures were neither trained on nor used to calibrate, damaged by `moir degrade` in
the published ranges with fixed seeds. Protocol as in routing.py: decision on 384 px, the centre of 160 px restored and
scored, PSNR over RGB, mean over n pictures, dB.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from routing_pictures import CROP, WHOLE

from moir import degrade
from moir.base.files import write_text
from moir.datasets import find
from moir.evaluation.report.tables import markdown_table
from moir.models import load_model
from moir.networks.base import PLACE
from moir.training.tree.outcomes import centre, place_of_centre
from moir.universal.compact_tree import CompactUniRestorer

PAIRS = (
    "noise+jpeg", "haze+jpeg", "lowlight+jpeg", "rain+jpeg", "snow+jpeg", "blur+jpeg", "haze+snow", "haze+blur",
    "noise+rain", "noise+blur", "noise+lowlight", "lowlight+blur",
)  # fmt: skip
COLUMNS = ("input", "coarsest", "auto without steps", "auto", "told")


def pictures(root: Path, count: int) -> Iterator[torch.Tensor]:
    """Clean pictures, (1, 3, H, W), of at most 384 px a side."""
    for name in ("cid22_validation", "gb82"):
        found = find(name, root)
        for pair in found.pairs[:count]:
            yield centre(found.load(pair).target[None], WHOLE)


@torch.inference_mode()
def measure(network: CompactUniRestorer, root: Path, pair: str, count: int) -> tuple[torch.Tensor, int]:
    """PSNR by picture and column, (N, 5), dB; and how often auto mode took the steps."""
    types = pair.split("+")
    request = degrade.parse(",".join(f"{type_}=inside" for type_ in types))
    rows, taken = [], 0
    for number, target in enumerate(pictures(root, count)):
        records = request.sample(torch.Generator().manual_seed(1000 * PAIRS.index(pair) + number))
        x = degrade.quantise(degrade.apply(target, [records]))
        context = {**network.analyse(x), PLACE: place_of_centre(x, CROP)}
        by_steps = int(context["expert"]) == network.tree.experts
        plain = {**context, "expert": torch.zeros_like(context["expert"])} if by_steps else context
        crop, clean = centre(x, CROP), centre(target, CROP)
        results = (crop, network.restore_with(0, crop, context), network(crop, plain), network(crop, context),
                   network(crop, network.instruct(context, types)))  # fmt: skip
        rows.append([float(-10 * (result.clamp(0, 1) - clean).square().mean().log10()) for result in results])
        taken += by_steps
    return torch.tensor(rows), taken


def main() -> None:
    """Measure, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="unirestorer_compact")
    parser.add_argument("--pictures", type=int, default=12, help="of each of the two sets; default: %(default)s")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    network, card = load_model(options.model)
    assert isinstance(network, CompactUniRestorer)
    rows, every = [], []
    for pair in PAIRS:
        scores, taken = measure(network, options.data, pair, options.pictures)
        every.append(scores.mean(0))
        rows.append([pair.replace("+", ", "), *(f"{value:.2f}" for value in every[-1]), f"{taken}/{len(scores)}"])
        print(rows[-1], flush=True)
    rows.append(["**mean**", *(f"**{value:.2f}**" for value in torch.stack(every).mean(0)), ""])
    version = ", ".join(x[:8] for x in (card.sha256, *(part["sha256"] for part in card.parts.values())))
    lines = [
        "# Two kinds of damage at once",
        "",
        f"Made by `python benchmarks/universal/pairs.py --data ROOT --pictures {options.pictures}`, weights sha256 "
        f"`{version}`. Pictures of cid22_validation and gb82, damage inside the published ranges, decision on "
        f"{WHOLE} px, the centre of {CROP} px scored, PSNR over RGB (dB), mean. `auto without steps`: the coarsest "
        "expert in place of the steps. `told`: both types were said. `taken`: how often auto mode took the steps.",
        "",
        markdown_table(["damage", *COLUMNS, "taken"], rows),
    ]
    if options.output:
        write_text(options.output, "\n".join(lines) + "\n", overwrite=True)


if __name__ == "__main__":
    main()
