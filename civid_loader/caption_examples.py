"""A text that changed, word by word."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

MAX_WORDS: Final = 300
"""Of a text of an example that are compared word by word; the rest counts as equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Words of an example."""

    change: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A text that changed."""

    clip_id: str
    first: str
    second: str
    similarity: float
    """0..1: share of words in common, in order."""
    pieces: tuple[Piece, ...]
    """From the first text to the second."""


def example(clip_id: str, first: str, second: str) -> Example:
    """What changed from the first text to the second."""
    old, new = first.split(), second.split()
    matcher = SequenceMatcher(None, old[:MAX_WORDS], new[:MAX_WORDS], autojunk=False)
    pieces = list(_pieces(matcher, old, new))
    for change, rest in (("removed", old[MAX_WORDS:]), ("added", new[MAX_WORDS:])):
        if rest:
            pieces.append(Piece(change="removed" if change == "removed" else "added", text=" ".join(rest)))
    return Example(
        clip_id=clip_id, first=first, second=second, similarity=round(matcher.ratio(), 4), pieces=tuple(pieces)
    )


def _pieces(matcher: SequenceMatcher[str], old: list[str], new: list[str]) -> Iterator[Piece]:
    for change, a, b, c, d in matcher.get_opcodes():
        if change == "equal":
            yield Piece(change="same", text=" ".join(old[a:b]))
            continue
        if b > a:
            yield Piece(change="removed", text=" ".join(old[a:b]))
        if d > c:
            yield Piece(change="added", text=" ".join(new[c:d]))
