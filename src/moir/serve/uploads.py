"""Receiving a picture: the multipart body, within limits, and the options that came along."""

import asyncio
import io
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive

from moir.base.names import check_name
from moir.picture.formats import FORMATS, sniff
from moir.picture.guard import quiet_warnings
from moir.serve.failures import RefusedError
from moir.serve.settings import Settings

ENVELOPE = 64 * 2**10
"""Bytes that a multipart body may be larger than its file: boundaries, headers, options."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Upload:
    """A received picture file, not decoded.

    Attributes:
        name: The client's name for it, without folders; a label only, never used as a path.
        file: Its bytes; on disk if they are many.
        options: Form fields and query parameters; a field counts before a parameter.
    """

    name: str
    file: UploadFile
    options: dict[str, str]


async def receive_upload(request: Request, settings: Settings, known: tuple[str, ...]) -> Upload:
    """Read a request's multipart body.

    Args:
        request: Its body was not read yet.
        settings: The limits.
        known: Names of the options.

    Raises:
        RefusedError: 413 if it is too large, 408 if it comes too slowly, 422 if there is no file in it.
        UnknownNameError: An option that there is not.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_bytes + ENVELOPE:
        raise _too_large(settings)
    counted = Request(request.scope, _counting(request.receive, settings))
    try:
        async with asyncio.timeout(settings.timeout):
            form = await counted.form(max_files=1, max_fields=32, max_part_size=ENVELOPE)
    except TimeoutError:
        raise RefusedError(408, f"the upload took longer than {settings.timeout:g} s; send a smaller file") from None
    options = dict(request.query_params)
    file: UploadFile | None = None
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            if key != "file":
                raise RefusedError(422, f"the picture came in the field {key!r}; name the field 'file'")
            file = value
        elif key == "file":
            raise RefusedError(422, "the field 'file' has no file in it; send the picture's bytes with a file name")
        else:
            options[key] = value
    if file is None:
        raise RefusedError(422, "no picture came; send one as multipart/form-data in the field 'file'")
    for name in options:
        check_name(name, known, "option")
    if (file.size or 0) > settings.max_bytes:
        raise _too_large(settings)
    return Upload(plain_name(file.filename or ""), file, options)


def plain_name(name: str) -> str:
    r"""A client's file name, without folders and control characters, of a sane length.

    Examples:
        >>> plain_name("../../etc/passwd"), plain_name("C:\\photos\\cat.jpg"), plain_name("")
        ('passwd', 'cat.jpg', 'picture')
    """
    last = PurePosixPath(_CONTROL.sub("", name).replace("\\", "/")).name
    if len(last) > 120:
        path = PurePosixPath(last)
        last = path.stem[:100] + path.suffix[:20]
    return last.encode(errors="replace").decode() if last not in ("", ".", "..") else "picture"


def declared_pixels(data: bytes) -> int | None:
    """Pixels that a file's header declares; None if it cannot be told. Nothing is decoded."""
    kind = sniff(data)
    if kind not in FORMATS:
        return None
    try:
        with quiet_warnings(), Image.open(io.BytesIO(data), formats=[kind]) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        return None  # PIL's own limit; the decoder meets the size again and says it
    except Exception:  # damaged in one of many ways; the decoder will say which
        return None


def _counting(receive: Receive, settings: Settings) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > settings.max_bytes + ENVELOPE:
            raise _too_large(settings)
        return message

    return counted


def _too_large(settings: Settings) -> RefusedError:
    return RefusedError(
        413, f"the file is larger than this server's limit of {settings.max_bytes:,} bytes; send a smaller one"
    )
