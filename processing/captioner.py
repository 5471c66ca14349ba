"""Models that look at pictures and write: what they are asked, what they answer, and how to reach one.

Backends are the files of `backends/`. A request says everything that decides its answer, so its key is the same in
every run: an answer that was got once is not asked for again.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N815 - arrays carry their shape.

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from civid_loader.errors import CaptionerError, MissingDependencyError
from civid_loader.processing.given_values import wrong_with

Backend = Literal["openai", "transformers", "vllm", "echo"]
FinishReason = Literal["stop", "length"]
MAX_IN_FLIGHT: Final = 64
"""Requests that a server is sent at once, unless said otherwise."""

NO_THINKING: Final[Mapping[str, Any]] = {"enable_thinking": False}
"""Of chat templates, as Qwen has it: captions are not better for it, and cost many times as much."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Picture:
    """One picture to look at."""

    pixels_HWC: npt.NDArray[np.uint8]
    """RGB."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Film:
    """Frames to look at as one video."""

    frames_THWC: npt.NDArray[np.uint8]
    """RGB, T >= 1."""
    times_seconds: npt.NDArray[np.float64]
    """[T], ascending, from the start of the clip."""


Part: TypeAlias = str | Picture | Film


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One question."""

    id: str
    """Clip id, fingerprint of the stage and which of its questions: no two of a run have the same."""
    parts: tuple[Part, ...]
    """Texts and pictures in the order in which the model reads them."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer; None: any text."""
    max_tokens: int = 1024
    """Of the answer."""
    wants_probabilities: bool = False
    """How likely each choice was is told too, where the model can. `schema` must be of `choice_schema`."""

    @cached_property
    def key(self) -> str:
        """SHA-256 of all of it, as hexadecimal digits: pictures by their pixels."""
        told = [part if isinstance(part, str) else _sha256(part) for part in self.parts]
        text = json.dumps([self.id, told, self.schema, self.max_tokens, self.wants_probabilities], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _sha256(part: Picture | Film) -> dict[str, Any]:
    pixels = part.pixels_HWC if isinstance(part, Picture) else part.frames_THWC
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
    times = [] if isinstance(part, Picture) else part.times_seconds.tolist()
    return {"shape": pixels.shape, "sha256": digest, "times_seconds": times}


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """An answer, or why there is none."""

    id: str
    """Of the request."""
    text: str = ""
    finish_reason: FinishReason | None = None
    """`length`: the answer was cut off at `max_tokens`."""
    prompt_tokens: int | None = None
    """Of the request, pictures counted; None where the model does not say."""
    completion_tokens: int | None = None
    probabilities: Mapping[str, float] | None = None
    """Choice -> how likely it was, 0 to 1; None where not asked for, or not told."""
    error: str | None = None
    """Why there is no answer; null where there is one."""
    is_server_error: bool = False
    """The error is the server's, which may be down; else it is this request's."""
    is_refused: bool = False
    """The error is that this request is not taken, such as one that is too long; others may be."""
    seconds: float = 0.0
    """From when it was sent for the last time, or its batch was begun, to the answer."""


class Captioner(Protocol):
    """A model, ready to answer. Called from many threads at once."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its answers: model, revision, precision, seed ... Not where it runs; plain JSON."""

    @property
    def max_in_flight(self) -> int:
        """So many requests are worth being under way at once."""

    @property
    def num_slots(self) -> int:
        """So many of them it works on at one time."""

    def check(self) -> None:
        """Make sure that it can be asked, before a run begins; what is slow to load is not loaded.

        Raises:
            CaptionerError: it cannot: a wrong address, key or model.
        """

    def load(self) -> None:
        """Load the model, once per worker."""

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answers in the order of the requests; what is wrong with one is its `error`.

        Raises:
            CaptionerError: no request can be answered, now or later.
        """

    def close(self) -> None:
        """Let go of the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionerSpec:
    """A model as a worker makes it. Picklable, and without secrets: a key is taken from the environment."""

    backend: Backend
    model: str
    """As the server calls it; or folder, or `org/name[@revision]` on the Hub."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the backend's class, by name."""

    @property
    def is_server(self) -> bool:
        """It runs elsewhere, and is asked by any number of workers."""
        return self.backend == "openai"

    def shared_by(self, num_workers: int) -> "CaptionerSpec":
        """For each of so many workers, which together ask a server no more at once than one would."""
        if not self.is_server or num_workers == 1:
            return self
        most = int(self.options.get("max_in_flight", MAX_IN_FLIGHT))
        return replace(self, options={**self.options, "max_in_flight": max(1, most // num_workers)})

    def make(self, *, device: str) -> Captioner:
        """The model, nothing loaded yet.

        Raises:
            CaptionerError: no such backend or option, or a value that it cannot have.
            MissingDependencyError: the backend needs a package that is not installed.
        """
        if self.backend not in get_args(Backend):
            raise CaptionerError(f"backend {self.backend!r} must be one of {', '.join(get_args(Backend))}")
        try:
            module = import_module(f"civid_loader.processing.backends.{self.backend}")
        except ImportError as error:
            extra = "vllm" if self.backend == "vllm" else "process"
            raise MissingDependencyError(
                f"backend {self.backend} needs {error.name}: pip install 'civid_loader[{extra}]'"
            ) from error
        make: Callable[..., Captioner] = module.make
        kind: type[Any] = get_type_hints(make)["return"]
        if wrong := wrong_with(kind, self.options, noun="option", without=("model", "device")):
            raise CaptionerError(f"backend {self.backend}: {wrong}")
        return make(self.model, device=device, **self.options)


def choice_schema(*choices: str) -> dict[str, Any]:
    """JSON schema of `{"choice": one of these}`."""
    return {
        "type": "object",
        "properties": {"choice": {"type": "string", "enum": list(choices)}},
        "required": ["choice"],
        "additionalProperties": False,
    }
