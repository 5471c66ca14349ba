"""Which caption of one layer is compared to which caption of another, of the same clip and kind.

Captions about the same part of the clip belong together, in order where a part has several; what is left is paired in
order, so that captions of whole clips can be compared to captions of parts. With `0-2: a, 2-4: b` and `2-4: c, d`,
b meets c, and a meets d.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from civid_loader.ordering import occurrences

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Captions of a kind."""

    kind: str
    rows: Numbers
    """Row of each pair in the two tables, ascending."""
    first: pa.Array
    """Its text in the first; null: only the second has it."""
    second: pa.Array


def caption_pairs(first: pa.Table, second: pa.Table) -> Iterator[Pairs]:
    """The captions of two tables of `CaptionTexts` with the same clips in the same rows, kind by kind."""
    for name in ("captions", "transition_captions"):
        sides = [_Captions.of(rows.column(name).combine_chunks()) for rows in (first, second)]
        kinds = dict.fromkeys(kind for side in sides for kind in side.kinds)
        windows = _same_numbers(*(side.windows for side in sides))
        for kind in kinds:
            places = [side.places_of(kind) for side in sides]
            rows = [side.rows[at] for side, at in zip(sides, places, strict=True)]
            parts = [of[at] for of, at in zip(windows, places, strict=True)]
            joined = _joined(*rows, *parts)
            found = [_taken(at, index) for at, index in zip(places, joined, strict=True)]
            of_pair = np.where(found[0] >= 0, _taken(rows[0], joined[0]), _taken(rows[1], joined[1]))
            order = np.lexsort((found[1], found[0], of_pair))
            texts = (
                side.texts.take(pa.array(at[order], mask=at[order] < 0)) for side, at in zip(sides, found, strict=True)
            )
            yield Pairs(kind=kind, rows=of_pair[order], first=next(texts), second=next(texts))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Captions:
    rows: Numbers
    codes: Numbers
    """Place of its kind in `kinds`."""
    kinds: list[str]
    windows: npt.NDArray[np.float64]
    """(captions, 2): start and end, -1 for none."""
    texts: pa.Array

    @classmethod
    def of(cls, lists: pa.ListArray) -> "_Captions":
        captions = lists.flatten()
        kinds = pc.struct_field(captions, "kind").dictionary_encode()
        ends = [pc.fill_null(pc.struct_field(captions, name), -1.0) for name in ("start_seconds", "end_seconds")]
        return cls(
            rows=pc.list_parent_indices(lists).to_numpy().astype(np.int64),
            codes=kinds.indices.to_numpy().astype(np.int64),
            kinds=kinds.dictionary.to_pylist(),
            windows=np.stack([end.to_numpy(zero_copy_only=False) for end in ends], axis=1),
            texts=pc.struct_field(captions, "text"),
        )

    def places_of(self, kind: str) -> Numbers:
        code = self.kinds.index(kind) if kind in self.kinds else -1
        return np.flatnonzero(self.codes == code)


def _joined(rows_a: Numbers, rows_b: Numbers, windows_a: Numbers, windows_b: Numbers) -> tuple[Numbers, Numbers]:
    """Places in `a` and in `b` that belong together, -1 where there is none."""
    found_a, found_b = _met((rows_a, windows_a), (rows_b, windows_b))
    left_a, left_b = (_left(len(rows), at) for rows, at in ((rows_a, found_a), (rows_b, found_b)))
    more_a, more_b = _met((rows_a[left_a],), (rows_b[left_b],))
    found_a, found_b = np.append(found_a, left_a[more_a]), np.append(found_b, left_b[more_b])
    alone_a, alone_b = _left(len(rows_a), found_a), _left(len(rows_b), found_b)
    none_a, none_b = np.full(len(alone_b), -1), np.full(len(alone_a), -1)
    return np.concatenate([found_a, alone_a, none_a]), np.concatenate([found_b, none_b, alone_b])


def _met(first: tuple[Numbers, ...], second: tuple[Numbers, ...]) -> tuple[Numbers, Numbers]:
    """Places with the same numbers; the n-th of them in the one with the n-th in the other."""
    groups = _same_numbers(np.stack(first, axis=1), np.stack(second, axis=1))
    keys = _same_numbers(*(np.stack([of, occurrences(of)], axis=1) for of in groups))
    _, in_first, in_second = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    return in_first.astype(np.int64), in_second.astype(np.int64)


def _same_numbers(
    first: "npt.NDArray[np.float64] | Numbers", second: "npt.NDArray[np.float64] | Numbers"
) -> tuple[Numbers, Numbers]:
    """A number for each row of two matrices, the same for rows that are equal."""
    codes = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes[: len(first)], codes[len(first) :]


def _left(size: int, taken: Numbers) -> Numbers:
    is_left = np.ones(size, np.bool_)
    is_left[taken] = False
    return np.flatnonzero(is_left)


def _taken(values: Numbers, places: Numbers) -> Numbers:
    """The values at places, -1 for none."""
    return np.where(places >= 0, np.append(values, -1)[places], -1)
