"""``moir serve``."""

from pathlib import Path
from typing import Annotated

import typer

from moir.base.errors import InvalidValueError
from moir.cli.options import Device, Precision, Tile, tile_of
from moir.cli.output import say


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model to load now (as in moir restore); may be repeated, the first is "
                                           "the default. Shipped ones are offered besides.", show_default=False),
    ] = None,
    device: Device = None,
    precision: Precision = None,
    tile: Tile = "auto",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Ask for the bearer token in this file. (Or set MOIR_TOKEN.)"),
    ] = None,
    max_megabytes: Annotated[float, typer.Option(help="Largest upload.")] = 64,
    max_megapixels: Annotated[float, typer.Option(help="Largest picture.")] = 50,
    timeout: Annotated[float, typer.Option(help="Seconds for a picture, waiting included.")] = 300,
    queue: Annotated[int, typer.Option(help="Pictures admitted at once; more are answered 429.")] = 256,
    batch: Annotated[int, typer.Option(help="Most pictures of one size that run together.")] = 8,
    linger: Annotated[float, typer.Option(help="Milliseconds that a picture waits for others of its size.")] = 0,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", help="Origin whose pages may use the server, such as https://example.org; '*': all. May "
                                    "be repeated.", show_default=False),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Host name to answer to, behind a proxy on this machine. May be repeated.",
                     show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Serve a web page and a REST interface on one port.

    The page is at /, the interface under /v1 (described in /openapi.json), health at /healthz and /readyz, counters at
    /metrics. By default only this machine can reach it. Ctrl-C or SIGTERM: what runs is finished first.
    """
    from moir.serve import Settings
    from moir.serve.run import check_extra

    check_extra()
    loopback = ("127.0.0.1", "localhost", "::1")
    settings = Settings(
        max_bytes=int(max_megabytes * 2**20),
        max_pixels=int(max_megapixels * 1e6),
        memory_pixels=max(50_000_000, int(max_megapixels * 1e6)),
        timeout=timeout,
        queue=queue,
        batch=batch,
        linger=linger / 1000,
        token=_token(token_file),
        cors=tuple(cors or ()),
        hosts=(*loopback, *allow_host) if allow_host else (),
    )
    if host not in loopback and settings.token is None:
        say(f"warning: anyone who reaches {host} can use this server; --token-file asks for a token")
    from moir.serve import serve as run
    from moir.serve.pool import pool_of

    pool = pool_of(model or (), device=device, precision=precision, tile=tile_of(tile))
    run(
        pool,
        settings,
        host=host,
        port=port,
        on_listening=lambda url: say(f"{pool.default} is loaded; serving at {url} (Ctrl-C ends it)"),
    )


def _token(file: Path | None) -> str | None:
    import os

    if file is None:
        return os.environ.get("MOIR_TOKEN") or None
    try:
        return file.read_text().strip()
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"the token file {file} cannot be read: {error}") from error
