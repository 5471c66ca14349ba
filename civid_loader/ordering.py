"""Orders that depend on a seed only, and the rows of several datasets in fixed shares.

Orders come from hashes of numbers, not from a random generator whose stream another version of a library might change:
a position saved today means the same samples in a year.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_MIXING: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """Several datasets in one plan, their rows one after the other. Every epoch has exactly the same share of each.

    A dataset that gives fewer rows per epoch than it has goes on in the next one where it stopped; one that gives more
    comes several times, each pass in an order of its own.
    """

    num_rows: tuple[int, ...]
    """Of each dataset, >= 1."""
    weights: tuple[float, ...]
    """Its share of an epoch is its weight by the sum of all; > 0."""
    rows_per_epoch: int | None = None
    """None: as many as all datasets have together."""

    def __post_init__(self) -> None:
        if not self.num_rows or len(self.num_rows) != len(self.weights):
            raise ValueError(f"Mix: {len(self.num_rows)} datasets and {len(self.weights)} weights; give one for each")
        if min(self.num_rows) < 1 or not all(math.isfinite(one) and one > 0 for one in self.weights):
            raise ValueError(f"Mix: num_rows={self.num_rows}, weights={self.weights}: each above 0, and finite")
        if self.rows_per_epoch is not None and self.rows_per_epoch < 1:
            raise ValueError(f"Mix: rows_per_epoch={self.rows_per_epoch}: at least 1; None takes as many as there are")

    @property
    def quotas(self) -> tuple[int, ...]:
        """Rows of each dataset in an epoch: shares rounded down, and what is left to the largest remainders."""
        total = sum(self.num_rows) if self.rows_per_epoch is None else self.rows_per_epoch
        shares = np.array(self.weights) / sum(self.weights) * total
        quotas = np.floor(shares).astype(np.int64)
        quotas[np.argsort(quotas - shares, kind="stable")[: total - int(quotas.sum())]] += 1
        return tuple(quotas.tolist())

    def rows(self, epoch: int, *, seed: int) -> Longs:
        """The rows of an epoch, dataset by dataset."""
        drawn, first = [], 0
        for source, (count, quota) in enumerate(zip(self.num_rows, self.quotas, strict=True)):
            places = np.arange(epoch * quota, (epoch + 1) * quota)
            for turn in range(int(places[0]) // count, int(places[-1]) // count + 1) if quota else ():
                order = shuffled(count, seed=seed, stream=(1 << 62) + (source << 40) + turn)
                drawn.append(first + order[places[places // count == turn] % count])
            first += count
        return np.concatenate(drawn)


def occurrences(numbers: Longs) -> Longs:
    """How often each number came before, in order: 5 3 5 5 -> 0 0 1 2."""
    order = np.argsort(numbers, kind="stable")
    is_new = np.append(True, numbers[order][1:] != numbers[order][:-1])[: len(numbers)]
    places = np.arange(len(numbers))
    found = np.empty(len(numbers), np.int64)
    found[order] = places - np.maximum.accumulate(np.where(is_new, places, 0))
    return found


def shuffled(count: int, *, seed: int, stream: int) -> Longs:
    """The numbers 0 to count - 1 in an order that depends on seed and stream only, for ever.

    Sorted by a hash of each (splitmix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
    """
    with np.errstate(over="ignore"):
        key = _hashed(_hashed(np.array([seed & (1 << 64) - 1], np.uint64)) ^ np.uint64(stream))
        return np.argsort(_hashed(np.arange(count, dtype=np.uint64) ^ key), kind="stable")


def _hashed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (numbers + np.uint64(1)) * _STEP
    for shift, factor in _MIXING:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x
