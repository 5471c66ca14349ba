"""An HTTP server on 127.0.0.1 that honours ranges, counts what it gives, and fails in chosen ways."""

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ALWAYS = 1 << 30
"""For faults counted in requests."""


@dataclass(kw_only=True)
class Behaviour:
    """How a file is served; change it at any time. Faults are counted down, one per GET: 1 = the next request only."""

    latency_seconds: float = 0.0
    """Before each reply."""
    bytes_per_second: float | None = None
    """Of each connection; None = as fast as it goes."""
    ignores_ranges: bool = False
    """Reply 200 with the whole file."""
    hides_length: bool = False
    """Neither Content-Length nor the total in Content-Range."""
    status: int = 200
    """What `num_refused` requests are answered: 403, 404, 500 ..."""
    num_refused: int = 0
    """Requests answered with `status`."""
    num_cut: int = 0
    """Replies whose body stops half way, connection closed."""
    num_stalled: int = 0
    """Replies whose body stops half way, connection kept open until the server is closed."""
    num_shifted: int = 0
    """Replies that begin one byte after what was asked for."""


@dataclass(kw_only=True)
class RangeServer:
    """A running server."""

    url: str
    """`http://127.0.0.1:<port>`."""
    files: dict[str, bytes]
    """Path without the leading slash -> content."""
    behaviour: Behaviour = field(default_factory=Behaviour)
    """Of every file that has none of its own."""
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    """Path -> how it is served."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range header) of each request, in order of arrival."""
    num_bytes: int = 0
    """Body bytes written."""
    max_parallel: int = 0
    """The most requests that were being answered at one time."""
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the server goes away; ends stalls."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    num_parallel: int = 0

    def address(self, path: str) -> str:
        """URL of a file."""
        return f"{self.url}/{path}"

    def reset(self) -> None:
        """Forget the requests so far."""
        with self.lock:
            self.requests.clear()
            self.num_bytes = self.max_parallel = 0

    def take(self, path: str, fault: str) -> bool:
        """Whether this request has the fault, counted down."""
        with self.lock:
            behaviour = self.behaviours.get(path, self.behaviour)
            left = getattr(behaviour, fault)
            setattr(behaviour, fault, max(0, left - 1))
            return bool(left > 0)


@contextmanager
def serve(files: Mapping[str, bytes], *, behaviour: Behaviour | None = None) -> Iterator[RangeServer]:
    """Serve files while the `with` statement lasts."""
    server = LoopbackServer(_Handler)
    state = RangeServer(url=server.url, files=dict(files), behaviour=behaviour or Behaviour())
    server.state = state
    with server.running(state.closing):
        yield state


class LoopbackServer(ThreadingHTTPServer):
    """On 127.0.0.1, for clients that keep connections and hang up."""

    # Kept-alive connections would hold their threads until the client goes.
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.state: Any = None
        """What the handler works on."""

    @contextmanager
    def running(self, closing: threading.Event) -> Iterator[None]:
        """Answer while the `with` statement lasts; `closing` is set at its end, for handlers that wait."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            closing.set()
            self.shutdown()
            self.server_close()
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        state = self.server.state
        with state.lock:
            state.num_parallel += 1
            state.max_parallel = max(state.max_parallel, state.num_parallel)
        try:
            self._answer(has_body=True)
        finally:
            with state.lock:
                state.num_parallel -= 1

    def _answer(self, *, has_body: bool) -> None:
        state = self.server.state
        path = self.path.partition("?")[0].lstrip("/")
        how = state.behaviours.get(path, state.behaviour)
        asked = self.headers.get("Range")
        with state.lock:
            state.requests.append((self.command, path, asked))
        state.closing.wait(how.latency_seconds)
        if path not in state.files:
            return self._empty(404)
        if has_body and state.take(path, "num_refused"):
            return self._empty(how.status)
        data = state.files[path]
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        total = "*" if how.hides_length else str(len(data))
        if match and not how.ignores_ranges:
            start = int(match[1]) + state.take(path, "num_shifted")
            if start >= len(data):
                return self._empty(416, content_range=f"bytes */{total}")
            body = data[start : int(match[2]) + 1 if match[2] else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")
        else:
            body = data
            self.send_response(200)
        if how.hides_length:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self._send(path, body, how)

    def _empty(self, status: int, *, content_range: str | None = None) -> None:
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, path: str, body: bytes, how: Behaviour) -> None:
        state = self.server.state
        cut, stalled = state.take(path, "num_cut"), state.take(path, "num_stalled")
        self._write(body[: len(body) // 2] if cut or stalled else body, how)
        if stalled:
            state.closing.wait()
        if cut or stalled:
            self.close_connection = True

    def _write(self, body: bytes, how: Behaviour) -> None:
        state = self.server.state
        piece_bytes = len(body) if how.bytes_per_second is None else max(1, int(how.bytes_per_second / 50))
        for at in range(0, len(body), piece_bytes or 1):
            piece = body[at : at + piece_bytes]
            if how.bytes_per_second is not None:
                time.sleep(len(piece) / how.bytes_per_second)
            if state.closing.is_set():
                return
            with state.lock:
                state.num_bytes += len(piece)
            self.wfile.write(piece)
