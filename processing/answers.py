"""Answers of models, kept as they come: what was answered once is not asked again after a kill."""

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

from civid_loader.errors import CaptionerError
from civid_loader.processing.captioner import Captioner, Request, Response

_MAX_SERVER_ERRORS: Final = 20
"""One after the other: then the server is gone, and the run ends. What was answered is kept."""


@dataclass(kw_only=True)
class Usage:
    """What questions cost."""

    num_requests: int = 0
    """Sent, those not counted that were answered in an earlier run."""
    num_known: int = 0
    """Answered in an earlier run."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    request_seconds: float = 0.0
    """From sending to the answer, of all requests together."""

    def add(self, other: "Usage") -> None:
        """Count another's too."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(kw_only=True)
class Answers:
    """A model that remembers. Called from many threads."""

    captioner: Captioner
    folder: Path | None = None
    """Where answers are kept; each process has a file of its own there. None: nowhere."""
    usage: Usage = field(default_factory=Usage)
    """Since it was last taken away."""
    _known: dict[str, Response] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _num_server_errors: int = 0
    _over: str | None = None
    """Why the model cannot be asked any more."""

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("*.jsonl")):
            # The last line may be torn by a kill, or be just being written by another worker.
            for entry in map(json.loads, path.read_bytes().rpartition(b"\n")[0].splitlines()):
                self._known[entry["key"]] = Response(**entry["response"])
        # Opened anew by every process, as two may not write into one file.
        self._file = (self.folder / f"{os.getpid()}-{len(list(self.folder.iterdir()))}.jsonl").open("ab", buffering=0)

    def ask(self, request: Request) -> Response:
        """The answer to a request, from the model or from an earlier run.

        Raises:
            CaptionerError: the model cannot be asked any more.
        """
        known = self._known.get(request.key)
        if known is not None:
            with self._lock:
                self.usage.num_known += 1
            return known
        if self._over is not None:
            raise CaptionerError(self._over)
        try:
            return self._ask(request)
        except CaptionerError as error:
            self._over = self._over or str(error)
            raise

    def _ask(self, request: Request) -> Response:
        start = perf_counter()
        (response,) = self.captioner.generate([request])
        if response.id != request.id:
            raise CaptionerError(f"asked {request.id}, and {response.id} was answered: the backend mixes up requests")
        with self._lock:
            self._count(response, perf_counter() - start)
            if response.error is None and self.folder is not None:
                told = {"key": request.key, "response": asdict(response)}
                self._file.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")
        return response

    def _count(self, response: Response, seconds: float) -> None:
        self.usage.add(
            Usage(
                num_requests=1,
                prompt_tokens=response.prompt_tokens or 0,
                completion_tokens=response.completion_tokens or 0,
                request_seconds=response.seconds or seconds,
            )
        )
        self._num_server_errors = self._num_server_errors + 1 if response.is_server_error else 0
        if self._num_server_errors >= _MAX_SERVER_ERRORS:
            raise CaptionerError(
                f"{self._num_server_errors} requests one after the other failed, the last with {response.error}; when "
                "the server answers again, run the same command: what is finished is kept"
            )

    def take_usage(self) -> Usage:
        """What was asked since the last call."""
        with self._lock:
            taken, self.usage = self.usage, Usage()
        return taken

    def close(self) -> None:
        """Let go of the model and the file."""
        if self.folder is not None:
            self._file.close()
        self.captioner.close()
