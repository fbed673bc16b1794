"""Folders that may be elsewhere: local paths, ``file://``, and what pyarrow or fsspec open (``s3://``, ...)."""

import posixpath
from typing import Any
from urllib.parse import unquote, urlsplit

from moir.base.errors import InvalidValueError, MissingExtraError, OutputExistsError, PictureNotFoundError
from moir.base.extras import needs_extra


def is_url(name: str) -> bool:
    """Whether a name is a URL of another place than this file system.

    Examples:
        >>> is_url("s3://bucket/pictures"), is_url("file:///data"), is_url("/data"), is_url("C:/data")
        (True, False, False, False)
    """
    return "://" in name and not name.startswith("file://")


def local_name(name: str) -> str:
    """A path: that of a ``file://`` URL, or the name as it is."""
    return unquote(urlsplit(name).path) if name.startswith("file://") else name


def join_url(folder: str, relative: str) -> str:
    """The URL of something in a folder.

    Examples:
        >>> join_url("s3://bucket/out/", "a/b.png")
        's3://bucket/out/a/b.png'
    """
    return f"{folder.rstrip('/')}/{relative}"


def file_system(url: str) -> tuple[Any, str]:
    """The pyarrow file system of a URL, and the path in it. Credentials are found the usual way of each service.

    Raises:
        MissingExtraError: pyarrow, or the fsspec package of this kind of URL, is not installed.
        InvalidValueError: Nobody knows this kind of URL.
    """
    with needs_extra("cluster", "URLs need pyarrow"):
        import pyarrow as pa
        from pyarrow import fs
    try:
        return fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid:
        pass  # not one of Arrow's own; fsspec knows many more
    scheme = urlsplit(url).scheme
    try:
        import fsspec

        opened, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        kind = MissingExtraError if isinstance(error, ImportError) else InvalidValueError
        raise kind(f"cannot open {scheme}:// URLs ({error}); install the fsspec package of this service") from error
    return fs.PyFileSystem(fs.FSSpecHandler(opened)), path


def list_files(url: str, *, recursive: bool) -> list[tuple[str, str]]:
    """The files of a folder, each as URL and path relative to it, sorted; a URL of a file gives that file.

    Raises:
        PictureNotFoundError: There is nothing.
    """
    from pyarrow import fs

    system, path = file_system(url)
    info = system.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise PictureNotFoundError(f"{url} does not exist; check the name, and that you may read it")
    if info.type == fs.FileType.File:
        return [(url, posixpath.basename(path))]
    found = system.get_file_info(fs.FileSelector(path, recursive=recursive))
    names = sorted(posixpath.relpath(entry.path, path) for entry in found if entry.type == fs.FileType.File)
    return [(join_url(url, name), name) for name in names]


def read_url(url: str) -> bytes:
    """The whole file.

    Raises:
        PictureNotFoundError: It cannot be read.
    """
    system, path = file_system(url)
    try:
        with system.open_input_stream(path) as file:
            return bytes(file.read())
    except OSError as error:
        raise PictureNotFoundError(f"{url} cannot be read: {error}") from error


def exists_url(url: str) -> bool:
    """Whether there is a file."""
    from pyarrow import fs

    system, path = file_system(url)
    return bool(system.get_file_info(path).type != fs.FileType.NotFound)


def write_url(url: str, data: bytes, *, overwrite: bool) -> None:
    """Write a whole file. Object stores show it whole or not at all; elsewhere it is written aside and renamed.

    Raises:
        OutputExistsError: It exists and ``overwrite`` is false.
    """
    system, path = file_system(url)
    if not overwrite and exists_url(url):
        raise OutputExistsError(f"{url} exists already; give another folder, or allow overwriting")
    objects = urlsplit(url).scheme in ("s3", "gs", "gcs", "abfs", "abfss", "az", "r2", "memory")
    aside = path if objects else posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.part")
    if not objects:
        system.create_dir(posixpath.dirname(path), recursive=True)
    with system.open_output_stream(aside) as file:
        file.write(data)
    if aside != path:
        system.move(aside, path)
