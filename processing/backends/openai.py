"""A model behind a server with the OpenAI interface: vLLM, SGLang, or a service. The key is in the environment.

Threads ask; one event loop in a thread of its own sends and waits for all of them, so that many requests under way cost
one thread. Pictures are encoded by the threads that ask.
"""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import PurePosixPath
from time import perf_counter
from typing import Any, Final, TypeVar, get_args
from urllib.parse import urlsplit

import tenacity

from civid_loader.errors import CaptionerError
from civid_loader.processing.backends.openai_fields import OptionalFields
from civid_loader.processing.backends.openai_http import (
    KEY_NAME,
    MAX_WAIT_SECONDS,
    BusyError,
    Exchange,
    RefusedError,
    TryAgainError,
)
from civid_loader.processing.backends.openai_messages import Limit, Pictures, body_of, read_answer
from civid_loader.processing.backends.openai_pace import Pace
from civid_loader.processing.captioner import MAX_IN_FLIGHT, NO_THINKING, Request, Response

T = TypeVar("T")
_LOOK_TRIES: Final = 3
_ABOUT_LENGTH: Final = re.compile("context|length|token", re.IGNORECASE)
"""What servers say of a request that is too long."""


@dataclass(kw_only=True, eq=False)
class OpenaiCaptioner:
    """See `Captioner`. `check` and `load` ask the server which models it has."""

    model: str
    """As the server lists it."""
    base_url: str
    """With the version: `http://host:8000/v1`."""
    max_in_flight: int = MAX_IN_FLIGHT
    timeout_seconds: float = 600.0
    """That a server may say nothing for."""
    temperature: float = 0.0
    seed: int = 0
    chat_template_kwargs: Mapping[str, Any] | None = None
    """Of the model's chat template. None: thinking is switched off, as Qwen has it. Empty: nothing is sent."""
    pictures: Pictures = "images"
    """How a film is sent."""
    limit: Limit = "max_tokens"
    """What the server calls the limit of an answer; OpenAI's own newer models take `max_completion_tokens` only."""
    revision: str | None = None
    """Of the weights, as the server was started with; servers do not tell."""
    max_tries: int = 6
    """Of one request, see `busy_seconds`."""
    backoff_seconds: float = 1.0
    """Before the second try; twice as long before each further one."""
    busy_seconds: float = 600.0
    """That a request is tried again while the server has too many (HTTP 429); such tries are none of `max_tries`."""
    max_model_tokens: int | None = field(default=None, init=False)
    """Of a request with its answer, where the server tells."""
    _optional: OptionalFields = field(default_factory=OptionalFields, init=False, repr=False)
    _root: str | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _under_way: set[Future[Any]] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise CaptionerError(f"base_url {self.base_url!r} is no address: it must be like http://host:8000/v1")
        if url.username is not None or url.query or url.fragment:
            raise CaptionerError(f"base_url must not hold a password or parameters: put the key into {KEY_NAME}")
        for name, value, known in (("pictures", self.pictures, Pictures), ("limit", self.limit, Limit)):
            if value not in get_args(known):
                raise CaptionerError(f"{name} {value!r} must be one of {', '.join(get_args(known))}")
        if min(self.max_in_flight, self.max_tries) < 1:
            raise CaptionerError(f"max_in_flight {self.max_in_flight} and max_tries {self.max_tries} must be 1 or more")
        if self.timeout_seconds <= 0 or min(self.backoff_seconds, self.busy_seconds) < 0:
            raise CaptionerError("timeout_seconds must be more than 0, backoff_seconds and busy_seconds 0 or more")
        self.base_url = self.base_url.rstrip("/")
        if self.chat_template_kwargs is None:
            self.chat_template_kwargs = dict(NO_THINKING)

    @property
    def num_slots(self) -> int:
        """See `Captioner`."""
        return self.max_in_flight

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Captioner`; `root`, what stands behind the model's name, once the server was asked."""
        return {
            "backend": "openai",
            "model": self.model,
            "root": self._root,
            "revision": self.revision,
            "temperature": self.temperature,
            "seed": self.seed,
            "pictures": self.pictures,
            "chat_template_kwargs": dict(self.chat_template_kwargs or {}),
        }

    def check(self) -> None:
        """See `Captioner`."""
        self.load()

    def load(self) -> None:
        """Start the loop, and ask the server for its models.

        Raises:
            CaptionerError: it cannot be reached, refuses the key, or has no such model.
        """
        if self._loop is None:
            self._slots = asyncio.Semaphore(self.max_in_flight)
            self._pace = Pace(most=self.max_in_flight, spread_seconds=self.backoff_seconds)
            self._exchange = Exchange(
                base_url=self.base_url, max_in_flight=self.max_in_flight, timeout_seconds=self.timeout_seconds
            )
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="civid-openai", daemon=True)
            self._thread.start()
        try:
            self._run(self._look())
        except BaseException:
            self.close()
            raise

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """See `Captioner`."""
        bodies = [self._body(request) for request in requests]
        return self._run(self._answers(requests, bodies))

    def close(self) -> None:
        """End what is under way, for which `generate` raises CaptionerError, and the loop."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            # Only what is ours: tasks that the HTTP library starts are ended by the library, and by nobody else.
            for work in list(self._under_way):
                work.cancel()
            asyncio.run_coroutine_threadsafe(self._end(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:  # nothing comes into the loop behind its end
            if self._loop is None:
                work.close()
                raise CaptionerError(f"{self.model} is not loaded, or was closed")
            under_way = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._under_way.add(under_way)
        try:
            return under_way.result()
        except CancelledError:
            raise CaptionerError(f"{self.model} was closed before it answered") from None
        finally:
            self._under_way.discard(under_way)

    async def _end(self) -> None:
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        await self._exchange.close()

    async def _look(self) -> None:
        try:
            told: Any = await self._retrying(_LOOK_TRIES)(self._exchange.send, "GET", "models")
            listed = {str(one["id"]): one for one in told["data"]}
        except (TryAgainError, RefusedError) as error:
            raise CaptionerError(
                f"{self.base_url} does not tell its models: {error}; check the address, which mostly ends with /v1, "
                "and that the server has finished loading"
            ) from None
        except (KeyError, TypeError):
            raise CaptionerError(f"{self.base_url}/models lists no models; check the address") from None
        if self.model not in listed:
            close = "".join(f" Did you mean {near!r}?" for near in get_close_matches(self.model, listed, 1, 0.4))
            has = ", ".join(list(listed)[:20]) or "none"
            raise CaptionerError(f"{self.base_url} has no model {self.model!r}; it has {has}.{close}")
        about = listed[self.model]
        self.max_model_tokens = about.get("max_model_len")
        if root := about.get("root"):
            # A folder of the server's machine says no more than its name.
            self._root = PurePosixPath(root).name if str(root).startswith("/") else str(root)

    def _body(self, request: Request) -> bytes:
        body: dict[str, Any] = {"model": self.model, "temperature": self.temperature, "seed": self.seed}
        if self.chat_template_kwargs:
            body["chat_template_kwargs"] = dict(self.chat_template_kwargs)
        body |= body_of(request, pictures=self.pictures, limit=self.limit)
        return json.dumps(self._optional.trimmed(body)).encode()

    async def _answers(self, requests: Sequence[Request], bodies: Sequence[bytes]) -> list[Response]:
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._answer(*one)) for one in zip(requests, bodies, strict=True)]
        except ExceptionGroup as failed:  # one of them says it; the others were ended
            raise failed.exceptions[0] from None
        return [task.result() for task in asked]

    async def _answer(self, request: Request, body: bytes) -> Response:
        # The slot is kept between tries: the more of them fail, the less is sent.
        async with self._slots:
            try:
                return await self._retrying(self.max_tries)(self._try, request, body)
            except BusyError as error:
                why = f"{error} (and so for {self.busy_seconds:.0f} s)"
                return Response(id=request.id, error=why, is_server_error=True, seconds=error.seconds)
            except TryAgainError as error:
                why = f"{error} (the last of {self.max_tries} tries)"
                return Response(id=request.id, error=why, is_server_error=True, seconds=error.seconds)

    async def _try(self, request: Request, body: bytes) -> Response:
        async with self._pace.turn() as sent_at:
            start = perf_counter()
            try:
                told = await self._exchange.send("POST", "chat/completions", content=body, key=request.key)
                answer = read_answer(request, told, seconds=perf_counter() - start)
            except TryAgainError as error:
                error.seconds = perf_counter() - start
                if isinstance(error, BusyError):
                    self._pace.refused(sent_at, retry_after_seconds=error.retry_after_seconds)
                raise
            except RefusedError as error:
                refused = error
            else:
                self._pace.answered()
                return answer
        if (plainer := self._optional.without_refused(body, str(refused))) is not None:
            return await self._try(request, plainer)
        why = str(refused)
        if self.max_model_tokens and _ABOUT_LENGTH.search(why):
            why += f" (the model takes {self.max_model_tokens:,} tokens)"
        return Response(id=request.id, error=why, is_refused=True, seconds=perf_counter() - start)

    def _retrying(self, max_tries: int) -> tenacity.AsyncRetrying:
        first = self.backoff_seconds
        jitter = tenacity.wait_random(0, first)
        growing = tenacity.wait_exponential(multiplier=first, max=MAX_WAIT_SECONDS) + jitter
        num_failed = num_busy = 0

        def wait_seconds(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after_seconds if isinstance(error, TryAgainError) else None
            if not asked:
                return growing(state)
            return 0.0 if isinstance(error, BusyError) else asked + jitter(state)  # `Pace` has everybody wait

        def is_over(state: tenacity.RetryCallState) -> bool:
            nonlocal num_failed, num_busy
            if state.outcome is not None and isinstance(state.outcome.exception(), BusyError):
                num_busy += 1  # in a long queue, a request may wait long for its next try
                return num_busy >= max_tries and (state.seconds_since_start or 0.0) >= self.busy_seconds
            num_failed += 1
            return num_failed >= max_tries

        return tenacity.AsyncRetrying(
            stop=is_over,
            wait=wait_seconds,
            retry=tenacity.retry_if_exception_type(TryAgainError),
            sleep=asyncio.sleep,
            reraise=True,
        )


def make(model: str, *, device: str, **options: Any) -> OpenaiCaptioner:
    """See the package; on which device the model runs is the server's business."""
    return OpenaiCaptioner(model=model, **options)
