"""Make folders that are ready to be pushed to Hugging Face; nothing is sent.

    python packaging/hugging_face.py space FOLDER           the page, as a Space
    python packaging/hugging_face.py weights NAME FOLDER    shipped weights with their card, for moir.load("hf://...")

Push a folder with ``hf upload OWNER/NAME FOLDER`` (for a Space: ``--repo-type space``).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from moir.checkpoints import Card
from moir.models import WEIGHTS, find_weights

ROOT = Path(__file__).parent.parent
SPACE = Path(__file__).parent / "huggingface_space"
LICENCES = {"CC BY-SA 4.0": "cc-by-sa-4.0", "CC BY 4.0": "cc-by-4.0", "Apache-2.0": "apache-2.0", "CC0": "cc0-1.0"}
"""Beginnings of our cards' licences, and the hub's names for them; anything else is ``other``."""


def make_space(folder: Path) -> None:
    """Write the Space: its own files, the wheel made from this checkout, and the locked versions."""
    for file in SPACE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    shutil.copy(ROOT / "requirements" / "dev.txt", folder / "constraints.txt")
    with tempfile.TemporaryDirectory() as built:
        # By way of the source distribution, so that nothing an earlier build left behind gets in.
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, str(ROOT)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for wheel in Path(built).glob("*.whl"):
            shutil.copy(wheel, folder)


def make_weights(name: str, folder: Path) -> None:
    """Write weights under the names that ``hf://`` looks for, and a README.md made from their card."""
    weights = find_weights(name)
    shutil.copy(weights, folder / "model.safetensors")
    shutil.copy(weights.with_suffix(".json"), folder / "model.json")
    (folder / "README.md").write_text(hub_card(Card.read(weights.with_suffix(".json"))))


def hub_card(card: Card) -> str:
    """The README.md of weights on the hub: front matter, and what the card says."""
    licence = next((name for start, name in LICENCES.items() if card.licence.startswith(start)), "other")
    lines = [
        "---",
        f"license: {licence}",
        *(["license_name: see-model-json\nlicense_link: model.json"] if licence == "other" else []),
        "library_name: moir",
        "pipeline_tag: image-to-image",
        "tags: [image-restoration, denoising, deraining, dehazing, deblurring, low-light, mixture-of-experts]",
        "---",
        "",
        f"# {card.name}",
        "",
        f"{card.description} {card.parameters:,} parameters.",
        "",
        "```",
        "pip install 'moir[hub]'",
        "moir restore photo.jpg --model hf://OWNER/NAME    # this repository's address",
        "```",
        "",
        f"**Licence of the weights:** {card.licence}",
        "",
        f"**Made by:** {card.source}",
        "",
        "## Weaknesses",
        "",
        *[f"- {weakness}" for weakness in card.weaknesses],
        "",
        "## Training pictures",
        "",
        "| source | pictures | licence | from |",
        "|---|---|---|---|",
        *[
            "| " + " | ".join(str(row.get(key, "")) for key in ("name", "pictures", "licence", "from")) + " |"
            for row in card.training_data
        ],
        "",
        "## Measured",
        "",
        "PSNR in dB, as the protocol defines it; every figure with its command is in `model.json`.",
        "",
        "| benchmark | protocol | pictures | damaged | restored |",
        "|---|---|---|---|---|",
        *[
            f"| {row['benchmark']} | {row['protocol']} | {row['n']} | {row['psnr_input']} | {row['psnr']} |"
            for row in card.metrics
            if {"benchmark", "protocol", "n", "psnr_input", "psnr"} <= row.keys()
        ],
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("space").add_argument("folder", type=Path)
    weights = kinds.add_parser("weights")
    weights.add_argument("name", choices=sorted(card.stem for card in WEIGHTS.glob("*.json")))
    weights.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty; name a new folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.kind == "space":
        make_space(options.folder)
    else:
        make_weights(options.name, options.folder)


if __name__ == "__main__":
    main()
