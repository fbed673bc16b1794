"""``moir expert``: networks that join a pool of experts."""

from pathlib import Path
from typing import Annotated

import typer

from moir.cli.options import Json, Overwrite
from moir.cli.output import emit, say

app = typer.Typer(help="Experts of a UniRestorer: list them, add one.", no_args_is_help=True)

Pool = Annotated[
    str, typer.Argument(help="A UniRestorer: a pool (.safetensors) or the published checkpoint.", show_default=False)
]


@app.command("list")
def list_experts(model: Pool, json: Json = False) -> None:
    """List the groups of a UniRestorer and the networks that serve them."""
    from moir.models import find_weights
    from moir.universal.opening import open_unirestorer

    network = open_unirestorer(find_weights(model))
    tree = network.tree
    for number, source in enumerate(network.experts[0].pool.found):
        used = any(number in row for row in tree.rows)
        record = {
            "expert": number,
            "group": tree.name_of(number) if used else None,
            "granularity": tree.level_of(number) if used else None,
            "model": source.model,
            "file": str(source.store.path),
        }
        if json:
            emit(record)
        else:
            group = f"{record['granularity']}: {record['group']}" if used else "(no leaf uses it)"
            typer.echo(f"{number:3d}  {group:32}  {source.model:16}  {source.store.path}")


@app.command("add")
def add(
    model: Pool,
    group: Annotated[
        str,
        typer.Option("--group", "-g", help="A group of 'moir expert list', by name or number, or a new one.",
                     show_default=False),
    ],
    network: Annotated[
        str,
        typer.Option("--network", "-n", help="The network: a shipped name, a weights file, or another project's "
                                             "checkpoint (also one that spandrel knows).", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The pool to write, NAME.safetensors.", show_default=False)
    ],
    types: Annotated[
        str | None,
        typer.Option("--types", help="For a new group: its degradation types, such as rain,haze.", show_default=False),
    ] = None,
    degree: Annotated[
        str | None, typer.Option("--degree", help="For a new group of one degree: light, medium or heavy.",
                                 show_default=False)
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Write all experts into the new file instead of referring to theirs.")
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Make a network the expert of a group; then train the router again.

    The network takes the place of the group's expert. A group that the tree does not have becomes a new leaf, which
    nothing chooses before the router is trained again.
    """
    from moir.universal.joining import join

    words = tuple(filter(None, (word.strip() for word in (types or "").split(","))))
    done = join(model, group, network, output, types=words, degree=degree, whole=whole, overwrite=overwrite)
    if json:
        emit({
            "output": str(done.path),
            "expert": done.expert,
            "group": done.group,
            "model": done.model,
            "new_group": done.is_new,
        })  # fmt: skip
        return
    place = "a new leaf, which nothing chooses yet" if done.is_new else "in place of the expert there"
    say(f"{done.path}: {network} ({done.model}) is expert {done.expert}, group {done.group}, {place}")
    say(f"now train the router: moir train RECIPE --set stage=router --set start={done.path}")
