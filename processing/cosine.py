"""The first of many vectors that another one is like, by cosine, a block of them at a time.

A million vectors are half a billion million pairs: only a block's cosines with another block are ever in memory, and
only with vectors that were kept, 4 MB for blocks of 1024. The time still grows with the square: N vectors of D
dimensions that are all kept take N^2 D operations.

Legend: N vectors, B of them in a block, K kept ones of a block, D dimensions.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
_BLOCK: Final = 1024


def keep_unlike(
    vectors_ND: Vectors, decide: Callable[[int, int | None], bool], *, at_least: float, block: int = _BLOCK
) -> None:
    """Have it decided of each vector, in order, whether it is kept.

    Args:
        vectors_ND: of length 1; one of zeros is like nothing.
        decide: called with a number and that of the first kept vector with a cosine to it of `at_least`, None where
            there is none; says whether this one is kept too.
        at_least: above 0.
        block: vectors at a time.
    """
    kept: list[tuple[npt.NDArray[np.int64], Vectors]] = []
    for start in range(0, len(vectors_ND), block):
        block_BD = vectors_ND[start : start + block]
        first_B = np.full(len(block_BD), -1, np.int64)
        for numbers_K, kept_KD in kept:
            open_B = np.flatnonzero(first_B < 0)
            is_like_BK = block_BD[open_B] @ kept_KD.T >= at_least
            found_B = is_like_BK.any(axis=1)
            first_B[open_B[found_B]] = numbers_K[is_like_BK[found_B].argmax(axis=1)]
        is_like_BB = block_BD @ block_BD.T >= at_least
        is_kept_B = np.zeros(len(block_BD), bool)
        for place in range(len(block_BD)):
            first = int(first_B[place])
            if first < 0:
                before = np.flatnonzero(is_like_BB[place, :place] & is_kept_B[:place])
                first = start + int(before[0]) if len(before) else -1
            is_kept_B[place] = decide(start + place, None if first < 0 else first)
        if is_kept_B.any():
            kept.append((start + np.flatnonzero(is_kept_B), block_BD[is_kept_B]))
