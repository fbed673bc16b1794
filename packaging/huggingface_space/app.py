"""The page of ``moir serve`` as a Hugging Face Space."""

import os
from typing import Any

import uvicorn

from moir.serve import Settings, create_app

PORT = 7860
HUB = "https://huggingface.co"


class Framed:
    """ASGI middleware that lets the hub's site show the page in its frame, and no other site.

    ``moir serve`` forbids frames altogether.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, value.replace(b"frame-ancestors 'none'", f"frame-ancestors {HUB}".encode()))
                    for name, value in message["headers"]
                ]
            await send(message)

        await self.app(scope, receive, sending)


def settings() -> Settings:
    """Limits for a small machine that everybody may use."""
    # The proxy before the Space may pass another host name on; then the page's own address is a foreign origin.
    address = os.environ.get("SPACE_HOST")
    cors = (f"https://{address}",) if address else ()
    return Settings(max_bytes=32 * 2**20, max_pixels=25_000_000, queue=32, timeout=180, cors=cors)


def make_app() -> Framed:
    """The whole application."""
    return Framed(create_app(settings=settings()))


if __name__ == "__main__":
    uvicorn.run(make_app(), host="0.0.0.0", port=PORT, access_log=False, server_header=False)  # type: ignore[arg-type]
