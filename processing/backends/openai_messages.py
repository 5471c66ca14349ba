"""What a server of the OpenAI interface is sent for a request, and what its answers say."""

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from civid_loader.processing.backends.openai_http import TryAgainError
from civid_loader.processing.captioner import Film, FinishReason, Part, Picture, Request, Response

Pictures = Literal["images", "video"]
"""How a film is sent: each frame as an image, its time as text before it; or all as one video of JPEG, for vLLM."""
Limit = Literal["max_tokens", "max_completion_tokens"]
"""What the limit of an answer is called: OpenAI renamed it, and other servers pass over the new name in silence."""
_JPEG_QUALITY: Final = 95
_TOP_LOGPROBS: Final = 20
"""The most that vLLM and OpenAI tell unless set otherwise."""
_BEFORE_CHOICE: Final = re.compile(r'\s*\{\s*"choice"\s*:\s*"')


def body_of(request: Request, *, pictures: Pictures, limit: Limit = "max_tokens") -> dict[str, Any]:
    """The part of the JSON body of `/chat/completions` that the request decides."""
    content = list(chain.from_iterable(_sent(part, pictures) for part in request.parts))
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], limit: request.max_tokens}
    if request.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": _without_lengths(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.wants_probabilities:
        body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
    films = [part for part in request.parts if isinstance(part, Film)]
    if films and pictures == "video":
        # Without num_frames vLLM takes 32 of them; without fps it guesses when they were.
        rates = {rate for rate in map(_fps, films) if rate is not None}
        video = {"num_frames": -1} | ({"fps": rates.pop()} if len(rates) == 1 else {})
        body["media_io_kwargs"] = {"video": video}
    return body


def _without_lengths(schema: Any) -> Any:
    """OpenAI's strict mode refuses them; an empty text is found when the answer is read."""
    if not isinstance(schema, Mapping):
        return schema
    return {name: _without_lengths(value) for name, value in schema.items() if name != "minLength"}


def _sent(part: Part, pictures: Pictures) -> Iterable[dict[str, Any]]:
    if isinstance(part, str):
        yield {"type": "text", "text": part}
    elif isinstance(part, Picture):
        yield _image(part.pixels_HWC)
    elif pictures == "video":
        frames = ",".join(map(_jpeg, part.frames_THWC))
        yield {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
    else:
        for frame, seconds in zip(part.frames_THWC, part.times_seconds, strict=True):
            yield {"type": "text", "text": f"<{seconds:.1f} seconds>"}
            yield _image(frame)


def _image(pixels_HWC: npt.NDArray[np.uint8]) -> dict[str, Any]:  # noqa: N803 - arrays carry their shape
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_jpeg(pixels_HWC)}"}}


def _jpeg(pixels_HWC: npt.NDArray[np.uint8]) -> str:  # noqa: N803
    is_written, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    assert is_written, pixels_HWC.shape
    return base64.b64encode(data.data).decode()


def _fps(film: Film) -> float | None:
    """None: one frame has no rate."""
    seconds = float(film.times_seconds[-1] - film.times_seconds[0])
    return round((len(film.times_seconds) - 1) / seconds, 3) if seconds > 0 else None


def read_answer(request: Request, told: Any, *, seconds: float) -> Response:
    """What `/chat/completions` told, after so many seconds.

    Raises:
        TryAgainError: it has not the form of the interface.
    """
    try:
        choice, usage = told["choices"][0], told.get("usage") or {}
        text, finished = choice["message"].get("content") or "", choice.get("finish_reason")
        text = text.encode("utf-8", "replace").decode()  # JSON may tell half characters, which no file takes
        probabilities = None
        if request.wants_probabilities and request.schema is not None:
            probabilities = probabilities_of(request.schema["properties"]["choice"]["enum"], choice.get("logprobs"))
    except (AttributeError, IndexError, KeyError, TypeError):
        raise TryAgainError("the server's answer has not the form of the interface") from None
    finish_reason: FinishReason | None = finished if finished in ("stop", "length") else None
    error = None
    if finish_reason is None and finished is not None:
        error = f"the server ended the answer: {finished}"
    elif not text and finish_reason != "length":
        error = f"the answer is empty: {' '.join(str(choice['message'].get('refusal') or 'no reason told').split())}"
    return Response(
        id=request.id,
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        probabilities=probabilities,
        error=error,
        seconds=seconds,
    )


def probabilities_of(choices: Sequence[str], logprobs: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Choice -> how likely it was, together 1; None where that was not told.

    Tokens are followed from where the choice begins. Each that sets choices apart shares what is left between them, as
    the model weighed its candidates there: with "yes" and "no", `yes` of 0.8 and `no` of 0.1 make 0.89 and 0.11. A
    choice that is not among the candidates has 0, and candidates that are no choice do not count.

    Args:
        choices: of `choice_schema`.
        logprobs: of the answer, as the server tells them.
    """
    tokens = (logprobs or {}).get("content") or []
    head = _BEFORE_CHOICE.match("".join(token["token"] for token in tokens))
    if head is None:
        return None
    # The closing quote sets "go" and "going" apart.
    left = {choice: f"{head[0]}{json.dumps(choice, ensure_ascii=False)[1:]}" for choice in choices}
    found, share, before = dict.fromkeys(choices, 0.0), 1.0, ""
    for token in tokens:
        weights = {one["token"]: math.exp(one["logprob"]) for one in [token, *(token.get("top_logprobs") or ())]}
        fitting = {text: _fitting(left, before + text) for text in weights}
        total = sum(weights[text] for text, fit in fitting.items() if fit)
        taken = fitting[token["token"]]
        if len(taken) < len(left):
            if not taken or not total:
                return None
            for text, fit in fitting.items():
                if len(fit) == 1 and text != token["token"]:
                    found[fit[0]] += share * weights[text] / total
            share *= weights[token["token"]] / total
        left = {choice: left[choice] for choice in taken}
        before += token["token"]
        if len(left) == 1:
            found[taken[0]] += share
            whole = sum(found.values())
            return {choice: one / whole for choice, one in found.items()} if whole else None
    return None


def _fitting(left: Mapping[str, str], begun: str) -> list[str]:
    """Choices that an answer may become which begins so."""
    return [choice for choice, text in left.items() if text.startswith(begun) or begun.startswith(text)]
