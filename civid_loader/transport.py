"""One request for one range of a URL: what came, or why it did not, in our own errors. No retries, no memory.

http(s) goes through the session of fsspec's file system, because only the reply itself shows whether a server
honoured the range; every other protocol goes through fsspec's files.
"""

import asyncio
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

# All at the top, none where it is used: a child forked in the middle of an import waits for it for ever.
import aiohttp
import fsspec
import fsspec.implementations.http
from fsspec.utils import get_protocol

from civid_loader.errors import (
    MissingDependencyError,
    RemoteVideoError,
    UnreadableVideoError,
    VideoError,
    VideoNotFoundError,
)

MAX_WHOLE_BYTES: Final = 256 << 20
"""The largest file that is fetched, and kept, whole where a server knows no ranges."""
STALLED_SECONDS: Final = 30.0
"""A connection that gives nothing for so long is given up."""

_SLOWEST_BYTES_PER_SECOND: Final = 50_000
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?P<total>\d+)")
_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/]*@|(?<=[^\s?#])[?#](?:(?!::\w+://)[^\s'\"])*")
_RETRIED_STATUS: Final = (408, 425, 429)
# Errors of libraries below fsspec that are no OSError; looked up only where the library is loaded already.
_LIBRARY_ERRORS: Final = (
    ("aiohttp", "ClientError"), ("httpx", "HTTPError"), ("httpx2", "HTTPError"),
    ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
)  # fmt: skip

LOCK: Final = threading.Lock()
"""Held only to move a few references, and by nobody at the moment of a fork."""
os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)
# File systems are never freed. A child that frees one of its parent's closes the parent's connections in doing so.
_KEPT: Final[dict[int, Any]] = {}


class TransientError(Exception):
    """This attempt failed; another may not."""


class IgnoresRangesError(Exception):
    """The reply is the whole file, not the range asked for."""


@dataclass(kw_only=True, slots=True)
class Counters:
    """What a source has read, every attempt and every byte counted."""

    num_requests: int = 0
    """Reads; of http, requests sent. What fsspec asks for itself, for other protocols, is not seen."""
    num_bytes: int = 0
    """Bytes received, those of failed attempts included."""

    def add(self, *, num_requests: int = 0, num_bytes: int = 0) -> None:
        """Count; any number of threads may."""
        with LOCK:
            self.num_requests += num_requests
            self.num_bytes += num_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a server gave."""

    data: bytes
    """The bytes asked for, as far as the file goes."""
    total_bytes: int | None
    """Length of the file; None where the server does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A URL with fsspec's file system for it, as found in this process."""

    url: str
    """As given; it may hold credentials."""
    files: Any
    """The file system."""
    path: str
    """The file's name in it."""


def is_http(url: str) -> bool:
    """Whether requests are made here, and not by an fsspec file."""
    return url.lower().startswith(("http://", "https://"))


def without_credentials(text: str) -> str:
    """The URLs in a text without user, password, query and fragment: what messages may show."""
    return _CREDENTIALS.sub("", text)


def check_protocol(url: str) -> None:
    """Raise MissingDependencyError or UnreadableVideoError where fsspec cannot read such URLs; opens nothing."""
    name = without_credentials(url)
    # "::" chains file systems, but it also stands in http addresses: http://[::1]/x.mp4
    for part in ["http"] if is_http(url) else url.split("::"):
        try:
            fsspec.get_filesystem_class(get_protocol(part) if "://" in part else part)
        except ImportError as error:
            raise MissingDependencyError(f"{name}: {error}; add it to this environment with pip install") from error
        except ValueError as error:
            raise UnreadableVideoError(f"{name}: {error}; correct the address") from error


def remote_file(url: str) -> RemoteFile:
    """Resolve a URL. Only for use within one call: file systems belong to their process, some to their thread."""
    with own_errors(without_credentials(url)):
        files, path = (fsspec.filesystem("http"), url) if is_http(url) else fsspec.core.url_to_fs(url)
    if files.async_impl and files.cachable:
        _KEPT[id(files)] = files
    return RemoteFile(url=url, files=files, path=path)


def request(
    file: RemoteFile,
    span: tuple[int, int] | None,
    *,
    is_within: bool,
    timeout_seconds: float | None,
    counters: Counters,
) -> Reply:
    """Bytes [start, end) of a file, or all of it where `span` is None; fewer only where the file ends before.

    Args:
        file: where.
        span: known to lie within the file if `is_within`, which spares other protocols than http a request.
        is_within: see `span`.
        timeout_seconds: until the last byte.
        counters: are told.

    Raises:
        TransientError: try again.
        TimeoutError: `timeout_seconds` are over, or the connection stalled.
        IgnoresRangesError: http only; nothing was kept.
        VideoNotFoundError: no such file.
        RemoteVideoError: another attempt would not help.
    """
    counters.add(num_requests=1)
    with own_errors(without_credentials(file.url)):
        if is_http(file.url):
            return cast(Reply, _on_loop(file, _get(file, span, timeout_seconds=timeout_seconds, counters=counters)))
        assert span is not None, "only http servers ignore ranges"
        total_bytes = None if is_within else int(file.files.info(file.path)["size"])
        start, end = span if total_bytes is None else (span[0], min(span[1], total_bytes))
        data = _read(file, start, end, timeout_seconds=timeout_seconds) if start < end else b""
        counters.add(num_bytes=len(data))
        if len(data) != max(0, end - start):
            raise TransientError(f"{len(data)} of {end - start} bytes came")
        return Reply(data=data, total_bytes=total_bytes)


def _on_loop(file: RemoteFile, job: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(job, file.files.loop).result()


def _read(file: RemoteFile, start: int, end: int, *, timeout_seconds: float | None) -> bytes:
    """Exactly these bytes: `cat_file` of file systems that are not asynchronous reads ahead, hf:// by 5 MB."""
    data: bytes
    if file.files.async_impl:
        job = asyncio.wait_for(file.files._cat_file(file.path, start=start, end=end), timeout_seconds)
        data = _on_loop(file, job)
    else:
        with file.files.open(file.path, "rb", cache_type="none") as opened:
            opened.seek(start)
            data = opened.read(end - start)
    return data


async def _get(
    file: RemoteFile, span: tuple[int, int] | None, *, timeout_seconds: float | None, counters: Counters
) -> Reply:
    num_bytes = span[1] - span[0] if span else MAX_WHOLE_BYTES
    options = _options(file, span, num_bytes=num_bytes, timeout_seconds=timeout_seconds)
    session = await file.files.set_session()
    async with session.get(file.files.encode_url(file.url), **options) as reply:
        stated = _CONTENT_RANGE.match(reply.headers.get("Content-Range", ""))
        total_bytes = int(stated["total"]) if stated else None
        if reply.status == 416 and span:
            return Reply(data=b"", total_bytes=total_bytes)
        if refusal := _refusal(reply.status, without_credentials(file.url)):
            raise refusal
        if (span is None or reply.status != 206) and (reply.content_length or 0) > MAX_WHOLE_BYTES:
            raise _too_large(file)
        if span is None:
            data = await _body(file, reply, num_bytes=num_bytes, counters=counters)
            return Reply(data=data, total_bytes=len(data))
        if reply.status != 206:
            raise IgnoresRangesError
        if stated and stated["start"] is not None and int(stated["start"]) != span[0]:
            raise TransientError(f"the server gave bytes from {stated['start']} on, not from {span[0]}")
        data = await _body(file, reply, num_bytes=num_bytes, counters=counters)
    expected = num_bytes if total_bytes is None else min(span[1], total_bytes) - span[0]
    if len(data) != expected:
        raise TransientError(f"{len(data)} of {expected} bytes came")
    return Reply(data=data, total_bytes=total_bytes)


def _options(
    file: RemoteFile, span: tuple[int, int] | None, *, num_bytes: int, timeout_seconds: float | None
) -> dict[str, Any]:
    """What the user configured for fsspec, the range, and time limits."""
    headers = {**file.files.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
    if span:
        headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    timeout = aiohttp.ClientTimeout(
        total=timeout_seconds or 2 * STALLED_SECONDS + num_bytes / _SLOWEST_BYTES_PER_SECOND,
        sock_connect=STALLED_SECONDS,
        sock_read=STALLED_SECONDS,
    )
    return {**file.files.kwargs, "headers": headers, "timeout": timeout}


async def _body(file: RemoteFile, reply: Any, *, num_bytes: int, counters: Counters) -> bytes:
    """The body, which is as long as its Content-Length says (aiohttp raises where it is not)."""
    data = bytearray()
    async for chunk in reply.content.iter_any():
        counters.add(num_bytes=len(chunk))
        data += chunk
        if len(data) > num_bytes:
            raise _too_large(file)
    return bytes(data)


def _too_large(file: RemoteFile) -> RemoteVideoError:
    return RemoteVideoError(
        f"{without_credentials(file.url)}: the server ignores the range asked for and sends more, and whole files are "
        f"read up to {MAX_WHOLE_BYTES} bytes; download the file, or use a server that honours ranges"
    )


def _refusal(status: int, name: str) -> Exception | None:
    """The error that a status stands for."""
    if status in (404, 410):
        return VideoNotFoundError(f"no file at {name}; check the address and that it may be read")
    if status in (401, 403):
        return RemoteVideoError(
            f"{name}: the server refuses to give the file (HTTP {status}); log in, ask for access, or renew the link"
        )
    if status >= 500 or status in _RETRIED_STATUS:
        return TransientError(f"the server answers HTTP {status}")
    if status >= 400:
        return RemoteVideoError(f"{name}: the server answers HTTP {status}; check the address")
    return None


@contextmanager
def own_errors(name: str) -> Iterator[None]:
    """Errors of fsspec and what lies below it as ours; without their chain, which may show credentials.

    Raises:
        TransientError: another attempt may succeed.
        VideoNotFoundError: no such file.
        RemoteVideoError: refused, or not an address.
        TimeoutError: as it came.
    """
    libraries = tuple(getattr(sys.modules[module], kind) for module, kind in _LIBRARY_ERRORS if module in sys.modules)
    try:
        yield
    except (VideoError, TimeoutError):
        raise
    except FileNotFoundError:
        raise cast(Exception, _refusal(404, name)) from None
    except PermissionError:
        raise cast(Exception, _refusal(403, name)) from None
    except (OSError, EOFError, ValueError, *libraries) as error:
        raise _as_own(error, name) from None


def _as_own(error: BaseException, name: str) -> Exception:
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    refusal = _refusal(status, name) if isinstance(status, int) else None
    if refusal is not None:
        return refusal
    reason = without_credentials(str(error)) or type(error).__name__
    if isinstance(error, ValueError):
        return RemoteVideoError(f"{name}: {reason}; correct the address")
    return TransientError(reason)
