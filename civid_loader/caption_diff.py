"""`diff`: what changed from one layer of captions to another, clip by clip, in length, in words and in examples."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from civid_loader.caption_examples import Example, example
from civid_loader.caption_pairs import Pairs, caption_pairs
from civid_loader.caption_texts import CaptionTexts, open_texts
from civid_loader.errors import AnnotationError, LayerError
from civid_loader.progress import track
from civid_loader.repo_names import pull_hint
from civid_loader.schema import CAPTION_KINDS
from civid_loader.vocabulary import Lengths, TextCounts, WordShift, word_shifts

MAX_SHIFTS: Final = 20
"""Words told as gained, and as lost."""
MIN_Z: Final = 1.96
"""Of those: smaller shifts are noise (5 %, two-sided)."""
MAX_REASONS: Final = 10
MAX_IDS: Final = 100
"""Of clips that are in one only that are listed."""
_CANDIDATES: Final = 5
"""So many examples are drawn for one that is shown: those that differ most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KindDiff:
    """What changed in the captions of a kind; `caption_pairs` says which are compared where a clip has several."""

    kind: str
    num_equal: int
    """Captions with the same text in both."""
    num_changed: int
    num_only_first: int
    """Captions that only the first has."""
    num_only_second: int
    ids_only: tuple[tuple[str, ...], tuple[str, ...]]
    """Clips of captions that only the first has, and only the second: at most MAX_IDS each, by id."""
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
    ids_only: tuple[tuple[str, ...], tuple[str, ...]]
    """Clips with a row in the first only, and in the second only: at most MAX_IDS each, by id."""
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
        AnnotationError: no such folder.
        LayerError: there is no such layer, or the two have no clip in common.
        ValueError: no kind of caption.
    """
    if wrong := sorted(set(kinds or ()) - set(CAPTION_KINDS)):
        raise ValueError(f"no kind of caption: {', '.join(wrong)}; there are {', '.join(CAPTION_KINDS)}")
    if max_examples < 0:
        raise ValueError(f"max_examples={max_examples}: it is 0 or more")
    root = Path(dataset)
    if not root.is_dir():
        raise AnnotationError(f"{root}: no such folder; it is that of a built dataset{pull_hint(dataset)}")
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
        ids_only=(_only(texts[0].clip_ids, texts[1].clip_ids), _only(texts[1].clip_ids, texts[0].clip_ids)),
        kinds=tuple(counting.by_kind[kind].result(kind, max_examples) for kind in found),
        reasons=(_most_common(counting.reasons[0]), _most_common(counting.reasons[1])),
    )


def _only(these: pa.Array, those: pa.Array) -> tuple[str, ...]:
    return _smallest(these.filter(pc.invert(pc.is_in(these, value_set=those))).to_pylist())


def _smallest(clip_ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(clip_ids))[:MAX_IDS])


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
        ids = pc.coalesce(*(rows.column("clip_id").combine_chunks() for rows in both))
        for pairs in caption_pairs(first, second):
            if self._kinds is None or pairs.kind in self._kinds:
                self.by_kind.setdefault(pairs.kind, _OfKind(self._max_candidates)).add(ids, pairs)


def _rows_at(rows: pa.Table, places: pa.Array) -> pa.Table:
    """The rows at these places, null where there is none."""
    if len(places) and not places.null_count:
        start = places[0].as_py()
        if np.array_equal(places.to_numpy(), np.arange(start, start + len(places))):  # the usual case: the same order
            return rows.slice(start, len(places))
    return rows.take(places)


class _OfKind:
    """Counts of a kind, and a draw from its changed texts that does not depend on the order of the clips."""

    def __init__(self, max_candidates: int) -> None:
        self._max_candidates = max_candidates
        self._counts = Counter[str]()
        self._texts = (TextCounts(), TextCounts())
        self._drawn: list[tuple[int, str, str, str]] = []
        self._ids_only: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def add(self, clip_ids: pa.Array, pairs: Pairs) -> None:
        first, second, clip_ids = pairs.first, pairs.second, clip_ids.take(pa.array(pairs.rows))
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
        self._ids_only = (
            _smallest([*self._ids_only[0], *clip_ids.filter(masks["only first"]).to_pylist()]),
            _smallest([*self._ids_only[1], *clip_ids.filter(masks["only second"]).to_pylist()]),
        )
        ids, old, new = (values.filter(is_changed) for values in (clip_ids, first, second))
        drawn_by = pc.binary_join_element_wise(ids, old, "\n").cast(pa.binary()).to_pylist()
        keys = np.fromiter(map(xxhash.xxh3_64_intdigest, drawn_by), np.uint64, len(ids))
        smallest = np.argsort(keys, kind="stable")[: self._max_candidates].tolist()
        drawn = [(int(keys[i]), ids[i].as_py(), old[i].as_py(), new[i].as_py()) for i in smallest]
        self._drawn = sorted([*self._drawn, *drawn])[: self._max_candidates]

    def result(self, kind: str, max_examples: int) -> KindDiff:
        examples = sorted((example(*one[1:]) for one in self._drawn), key=lambda one: (one.similarity, one.clip_id))
        shifts = word_shifts(self._texts[0].words, self._texts[1].words)
        first, second = self._texts
        return KindDiff(
            kind=kind,
            num_equal=self._counts["equal"],
            num_changed=self._counts["changed"],
            num_only_first=self._counts["only first"],
            num_only_second=self._counts["only second"],
            ids_only=self._ids_only,
            lengths=(first.lengths(), second.lengths()),
            num_words=(first.num_words, second.num_words),
            num_different_words=(len(first.words), len(second.words)),
            gained=tuple(one for one in shifts[:MAX_SHIFTS] if one.z >= MIN_Z),
            lost=tuple(one for one in shifts[::-1][:MAX_SHIFTS] if one.z <= -MIN_Z),
            examples=tuple(examples[:max_examples]),
        )
