"""What the estimate is worth on damage that moir did not make, and on real photographs.

    python benchmarks/universal/estimate.py --model M --data ROOT --output benchmarks/universal/estimate.md

M is a shipped name or weights; ROOT holds cid22_validation (clean pictures, never trained on), the first 25 pairs of
Rain100H, and real/ with folders of photographs by what is wrong with them (those may be missing). The damage
is listed in estimate_damages.py. Beside the report, a reliability plot is drawn (`--plot`).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from estimate_damages import damaged
from routing_tables import header, row

from moir import load
from moir.base.files import atomic_path, write_text
from moir.base.names import TYPES
from moir.evaluation.report.figure import new_figure
from moir.findings import SEEN, Inspection
from moir.picture import is_picture_name
from moir.restore import Restorer
from moir.training.tree.calibration import expected_calibration_error

PLOT = Path("docs/gallery/tree/reliability_other_code.png")
BINS = 10
MIXED = "mixed"
"""Folder of photographs with several things wrong at once."""


@dataclass(frozen=True)
class Estimated:
    """N pictures with the same damage.

    Attributes:
        name: What was done.
        types: The types that should be found.
        probability: (N, 7), as estimated.
    """

    name: str
    types: tuple[str, ...]
    probability: torch.Tensor

    @property
    def truth(self) -> torch.Tensor:
        """(N, 7), 0 or 1."""
        return torch.tensor([float(type_ in self.types) for type_ in TYPES]).expand_as(self.probability)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="unirestorer_compact")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=12, help="clean ones to damage; default: %(default)s")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path, default=PLOT, help="default: %(default)s")
    options = parser.parse_args()
    restorer = load(options.model, device="cpu")
    found = []
    for one in damaged(options.data, options.pictures):
        said = torch.stack([_probability(restorer.inspect(x)) for x in one.pictures])
        found.append(Estimated(one.name, one.types, said))
        print(one.name, flush=True)
    draw(found, options.plot)
    lines = ["# What the estimate is worth", "", *_other_code(found), "", *_photographs(restorer, options.data)]
    text = "\n".join(lines) + "\n"
    if options.output:
        write_text(options.output, text, overwrite=True)
    print(text)


def _probability(inspection: Inspection) -> torch.Tensor:
    """(7,)."""
    said = {finding.type: finding.probability for finding in inspection.estimate}
    return torch.tensor([said[type_] for type_ in TYPES])


def _other_code(found: Sequence[Estimated]) -> list[str]:
    lines = [
        "## On damage made by other code",
        "",
        f"`found`: share of pictures whose right types are all above {SEEN:g}; `others`: share in which any other type "
        "is, too; `probability`: of the right types, in the mean (for sound pictures: the largest of any type).",
        "",
        *header(["damage", "n", "right", "found", "others", "probability", "which others"]),
    ]
    for one in found:
        there, seen = one.truth[0] > 0, one.probability >= SEEN
        others = {type_: float(share) for type_, share in zip(TYPES, (seen & ~there).float().mean(0), strict=True)}
        which = ", ".join(f"{type_} {share:.0%}" for type_, share in sorted(others.items(), key=_most) if share)
        right, said = "-", one.probability.amax(1).mean()
        if one.types:
            right, said = f"{seen[:, there].all(1).float().mean():.0%}", one.probability[:, there].mean()
        wrong = (seen & ~there).any(1).float().mean()
        types = " + ".join(one.types) or "none"
        lines.append(row([one.name, str(len(seen)), types, right, f"{wrong:.0%}", f"{said:.2f}", which or "-"]))
    probability, truth = (torch.cat([getattr(one, name) for one in found]) for name in ("probability", "truth"))
    errors = [expected_calibration_error(probability[:, i], truth[:, i], BINS) for i in range(len(TYPES))]
    overall = expected_calibration_error(probability.flatten(), truth.flatten(), BINS)
    pictures, damages = len(probability), len(found)
    words = ", ".join(f"{type_} {error:.3f}" for type_, error in zip(TYPES, errors, strict=True))
    return [
        *lines,
        "",
        f"Expected calibration error, in {BINS} bins, over all {pictures} pictures and {len(TYPES)} types together: "
        f"**{overall:.3f}**, where what is wrong with one type may make up for another; of each alone **"
        f"{np.mean(errors):.3f}** in the mean ({words}). How often each type is there is a matter of this "
        f"list of {damages} damages, so the figure compares models, and no more. Snow is never there: its bins show "
        "false alarms alone. The pictures of Rain100H, rainy or not, were once the JPEG files of BSDS: JPEG found in "
        "them is not wholly wrong.",
        "",
        "![Reliability on damage made by other code](../../docs/gallery/tree/reliability_other_code.png)",
    ]


def _most(item: tuple[str, float]) -> float:
    return -item[1]


def _photographs(restorer: Restorer, root: Path) -> list[str]:
    """A row for each photograph: what was found, and whether it is what the folder says."""
    folder = root / "real"
    lines, counts = [], {"yes": 0, "with others": 0, "in part": 0, "no": 0}
    for path in sorted(path for path in folder.glob("*/*") if is_picture_name(path)):
        what, seen = path.parent.name, restorer.inspect(path)
        sure = [finding for finding in seen.estimate if finding.probability >= SEEN]
        right = _judged(what, [finding.type for finding in sure])
        counts[right] += 1
        words = ", ".join(f"{finding.degree} {finding.type} {finding.probability:.2f}" for finding in sure)
        best = seen.estimate[0]
        nothing = f"nothing (at most {best.type} {best.probability:.2f})"
        picture = f"{path.name}, {seen.width}x{seen.height}"
        lines.append(row([what, picture, words or nothing, right, f"{seen.expert} ({seen.granularity})"]))
    return [
        "## On real photographs",
        "",
        "The folder says what is wrong with a photograph, as somebody saw it. `yes`: that type is found, and no other; "
        "`with others`: other types are found, too (which may well be there); `no`: it is not found. Where several "
        "things are wrong at once (mixed): `yes`: two types or more are found; `in part`: one; `no`: none.",
        "",
        f"{len(lines)} photographs: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + ".",
        "",
        *header(["folder", "photograph", "found", "right", "expert that would restore it (level)"]),
        *lines,
    ]


def _judged(what: str, found: Sequence[str]) -> str:
    if what == MIXED:
        return ("no", "in part", "yes")[min(len(found), 2)]
    if what not in found:
        return "no"
    return "yes" if len(found) == 1 else "with others"


def draw(found: Sequence[Estimated], path: Path) -> None:
    """How often a type is there against how probable it was said to be: all types, and each alone."""
    probability, truth = (torch.cat([getattr(one, name) for one in found]) for name in ("probability", "truth"))
    panels = {"all types": (probability.flatten(), truth.flatten())}
    panels |= {type_: (probability[:, i], truth[:, i]) for i, type_ in enumerate(TYPES)}
    figure = new_figure(13, 7)
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    for (name, (said, so)), axis in zip(panels.items(), axes.flat, strict=True):
        axis.plot([0, 1], [0, 1], color="0.7")
        place = (said * BINS).long().clamp(max=BINS - 1)
        points = np.array(
            [[said[place == b].mean(), so[place == b].mean(), (place == b).float().mean()] for b in place.unique()]
        )
        axis.plot(points[:, 0], points[:, 1], color="#3b6ea5")
        axis.scatter(points[:, 0], points[:, 1], s=8 + 400 * points[:, 2], color="#3b6ea5")
        error = expected_calibration_error(said, so, BINS)
        axis.set_title(f"{name}: calibration error {error:.3f}", fontsize=10)
    figure.supxlabel("probability said (size: share of pictures)")
    figure.supylabel("share of pictures that have it")
    figure.suptitle(f"Damage made by other code, {len(probability)} pictures")
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


if __name__ == "__main__":
    main()
