"""``moir adapt``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moir.base.errors import InvalidValueError
from moir.cli.options import Device, Json, Overwrite, Precision
from moir.cli.output import bar, emit, say

if TYPE_CHECKING:
    from moir.training.adaptation_data import Source
    from moir.training.adaptation_fit import Progress


def adapt(
    model: Annotated[
        str,
        typer.Argument(help="A shipped model, a weights file, or hf://owner/repo.", show_default=False),
    ],
    task: Annotated[str, typer.Option("--task", help="A name for the adapter.", show_default=False)],
    pairs: Annotated[
        Path | None,
        typer.Option(help="Folder with input/ (damaged) and target/ (clean), pictures of one name belong together.",
                     show_default=False),
    ] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", help="Instead: the folder of damaged pictures.", show_default=False)
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--target", help="And the folder of clean ones.", show_default=False)
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(help="Instead: a folder of clean pictures to damage; for a network that makes pictures larger, to "
                     "shrink first (bicubic).", show_default=False),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option("--with", help="And how to damage them: 'rain=heavy,noise=25', as for moir degrade.",
                     show_default=False),
    ] = None,
    method: Annotated[
        str, typer.Option(help="adaptir, adapter, adaptformer, conv, fact, lora, moe, ssf or vpt.")
    ] = "adaptir",
    steps: Annotated[
        int | None, typer.Option(min=1, help="At most so many steps. Default: 600.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="At most so many minutes, instead or as well.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The adapter's file. Default: TASK_adapter.safetensors.",
                     show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: --set learning_rate=1e-3, --set adapter.rank=8; may be repeated.",
                     show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which pairs are held out, and everything else random.")] = 0,
    device: Device = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Adapt a network to your own damage, with an adapter of about 1 % of its parameters.

    Two dozen pairs and a few minutes are enough to begin with. A fifth of the pairs is held out: the network is scored
    on them before the first step, the best state is kept, and no adapter is written that is not better. The same
    command goes on where a run was stopped or killed. Use the adapter with 'moir restore --adapter FILE'.
    """
    values = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InvalidValueError(f"--set {setting!r} is not KEY=VALUE, such as learning_rate=1e-3")
        values[key.strip()] = value.strip()
    source = _source(pairs, input_, target, clean, spec)

    from moir.training.adaptation import adapt as run
    from moir.training.adaptation_settings import read_settings

    plan = read_settings(method, values, steps=steps, minutes=minutes, seed=seed)
    with bar(100, "%") as progress:
        line = progress.tasks[0].id

        def on_step(state: "Progress") -> None:
            so_far = f"{state.base:.2f} dB before, {state.best:.2f} dB at best"
            progress.update(line, completed=round(100 * state.share), description=f"{so_far}, step {state.step}")
            if state.scored is None:
                return
            if json:
                emit({"step": state.step, "psnr": round(state.scored, 3), "psnr_before": round(state.base, 3),
                      "best": round(state.best, 3), "seconds": round(state.seconds, 1)})  # fmt: skip
            elif state.step == 0:
                say(f"{model} alone: {state.base:.2f} dB on the pairs held out")
            else:
                say(f"step {state.step}: {state.scored:.2f} dB, best {state.best:.2f} dB ({state.seconds:.0f} s)")

        found = run(
            model, task, source, output, plan, device=device, precision=precision, overwrite=overwrite, on_step=on_step
        )
    fitted = found.fitted
    before, after = (sum(values) / len(values) for values in (fitted.before, fitted.after))
    if json:
        record: dict[str, Any] = {
            "adapter": str(found.path),
            "method": plan.method,
            "parameters": found.parameters,
            "held_out": len(fitted.before),
            "psnr_before": round(before, 3),
            "psnr_after": round(after, 3),
            "steps": fitted.steps,
            "best_step": fitted.best_step,
            "seconds": round(fitted.seconds, 1),
        }
        emit(record)
    else:
        say(
            f"{before:.2f} dB before, {after:.2f} dB after, on {len(fitted.before)} pairs held out; "
            f"{found.parameters:,} parameters of {plan.method}, {fitted.seconds:.0f} s"
        )
        say(f"adapter: {found.path}; use it with: moir restore PICTURE --model {model} --adapter {found.path}")


def _source(
    pairs: Path | None, input_: Path | None, target: Path | None, clean: Path | None, spec: str | None
) -> "Source":
    """Where pairs come from, from exactly one of three ways to say it."""
    ways = {
        "--pairs DIR": pairs is not None,
        "--input DIR --target DIR": input_ is not None or target is not None,
        "--clean DIR --with SPEC": clean is not None or spec is not None,
    }
    if sum(ways.values()) != 1:
        given = " and ".join(way for way, is_given in ways.items() if is_given) or "none of them"
        raise InvalidValueError(f"give exactly one of {', '.join(ways)}; {given} was given")

    from moir.training.adaptation_data import Source, in_folder

    if pairs is not None:
        return in_folder(pairs)
    if clean is not None:  # without damage they are only shrunk; whether that is enough, the network decides
        return Source(clean, spec=spec)
    if input_ is not None and target is not None:
        return Source(target, input_)
    raise InvalidValueError(
        "--input and --target go together, and --with needs --clean; "
        f"only {'--input' if input_ else '--target' if target else '--with'} was given"
    )
