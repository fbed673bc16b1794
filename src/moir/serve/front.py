"""What every request passes: host, origin and token checks, headers, counting, and the last catch for errors."""

import hmac
import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moir.serve.failures import CLIENT_LEFT, answer, failure
from moir.serve.metrics import Metrics
from moir.serve.settings import Settings

log = logging.getLogger(__name__)

LOCKED = ("/v1/", "/metrics")
"""Beginnings of the paths that ask for the token."""

HEADERS = {
    # The page is one origin with no foreign parts; a browser is told to refuse any that should creep in.
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Front:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self._headers = dict(HEADERS)
        if settings.cors:
            self._headers["cross-origin-resource-policy"] = "cross-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, sending)
            else:
                await self.app(scope, receive, sending)
        except Exception as error:
            if status:  # half an answer is out: nothing can be mended, the server closes the connection
                raise
            await answer(error)(scope, receive, sending)
        finally:
            # The route's own path, not what was asked for: a stranger's paths must not become labels.
            route = getattr(scope.get("route"), "path", "") or "other"
            self.metrics.add("moir_requests_total", route=route, status=str(status or CLIENT_LEFT))
            self.metrics.observe("moir_request_seconds", time.perf_counter() - began, route=route)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.settings.hosts and _name(host) not in self.settings.hosts:
            return failure(421, "this server does not answer to that host name; its operator can allow it")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != host
        if foreign and "*" not in self.settings.cors and origin not in self.settings.cors:
            return failure(403, "pages of other origins may not use this server; its operator can allow them")
        if self.settings.token is not None and scope["path"].startswith(LOCKED):
            scheme, _, word = headers.get("authorization", "").partition(" ")
            # Compared in constant time, so that the time of the answer says nothing about the token.
            same = hmac.compare_digest(word.strip().encode(), self.settings.token.encode())
            if scheme.lower() != "bearer" or not same:
                challenge = {"WWW-Authenticate": 'Bearer realm="moir"'}
                return failure(401, "this server asks for its token: Authorization: Bearer TOKEN", challenge)
        return None


def _name(host: str) -> str:
    """The host name without its port, lower case."""
    return (urlsplit("//" + host).hostname or "") if host else ""
