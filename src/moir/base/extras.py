"""Packages of the extras: imported where they are needed, with an error that says how to install what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from moir.base.errors import MissingExtraError


@contextmanager
def needs_extra(extra: str, words: str) -> Iterator[None]:
    """Import packages of an extra in this block.

    Args:
        extra: Of pyproject.toml: ``train``, ``export``, ...
        words: What needs what, for the message: ``plots need matplotlib``.

    Raises:
        MissingExtraError: An import of the block failed.

    Examples:
        >>> with needs_extra("train", "plots need such_a_package"):
        ...     import such_a_package
        Traceback (most recent call last):
        moir.base.errors.MissingExtraError: plots need such_a_package; install it with: pip install 'moir[train]'
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f"{words}; install it with: pip install 'moir[{extra}]'") from error
