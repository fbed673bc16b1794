"""``moir convert``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moir.base.errors import InvalidValueError
from moir.cli.options import Json, Overwrite
from moir.cli.output import emit, say


def convert(
    src: Annotated[
        Path, typer.Argument(help="The checkpoint: .ckpt, .pth, .pt, .pkl or .safetensors.", show_default=False)
    ],
    dst: Annotated[
        Path, typer.Argument(help="The file to write, ending in .safetensors; its card goes beside it.",
                             show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A network of 'moir models'; default: recognised by the names and shapes.",
                     show_default=False),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the network, over what is recognised: --option topk=2; may be "
                                      "repeated.", show_default=False),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the weights, for the card; default: what is known of the published ones.",
                     show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Convert another program's checkpoint to safetensors with a card.

    Lightning, BasicSR and plain torch files (also from before torch 1.6), Jittor's pickles, and safetensors without a
    card. Nothing in the file is ever executed; a file that asks for anything but data is refused. The weights must
    fit the network exactly. The card names the source and its licence: converting does not change what the weights
    may be used for.
    """
    wanted = _pairs(options or [])

    from moir.checkpoints import convert as run
    from moir.models import create_model

    done = run(src, dst, model, wanted, create=create_model, licence=licence, overwrite=overwrite)
    card = done.card
    if json:
        emit({
            "input": str(src),
            "output": str(done.weights),
            "card": str(done.weights.with_suffix(".json")),
            "model": card.model,
            "options": card.options,
            "parameters": card.parameters,
            "licence": card.licence,
            "sha256": card.sha256,
            "notes": done.notes,
        })  # fmt: skip
        return
    say(f"{src} -> {done.weights}: {card.model}, {card.parameters:,} parameters")
    for note in done.notes:
        say(f"  {note}")
    say(f"  licence: {card.licence}")


def _pairs(settings: list[str]) -> dict[str, Any]:
    import yaml

    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise InvalidValueError(f"--option {setting!r} is not KEY=VALUE, such as topk=2")
        try:
            pairs[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidValueError(f"--option {setting!r}: {value!r} is not a number, word or [list]") from error
    return pairs
