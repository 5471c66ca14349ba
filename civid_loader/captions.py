"""Which text stands for a clip, a transition or a sample: captions in, one text out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from string import Formatter
from typing import Any, TypeAlias

from civid_loader.schema import CAPTION_KINDS

Captions: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """Several kinds as one text; it is there where at least one of its kinds is.

    A missing kind goes together with the words in front of it, and what separated it from the next: without a
    `camera`, "{dense} Camera: {camera}. Style: {style}" gives "A dog runs. Style: noir"; without a `dense` too,
    "Style: noir".
    """

    kinds: Sequence[str]
    """Of `schema.CAPTION_KINDS`, in the order in which they are joined where there is no template."""
    template: str | None = None
    """Each kind in braces, once: "{main_object} {background}"; None joins with a space."""

    def __post_init__(self) -> None:
        check_kinds(self.kinds, name="Alternative.kinds", of="a caption", allowed=CAPTION_KINDS)
        if not self.kinds:
            raise ValueError("Alternative.kinds: give at least one kind, ['dense', 'style']")
        object.__setattr__(self, "kinds", tuple(self.kinds))
        try:
            plain = all(
                not spec and not conversion for _, _, spec, conversion in Formatter().parse(self.template or "")
            )
        except ValueError as error:
            raise ValueError(f"template={self.template!r}: {error}; write {{{{ for a brace") from error
        names = [name for _, name in self._parts() if name is not None]
        if not plain or sorted(names) != sorted(self.kinds):
            raise ValueError(
                f"template={self.template!r}: name each of its kinds once and nothing else, as in "
                f"{' '.join(f'{{{kind}}}' for kind in self.kinds)!r}"
            )

    def _parts(self) -> Iterator[tuple[str, str | None]]:
        """The words in front of each kind, and the kind; at the end the words behind the last, and None."""
        words = ""
        for literal, name, _, _ in Formatter().parse(self.template or " ".join(f"{{{kind}}}" for kind in self.kinds)):
            words += literal
            if name is not None:
                yield words, name
                words = ""
        yield words, None

    def text(self, captions: Captions) -> str | None:
        """The text of these captions; None where there is none of the kinds."""
        whole, num_found, has_gap = "", 0, False
        for words, kind in self._parts():
            text = None if kind is None else _of_kind(captions, kind)
            if kind is not None and text is None:
                has_gap = True
                continue
            # Only what a gap has left open at the start is tidied: words the template begins with stay as they are.
            whole += words.lstrip(" \t\n.,;:|") if has_gap and not whole else words
            whole += text or ""
            num_found += text is not None
        return whole if num_found else None


Wanted: TypeAlias = str | Alternative
"""A kind of caption, or several joined."""


def text_of(captions: Captions, wanted: Sequence[Wanted]) -> str | None:
    """The text of the first of `wanted` that there is; None where there is none."""
    texts = (_of_kind(captions, one) if isinstance(one, str) else one.text(captions) for one in wanted)
    return next((text for text in texts if text is not None), None)


def _of_kind(captions: Captions, kind: str) -> str | None:
    """The captions of a kind, its windows joined in order of time; one annotator's, never a mix."""
    of_kind = [caption for caption in captions if caption["kind"] == kind]
    own = [caption for caption in of_kind if caption["annotator"] == of_kind[0]["annotator"]]
    return " ".join(c["text"] for c in sorted(own, key=lambda c: c["start_seconds"] or 0.0)) if own else None


def seen_between(captions: Captions, first_seconds: float, last_seconds: float) -> list[Mapping[str, Any]]:
    """The captions whose window holds any moment of [first, last]; those without a window are about the whole clip.

    Windows are half open: of 0-30 s and 30-60 s, frames from 12 to 30 s see both, from 12 to 29.9 s the first.
    """
    return [
        caption
        for caption in captions
        if (caption["start_seconds"] is None or caption["start_seconds"] <= last_seconds)
        and (caption["end_seconds"] is None or caption["end_seconds"] > first_seconds)
    ]


def check_kinds(wanted: Sequence[Wanted], *, name: str, of: str, allowed: Sequence[str]) -> None:
    """Refuse what is not a list of kinds out of `allowed`; `of` says what has such captions: "a clip"."""
    if isinstance(wanted, (str, Alternative)):
        raise ValueError(f"{name}={wanted!r}: give a list of kinds, [{wanted!r}]")
    for one in wanted:
        for kind in one.kinds if isinstance(one, Alternative) else (one,):
            if kind not in allowed:
                close = "".join(f" (did you mean {near!r}?)" for near in get_close_matches(str(kind), allowed, n=1))
                raise ValueError(f"{name}: {of} has no kind {kind!r}{close}; the kinds are {', '.join(allowed)}")


def clips_of(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the dataset row says of each clip of a sample, matched by id: a sample may show fewer clips than its row.

    Raises:
        ValueError: the sample does not carry its row, or the row of another sample.
    """
    where = f"sample {sample['sample_id']}"
    if "row" not in sample:
        raise ValueError(f"{where} does not carry its dataset row; add it: {{**sample, 'row': row}}")
    clips = {clip["clip_id"]: clip for clip in sample["row"]["clips"]}
    if strange := [clip_id for clip_id in sample["clip_ids"] if clip_id not in clips]:
        raise ValueError(f"{where}: its row has no clip {strange[0]}; it is the row of {sample['row']['sample_id']}")
    return [clips[clip_id] for clip_id in sample["clip_ids"]]
