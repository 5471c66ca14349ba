"""`diff`: what changed from one layer of captions to another, clip by clip, in length, in words and in examples."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from civid_loader.caption_texts import CaptionTexts, open_texts
from civid_loader.errors import LayerError
from civid_loader.progress import track
from civid_loader.schema import CAPTION_KINDS
from civid_loader.vocabulary import Lengths, TextCounts, WordShift, word_shifts

MAX_WORDS: Final = 300
"""Of a text of an example that are compared word by word; the rest counts as equal."""
MAX_SHIFTS: Final = 20
"""Words told as gained, and as lost."""
MIN_Z: Final = 1.96
"""Of those: smaller shifts are noise (5 %, two-sided)."""
MAX_REASONS: Final = 10
_CANDIDATES: Final = 5
"""So many examples are drawn for one that is shown: those that differ most."""

Ids: TypeAlias = npt.NDArray[np.int64]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class KindDiff:
    """What changed in the captions of a kind: of each clip, the first of that kind."""

    kind: str
    num_equal: int
    """Clips with the same text in both."""
    num_changed: int
    num_only_first: int
    """Clips with a text in the first only."""
    num_only_second: int
    lengths: tuple[Lengths | None, Lengths | None]
    """Of all texts of the first, and of the second."""
    num_words: tuple[int, int]
    num_different_words: tuple[int, int]
    gained: tuple[WordShift, ...]
    """Words that the second uses more, most typical ones first."""
    lost: tuple[WordShift, ...]
    examples: tuple[Example, ...]
    """Drawn from the changed ones, the most different first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionDiff:
    """What changed from one layer of captions to another."""

    dataset: str
    names: tuple[str, str]
    num_clips: tuple[int, int]
    """With a row in the first, and in the second."""
    num_clips_in_both: int
    kinds: tuple[KindDiff, ...]
    reasons: tuple[Mapping[str, int], Mapping[str, int]]
    """Why clips could not be captioned -> clips."""


def diff_captions(
    dataset: str | os.PathLike[str],
    first: str,
    second: str,
    *,
    kinds: Sequence[str] | None = None,
    max_examples: int = 20,
    quiet: bool = False,
) -> CaptionDiff:
    """Compare two layers of captions of a dataset folder; `annotations` stands for the captions in its rows.

    The texts of the first are held in memory, those of the second are streamed.

    Args:
        dataset: folder of a built dataset.
        first: `captions-<name>`, or `annotations`.
        second: the one it is compared to.
        kinds: of captions; None: all there are.
        max_examples: of changed texts, for each kind.
        quiet: no progress bar.

    Raises:
        LayerError: there is no such layer, or the two have no clip in common.
        ValueError: no kind of caption.
    """
    if wrong := sorted(set(kinds or ()) - set(CAPTION_KINDS)):
        raise ValueError(f"no kind of caption: {', '.join(wrong)}; there are {', '.join(CAPTION_KINDS)}")
    if max_examples < 0:
        raise ValueError(f"max_examples={max_examples}: it is 0 or more")
    root = Path(dataset)
    texts = (open_texts(root, first), open_texts(root, second))
    places = pc.index_in(texts[1].clip_ids, value_set=texts[0].clip_ids)
    num_in_both = len(places) - places.null_count
    if not num_in_both:
        raise LayerError(
            f"{root}: {first} and {second} have no clip in common; they are of different splits or datasets"
        )
    counting = _Counting(max_examples * _CANDIDATES, kinds)
    counting.add_all(texts, places, quiet=quiet)
    found = [kind for kind in CAPTION_KINDS if kind in counting.by_kind]
    return CaptionDiff(
        dataset=root.name,
        names=(first, second),
        num_clips=(len(texts[0].clip_ids), len(texts[1].clip_ids)),
        num_clips_in_both=num_in_both,
        kinds=tuple(counting.by_kind[kind].result(kind, max_examples) for kind in found),
        reasons=(_most_common(counting.reasons[0]), _most_common(counting.reasons[1])),
    )


def _most_common(counts: Counter[str]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    rest = sum(number for _, number in ordered[MAX_REASONS:])
    return dict(ordered[:MAX_REASONS]) | ({"other reasons": rest} if rest else {})


class _Counting:
    def __init__(self, max_candidates: int, kinds: Sequence[str] | None) -> None:
        self.by_kind: dict[str, _OfKind] = {}
        self.reasons = (Counter[str](), Counter[str]())
        self._max_candidates, self._kinds = max_candidates, kinds

    def add_all(self, texts: tuple[CaptionTexts, CaptionTexts], places: pa.Array, *, quiet: bool) -> None:
        """Compare all clips of the second with those of the first, then count those that only the first has."""
        first = pa.concat_tables(list(texts[0].batches())).combine_chunks()
        start = 0
        batches = track(texts[1].batches(), label="comparing", total=texts[1].num_batches, quiet=quiet)
        for rows in batches:
            self._add(_rows_at(first, places.slice(start, len(rows))), rows)
            start += len(rows)
        is_seen = np.zeros(len(first), dtype=np.bool_)
        is_seen[places.drop_null().to_numpy()] = True
        alone = np.flatnonzero(~is_seen)
        for begin in range(0, len(alone), 1 << 16):
            rows = first.take(pa.array(alone[begin : begin + (1 << 16)]))
            self._add(rows, rows.schema.empty_table().take(pa.nulls(len(rows), pa.int64())))

    def _add(self, first: pa.Table, second: pa.Table) -> None:
        both = (first, second)
        for counts, rows in zip(self.reasons, both, strict=True):
            for entry in pc.value_counts(rows.column("reason").drop_null()).to_pylist():
                counts[entry["values"]] += entry["counts"]
        found = [_texts_by_kind(rows) for rows in both]
        ids = pc.coalesce(*(rows.column("clip_id").combine_chunks() for rows in both))
        nulls = pa.nulls(len(first), pa.string())
        for kind in found[0].keys() | found[1].keys():
            if self._kinds is None or kind in self._kinds:
                of_kind = self.by_kind.setdefault(kind, _OfKind(self._max_candidates))
                of_kind.add(ids, found[0].get(kind, nulls), found[1].get(kind, nulls))


def _rows_at(rows: pa.Table, places: pa.Array) -> pa.Table:
    """The rows at these places, null where there is none."""
    if len(places) and not places.null_count:
        start = places[0].as_py()
        if np.array_equal(places.to_numpy(), np.arange(start, start + len(places))):  # the usual case: the same order
            return rows.slice(start, len(places))
    return rows.take(places)


def _texts_by_kind(rows: pa.Table) -> dict[str, pa.Array]:
    """Kind -> for each row the text of its first caption of that kind."""
    found = {}
    for name in ("captions", "transition_captions"):
        lists = rows.column(name).combine_chunks()
        parents = pc.list_parent_indices(lists).to_numpy()
        captions = lists.flatten()
        kinds = pc.struct_field(captions, "kind").dictionary_encode()
        codes, texts = kinds.indices.to_numpy(), pc.struct_field(captions, "text")
        for code, kind in enumerate(kinds.dictionary.to_pylist()):
            of_kind = np.flatnonzero(codes == code)
            places = np.full(len(rows), -1, np.int64)
            places[parents[of_kind][::-1]] = of_kind[::-1]  # the first is written last
            found[kind] = texts.take(pa.array(places, mask=places < 0))
    return found


class _OfKind:
    """Counts of a kind, and a draw from its changed texts that does not depend on the order of the clips."""

    def __init__(self, max_candidates: int) -> None:
        self._max_candidates = max_candidates
        self._counts = Counter[str]()
        self._texts = (TextCounts(), TextCounts())
        self._drawn: list[tuple[int, str, str, str]] = []

    def add(self, clip_ids: pa.Array, first: pa.Array, second: pa.Array) -> None:
        for counts, texts in zip(self._texts, (first, second), strict=True):
            counts.add(texts)
        has_first, has_second = first.is_valid(), second.is_valid()
        is_equal = pc.fill_null(pc.equal(first, second), False)
        is_changed = pc.and_not(pc.and_(has_first, has_second), is_equal)
        masks = {
            "equal": is_equal,
            "changed": is_changed,
            "only first": pc.and_not(has_first, has_second),
            "only second": pc.and_not(has_second, has_first),
        }
        self._counts.update({name: mask.true_count for name, mask in masks.items()})
        ids, old, new = (values.filter(is_changed) for values in (clip_ids, first, second))
        keys = np.fromiter(map(xxhash.xxh3_64_intdigest, ids.cast(pa.binary()).to_pylist()), np.uint64, len(ids))
        smallest = np.argsort(keys, kind="stable")[: self._max_candidates].tolist()
        drawn = [(int(keys[i]), ids[i].as_py(), old[i].as_py(), new[i].as_py()) for i in smallest]
        self._drawn = sorted([*self._drawn, *drawn])[: self._max_candidates]

    def result(self, kind: str, max_examples: int) -> KindDiff:
        examples = sorted((_example(*one[1:]) for one in self._drawn), key=lambda one: (one.similarity, one.clip_id))
        shifts = word_shifts(self._texts[0].words, self._texts[1].words)
        first, second = self._texts
        return KindDiff(
            kind=kind,
            num_equal=self._counts["equal"],
            num_changed=self._counts["changed"],
            num_only_first=self._counts["only first"],
            num_only_second=self._counts["only second"],
            lengths=(first.lengths(), second.lengths()),
            num_words=(first.num_words, second.num_words),
            num_different_words=(len(first.words), len(second.words)),
            gained=tuple(one for one in shifts[:MAX_SHIFTS] if one.z >= MIN_Z),
            lost=tuple(one for one in shifts[::-1][:MAX_SHIFTS] if one.z <= -MIN_Z),
            examples=tuple(examples[:max_examples]),
        )


def _example(clip_id: str, first: str, second: str) -> Example:
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
