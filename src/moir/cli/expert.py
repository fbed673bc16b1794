"""``moir expert``: networks that join a tree of experts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from moir.cli.options import Json, Overwrite
from moir.cli.output import emit, say

app = typer.Typer(help="Experts of a UniRestorer: list them, add one.", no_args_is_help=True)

Model = Annotated[
    str,
    typer.Argument(
        help="A UniRestorer: 'unirestorer_compact' or weights made of it, a pool, or the published checkpoint.",
        show_default=False,
    ),
]


@app.command("list")
def list_experts(model: Model, json: Json = False) -> None:
    """List the groups of a UniRestorer and the networks that serve them."""
    from moir.models import find_weights
    from moir.universal.tree_joining import is_tree

    path = find_weights(model)
    for record in _of_tree(path) if is_tree(path) else _of_pool(path):
        if json:
            emit(record)
            continue
        place = f"{record['granularity']}: {record['group']}" if record["group"] is not None else "(no leaf uses it)"
        waits = "  not chosen yet: train the router" if record.get("waits") else ""
        typer.echo(f"{record['expert']:3d}  {place:32}  {record['model']:16}  {record['file']}{waits}")


def _of_tree(path: Path) -> Iterator[dict[str, Any]]:
    """Experts of the shipped form, which share one network."""
    from moir.models import load_model
    from moir.universal.compact_tree import STEPS, CompactUniRestorer

    network, _ = load_model(str(path))
    assert isinstance(network, CompactUniRestorer)
    tree = network.tree
    for number in range(tree.experts):
        leaves = [place for place, leaf in enumerate(tree.leaves) if number in leaf.experts]
        yield {
            "expert": number,
            "group": tree.name_of(number),
            "granularity": tree.level_of(number),
            "model": network.words_of(number),
            "file": str(path),
            "waits": set(leaves) <= set(network.waiting),
        }
    if network.steps is not None:
        number, place = tree.experts, {"group": STEPS, "granularity": tree.levels[0]}
        yield {"expert": number, **place, "model": network.words_of(number), "file": str(path), "waits": False}


def _of_pool(path: Path) -> Iterator[dict[str, Any]]:
    """Experts of the published form, which are networks of their own."""
    from moir.universal.opening import open_unirestorer

    network = open_unirestorer(path)
    tree = network.tree
    for number, source in enumerate(network.experts[0].pool.found):
        used = any(number in row for row in tree.rows)
        yield {
            "expert": number,
            "group": tree.name_of(number) if used else None,
            "granularity": tree.level_of(number) if used else None,
            "model": source.model,
            "file": str(source.store.path),
        }


@app.command("add")
def add(
    model: Model,
    group: Annotated[
        str,
        typer.Option("--group", "-g", help="A group of 'moir expert list', by name or number, or a new one.",
                     show_default=False),
    ],
    network: Annotated[
        str,
        typer.Option("--network", "-n", help="What joins: a shipped name, a weights file, another project's checkpoint "
                                             "(also one that spandrel knows), or an adapter that 'moir adapt' wrote "
                                             "for the network that the experts share.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The weights to write, NAME.safetensors.", show_default=False)
    ],
    types: Annotated[
        str | None,
        typer.Option("--types", help="For a new group: its degradation types, such as rain,haze; or 'unknown' if it is "
                                     "none of them.", show_default=False),
    ] = None,
    degree: Annotated[
        str | None, typer.Option("--degree", help="For a new group of one degree: light, medium or heavy.",
                                 show_default=False)
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Of a pool: write all experts into the new file, and refer to none.")
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Make a network or adapter the expert of a group; then train the router again.

    It takes the place of the group's expert. A group that the tree does not have becomes a new leaf, which nothing
    chooses before the router is trained again.
    """
    from moir.base.errors import InvalidValueError
    from moir.models import find_weights
    from moir.universal.joining import join
    from moir.universal.tree_joining import UNNAMED, is_tree, join_tree

    words = tuple(filter(None, (word.strip() for word in (types or "").split(","))))
    shared = is_tree(find_weights(model))
    if shared and whole:
        raise InvalidValueError("--whole is for pools, whose experts lie in other files; leave it out")
    if shared:
        done = join_tree(model, group, network, output, types=words, degree=degree, overwrite=overwrite)
    else:
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
    recipe = "recipes/tree/join.yaml" if shared else "RECIPE --set stage=router"
    # Damage without a name cannot be made, so it has to be given.
    pairs = " --set pairs=FOLDER" if shared and UNNAMED in words else ""
    say(f"now train the router: moir train {recipe} --set start={done.path}{pairs}")
