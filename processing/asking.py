"""Stages that ask a model: captions and judgements. One asks, reads the answer, and says what it means for a clip.

What is the same for all of them is here: answers in JSON, checked by schema; one more try for an answer that was cut
off; what an answer cost; and the raw text of one that cannot be read.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final, Literal

import jsonschema

from civid_loader.processing.answers import Answers
from civid_loader.processing.captioner import Part, Request, Response
from civid_loader.processing.prompts import Prompt, load_prompt
from civid_loader.processing.stage import ClipInput, Column, P, Row, Stage

Unit = Literal["clip", "sample", "movie"]
_MORE_TOKENS: Final = 1.5
"""Times, for an answer that was cut off."""


class AnswerError(Exception):
    """A question without a usable answer."""

    def __init__(self, reason: str, *, raw_text: str | None = None) -> None:
        super().__init__(reason)
        self.raw_text = raw_text


@dataclass(frozen=True, kw_only=True, slots=True)
class TextField:
    """A text of an answer that becomes a caption."""

    name: str
    """Key in the JSON object."""
    kind: str
    """Of the caption, see `schema.CAPTION_KINDS`."""
    max_words: int | None = None
    """Asked for in the instruction. A longer text is kept and noted."""
    is_transition: bool = False
    """About the step from the clip before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Previous:
    """The clip before, in its unit."""

    clip: ClipInput
    row: Row
    """What was found of it."""


@dataclass(kw_only=True)
class Conversation:
    """All questions about one clip."""

    stage: "AskingStage[Any]"
    clip_id: str
    num_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    response: Response | None = None
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
            id=f"{self.clip_id}/{self.stage.fingerprint()}/{question}",
            parts=tuple(parts),
            schema=schema,
            max_tokens=max_tokens,
            wants_probabilities=wants_probabilities,
        )
        response = self._send(request)
        if response.finish_reason == "length":
            response = self._send(replace(request, max_tokens=int(max_tokens * _MORE_TOKENS)))
            if response.finish_reason == "length":
                raise AnswerError(
                    f"{question}: the answer is longer than {int(max_tokens * _MORE_TOKENS)} tokens",
                    raw_text=response.text,
                )
        return response.text if schema is None else _read(question, response.text, schema)

    def _send(self, request: Request) -> Response:
        response = self.response = self.stage.answers.ask(request)
        self.num_requests += 1
        self.prompt_tokens += response.prompt_tokens or 0
        self.completion_tokens += response.completion_tokens or 0
        if response.error is not None:
            raise AnswerError(response.error, raw_text=response.text or None)
        return response


def _read(question: str, text: str, schema: Mapping[str, Any]) -> Any:
    try:
        value = json.loads(text)
        jsonschema.validate(value, dict(schema))
    except json.JSONDecodeError as error:
        raise AnswerError(f"{question}: the answer is no JSON: {error}", raw_text=text) from error
    except jsonschema.ValidationError as error:
        raise AnswerError(f"{question}: the answer breaks its schema: {error.message}", raw_text=text) from error
    return value


class AskingStage(Stage[P]):
    """A stage that asks a model about each clip. Its captions are columns `captions` and `transition_captions`."""

    asks_model = True
    unit: ClassVar[Unit] = "clip"
    """Clips that are gone through in order, by one thread: each by itself, those of a sample, or of a movie."""
    fields: ClassVar[tuple[TextField, ...]] = ()
    """Captions it writes; none: it only judges."""
    prompts: ClassVar[tuple[str, ...]]
    """Ids of its instructions."""
    findings: ClassVar[tuple[Column, ...]] = ()
    """What it finds besides captions."""

    def __init_subclass__(cls) -> None:
        """Columns are what it finds, and what every stage that asks tells of its questions."""
        cls.caption_kinds = tuple(dict.fromkeys(one.kind for one in cls.fields))
        cls.columns = (*cls.findings, *(_told_column(cls.name, one) for one in _TOLD))

    @abstractmethod
    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """What a clip is about: `findings`, and captions by `self.texts` or `self.caption`.

        Args:
            clip: the clip.
            previous: the one before in its unit; None: it is the first. Captions that other stages of this run wrote
                come first in `clip.row["captions"]`.
            talk: asks.

        Raises:
            AnswerError: nothing is known of it.
        """

    def connect(self, answers: Answers, *, pictures: str | None) -> None:
        """Whom to ask; `pictures`: root of the pictures that the dataset points to, such as portraits."""
        self.answers = answers
        self.pictures = pictures
        asked = {"prompts": self._prompt_hashes, "captioner": dict(answers.captioner.identity)}
        self._annotator = f"civid_loader:{self.name}@{self.fingerprint_of(asked)}"

    def prompt(self, prompt_id: str) -> Prompt:
        """One of its instructions."""
        assert prompt_id in self.prompts, prompt_id
        return load_prompt(prompt_id)

    def fingerprint(self) -> str:
        """See `Stage`; the model is part of the run, not of the stage. Other instructions are another stage."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return self.fingerprint_of({"prompts": self._prompt_hashes})

    @property
    def _prompt_hashes(self) -> dict[str, str]:
        return {one: load_prompt(one).sha256 for one in self.prompts}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`. A batch is a unit, its clips in order, or clips of which each is one."""
        rows: list[Row] = []
        for i, clip in enumerate(batch):
            has_previous = self.unit != "clip" and i > 0
            previous = Previous(clip=batch[i - 1], row=rows[i - 1]) if has_previous else None
            rows.append(self.run_one(clip, previous))
        return rows

    def run_one(self, clip: ClipInput, previous: Previous | None) -> Row:
        """The row of a clip."""
        talk = Conversation(stage=self, clip_id=clip.id)
        raw_text = None
        try:
            row = self.about(clip, previous, talk)
        except AnswerError as error:
            row, raw_text = {"reason": str(error)}, error.raw_text or None
        told = {
            "num_requests": talk.num_requests,
            "prompt_tokens": talk.prompt_tokens,
            "completion_tokens": talk.completion_tokens,
            "finish_reason": talk.response.finish_reason if talk.response else None,
            "raw_text": raw_text,
            "words_over_limit": self._too_long(row),
        }
        return row | {f"{self.name}_{name}": value for name, value in told.items()}

    def texts(self, answer: Mapping[str, str], **window: float | None) -> Row:
        """An answer with all `fields` as captions; `window`: `start_seconds`, `end_seconds` from the clip's start."""
        row: Row = {"captions": [], "transition_captions": []}
        for one in self.fields:
            if text := answer[one.name].strip():
                name = "transition_captions" if one.is_transition else "captions"
                row[name].append(self.caption(one.kind, text, **window))
        return row

    def caption(
        self, kind: str, text: str, *, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> Row:
        """A caption of the schema, its annotator this stage with this model; a window of None is the whole clip."""
        window = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        return {"kind": kind, "text": text, **window, "annotator": self._annotator}

    def answer_schema(self) -> dict[str, Any]:
        """JSON schema of an object with a text for each of `fields`."""
        return texts_schema(*(one.name for one in self.fields))

    def _too_long(self, row: Row) -> list[str]:
        limits = {one.kind: one.max_words for one in self.fields if one.max_words is not None}
        captions = [*row.get("captions", ()), *row.get("transition_captions", ())]
        over = [one["kind"] for one in captions if len(one["text"].split()) > limits.get(one["kind"], 1 << 31)]
        return list(dict.fromkeys(over))


def texts_schema(*names: str) -> dict[str, Any]:
    """JSON schema of an object of texts, none of them empty."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "minLength": 1} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }


_TOLD: Final = (
    Column(name="num_requests", dtype="int32", doc="Questions asked about the clip."),
    Column(name="prompt_tokens", dtype="int32", unit="tokens", doc="Of all questions, as the server counts."),
    Column(name="completion_tokens", dtype="int32", unit="tokens", doc="Of all answers about the clip."),
    Column(name="finish_reason", dtype="string", doc="Why the last answer ended: stop or length."),
    Column(name="raw_text", dtype="string", doc="The last answer as it came, where it could not be read."),
    Column(name="words_over_limit", dtype="list<string>", doc="Kinds of captions with more words than asked for."),
)  # fmt: skip


def _told_column(stage: str, column: Column) -> Column:
    return replace(column, name=f"{stage}_{column.name}")
