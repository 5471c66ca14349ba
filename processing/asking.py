"""Stages that ask a model: captions and judgements. One asks, reads the answer, and says what it means for a clip.

What is the same for all of them is here and in `conversation`: answers in JSON, checked by schema; one more try for an
answer that was cut off; what an answer cost; and the raw text of one that cannot be read.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final, Literal

from civid_loader.processing.answers import Answers
from civid_loader.processing.conversation import AnswerError, Conversation
from civid_loader.processing.prompts import Prompt, load_prompt
from civid_loader.processing.stage import ClipInput, Column, P, Row, Stage

Unit = Literal["clip", "sample", "movie"]


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
            AnswerError: nothing is known of it. Of several questions, each is asked in a `talk.part`.
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
        talk = Conversation(answers=self.answers, about=f"{clip.id}/{self.fingerprint()}")
        row: Row = {}
        try:
            row = self.about(clip, previous, talk)
        except AnswerError as error:
            talk.failed(error)
        if talk.failures:
            row = row | {"reason": "; ".join(dict.fromkeys(map(str, talk.failures)))}
        told = {
            "num_requests": talk.num_requests,
            "prompt_tokens": talk.prompt_tokens,
            "completion_tokens": talk.completion_tokens,
            "finish_reason": talk.response.finish_reason if talk.response else None,
            "raw_text": talk.failures[-1].raw_text if talk.failures else None,
            "words_over_limit": self._too_long(row),
        }
        return row | {f"{self.name}_{name}": value for name, value in told.items()}

    def texts(self, answer: Mapping[str, str], **window: float | None) -> Row:
        """The texts of an answer as captions; `window`: `start_seconds`, `end_seconds` from the clip's start.

        Raises:
            AnswerError: a text says nothing.
        """
        row: Row = {"captions": [], "transition_captions": []}
        for one in self.fields:
            if one.name not in answer:
                continue
            if not (text := answer[one.name].strip()):
                raise AnswerError(f"{one.name}: empty")
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
