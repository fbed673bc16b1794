"""Making and running the server; what needs the extra ``serve`` is imported here, when it is used."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moir.base.errors import MissingExtraError, MoirError
from moir.serve.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from moir.restore import Restorer
    from moir.serve.pool import Pool

log = logging.getLogger(__name__)


class AddressError(MoirError):
    """The address or port cannot be listened on."""


GRACE = 30.0
"""Seconds beyond a request's time limit that a server going down waits for its last answers."""


def create_app(
    restorers: Mapping[str, Restorer] | None = None, settings: Settings | None = None, *, pool: Pool | None = None
) -> FastAPI:
    """The server as an ASGI application, for another server than :func:`serve`'s, and for tests.

    Args:
        restorers: Models that clients may name, the first of them the default; None: the shipped default. The other
            shipped models are offered besides, and loaded when first asked for.
        settings: Limits and policy.
        pool: The models, instead of ``restorers``.

    Raises:
        MissingExtraError: The extra ``serve`` is not installed.
    """
    check_extra()
    from moir.serve.app import build
    from moir.serve.pool import Pool, pool_of

    if pool is None:
        pool = Pool(restorers) if restorers else pool_of(())
    return build(pool, settings or Settings())


def serve(
    pool: Pool,
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then take no more connections, finish what runs, and return.

    Args:
        pool: The models; see :func:`moir.serve.pool.pool_of`.
        settings: Limits and policy. On a loopback address without ``hosts``, only loopback names are answered to.
        host: Address to listen on.
        port: Port; 0: any that is free.
        on_listening: Told the page's address.

    Raises:
        MissingExtraError: The extra ``serve`` is not installed.
        AddressError: The port is taken, or the address is not this machine's.
    """
    check_extra()
    import uvicorn

    if host in LOOPBACK and not settings.hosts:
        settings = dataclasses.replace(settings, hosts=LOOPBACK)
    config = uvicorn.Config(
        create_app(settings=settings, pool=pool),
        log_config=None,  # the program's own logging
        access_log=False,  # /metrics counts; a log line for each picture would name the users' files
        server_header=False,
        timeout_graceful_shutdown=int(settings.timeout + GRACE),
    )
    with _listening(host, port) as listener, _terminated_quietly():
        if on_listening is not None:
            shown = f"[{host}]" if ":" in host else host
            on_listening(f"http://{shown}:{listener.getsockname()[1]}/")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            log.info("ended by Ctrl-C")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressError(f"cannot listen on {host} port {port}: {reason}; try another --host or --port") from error


@contextmanager
def _terminated_quietly() -> Iterator[None]:
    """After a graceful end uvicorn sends itself the signal again; SIGTERM shall then not count as a crash."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_extra() -> None:
    """Make sure that the extra ``serve`` is there.

    Raises:
        MissingExtraError: It is not.
    """
    for name in ("fastapi", "uvicorn", "python_multipart"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(f"the server needs {name}; install it with: pip install 'moir[serve]'") from error
