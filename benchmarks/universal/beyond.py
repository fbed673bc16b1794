"""What auto mode is worth beyond the damage that it was trained on: made by other code, of no type, or none at all.

    python benchmarks/universal/beyond.py --data ROOT [--model TREE] [--control CONTROL] [--output F.md]

The paper's claim for granularity is that a coarser expert is the safer one where the estimate cannot be trusted. Out of
distribution, in its tables, is more of the same damage; here it is damage that moir had no part in
(estimate_damages.py). ROOT holds cid22_validation and the first 25 pairs of Rain100H, none of which was trained on.
Decision on at most 512 px, the centre of 160 px restored and scored: PSNR over RGB, mean, dB.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from estimate_damages import Damaged, Pixels, damaged, of_no_type
from routing_pictures import CROP
from routing_tables import HARM, header, row

from moir.base.files import write_text
from moir.models import load_model
from moir.networks.base import PLACE, RestorationNetwork
from moir.picture import from_array
from moir.runtime.device import has_fast_bf16
from moir.training.tree.outcomes import centre, place_of_centre
from moir.universal.compact_tree import CompactUniRestorer
from moir.universal.composed_expert import CERTAINTY

MOST = 60.0
"""dB: pictures that are nearer to each other than this count as equal."""
SPOILT = 40.0
"""dB: a sound picture that is less near to itself afterwards is spoilt."""
WAYS = ("input", "coarsest", "finest", "router alone", "auto")


@dataclass(frozen=True)
class Row:
    """N pictures with one damage.

    Attributes:
        damage: What was done.
        types: The types that it is of; none: nothing is wrong, or it is of no type.
        psnr: (ways, N), dB.
    """

    damage: str
    types: tuple[str, ...]
    psnr: torch.Tensor


class Ways:
    """Every way of choosing, on one picture.

    Args:
        tree: The tree.
        control: Another network, which is a way of its own; None: none.
    """

    def __init__(self, tree: CompactUniRestorer, control: RestorationNetwork | None) -> None:
        self.tree, self.control = tree, control
        self.names = WAYS if control is None else (*WAYS, "control")

    @torch.inference_mode()
    def __call__(self, picture: Pixels, target: Pixels) -> list[float]:
        """PSNR by each, dB."""
        tree, whole = self.tree, from_array(picture).rgb[None]
        x, clean = centre(whole, CROP), centre(from_array(target).rgb[None], CROP)
        context = {**tree.analyse(whole), PLACE: place_of_centre(whole, CROP)}
        route = tree.route(tree.extractor.place(tree.extractor(whole)))
        experts = tree.tree.table()[route.leaf[0]]
        chosen = {"coarsest": 0, "finest": int(experts[-1]), "router alone": int(experts[route.level[0]])}
        certain = {**context, CERTAINTY: torch.ones_like(context[CERTAINTY])}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_fast_bf16(x.device)):
            by_number = {number: tree.restore_with(number, x, certain) for number in set(chosen.values())}
            results = {"input": x, "auto": tree(x, context), **{way: by_number[n] for way, n in chosen.items()}}
            if self.control is not None:
                results["control"] = self.control(x, self.control.analyse(whole))
        errors = [(results[way].float().clamp(0, 1) - clean).square().mean() for way in self.names]
        return [min(MOST, float(-10 * error.log10())) for error in errors]


def rows(ways: Ways, made: Iterator[Damaged]) -> Iterator[Row]:
    """What each way makes of each damage."""
    for one in made:
        scores = [ways(picture, target) for picture, target in zip(one.pictures, one.targets, strict=True)]
        print(one.name, flush=True)
        yield Row(one.name, one.types, torch.tensor(scores).T)


def table(found: Sequence[Row], names: Sequence[str]) -> list[str]:
    """The rows, their mean, and the share of pictures that come out worse."""
    lines = header(["damage", "n", *names])
    for one in found:
        values = one.psnr.mean(1).tolist()
        lines.append(row([one.damage, str(one.psnr.shape[1]), *(f"{value:.2f}" for value in values)]))
    mean = torch.stack([one.psnr.mean(1) for one in found]).mean(0).tolist()
    lines.append(row(["**mean**", "", *(f"**{value:.2f}**" for value in mean)]))
    harmed = torch.cat([(one.psnr < one.psnr[:1] - HARM).float() for one in found], 1).mean(1).tolist()
    lines.append(row([f"lose more than {HARM:g} dB", "", *(f"{share:.1%}" for share in harmed)]))
    return [*lines, "", f"Auto mode less the finest: {against_finest(found, names)}.", ""]


def against_finest(found: Sequence[Row], names: Sequence[str]) -> str:
    """The mean difference, with its standard error over the photographs that all damages share, and who is ahead."""
    count = found[0].psnr.shape[1]
    shared = torch.stack([one.psnr for one in found if one.psnr.shape[1] == count])
    gain = shared[:, names.index("auto")] - shared[:, names.index("finest")]
    ahead, behind = int((gain > 0.05).sum()), int((gain < -0.05).sum())
    mean, error = float(gain.mean()), float(gain.mean(0).std() / count**0.5)
    return (
        f"{mean:+.2f} dB on the {count} photographs of cid22_validation, with a standard error over these of "
        f"{error:.2f}; of {gain.numel()} pictures {ahead} are better by it, {behind} worse"
    )


def sound(found: Sequence[Row], names: Sequence[str]) -> list[str]:
    """How near sound pictures are to themselves, and how many are spoilt."""
    lines = header(["picture", "n", *names])
    for one in found:
        spoilt = (one.psnr < torch.minimum(one.psnr[:1] - HARM, torch.tensor(SPOILT))).float().mean(1).tolist()
        near = one.psnr.mean(1).tolist()
        cells = [f"{value:.1f} ({share:.0%})" for value, share in zip(near, spoilt, strict=True)]
        lines.append(row([one.damage, str(one.psnr.shape[1]), *cells]))
    return [*lines, ""]


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="unirestorer_compact")
    parser.add_argument("--control", help="weights of the shared network that was trained on by itself")
    parser.add_argument("--pictures", type=int, default=20, help="clean ones to damage; default: %(default)s")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    tree, card = load_model(options.model)
    assert isinstance(tree, CompactUniRestorer)
    ways = Ways(tree, load_model(options.control)[0] if options.control else None)
    known = list(rows(ways, damaged(options.data, options.pictures)))
    strange = list(rows(ways, of_no_type(options.data, options.pictures)))
    text = "\n".join(
        [
            "# Beyond the damage of training",
            "",
            f"Made by `python benchmarks/universal/beyond.py`, weights sha256 `{card.sha256[:8] if card else 'none'}`. "
            f"Damage by Pillow, scikit-image, OpenCV and NumPy on {options.pictures} pictures of cid22_validation, and "
            "the first 25 of Rain100H; decision on at most 512 px, centre 160 px scored, PSNR over RGB, mean, at most "
            f"{MOST:g} dB. `finest` is always the finest expert of the router's leaf, `router alone` that of the "
            "level it chose, both as if the damage were certain; `auto` is what a user gets.",
            "",
            "## Of the types that moir knows",
            "",
            *table([one for one in known if one.types], ways.names),
            "## Of no type",
            "",
            *table(strange, ways.names),
            "## Nothing wrong",
            "",
            "How near they are to themselves afterwards, dB, and in brackets the share that is spoilt (more than "
            f"{HARM:g} dB farther than before, and below {SPOILT:g} dB).",
            "",
            *sound([one for one in known if not one.types], ways.names),
        ]
    )
    if options.output:
        write_text(options.output, text, overwrite=True)
    print(text)


if __name__ == "__main__":
    main()
