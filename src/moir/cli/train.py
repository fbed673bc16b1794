"""``moir train``."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from moir.base.errors import RecipeError
from moir.cli.options import Device, Json
from moir.cli.output import bar, emit, say


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; default: runs/NAME of the recipe.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value: --set optimiser.learning_rate=1e-4; may be repeated."),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Train a network: on the papers' data sets, on pairs, or on clean pictures that are damaged on the fly.

    A recipe in stages runs them in order, or one of them: --set stage=router.

    The same command goes on where a run was stopped or killed. On several GPUs or machines run it through
    'accelerate launch -m moir train RECIPE'.
    """
    pairs = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting!r} is not KEY=VALUE, such as steps=1000")
        pairs[key.strip()] = value.strip()

    from moir.training import Recipe, load_recipe

    plan = load_recipe(recipe, pairs)

    from moir.training.loop import Progress
    from moir.training.loop import train as run

    folder = output or Path("runs") / plan.name
    single = isinstance(plan, Recipe)
    with bar((single and plan.steps) or 0, "steps") as progress:
        line = progress.tasks[0].id

        def on_step(state: Progress) -> None:
            loss = sum(state.losses.values())
            progress.update(line, total=state.steps, completed=state.step, description=f"loss {loss:.4f}")
            if json and state.step % plan.log_every == 0:
                emit({"step": state.step, "steps": state.steps, "seconds": round(state.seconds, 2), **state.losses})

        where = None if device == "auto" else device
        start = partial(run, plan) if single else plan.run
        weights = start(folder, device=where, on_step=on_step)
    if json:
        emit({"weights": str(weights)})
    else:
        say(f"weights: {weights}")
