"""All questions about one clip: asking, reading, once more what was cut off, what it cost, and what went wrong."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from civid_loader.processing.answer_texts import read_answer, without_thoughts
from civid_loader.processing.answers import Answers, added
from civid_loader.processing.captioner import Part, Request, Response

MORE_TOKENS: Final = 1.5
"""Times, for an answer that was cut off."""


class AnswerError(Exception):
    """A question without a usable answer."""

    def __init__(self, reason: str, *, raw_text: str | None = None) -> None:
        super().__init__(reason)
        self.raw_text = raw_text


@dataclass(kw_only=True)
class Conversation:
    """All questions about one clip."""

    answers: Answers
    about: str
    """What the ids of its requests begin with: clip id and fingerprint of the stage."""
    num_requests: int = 0
    prompt_tokens: int | None = 0
    """Of all questions; None where the model does not say."""
    completion_tokens: int | None = 0
    response: Response | None = None
    """The last."""
    failures: list[AnswerError] = field(default_factory=list)
    """Why answers could not be used."""
    _request: Request | None = None
    """The last."""

    def ask(
        self,
        question: str,
        parts: Sequence[Part],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        wants_probabilities: bool = False,
    ) -> Any:
        """The answer: what its JSON says, or its text where no schema is given. See `Request`.

        Args:
            question: a name, another one for each question about the clip.
            parts: texts and pictures, in order; what is the same for all clips first, so that servers share it.
            schema: of the answer.
            max_tokens: of the answer; one that was cut off is asked for again with half as many more.
            wants_probabilities: see `Request`; then `self.response.probabilities` has them.

        Raises:
            AnswerError: there is none, or it breaks the schema.
        """
        request = Request(
            id=f"{self.about}/{question}",
            parts=tuple(parts),
            schema=schema,
            max_tokens=max_tokens,
            wants_probabilities=wants_probabilities,
        )
        response = self._send(request)
        if response.finish_reason == "length":
            request = replace(request, max_tokens=int(max_tokens * MORE_TOKENS))
            response = self._send(request)
            if response.finish_reason == "length":
                raise AnswerError(
                    f"{question}: the answer is longer than {request.max_tokens} tokens", raw_text=response.text
                )
        if schema is None:
            return without_thoughts(response.text)
        try:
            return read_answer(response.text, schema)
        except ValueError as error:
            raise AnswerError(f"{question}: {error}", raw_text=response.text) from error

    @contextmanager
    def part(self, question: str) -> Iterator[None]:
        """For one of several questions: without its answer those to the others are kept, and the row has its reason."""
        try:
            yield
        except AnswerError as error:
            is_named = str(error).startswith(f"{question}: ")
            self.failed(error if is_named else AnswerError(f"{question}: {error}", raw_text=error.raw_text))

    def failed(self, error: AnswerError) -> None:
        """Note why the last answer cannot be used; the next run asks again."""
        if self._request is not None:
            self.answers.forget(self._request)
        raw_text = error.raw_text or (self.response.text if self.response else None) or None
        self.failures.append(AnswerError(str(error), raw_text=raw_text))

    def _send(self, request: Request) -> Response:
        self._request = request
        response = self.response = self.answers.ask(request)
        self.num_requests += 1
        if not response.is_refused:  # which costs nothing
            self.prompt_tokens = added(self.prompt_tokens, response.prompt_tokens)
            self.completion_tokens = added(self.completion_tokens, response.completion_tokens)
        if response.error is not None:
            raise AnswerError(response.error, raw_text=response.text or None)
        return response
