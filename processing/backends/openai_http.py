"""One exchange with a server of the OpenAI interface: what it answered, or why not, in our own errors. No retries.

A reply that repeats no id is trusted to be that of its request: over HTTP/1.1 a connection carries one request at a
time, and one that ended before its reply, being cancelled or too slow, is closed with its connection. A server or a
proxy that mixes up replies behind its own door is found where ids come back, in `X-Request-Id` or as vLLM's `id`.
"""

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from civid_loader.errors import CaptionerError

try:
    import httpx2 as httpx
except ImportError:  # the same library under the name that it had before
    import httpx  # type: ignore[import-not-found,no-redef] # only one of the two is here

MAX_WAIT_SECONDS: Final = 120.0
"""Between two tries, whatever a server asks for."""
KEY_NAME: Final = "CIVID_API_KEY"
"""Variable of the environment that holds the key."""
_OTHER_KEY_NAME: Final = "OPENAI_API_KEY"
"""Where there is no such."""
_RETRIED: Final = frozenset({408, 409, 425, 429})
"""And all of 500 and more."""
_OF_THE_REQUEST: Final = frozenset({400, 413, 422})
"""What the server does not take in this request; it takes others."""
_CONNECT_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 3.0
"""Connections are not used again after so long: vLLM ends them after 5 s, and a request that meets this fails."""
_MAX_MESSAGE: Final = 300
"""Characters of a server's message that are passed on."""
_OWN_KEY: Final = re.compile("[0-9a-f]{64}")


class TryAgainError(Exception):
    """This try failed; another may not."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.seconds = 0.0
        """That the try took."""


class BusyError(TryAgainError):
    """The server has too many requests (HTTP 429)."""


class RefusedError(Exception):
    """The server does not take this request, now or later."""


@dataclass(kw_only=True, eq=False)
class Exchange:
    """Connections to a server, of one event loop."""

    base_url: str
    max_in_flight: int
    timeout_seconds: float
    """That the server may say nothing for."""
    _key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._key = _key_of_environment()
        headers = {"Content-Type": "application/json"}
        self._client = httpx.AsyncClient(
            headers=headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            limits=httpx.Limits(
                max_connections=self.max_in_flight,
                max_keepalive_connections=self.max_in_flight,
                keepalive_expiry=_IDLE_SECONDS,
            ),
            timeout=httpx.Timeout(self.timeout_seconds, connect=min(_CONNECT_SECONDS, self.timeout_seconds)),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def send(self, method: str, path: str, *, content: bytes | None = None, key: str | None = None) -> Any:
        """The JSON of a reply.

        Args:
            method: GET or POST.
            path: below `base_url`.
            content: JSON.
            key: of the request, which the reply must not contradict.

        Raises:
            CaptionerError: no request will be answered: a wrong address, key or model.
            RefusedError, TryAgainError: see there.
        """
        headers = {"X-Request-Id": key} if key else {}
        try:
            reply = await self._client.request(method, f"{self.base_url}/{path}", content=content, headers=headers)
        except httpx.RequestError as error:
            raise TryAgainError(self._plain(f"no answer: {type(error).__name__} {error}".strip())) from None
        if reply.status_code != 200:
            raise self._refusal(reply, path)
        answered = reply.headers.get("X-Request-Id")
        try:
            told = reply.json()
        except ValueError:
            raise TryAgainError("the server's answer is no JSON") from None
        named = told.get("id") if isinstance(told, dict) else None
        for one in (answered, str(named or "").removeprefix("chatcmpl-")):
            # Services give numbers of their own; only what another of our requests was sent with is a mix-up.
            if key and one and one != key and _OWN_KEY.fullmatch(one):
                raise TryAgainError("the server answered another request")
        return told

    def _refusal(self, reply: httpx.Response, path: str) -> Exception:
        """The error that a status stands for."""
        status, message = reply.status_code, self._plain(_message_of(reply))
        if status in _RETRIED or status >= 500:
            after = _retry_after_seconds(reply.headers.get("Retry-After", ""))
            kind = BusyError if status == 429 else TryAgainError
            return kind(f"HTTP {status} {message}".strip(), retry_after_seconds=after)
        if status in _OF_THE_REQUEST:
            return RefusedError(f"the server does not take the request: HTTP {status} {message}".strip())
        where = f"{self.base_url} answers HTTP {status}"
        if status in (401, 403):
            sent = "the key that was sent" if self._key else "requests without a key, and none was sent"
            return CaptionerError(f"{where}: it refuses {sent}; set {KEY_NAME} or {_OTHER_KEY_NAME} in the environment")
        return CaptionerError(
            f"{where} to /{path}: {message}; check base_url, which mostly ends with /v1, and the model"
        )

    def _plain(self, text: str) -> str:
        text = " ".join(text.split())
        text = text.replace(self._key, "***") if self._key else text
        return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]} ..."


def _key_of_environment() -> str:
    for name in (KEY_NAME, _OTHER_KEY_NAME):
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise CaptionerError(f"the key in {name} holds characters that no key has; copy it anew")
            return key
    return ""


def _message_of(reply: httpx.Response) -> str:
    """What a server says is wrong; its place in the body is not the same everywhere."""
    try:
        told = reply.json()
    except ValueError:
        return str(reply.text)
    inner = told.get("error") or told.get("message") or told.get("detail") if isinstance(told, dict) else told
    return str(inner.get("message", inner) if isinstance(inner, dict) else inner or "")


def _retry_after_seconds(text: str) -> float | None:
    """Of a Retry-After, seconds or a date; None: none that can be read."""
    try:
        seconds = float(text) if text.isdigit() else (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(0.0, seconds), MAX_WAIT_SECONDS)
