"""``moir export``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moir.cli.options import Json, Overwrite
from moir.cli.output import emit, say


def export(
    model: Annotated[
        str,
        typer.Argument(help="A shipped model, a weights file (.safetensors, or a published .ckpt, .pth, .pt, .pkl), or "
                            "hf://owner/repo.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to make.", show_default=False)],
    format: Annotated[str, typer.Option("--format", "-f", help="onnx or openvino.")] = "onnx",
    precision: Annotated[
        str, typer.Option("--precision", help="How weights are stored: float32, or fp16, half as large.")
    ] = "float32",
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", help="An adapter of the model, to be exported with it.", show_default=False),
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Side of the pictures that it is checked on, pixels.")] = 128,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Write a model as ONNX or OpenVINO graphs, for programs without torch, and check them against it on pictures.

    The folder holds two graphs, analyse (a whole picture to what its tiles share) and restore, and moir.json, which
    says everything else. It appears only if the graphs agree with the model. docs/export.md shows how to use it.
    """
    from moir.base.files import check_absent

    check_absent(output, overwrite=overwrite)  # before the model is loaded

    from moir.export import export as run
    from moir.models import load_model

    network, card = load_model(model)
    if adapter is not None:
        from moir.adapted import load_adapter

        facts = load_adapter(network, adapter)
        card.name = f"{card.name}+{facts.name}"
        card.description = f"{card.description} With the adapter {facts.name} ({facts.method}).".strip()
    manifest = run(network, output, card, format, precision, size, overwrite=overwrite)
    sizes = {name: (output / name).stat().st_size for name in manifest.hashes}
    if json:
        emit({"input": model, "output": str(output), "bytes": sizes, **asdict(manifest)})
        return
    say(f"{output}: {manifest.model} as {format}, {precision}")
    for name, count in sizes.items():
        say(f"  {name}: {count / 1e6:.2f} MB")
    for row in manifest.check:
        shape = "x".join(str(n) for n in row["shape"])
        say(f"  {row['engine']} on {row['pictures']} ({shape}): {row['psnr']} dB to PyTorch, "
            f"largest error {row['max_error']:.1e}, of the context {row['context_error']:.1e}")  # fmt: skip
