"""Keeps the image libraries in bounds: many exception types become one clear error, and nothing is printed."""

import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from moir.base.errors import MoirError, PictureCorruptError, PictureTooLargeError

logger = logging.getLogger(__name__)

# Both the list of warning filters and the error stream belong to the whole process.
_PROCESS_WIDE = threading.RLock()
# What PIL came with; a program that lowered it meant it (a server), and that counts for moir too.
_PIL_STOCK_LIMIT = 1024 * 1024 * 1024 // 4 // 3


@contextmanager
def decoding(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one of moir's errors.

    Decoders meet damaged files with OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError, KeyError,
    IndexError, cv2.error and more, depending on which byte is wrong; a complete list cannot be had, so all are taken.

    Raises:
        PictureTooLargeError: Not enough memory, or PIL calls it a decompression bomb.
        PictureCorruptError: Everything else.
    """
    try:
        yield
    except MoirError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise PictureTooLargeError(
            f"{name} is too large for the memory or for PIL's own limit ({_text(error)}); make the picture smaller"
        ) from error
    except Exception as error:
        raise PictureCorruptError(
            f"{name} begins like a {kind} file but is truncated or damaged ({_text(error)}); "
            "get it from its source again, or save it anew in the program that can still open it"
        ) from error


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture by the size its header declares, before memory is taken for it.

    Raises:
        PictureTooLargeError: More than ``max_pixels``, or than a limit that the program set in ``PIL.Image``.
        PictureCorruptError: No pixels at all.
    """
    if width < 1 or height < 1:
        raise PictureCorruptError(f"{name} declares a size of {width}x{height}; it is damaged")
    limit, remedy = max_pixels, "raise max_pixels"
    pil_limit = Image.MAX_IMAGE_PIXELS
    if pil_limit is not None and pil_limit != _PIL_STOCK_LIMIT and 2 * pil_limit < limit:
        limit, remedy = 2 * pil_limit, "raise PIL.Image.MAX_IMAGE_PIXELS"
    if width * height > limit:
        raise PictureTooLargeError(
            f"{name} declares {width}x{height} = {width * height:,} pixels, more than the limit of {limit:,}; "
            f"if the file is to be trusted, {remedy}"
        )


@contextmanager
def quiet_warnings() -> Iterator[None]:
    """Hide Python warnings of the block: PIL warns about odd metadata, which is no business of moir's user.

    One thread at a time, so keep the block short (headers, not pixels).
    """
    with _PROCESS_WIDE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Catch what C code prints to the error stream during the block, and log it instead (level DEBUG).

    Needed for libtiff alone, which prints every complaint. The stream belongs to the whole process, hence the lock.
    """
    with _PROCESS_WIDE, tempfile.TemporaryFile() as caught:
        try:
            kept = os.dup(2)
        except OSError:  # there is no error stream (a windowed program), so nothing can be printed either
            yield
            return
        try:
            os.dup2(caught.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            if text := caught.read(10_000):
                logger.debug("printed while decoding: %s", text.decode(errors="replace"))


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
