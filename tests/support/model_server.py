"""A server on 127.0.0.1 with the OpenAI interface: it answers by what it is shown, counts, and fails in chosen ways."""

import base64
import hashlib
import json
import math
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from support.servers import LoopbackServer

MODEL = "org/see-8b"
ALWAYS = 1 << 30
"""For faults counted in requests."""

FaultKind = Literal[
    "status", "closed", "length", "no_json", "broken_body", "swapped", "no_id", "slow", "ended", "empty"
]
"""`closed`: no reply at all; `length`: the answer is cut off; `no_json`: its text is none; `broken_body`: the reply
stops half way; `swapped`: it gets the reply to another request with this fault, and that the reply to it; `no_id`: the
same, but only its JSON says so, as vLLM names an answer after its request."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came."""

    key: str
    """X-Request-Id."""
    body: Mapping[str, Any]
    has_key: bool
    """Whether an Authorization came."""

    @cached_property
    def content(self) -> Sequence[Mapping[str, Any]]:
        """Parts of the message."""
        content: Sequence[Mapping[str, Any]] = self.body["messages"][0]["content"]
        return content

    @cached_property
    def pictures(self) -> list[bytes]:
        """JPEG files, those of videos frame by frame."""
        urls = [part[part["type"]]["url"] for part in self.content if part["type"] != "text"]
        coded = [one for url in urls for one in re.sub(r"^data:\w+/jpeg;base64,", "", url).split(",")]
        return [base64.b64decode(one, validate=True) for one in coded]

    @cached_property
    def digest(self) -> str:
        """Of all its pictures."""
        return hashlib.sha256(b"".join(self.pictures)).hexdigest()[:16]


@dataclass(kw_only=True)
class Fault:
    """What goes wrong, counted down."""

    kind: FaultKind
    match: Callable[[Asked], bool] = lambda asked: True
    after: int = 0
    """So many that match go well before."""
    times: int = 1
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "something went wrong"
    seconds: float = 0.0
    """Before the reply, of those that are slow."""


@dataclass(kw_only=True)
class ModelServer:
    """A running server."""

    base_url: str
    describe: Callable[[Asked], str]
    """What it says of a request, in each text."""
    fields: dict[str, Callable[[Asked], Any]] = field(default_factory=dict)
    """Key of an answer -> its value, in place of `describe`."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Choice -> how likely, for those who ask."""
    api_key: str | None = None
    """Others are refused with 401; None: everybody may ask."""
    models: Sequence[Mapping[str, Any]] = ({"id": MODEL, "root": "org/See-8B-FP8", "max_model_len": 4096},)
    delay_seconds: float = 0.0
    """Before each reply."""
    faults: list[Fault] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    """Key of a request -> how often it came."""
    answered: Counter[str] = field(default_factory=Counter)
    """Key of a request -> how often it was answered well."""
    asked: list[Asked] = field(default_factory=list)
    """All that came, pictures and all; only where `keeps`."""
    keeps: bool = False
    tells_usage: bool = True
    """How many tokens."""
    max_parallel: int = 0
    """The most requests that were being answered at one time."""
    num_parallel: int = 0
    max_slots: int | None = None
    """With so many being answered, others are refused: 429, with Retry-After: 1."""
    num_answering: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    swaps: list[tuple[threading.Event, list[Any]]] = field(default_factory=list)
    """Who waits for somebody to swap with."""

    def fault_of(self, asked: Asked) -> Fault | None:
        """What goes wrong with this request."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.match(asked):
                    if fault.after > 0:
                        fault.after -= 1
                    else:
                        fault.times -= 1
                        return fault
        return None

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Whether there was one; it is held meanwhile."""
        with self.lock:
            is_free = self.max_slots is None or self.num_answering < self.max_slots
            self.num_answering += is_free
        try:
            yield is_free
        finally:
            with self.lock:
                self.num_answering -= is_free

    def swap(self, reply: Any) -> Any:
        """The reply to another request, which gets this one; this one if no other comes."""
        with self.lock:
            if self.swaps:
                came, box = self.swaps.pop()
                other, box[0] = box[0], reply
                came.set()
                return other
            came, box = mine = threading.Event(), [reply]
            self.swaps.append(mine)
        came.wait(5.0)
        return box[0]


@contextmanager
def serve_model(
    describe: Callable[[Asked], str] = lambda asked: asked.digest, **settings: Any
) -> Iterator[ModelServer]:
    """Answer while the `with` statement lasts; `settings`: of `ModelServer`."""
    server = LoopbackServer(_Handler)
    state = ModelServer(base_url=f"{server.url}/v1", describe=describe, **settings)
    server.state = state
    with server.running(state.closing):
        yield state


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackServer
    is_counted = False

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": self.server.state.models})

    def do_POST(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with state.lock:
            state.num_parallel += 1
            state.max_parallel = max(state.max_parallel, state.num_parallel)
        self.is_counted = True
        try:
            self._answer(json.loads(body))
        finally:
            self._count_out()

    def _count_out(self) -> None:
        """Before the reply: who has it may send the next request at once."""
        with self.server.state.lock:
            self.server.state.num_parallel -= self.is_counted
            self.is_counted = False

    def _answer(self, body: dict[str, Any]) -> None:
        state = self.server.state
        key = self.headers.get("X-Request-Id", "")
        asked = Asked(key=key, body=body, has_key="Authorization" in self.headers)
        with state.lock:
            state.sent[key] += 1
            if state.keeps:
                state.asked.append(asked)
        if self.path != "/v1/chat/completions":
            return self._refuse(404, "Not Found")
        if body["model"] not in {one["id"] for one in state.models}:
            return self._refuse(404, f"The model `{body['model']}` does not exist.")
        with state.slot() as is_free:
            if not is_free:
                return self._refuse(429, "Too many requests", {"Retry-After": "1"})
            fault = state.fault_of(asked)
            state.closing.wait(fault.seconds if fault and fault.kind == "slow" else state.delay_seconds)
        kind = fault.kind if fault else None
        if kind == "closed":
            self._count_out()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if fault and kind == "status":
            return self._refuse(fault.status, fault.message, fault.headers)
        told = _completion(state, asked, kind)
        headers = {"X-Request-Id": key}
        if kind == "swapped":
            told, headers = state.swap((told, headers))
        elif kind == "no_id":
            told, headers = state.swap((told, {}))
        elif kind is None:
            with state.lock:
                state.answered[key] += 1
        return self._reply(200, told, headers, is_broken=kind == "broken_body")

    def _refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._reply(status, {"error": {"message": message, "code": status}}, headers)

    def _reply(
        self, status: int, told: Any, headers: Mapping[str, str] | None = None, *, is_broken: bool = False
    ) -> None:
        state = self.server.state
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if state.api_key is not None and given != state.api_key:
            status, told = 401, {"error": {"message": f"Incorrect API key provided: {given}"}}
        data = json.dumps(told).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._count_out()
        self.wfile.write(data[: len(data) // 2] if is_broken else data)
        self.close_connection |= is_broken


def _completion(state: ModelServer, asked: Asked, kind: FaultKind | None) -> dict[str, Any]:
    schema = asked.body.get("response_format", {}).get("json_schema", {}).get("schema")
    value = state.describe(asked) if schema is None else _fill(state, asked, schema)
    text = value if isinstance(value, str) else json.dumps(value)
    shown = {"length": text[: len(text) // 2], "no_json": "I cannot say.", "empty": None}.get(kind or "", text)
    reason = {"length": "length", "ended": "content_filter"}.get(kind or "", "stop")
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": shown}, "finish_reason": reason}
    if asked.body.get("logprobs"):
        choice["logprobs"] = {"content": logprobs_of(text, state.probabilities)}
    usage = {"prompt_tokens": 100 + 50 * len(asked.pictures), "completion_tokens": len(text.split())}
    told = {"id": f"chatcmpl-{asked.key}", "object": "chat.completion", "choices": [choice]}
    return told | {"usage": usage} if state.tells_usage else told


def _fill(state: ModelServer, asked: Asked, schema: Mapping[str, Any], name: str = "") -> Any:
    """A value that a schema allows, of the kinds of schema that stages use."""
    if name in state.fields:
        return state.fields[name](asked)
    if "enum" in schema:
        return max(schema["enum"], key=lambda choice: state.probabilities.get(choice, 0.0))
    if schema["type"] == "object":
        return {key: _fill(state, asked, one, key) for key, one in schema["properties"].items()}
    if isinstance(schema["type"], list):  # one of several types: the first
        return _fill(state, asked, {**schema, "type": schema["type"][0]}, name)
    if schema["type"] == "array":
        return [_fill(state, asked, schema["items"])] * max(1, schema.get("minItems", 1))
    simple = {"boolean": True, "integer": 1, "number": 1.0}
    return simple.get(schema["type"], f"{name}: {state.describe(asked)} {asked.key}")


def logprobs_of(text: str, probabilities: Mapping[str, float]) -> list[dict[str, Any]]:
    """Words and marks as tokens; where a choice stands, all choices are candidates."""
    tokens = []
    for token in re.findall(r"\w+|\W+", text):
        weights = probabilities if token in probabilities else {token: 1.0}
        top = [{"token": one, "logprob": math.log(weight)} for one, weight in weights.items() if weight]
        tokens.append({"token": token, "logprob": math.log(weights[token]), "top_logprobs": top})
    return tokens
