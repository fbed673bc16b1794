"""What routing gains: every expert on every picture, then every way of choosing one, and the ablations.

    python benchmarks/universal/routing.py RUN --data ROOT [--pictures N] [--tables-only] [--output FILE.md]

RUN is the folder of `moir train recipes/tree/all.yaml`, or of the router alone (`recipes/tree/join.yaml`; for the
tables alone, any with `weights.safetensors`); ROOT holds cid22_validation, LIVE1 and CBSD68, whose pictures were
neither trained on nor used to calibrate. The settings are those of the UniRestorer paper (arXiv 2412.20157): seven
single and seven mixed degradations, in- and out-of-distribution, made by `moir degrade` with a fixed seed. Every expert
restores the centre of each picture once, with the decision on the whole and as if it were certain of the damage. The
ways of choosing are then compared on one table of PSNRs, so they see the same pictures, the same noise and the same
rounding. The ablations train routers on the run's table of outcomes; no network is needed for them. What was restored
and trained is kept in RUN/routing, so that only what changed is done again.

Protocol: centre crop of 160 px, prediction clamped and not rounded, PSNR over RGB, mean over n pictures, dB.
"""

import argparse
from pathlib import Path

from routing_ablations import ablations
from routing_pictures import SETTINGS, restored_by, see
from routing_tables import share_of_oracle, tables, wrong_instructions

from moir.base.files import write_text
from moir.models import load_model
from moir.training.reading import load_recipe
from moir.universal.compact_tree import CompactUniRestorer

RECIPE = Path(__file__).parents[2] / "recipes" / "tree" / "all.yaml"


def main() -> None:
    """Measure, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=117, help="of each setting; default: all %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="routers of each kind; default: %(default)s")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="of the run; default: recipes/tree/all.yaml")
    parser.add_argument("--control", help="weights of the shared network that was trained on by itself")
    parser.add_argument("--tables-only", action="store_true", help="no ablations: they need the run's outcomes")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    network, _ = load_model(str(options.run / "weights.safetensors"))
    assert isinstance(network, CompactUniRestorer)
    kept = options.run / "routing"
    kept.mkdir(exist_ok=True)
    found = {}
    for setting in SETTINGS:
        print(setting.range, setting.name, flush=True)
        found[setting] = see(network, options.data, setting, options.pictures, kept)
    control = None
    if options.control:
        other, _ = load_model(options.control)
        control = {setting: restored_by(other, options.data, setting, options.pictures) for setting in SETTINGS}
    lines = [*tables(network, found, control), *wrong_instructions(network, found), *share_of_oracle(network, found)]
    if not options.tables_only:
        lines += ablations(network, found, options.run, load_recipe(options.recipe).router, options.seeds)
    text = "\n".join(lines)
    if options.output:
        write_text(options.output, text, overwrite=True)
    print(text)


if __name__ == "__main__":
    main()
