"""Source files, here or remote: found by path, glob or URL, and read whole or in part.

fsspec does the work; this module names files, tells when they change, and turns whatever a
filesystem raises into one line that names the file.
"""

import logging
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.core import url_to_fs

from pipelines.errors import InputError
from pipelines.secrets import shown

__all__ = ["SourceFile", "find_files", "open_file", "read_range"]

_VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "Last-Modified", "updated", "created")
_ANSWERS_WITHIN = 20.0
"""Seconds in which a server must tell of a file; its library may try for minutes."""
_CONNECTS_WITHIN = 10.0
_SENDS_WITHIN = 60.0
"""Seconds between two packets; a whole file may take as long as it takes."""
_CLOUD_PROTOCOLS = ("s3", "s3a", "gs", "gcs")
_DEFECTS = (AssertionError, AttributeError, NameError, TypeError)
"""Of this program, not of the file."""
_WILDCARD = re.compile(r"[*?[]")


@dataclass(frozen=True)
class SourceFile:
    """A file to read from."""

    url: str
    """Where it is, as fsspec takes it; may hold credentials, so messages take ``shown(url)``."""
    name: str
    """Its path below the folder that was named, or below what of a glob is fixed; part of
    examples' ids, so files that join the source later do not change it."""
    size: int
    """Bytes."""
    version: str
    """Changes when the content does, as far as the filesystem tells."""


def find_files(
    paths: str | list[str], suffixes: tuple[str, ...] = (), *, may_be_empty: bool = False
) -> list[SourceFile]:
    """The files that paths, globs, folders and URLs name, each once, sorted by URL.

    A folder stands for all files below it that end in one of ``suffixes`` (given in lower case,
    found in any). Neither it nor a glob yields files that are hidden (``.`` or ``_`` in front),
    or in a hidden folder, by chance.

    Raises:
        InputError: if one of them names nothing, cannot be reached, has a name that is not UTF-8
            or that ids could not tell from another's, or is empty (unless it ``may_be_empty``).
    """
    found: dict[str, SourceFile] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        with _refusals(path):
            matched = _matches(path, suffixes)
        if not matched:
            raise InputError(f"data.path: {shown(path)}: matches no file")
        found = matched | found
    files = [found[url] for url in sorted(found)]
    _check(files, may_be_empty)
    return files


def _check(files: list[SourceFile], may_be_empty: bool) -> None:
    names: dict[str, str] = {}
    for file in files:
        if not file.url.isascii() and file.url.encode(errors="replace").decode() != file.url:
            raise InputError(f"{file.url!a}: its name is not UTF-8; rename it")
        if file.size == 0 and not may_be_empty:
            raise InputError(f"{shown(file.url)}: is empty; remove it or leave it out of data.path")
        other = names.setdefault(file.name, file.url)
        if other != file.url:
            raise InputError(
                f"data.path: {shown(other)} and {shown(file.url)} would share the name "
                f"'{file.name}' in ids; name their common folder, a glob, or local copies"
            )


@contextmanager
def open_file(url: str) -> Iterator[IO[bytes]]:
    """A file opened for reading bytes.

    Raises:
        InputError: if it cannot be opened or read, naming it.
    """
    with _refusals(url):
        filesystem, path = _filesystem(url)
        with filesystem.open(path, "rb") as opened:
            yield opened


def read_range(url: str, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a file; fewer if it ends before.

    Raises:
        InputError: if they cannot be read, naming the file.
    """
    with _refusals(url):
        filesystem, path = _filesystem(url)
        content = bytes(filesystem.cat_file(path, start=start, end=stop))
    # A web server that knows no ranges sends the whole file.
    return content if len(content) <= stop - start else content[start:stop]


def _filesystem(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0] if "://" in url else "file"
    options: dict[str, Any] = {}
    if protocol != "file":
        # Listings are kept for the life of the process otherwise, however long that is.
        options["use_listings_cache"] = False
    if protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(None, sock_connect=_CONNECTS_WITHIN, sock_read=_SENDS_WITHIN)
        options["client_kwargs"] = {"timeout": timeout}
    # They log each attempt, with a traceback; what comes of it is told in one line here.
    for library in ("gcsfs", "google.auth", "botocore", "fsspec"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    configured = fsspec.config.conf.get(protocol, {})
    filesystem, path = url_to_fs(
        url, **{name: value for name, value in options.items() if name not in configured}
    )
    return filesystem, path


def _matches(path: str, suffixes: tuple[str, ...]) -> dict[str, SourceFile]:
    filesystem, root = _filesystem(path)
    local, web = "file" in filesystem.protocol, "http" in filesystem.protocol
    wildcard = _WILDCARD.search(root)
    if wildcard and not web and not (local and Path(root).exists()):
        base = posixpath.dirname(root[: wildcard.start()])
        if not local:
            with suppress(FileNotFoundError):
                _info(filesystem, base)
        details = {
            name: each
            for name, each in filesystem.glob(root, detail=True).items()
            if not _is_hidden(name.removeprefix(base)) or _is_hidden(root.removeprefix(base))
        }
    else:
        info = _info(filesystem, root)
        if info["type"] == "directory":
            base = root
            details = {
                name: each
                for name, each in filesystem.find(root, detail=True).items()
                if name.lower().endswith(suffixes or "") and not _is_hidden(name.removeprefix(root))
            }
        else:
            base = posixpath.dirname(shown(info["name"]))
            details = {info["name"]: info}
    found = {}
    for name, info in details.items():
        if info["type"] == "file":
            url = name if local else filesystem.unstrip_protocol(name)
            if info["size"] is None:
                raise InputError(
                    f"{shown(url)}: its server does not tell its size; download the file and name "
                    "it locally"
                )
            below = shown(name).removeprefix(shown(base)).lstrip("/")
            found[url] = SourceFile(url, below, info["size"], _version(info))
    return found


def _info(filesystem: Any, path: str) -> dict[str, Any]:
    if isinstance(filesystem, AsyncFileSystem):
        info = sync(filesystem.loop, filesystem._info, path, timeout=_ANSWERS_WITHIN)
    else:
        info = filesystem.info(path)
    return dict(info)


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/") if part)


def _version(info: dict[str, object]) -> str:
    return next((str(info[key]).strip('"') for key in _VERSION_KEYS if info.get(key)), "")


@contextmanager
def _refusals(path: str) -> Iterator[None]:
    try:
        yield
    except (InputError, *_DEFECTS):
        raise
    except Exception as error:
        raise InputError(f"{shown(path)}: {_reason(path, error)}") from None


def _reason(path: str, error: Exception) -> str:
    """What went wrong: each filesystem's library raises errors of its own, few of them OSErrors."""
    told = shown(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        # What keeps a web server from answering is raised as if the file were not there.
        cause = error.__cause__ if path.startswith("http") else None
        status = getattr(cause, "status", None)
        if cause is None or status in (404, 410):
            return "no such file"
        if status is not None:
            return f"may not be read: the server answers {status} {getattr(cause, 'message', '')}"
        return _unreachable(cause)
    if isinstance(error, TimeoutError):
        return _unreachable(error)
    if isinstance(error, PermissionError):
        return "may not be read; check its permissions"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a file"
    if isinstance(error, ImportError):
        cloud = path.partition("://")[0] in _CLOUD_PROTOCOLS
        return f"cannot be read: {told}" + ("; `pip install 'tandem[cloud]'`" if cloud else "")
    if any(word in type(error).__name__ for word in ("Connect", "Credential")):
        return _unreachable(error)
    return f"cannot be read: {told}"


def _unreachable(error: BaseException) -> str:
    told = shown(" ".join(str(error).split())) or "no answer"
    return f"cannot be reached ({told}); check the address, the network and your credentials"
