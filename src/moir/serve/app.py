"""The routes."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

import moir
from moir.base.errors import InvalidValueError, MoirError
from moir.base.names import DEGREES, TASKS, TYPES
from moir.serve import schema
from moir.serve.failures import CLIENT_LEFT, answer, failure
from moir.serve.front import Front
from moir.serve.metrics import CONTENT_TYPE
from moir.serve.options import FORMAT_WORDS, MEDIA_TYPES, FileOptions, RestoreOptions
from moir.serve.pool import Pool
from moir.serve.service import Answer, Service
from moir.serve.settings import Settings
from moir.serve.uploads import receive_upload

PAGE = Path(__file__).parent / "page"
"""The web page's files."""

T = TypeVar("T")

_UPLOAD_ERRORS = (401, 408, 413, 422, 429, 503, 504)


def build(pool: Pool, settings: Settings) -> FastAPI:
    """The application, for any ASGI server; see :func:`moir.serve.create_app`."""
    service = Service(pool, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="moir",
        version=moir.__version__,
        summary="Any damaged picture in, the restored picture out, with an account of what was found.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere; the description itself is /openapi.json
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    _add_pictures(app, service)
    _add_facts(app, service)
    _add_page(app)
    app.add_exception_handler(MoirError, _told)
    app.add_exception_handler(HTTPException, _told)
    app.add_middleware(Front, settings=settings, metrics=service.metrics)
    if settings.cors:
        # Outside the token check: a browser asks for leave before it sends the token.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
            expose_headers=["X-Moir-Report", "Content-Disposition", "Retry-After"],
        )
    return app


def _add_pictures(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post(
        "/v1/restore",
        summary="Restore a picture",
        response_class=Response,
        responses=schema.picture("the restored picture", schema.REPORT_EXAMPLE) | schema.errors(*_UPLOAD_ERRORS),
        openapi_extra=schema.body(*RestoreOptions.NAMES),
    )
    async def restore(request: Request) -> Response:
        with service.admission():
            upload = await receive_upload(request, settings, RestoreOptions.NAMES)
            options = RestoreOptions.of(upload.options)
            return _picture(await _while_connected(request, service.restore(upload, options)))

    @app.post(
        "/v1/inspect",
        summary="Say what is wrong with a picture",
        response_model=schema.Inspection,
        responses=schema.errors(*_UPLOAD_ERRORS),
        openapi_extra=schema.body("model"),
    )
    async def inspect(request: Request) -> Response:
        with service.admission():
            upload = await receive_upload(request, settings, ("model",))
            work = service.inspect(upload, upload.options.get("model"))
            return JSONResponse(await _while_connected(request, work))

    @app.post(
        "/v1/degrade",
        summary="Damage a picture on purpose, to try the server",
        response_class=Response,
        responses=schema.picture("the damaged picture") | schema.errors(*_UPLOAD_ERRORS),
        openapi_extra=schema.body("with", "seed", *FileOptions.NAMES, required=("with",)),
    )
    async def degrade(request: Request) -> Response:
        with service.admission():
            upload = await receive_upload(request, settings, ("with", "seed", *FileOptions.NAMES))
            seed = upload.options.get("seed") or "0"
            if not (seed.isdecimal() and len(seed) < 19):
                raise InvalidValueError(f"seed {seed[:20]!r} is no whole number from 0 on")
            work = service.degrade(upload, upload.options.get("with", ""), int(seed), FileOptions.of(upload.options))
            return _picture(await _while_connected(request, work))

    @app.post(
        "/v1/preview",
        summary="The picture as PNG, for browsers that cannot show its format",
        response_class=Response,
        responses=schema.picture("the picture, unchanged, with 8 bits") | schema.errors(*_UPLOAD_ERRORS),
        openapi_extra=schema.body(),
    )
    async def preview(request: Request) -> Response:
        with service.admission():
            upload = await receive_upload(request, settings, ())
            data = await _while_connected(request, service.preview(upload))
            return Response(data, media_type="image/png", headers={"Cache-Control": "no-store"})


def _add_facts(app: FastAPI, service: Service) -> None:
    limits = service.settings

    @app.get("/v1/models", summary="What can be asked for", responses=schema.errors(401))
    async def models() -> schema.Offer:
        described = await asyncio.to_thread(service.pool.describe)
        return schema.Offer(
            models=[schema.Model(**model) for model in described],
            tasks=list(TASKS),
            types=list(TYPES),
            degrees=list(DEGREES),
            formats=list(FORMAT_WORDS),
            limits=schema.Limits(bytes=limits.max_bytes, pixels=limits.max_pixels, seconds=limits.timeout),
        )

    @app.get("/healthz", summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether a picture sent now would be taken", responses=schema.errors(503))
    async def readyz() -> Response:
        if service.ready:
            return JSONResponse({"status": "ready"})
        return failure(503, "not ready: starting, full, or going down", {"Retry-After": "1"})

    @app.get("/metrics", summary="Counters in Prometheus' text format", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE), name="page")


async def _told(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return failure(error.status_code, str(error.detail), error.headers)
    return answer(error)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, but stop it when the client goes away."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise HTTPException(CLIENT_LEFT, "the client went away")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _picture(done: Answer) -> Response:
    suffix = done.name.rpartition(".")[2].lower()
    names = {"jpg": "JPEG", "tif": "TIFF"}
    headers = {
        "X-Moir-Report": json.dumps(done.report),  # ASCII, as headers must be
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(done.name, safe='')}",
        "Cache-Control": "no-store",
    }
    return Response(done.data, media_type=MEDIA_TYPES[names.get(suffix, suffix.upper())], headers=headers)
