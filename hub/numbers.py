"""Many numbers in a few: how many, how large, and a histogram of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MAX_BARS: Final = 12
"""Whole numbers with no more different values than this get a bar each."""
_NUM_BUCKETS: Final = 8
"""About how many buckets other numbers get."""

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberStatistics:
    """Numbers summed up. Where there are none, their sizes are None."""

    num_values: int
    """Numbers there are."""
    num_missing: int
    """Nulls, and what is no finite number."""
    minimum: float | None
    median: float | None
    """Of an even number of values, the mean of the two in the middle."""
    mean: float | None
    maximum: float | None
    total: float
    """Their sum."""
    histogram: Mapping[str, int]
    """Bucket -> how many, without empty buckets at the ends. `2-5` is [2, 5); of whole numbers, 2 to 5."""


class Tally:
    """Numbers fed in pieces. Kept as different values and how often each occurs: counts of words have few."""

    def __init__(self, *, are_whole: bool = False) -> None:
        self.are_whole = are_whole
        self.num_values = 0
        self._num_missing = 0
        self._unique: Numbers = np.array([], dtype=np.float64)
        self._counts: Counts = np.array([], dtype=np.int64)
        self._pending: list[Numbers] = []

    def add(self, values: pa.Array) -> None:
        """Add an array of numbers, or of true and false as 1 and 0."""
        found = pc.cast(values.drop_null(), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        finite = found[np.isfinite(found)]
        self._num_missing += len(values) - len(finite)
        self.num_values += len(finite)
        self._pending.append(finite)
        if sum(map(len, self._pending)) > 1 << 20:
            self._merge()

    def _merge(self) -> None:
        if self._pending:
            every = np.concatenate([self._unique, *self._pending])
            ones = np.ones(len(every) - len(self._unique), dtype=np.int64)
            self._unique, place = np.unique(every, return_inverse=True)
            weights = np.concatenate([self._counts, ones])
            self._counts = np.bincount(place, weights=weights, minlength=len(self._unique)).astype(np.int64)
            self._pending = []

    def result(self, edges: Sequence[float] | None = None) -> NumberStatistics:
        """Sum up; `edges` say where buckets begin, the last one is open. None: edges that fit the numbers."""
        self._merge()
        unique, counts = self._unique, self._counts
        if not self.num_values:
            return NumberStatistics(
                num_values=0, num_missing=self._num_missing, minimum=None, median=None, mean=None, maximum=None,
                total=0.0, histogram={},
            )  # fmt: skip
        total = float(np.dot(unique, counts))
        middle = [_ranked(unique, counts, rank) for rank in ((self.num_values - 1) // 2, self.num_values // 2)]
        used = _fitting_edges(unique, counts, are_whole=self.are_whole) if edges is None else edges
        return NumberStatistics(
            num_values=self.num_values,
            num_missing=self._num_missing,
            minimum=float(unique[0]),
            median=sum(middle) / 2,
            mean=total / self.num_values,
            maximum=float(unique[-1]),
            total=total,
            histogram=_histogram(unique, counts, used, are_whole=self.are_whole),
        )


def _ranked(unique: Numbers, counts: Counts, rank: int) -> float:
    """Value number `rank` of all, in ascending order."""
    return float(unique[np.searchsorted(np.cumsum(counts), rank, side="right")])


def _histogram(unique: Numbers, counts: Counts, edges: Sequence[float], *, are_whole: bool) -> dict[str, int]:
    places = np.searchsorted(edges, unique, side="right")
    filled = np.bincount(places, weights=counts, minlength=len(edges) + 1).astype(int)
    used = np.flatnonzero(filled)
    labels = [f"< {edges[0]:.10g}", *_labels(edges, are_whole=are_whole)]
    return {labels[place]: int(filled[place]) for place in range(used[0], used[-1] + 1)}


def _labels(edges: Sequence[float], *, are_whole: bool) -> list[str]:
    """Edges 1, 2, 5 of lengths: 1-2, 2-5, 5+. Of whole numbers: 1, 2-4, 5+."""
    if len(edges) == 1:
        return [f"{edges[0]:.10g}"]
    between = " to " if edges[0] < 0 else "-"
    labels = []
    for low, high in pairwise(edges):
        last = high - 1 if are_whole else high
        labels.append(f"{low:.10g}" if low == last else f"{low:.10g}{between}{last:.10g}")
    return [*labels, f"{edges[-1]:.10g}+"]


def _fitting_edges(unique: Numbers, counts: Counts, *, are_whole: bool) -> list[float]:
    """Round edges over all but the smallest and the largest hundredth of the numbers, which the end buckets hold."""
    if are_whole and unique[-1] - unique[0] < MAX_BARS:
        return [float(value) for value in range(int(unique[0]), int(unique[-1]) + 2)]
    total = int(counts.sum())
    low, high = (_ranked(unique, counts, int(share * (total - 1))) for share in (0.01, 0.99))
    if low == high:
        low, high = float(unique[0]), float(unique[-1])
    if low == high:
        return [low]
    step = _round_step((high - low) / _NUM_BUCKETS)
    step = max(1.0, step) if are_whole else step
    edges = [float(f"{step * i:.10g}") for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
    # 1.0 of scores up to 1 belongs with 0.9, not in a bucket of its own.
    return edges[:-1] if len(edges) > 2 and unique[-1] <= edges[-1] else edges


def _round_step(step: float) -> float:
    """The next of 1, 2, 5, 10 times a power of ten: 0.037 -> 0.05."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if step <= power * factor * (1 + 1e-9))


def as_text(value: float | None) -> str:
    """A number with as many digits as a reader wants: 3, 0.0123, 1,234.5."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if abs(value) >= 1000 and value % 1 else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"
