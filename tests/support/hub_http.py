"""The sockets of the loopback Hub: reads requests, strikes faults, sends answers."""

import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from support.hub_routes import Handle, find
from support.hub_store import HubError, Store
from support.hub_traffic import Answer, Body, Call, Fault, Faults, Log, Request, as_json


class HubListener(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, store: Store) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.faults = Faults()
        self.log = Log()
        self.crashes: list[str] = []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self._connections: dict[socket, threading.Thread | None] = {}
        self._connections_lock = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection: clients keep theirs open."""
        with self._connections_lock:
            self._connections[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Remember its thread."""
        with self._connections_lock:
            self._connections[request] = threading.current_thread()
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._connections_lock:
            self._connections.pop(request, None)
            self._connections_lock.notify_all()
        super().shutdown_request(request)

    def wait_for_clients(self, limit_seconds: float) -> None:
        """Wait until no connection is left."""
        with self._connections_lock:
            if not self._connections_lock.wait_for(lambda: not self._connections, limit_seconds):
                raise TimeoutError(f"{len(self._connections)} connections are open after {limit_seconds} s")

    def server_close(self) -> None:
        """Stop listening and end the connections."""
        super().server_close()
        with self._connections_lock:
            open_ones = dict(self._connections)
        for connection in open_ones:
            hang_up(connection)
        for thread in open_ones.values():
            if thread is not None:
                thread.join(timeout=5.0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests; anything else is a fault of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            self.crashes.append(traceback.format_exc())


def hang_up(connection: socket) -> None:
    """End a connection in both directions."""
    try:
        connection.shutdown(SHUT_RDWR)
    except OSError:
        return  # The client was faster.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HubListener

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        url = urlsplit(self.path)
        kind, handle, parts = find(self.command, url.path)
        call = Call(
            kind=kind,
            method=self.command,
            path=url.path,
            parts=parts,
            query=dict(parse_qsl(url.query)),
            headers=self.headers,
            body=Body(self.rfile, self.headers),  # type: ignore[arg-type]
            endpoint=self.server.endpoint,
        )
        fault = self.server.faults.strike(call)
        try:
            answer = self._answer(call, handle, fault)
            if fault and fault.drop == "answer":
                raise ConnectionAbortedError("a fault lost this answer")
        except ConnectionError:
            self.server.log.add(self._request(call, status=0))
            self._hang_up()
            return
        num_bytes = 0 if self.command == "HEAD" else answer.length_bytes
        request = self._request(call, status=answer.status, num_bytes_sent=num_bytes)
        # Before it is sent: the client that has its answer may look here.
        self.server.log.add(request)
        self._send(answer, fault, request)

    def _answer(self, call: Call, handle: Handle, fault: Fault | None) -> Answer:
        if fault:
            time.sleep(fault.latency_seconds)
            call.body.bytes_per_second = fault.bytes_per_second
            call.body.is_cut = fault.drop == "upload"
            if fault.action:
                fault.action(call)
            if fault.drop == "request":
                raise ConnectionAbortedError("a fault dropped this request")
        try:
            if fault and fault.status is not None:
                raise HubError(fault.status, "a fault of the test", headers=fault.headers)
            if call.kind in ("lfs-upload", "lfs-complete", "resolve"):  # Slow; they lock what they change.
                answer = handle(self.server.store, call)
            else:
                call.body.read()  # Not while holding the lock.
                with self.server.store.lock:
                    answer = handle(self.server.store, call)
        except HubError as error:
            answer = _error_answer(error)
        for _ in call.body:  # What is left would be taken for the next request.
            pass
        return answer

    def _send(self, answer: Answer, fault: Fault | None, request: Request) -> None:
        self.send_response(answer.status)
        for name, text in {"Content-Length": str(answer.length_bytes), **answer.headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        pace = fault.bytes_per_second if fault else None
        stop = answer.length_bytes // 2 if fault and fault.drop == "body" else answer.length_bytes
        num_bytes = 0
        try:
            for piece in answer.pieces(stop, pace):
                if pace is not None:
                    time.sleep(len(piece) / pace)
                self.wfile.write(piece)
                num_bytes += len(piece)
        except ConnectionError:
            self.close_connection = True
        if num_bytes < answer.length_bytes:
            self.server.log.correct(request, num_bytes_sent=num_bytes)
            self._hang_up()

    def _request(self, call: Call, *, status: int, num_bytes_sent: int = 0) -> Request:
        return Request(
            kind=call.kind,
            method=call.method,
            path=call.path,
            status=status,
            num_bytes_received=call.body.num_bytes,
            num_bytes_sent=num_bytes_sent,
            has_token=call.token is not None,
            oid=call.parts.get("oid"),
            repo_path=call.parts.get("path") if call.kind == "resolve" else None,
        )

    def _hang_up(self) -> None:
        self.close_connection = True
        hang_up(self.connection)


def _error_answer(error: HubError) -> Answer:
    headers = {"X-Error-Message": " ".join(error.message.split()).encode("ascii", "replace").decode(), **error.headers}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return as_json({"error": error.message}, status=error.status, headers=headers)
