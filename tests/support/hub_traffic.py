"""Requests to the loopback Hub: what was asked, what is answered, what is counted, and chosen faults."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO, Literal

PIECE_BYTES = 1 << 18

Kind = Literal[
    "create", "delete", "info", "whoami", "validate-yaml", "preupload", "lfs-batch", "lfs-upload", "lfs-complete",
    "lfs-verify", "commit", "tree", "paths-info", "resolve", "branch", "tag", "refs", "commits", "discussion",
    "xet-token", "auth-check", "settings", "other",
]  # fmt: skip
Drop = Literal["request", "upload", "answer", "body"]


class Body:
    """The body of a request, read once, with a length or in chunks."""

    def __init__(self, stream: BinaryIO, headers: Message) -> None:
        self.num_bytes = 0
        self.bytes_per_second: float | None = None
        self.is_cut = False
        self._stream = stream
        is_chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._pieces = self._chunks() if is_chunked else self._exactly(int(headers.get("Content-Length", 0)))
        self._all: bytes | None = None

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.num_bytes += len(piece)
            if self.is_cut:
                raise ConnectionAbortedError("a fault cut this upload")
            if self.bytes_per_second is not None:
                time.sleep(len(piece) / self.bytes_per_second)
            yield piece

    def read(self) -> bytes:
        """All of it, any number of times."""
        if self._all is None:
            self._all = b"".join(self)
        return self._all

    def _exactly(self, num_bytes: int) -> Iterator[bytes]:
        while num_bytes > 0:
            pace = self.bytes_per_second
            piece = self._stream.read(min(num_bytes, PIECE_BYTES if pace is None else max(1, int(pace / 20))))
            if not piece:
                raise ConnectionAbortedError("the client went away in the middle of its upload")
            num_bytes -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._stream.readline()
            if not line:
                raise ConnectionAbortedError("the client went away in the middle of its upload")
            num_bytes = int(line.split(b";")[0], 16)
            yield from self._exactly(num_bytes)
            self._stream.readline()
            if num_bytes == 0:
                return


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request on its way in."""

    kind: Kind
    """What it asks for."""
    method: str
    """GET, HEAD, POST, PUT or DELETE."""
    path: str
    """As sent, without the query."""
    parts: Mapping[str, str]
    """Pieces of the path by name: kind, id, revision, path, oid ...; decoded."""
    query: Mapping[str, str]
    """Decoded."""
    headers: Message
    """As sent."""
    body: Body
    """Not read yet."""
    endpoint: str
    """`http://127.0.0.1:<port>`."""

    @property
    def token(self) -> str | None:
        """The bearer token."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    @property
    def repo(self) -> tuple[str, str]:
        """(kind, id) of the repository in the path."""
        return (self.parts["type"] or "models").removesuffix("s"), self.parts["id"]

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body.read() or b"{}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a request is answered."""

    status: int = 200
    """HTTP status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beyond the length."""
    body: bytes = b""
    """Content, unless `file`."""
    file: Path | None = None
    """Content is this file's bytes [start, start + num_bytes)."""
    start: int = 0
    """See `file`."""
    num_bytes: int = 0
    """See `file`."""

    @property
    def length_bytes(self) -> int:
        """Of the content."""
        return len(self.body) if self.file is None else self.num_bytes

    def pieces(self, num_bytes: int, bytes_per_second: float | None) -> Iterator[bytes]:
        """The first bytes of the content, a twentieth of a second at a time."""
        most_bytes = PIECE_BYTES if bytes_per_second is None else max(1, int(bytes_per_second / 20))
        with io.BytesIO(self.body) if self.file is None else self.file.open("rb") as file:
            file.seek(self.start)
            while num_bytes > 0:
                piece = file.read(min(num_bytes, most_bytes))
                num_bytes -= len(piece)
                yield piece


def as_json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer in JSON."""
    return Answer(
        status=status, body=json.dumps(value).encode(), headers={"Content-Type": "application/json", **(headers or {})}
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request that was answered, or that was not because its connection went away."""

    kind: Kind
    """What it asked for."""
    method: str
    """GET, HEAD, POST, PUT or DELETE."""
    path: str
    """As sent, without the query."""
    status: int
    """HTTP status; 0 = no answer."""
    num_bytes_received: int
    """Of its body."""
    num_bytes_sent: int
    """Of the answer's body."""
    has_token: bool
    """Whether a token came with it."""
    oid: str | None
    """sha256 of the LFS object it uploads."""
    repo_path: str | None
    """Path in the repository it resolves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that goes wrong with chosen requests."""

    match: Kind | Callable[[Call], bool]
    """Which requests."""
    after: int = 0
    """The first matching requests that are left alone."""
    times: int = 1
    """The matching requests it then strikes."""
    status: int | None = None
    """Answered instead of doing what was asked; the request's body is read first."""
    retry_after_seconds: int | None = None
    """`Retry-After` header of that answer."""
    rate_limit_reset_seconds: int | None = None
    """`RateLimit` header of that answer: nothing left for so long."""
    drop: Drop | None = None
    """Connection closed: before reading the `request`'s body, within its `upload`, after doing what was asked but
    without `answer`, or in the middle of the answer's `body`."""
    latency_seconds: float = 0.0
    """Before anything else."""
    bytes_per_second: float | None = None
    """Of the request's body and of the answer's."""
    action: Callable[[Call], None] | None = None
    """Called when it strikes, before all of the above but the latency. The request's body may still be on its way:
    an action that kills the client of a request that shall count calls `call.body.read()` first."""

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer with `status`."""
        headers = {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}
        if self.rate_limit_reset_seconds is not None:
            headers["RateLimit"] = f'"api";r=0;t={self.rate_limit_reset_seconds}'
            headers["RateLimit-Policy"] = '"fixed window";"api";q=500;w=300'
        return headers


class Faults:
    """Faults that wait for their requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_seen: list[tuple[Fault, list[int]]] = []

    def add(self, fault: Fault) -> None:
        """Arm a fault."""
        with self._lock:
            self._num_seen.append((fault, [0]))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._num_seen.clear()

    def strike(self, call: Call) -> Fault | None:
        """The first fault due for a request; every fault counts the requests that match it."""
        struck = None
        with self._lock:
            for fault, seen in self._num_seen:
                if not (fault.match == call.kind if isinstance(fault.match, str) else fault.match(call)):
                    continue
                seen[0] += 1
                if struck is None and fault.after < seen[0] <= fault.after + fault.times:
                    struck = fault
        return struck


class Log:
    """The requests so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    @property
    def requests(self) -> list[Request]:
        """In the order in which they were answered."""
        with self._lock:
            return list(self._requests)

    def add(self, request: Request) -> None:
        """Keep a request."""
        with self._lock:
            self._requests.append(request)

    def correct(self, request: Request, *, num_bytes_sent: int) -> None:
        """Fewer bytes went out than was kept of a request."""
        with self._lock:
            for at, kept in enumerate(self._requests):
                if kept is request:
                    self._requests[at] = replace(kept, num_bytes_sent=num_bytes_sent)

    def clear(self) -> None:
        """Forget them."""
        with self._lock:
            self._requests.clear()
