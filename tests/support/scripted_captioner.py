"""A model for tests that answers by a function of the question, and clips to ask it about."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from civid_loader.processing.answers import Answers
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.backends import echo
from civid_loader.processing.captioner import Picture, Request, Response
from civid_loader.processing.stage import ClipInput
from support.stages import clip_of

Script = Callable[[Request], Any]
"""A question -> a `Response`, a text as it is, or what is answered as JSON."""


def echoed(request: Request) -> Response:
    """The answer of the backend echo: whatever the schema allows."""
    (response,) = echo.make("echo", device="cpu").generate([request])
    return response


@dataclass(kw_only=True)
class ScriptedCaptioner:
    """See `Captioner`."""

    script: Script = echoed
    requests: list[Request] = field(default_factory=list)
    """All that was asked, in order."""
    max_in_flight: int = 2

    @property
    def num_slots(self) -> int:
        """See `Captioner`."""
        return self.max_in_flight

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Captioner`."""
        return {"backend": "scripted"}

    def check(self) -> None:
        """It can always be asked."""

    def load(self) -> None:
        """There is nothing to load."""

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """See `Captioner`."""
        self.requests += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Response:
        answer = self.script(request)
        if isinstance(answer, Response):
            return answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Response(id=request.id, text=text, finish_reason="stop", prompt_tokens=7, completion_tokens=3)

    def close(self) -> None:
        """There is nothing to let go of."""


def connected(stage: AskingStage[Any], script: Script = echoed, *, pictures: str | None = None) -> ScriptedCaptioner:
    """Whom a stage asks from now on."""
    captioner = ScriptedCaptioner(script=script)
    stage.connect(Answers(captioner=captioner, path=None), pictures=pictures)
    return captioner


def failing(request: Request) -> Response:
    """An answer that is an error, with some text."""
    return Response(id=request.id, error="no memory left", text="I would say", finish_reason="stop")


def texts_of(request: Request) -> str:
    """All texts of a question."""
    return "\n".join(part for part in request.parts if isinstance(part, str))


def pictures_of(request: Request) -> list[Any]:
    """Pixels [H, W, C] of the pictures of a question."""
    return [part.pixels_HWC for part in request.parts if isinstance(part, Picture)]


def caption(
    kind: str, text: str, *, window: tuple[float, float] | None = None, annotator: str = "upstream:a"
) -> dict[str, Any]:
    """One of a clip's row."""
    start, end = window or (None, None)
    return {"kind": kind, "text": text, "start_seconds": start, "end_seconds": end, "annotator": annotator}


def asked_clip(
    stage: AskingStage[Any],
    *,
    clip_id: str = "clip",
    num_frames: int = 12,
    fps: float = 8.0,
    size: tuple[int, int] = (27, 48),
    row: Mapping[str, Any] | None = None,
) -> ClipInput:
    """A clip whose frame k is all of the value k."""
    images = np.stack([np.full((*size, 3), k % 256, np.uint8) for k in range(num_frames)])
    told = {"clip_id": clip_id, "index": 0, "captions": [], **(row or {})}
    return clip_of(images, stage.requests(), fps=fps, clip_id=clip_id, row=told)
