"""Answers of models, kept as they come: what was answered once is not asked again, after a kill or in another run."""

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar

from civid_loader.errors import CaptionerError, OutputError
from civid_loader.processing.captioner import Captioner, Request, Response

_LOCKED_SECONDS: Final = 60.0
"""To wait for another worker that writes."""
_MAX_SERVER_ERRORS: Final = 20
"""One after the other: then the server is gone, and the run ends. What was answered is kept."""
_MAX_REFUSALS: Final = 20
"""One after the other: then it is not the clips."""


@dataclass(kw_only=True)
class Usage:
    """What questions cost."""

    num_requests: int = 0
    """Sent, those not counted that were answered in an earlier run."""
    num_known: int = 0
    """Answered in an earlier run."""
    prompt_tokens: int | None = 0
    """None: the model does not say."""
    completion_tokens: int | None = 0
    request_seconds: float = 0.0
    """From sending, or from when their batch began, to the answer, of all requests together."""

    def add(self, other: "Usage") -> None:
        """Count another's too."""
        for name, value in asdict(other).items():
            setattr(self, name, added(getattr(self, name), value))


N = TypeVar("N", int, float)


def added(sum_before: N | None, value: N | None) -> N | None:
    """A sum with one more; what is not known makes it unknown."""
    return None if sum_before is None or value is None else sum_before + value


class _Kept:
    """Answers in a SQLite file, which several workers share and a kill does not harm."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path, timeout=_LOCKED_SECONDS, check_same_thread=False, isolation_level=None)
            self._file.execute("PRAGMA journal_mode = WAL")  # writers do not wait for the disk
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, response TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            raise OutputError(
                f"{path} cannot be read: {error}; delete it, and its questions are asked again"
            ) from error

    def get(self, key: str) -> Response | None:
        found = self._file.execute("SELECT response FROM answers WHERE key = ?", (key,)).fetchone()
        return None if found is None else Response(**json.loads(found[0]))

    def add(self, key: str, response: Response) -> None:
        told = json.dumps(asdict(response), ensure_ascii=False)
        self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, told))

    def forget(self, key: str) -> None:
        self._file.execute("DELETE FROM answers WHERE key = ?", (key,))

    def close(self) -> None:
        self._file.close()


@dataclass(kw_only=True)
class Answers:
    """A model that remembers. Called from many threads."""

    captioner: Captioner
    path: Path | None = None
    """File in which answers are kept; None: nowhere."""
    usage: Usage = field(default_factory=Usage)
    """Since it was last taken away."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _num_server_errors: int = 0
    """One after the other."""
    _num_refusals: int = 0
    """Since the last answer."""
    _num_sent: int = 0
    _under_way: set[int] = field(default_factory=set)
    """Numbers of those sent that have not come back."""
    _refused_since: int = 0
    """Number sent when the first of the refusals came."""
    _over: str | None = None
    """Why the model cannot be asked any more."""

    def __post_init__(self) -> None:
        self._kept = None if self.path is None else _Kept(self.path)

    def ask(self, request: Request) -> Response:
        """The answer to a request, from the model or from an earlier run.

        Raises:
            CaptionerError: the model cannot be asked any more.
        """
        with self._lock:
            if self._kept is not None and (known := self._kept.get(request.key)) is not None:
                self.usage.num_known += 1
                return known
        (response,) = self.ask_all([request])
        return response

    def ask_all(self, requests: Sequence[Request]) -> list[Response]:
        """The model's answers to requests that do not depend on each other, in order.

        Raises:
            CaptionerError: the model cannot be asked any more.
        """
        if self._over is not None:
            raise CaptionerError(self._over)
        try:
            return self._ask(requests)
        except CaptionerError as error:
            self._over = self._over or str(error)
            raise

    def forget(self, request: Request) -> None:
        """Ask again in the next run: the answer could not be used."""
        with self._lock:
            if self._kept is not None:
                self._kept.forget(request.key)

    def _ask(self, requests: Sequence[Request]) -> list[Response]:
        with self._lock:
            self._num_sent += 1
            number = self._num_sent
            self._under_way.add(number)
        start = perf_counter()
        try:
            responses = self.captioner.generate(requests)
        finally:
            with self._lock:
                self._under_way.discard(number)
        for request, response in zip(requests, responses, strict=True):
            if response.id != request.id:
                raise CaptionerError(
                    f"asked {request.id}, and {response.id} was answered: the backend mixes up requests"
                )
        with self._lock:
            for request, response in zip(requests, responses, strict=True):
                self._count(response, perf_counter() - start)
                if response.error is None and self._kept is not None:
                    self._kept.add(request.key, response)
        return responses

    def _count(self, response: Response, seconds: float) -> None:
        is_told = response.error is None or response.prompt_tokens is not None
        self.usage.add(
            Usage(
                num_requests=1,
                prompt_tokens=response.prompt_tokens if is_told else 0,
                completion_tokens=response.completion_tokens if is_told else 0,
                request_seconds=response.seconds or seconds,
            )
        )
        self._num_server_errors = self._num_server_errors + 1 if response.is_server_error else 0
        if response.is_refused and self._num_refusals == 0:
            self._refused_since = self._num_sent
        self._num_refusals = 0 if response.error is None else self._num_refusals + response.is_refused
        if self._num_server_errors >= _MAX_SERVER_ERRORS:
            raise CaptionerError(
                f"{_MAX_SERVER_ERRORS} requests one after the other failed, the last with {response.error}; when "
                "the server answers again, run the same command: what is finished is kept"
            )
        # Refusals come at once, answers take their time: those that were sent before must have come back too.
        if self._num_refusals >= _MAX_REFUSALS and min(self._under_way, default=self._num_sent) >= self._refused_since:
            raise CaptionerError(
                f"{_MAX_REFUSALS} requests one after the other were refused, the last because {response.error}; check "
                "that the model looks at pictures and reads as many tokens as it is sent: a stage's parameters say how "
                "many frames and how large, the server's say max_model_len. What is finished is kept"
            )

    def take_usage(self) -> Usage:
        """What was asked since the last call."""
        with self._lock:
            taken, self.usage = self.usage, Usage()
        return taken

    def close(self) -> None:
        """Let go of the model and the file."""
        if self._kept is not None:
            self._kept.close()
        self.captioner.close()
