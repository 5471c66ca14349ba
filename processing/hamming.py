"""All pairs of 64-bit hashes that differ in a few bits, without looking at all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): of two hashes at most 6 bits apart, cut into 4 bands of 16
bits, one of the first three bands differs in at most 1 bit, or the last in none: were it otherwise, there would be
3 * 2 + 1 = 7 bits. So each hash meets those in 3 * 17 + 1 = 52 of 65,536 buckets; of 200,000 random ones 160, not
200,000.

Legend: N hashes, F hashes of one thing, P pairs.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

_NUM_BANDS: Final = 4
_BAND_BITS: Final = 16
MAX_BITS: Final = 2 * _NUM_BANDS - 1
"""From 8 bits on, every band may differ in two."""
_BLOCK_PAIRS: Final = 1 << 22
"""Candidates compared at once, about 200 MB."""


def distances(one_PF: Hashes, other_PF: Hashes) -> npt.NDArray[np.int64]:
    """[P], bits that differ, of the hash out of F that differs most."""
    bits: npt.NDArray[np.int64] = np.bitwise_count(one_PF ^ other_PF).max(axis=1).astype(np.int64)
    return bits


def near_pairs(hashes_NF: Hashes, *, max_bits: int) -> npt.NDArray[np.int64]:
    """[P, 2]: all i < j of which each of the F hashes differs in at most `max_bits`; in ascending order.

    Candidates are found by the first of the F. Equal ones are all paired: leave out repetitions first.

    Raises:
        ValueError: `max_bits` beyond 7, where this way of searching ends.
    """
    if not 0 <= max_bits <= MAX_BITS:
        raise ValueError(
            f"max_bits={max_bits}: from 0 to {MAX_BITS}; more differ by chance, and are too many to search"
        )
    found = [np.empty((0, 2), np.int64)]
    first_N = np.ascontiguousarray(hashes_NF[:, 0])
    for one_P, other_P in _candidates(first_N, max_bits=max_bits):
        # Nearly all fail the first.
        is_near = np.bitwise_count(first_N[one_P] ^ first_N[other_P]) <= max_bits
        one_P, other_P = one_P[is_near], other_P[is_near]
        pairs_P2 = np.stack([one_P, other_P], axis=1)[distances(hashes_NF[one_P], hashes_NF[other_P]) <= max_bits]
        found.append(np.sort(pairs_P2, axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _candidates(hashes_N: Hashes, *, max_bits: int) -> Iterator[tuple[Numbers, Numbers]]:
    radius, rest = divmod(max_bits, _NUM_BANDS)
    for band in range(_NUM_BANDS):
        # 6 = 1 * 4 + 2: bands 0, 1 and 2 within 1 bit, band 3 within 0. 2 = 0 * 4 + 2: bands 0 to 2 equal, 3 left out.
        own_radius = radius if band <= rest else radius - 1
        if own_radius < 0:
            continue
        keys_N = (hashes_N >> np.uint64(_BAND_BITS * band)).astype(np.int64) & (1 << _BAND_BITS) - 1
        order_N = np.argsort(keys_N, kind="stable")
        starts = np.searchsorted(keys_N[order_N], np.arange((1 << _BAND_BITS) + 1))
        places_N = np.arange(len(order_N))
        # In one bucket: each with those behind it.
        yield from _met(order_N, order_N, places_N + 1, starts[keys_N[order_N] + 1])
        for bit in range(_BAND_BITS if own_radius else 0):
            # Each pair once: from the one that lacks the bit.
            lacking = order_N[keys_N[order_N] >> bit & 1 == 0]
            bucket = keys_N[lacking] | 1 << bit
            yield from _met(lacking, order_N, starts[bucket], starts[bucket + 1])


def _met(who: Numbers, order_N: Numbers, first: Numbers, end: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Each of `who` with those at places [first, end) of the order, a block of pairs at a time."""
    counts = end - first
    before = np.concatenate([[0], np.cumsum(counts)])
    for start in range(0, int(before[-1]), _BLOCK_PAIRS):
        end_of_block = min(start + _BLOCK_PAIRS, int(before[-1]))
        low = int(np.searchsorted(before, start, side="right")) - 1
        high = int(np.searchsorted(before, end_of_block, side="left"))
        num_here = np.diff(before[low : high + 1].clip(start, end_of_block))
        pairs, whose = np.arange(start, end_of_block), np.repeat(np.arange(low, high), num_here)
        yield who[whose], order_N[first[whose] + pairs - before[whose]]
