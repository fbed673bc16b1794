"""Which answer an error gets. Every one is JSON, ``{"error": "..."}``; none shows the server's inside."""

import logging
from collections.abc import Mapping

from starlette.responses import JSONResponse

from moir.base.errors import (
    InvalidValueError,
    MoirError,
    PictureError,
    PictureTooLargeError,
    TensorShapeError,
    UnknownNameError,
)
from moir.runtime.memory import is_out_of_memory

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""What the metrics and the log call a request whose client went away; nobody receives it."""


class RefusedError(MoirError):
    """A request that is answered with an error on purpose.

    Attributes:
        status: HTTP status.
        headers: Further headers, such as Retry-After.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def answer(error: BaseException) -> JSONResponse:
    """The answer to a request that failed."""
    if isinstance(error, RefusedError):
        return failure(error.status, str(error), error.headers)
    if isinstance(error, PictureTooLargeError):
        return failure(413, str(error))
    if isinstance(error, PictureError | UnknownNameError | InvalidValueError | TensorShapeError):
        return failure(422, str(error))
    if is_out_of_memory(error):
        log.error("memory ran out: %s", error)
        message = "the server has no memory for this picture now; try later, or a smaller one"
        return failure(503, message, {"Retry-After": "30"})
    log.error("a request failed", exc_info=error)
    return failure(500, "the server failed; its log says why")


def failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as JSON."""
    return JSONResponse({"error": message}, status, dict(headers or {}))
