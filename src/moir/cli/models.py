"""``moir models``."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from moir.cli.options import Json
from moir.cli.output import emit


def models(
    pattern: Annotated[str, typer.Argument(help="Only names that match, such as 'moce*'.")] = "*",
    json: Json = False,
) -> None:
    """List the networks, and the weights that come with the package."""
    import fnmatch

    from moir.checkpoints import Card
    from moir.models import DEFAULT, WEIGHTS, list_models, shipped

    cards = {name: Card.read(WEIGHTS / f"{name}.json") for name in shipped() if fnmatch.fnmatch(name, pattern)}
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": "weights",
            "network": card.model,
            "parameters": card.parameters,
            "licence": card.licence,
            "default": name == DEFAULT,
            "description": card.description,
        }
        for name, card in cards.items()
    ]
    rows += [{"name": name, "kind": "network"} for name in list_models(pattern)]
    if json:
        for row in rows:
            emit(row)
        return
    console = Console()
    shown = Table("weights", "network", "parameters", "licence", "what it is", box=None, pad_edge=False)
    for row in rows:
        if row["kind"] == "weights":
            name = row["name"] + (" (default)" if row["default"] else "")
            shown.add_row(name, row["network"], f"{row['parameters']:,}", row["licence"], row["description"])
    console.print(shown)
    console.print("\nnetworks (moir.create_model, recipes): " + ", ".join(list_models(pattern)))
