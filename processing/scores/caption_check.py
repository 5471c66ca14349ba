"""How captions are written: how long, with which worn phrases, how much they repeat themselves. Nothing is asked.

Phrases are those that models that see fall into, which say nothing of the clip; the list is ours.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from civid_loader.processing.known_captions import captions_of
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.schema import SINGLE_CAPTION_KINDS

PHRASES = (
    r"(?:first|second|third|last|next|final) (?:frame|image|picture)",
    r"(?:this|the|each) (?:video|clip|image|frame|picture) (?:shows|depicts|features|captures|begins|opens)",
    r"(?:appears?|seems?) to be",
    r"(?:suggest|indicat|imply|impli)(?:s|es|ed|ing)",
    r"(?:as an ai|i(?: am|'m) (?:sorry|unable)|i can(?:no|')t)",
    r"in (?:summary|conclusion)",
)
"""Regular expressions, of whole words, whatever the case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionCheckParams:
    """Of `CaptionCheck`."""

    kinds: tuple[str, ...] = ()
    """Of captions, see `schema.SINGLE_CAPTION_KINDS`; none: all that the clip has."""
    phrases: tuple[str, ...] = PHRASES
    """Worn ones: regular expressions of whole words, whatever the case."""
    ngram_words: int = 4
    """Length of what counts as repeated."""

    def __post_init__(self) -> None:
        if strange := [kind for kind in self.kinds if kind not in SINGLE_CAPTION_KINDS]:
            raise ValueError(f"caption_check: kinds has {strange[0]!r}; there are {', '.join(SINGLE_CAPTION_KINDS)}")
        if self.ngram_words < 1:
            raise ValueError(f"caption_check: ngram_words is {self.ngram_words}, must be at least 1")
        for phrase in self.phrases:
            try:
                re.compile(phrase)
            except re.error as error:
                raise ValueError(f"caption_check: phrase {phrase!r} is no regular expression: {error}") from error


class CaptionCheck(Stage[CaptionCheckParams]):
    """Length, worn phrases and repetition of a clip's captions; of each kind those of one author, this run's first."""

    name = "caption_check"
    version = 1
    Params = CaptionCheckParams
    cost = "no model, no frames"
    columns = (
        Column(name="caption_kinds", dtype="list<string>", doc="Kinds of captions that were looked at, in order."),
        Column(name="caption_words", dtype="list<int32>", unit="words", doc="Of each of these kinds."),
        Column(name="caption_min_words", dtype="int32", unit="words", doc="Of the kind with the fewest."),
        Column(name="caption_phrases", dtype="list<string>", doc="Worn phrases as they stand there, each once."),
        Column(name="caption_num_phrases", dtype="int32", doc="How many of them, repeats counted."),
        Column(name="caption_repetition", dtype="float32", doc="Share of word groups that come again, at worst."),
    )  # fmt: skip

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        pattern = re.compile("|".join(rf"\b(?:{one})\b" for one in self.params.phrases or (r"(?!)",)), re.IGNORECASE)
        return [self._row(clip, pattern) for clip in batch]

    def _row(self, clip: ClipInput, pattern: re.Pattern[str]) -> Row:
        kinds = self.params.kinds or tuple(sorted({one["kind"] for one in clip.row.get("captions") or ()}))
        texts = {kind: " ".join(one["text"] or "" for one in captions_of(clip.row, kind)) for kind in kinds}
        texts = {kind: text for kind, text in texts.items() if text.strip()}
        if not texts:
            return {"not_computable": f"no captions of kinds {', '.join(self.params.kinds) or 'that are known'}"}
        words = {kind: len(text.split()) for kind, text in texts.items()}
        hits = [hit[0].lower() for text in texts.values() for hit in pattern.finditer(text)]
        return {
            "caption_kinds": list(texts),
            "caption_words": list(words.values()),
            "caption_min_words": min(words.values()),
            "caption_phrases": list(dict.fromkeys(hits)),
            "caption_num_phrases": len(hits),
            "caption_repetition": max(repetition(text, self.params.ngram_words) for text in texts.values()),
        }


def repetition(text: str, ngram_words: int) -> float:
    """The share of word groups of this length that are there more than once; 0 where the text has no group.

    "a dog runs a dog runs" has of 2 words: a dog, dog runs, runs a, a dog, dog runs: 4 of 5 are there twice.
    """
    words = re.findall(r"\w+", text.lower())
    groups = Counter(tuple(words[i : i + ngram_words]) for i in range(len(words) - ngram_words + 1))
    return sum(count for count in groups.values() if count > 1) / max(1, groups.total())
