"""The batches of one epoch: rows in an order that depends on seed and epoch only, cut bucket by bucket."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from civid_loader.buckets import Longs
from civid_loader.ordering import occurrences, shuffled

Tail = Literal["pad", "short", "drop"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Epoch:
    """The batches of one epoch, in their order."""

    number: int
    drawn: Longs
    """Rows of the epoch, each as often as it comes."""
    rows: Longs
    """Rows, bucket by bucket, with those that fill up."""
    draws: Longs
    """Of each of `rows`, how often the epoch had it before."""
    starts: Longs
    """[batches], where each begins in `rows`."""
    lengths: Longs
    """[batches], of all ranks together."""
    num_real: Longs
    """[batches], rows that do not only fill up."""
    buckets: Longs
    """[batches]"""

    @classmethod
    def of(
        cls,
        number: int,
        *,
        drawn: Longs | None,
        bucket_of: Longs,
        batch_sizes: Sequence[int],
        seed: int,
        world_size: int,
        tail: Tail,
        shuffle: bool,
    ) -> Self:
        """Draw and cut; see `BatchPlan`.

        Args:
            number: of the epoch.
            drawn: rows that a mix gives it; None: each once.
            bucket_of: [N], the bucket of each row.
            batch_sizes: of each bucket, of all ranks together.
            seed, world_size, tail, shuffle: see `BatchPlan`.
        """
        is_mixed = drawn is not None
        if drawn is None:
            drawn = np.arange(len(bucket_of))
        if shuffle:
            drawn = drawn[shuffled(len(drawn), seed=seed, stream=2 * number)]
        by_bucket = np.argsort(bucket_of[drawn], kind="stable")
        grouped = drawn[by_bucket]
        draws = occurrences(drawn)[by_bucket] if is_mixed else np.zeros(len(drawn), np.int64)
        counts = np.bincount(bucket_of[drawn], minlength=len(batch_sizes))
        parts: list[tuple[Longs, Longs]] = []
        columns: list[list[Longs]] = [[], [], [], []]
        begin = at = 0
        for bucket, (count, size) in enumerate(zip(counts.tolist(), batch_sizes, strict=True)):
            own = slice(begin, begin + count)
            begin += count
            num_whole, rest = divmod(count, size)
            last = 0 if tail == "drop" or not rest else size
            if tail == "short" and rest:
                last = -(-rest // world_size) * world_size
            length = num_whole * size + last
            parts.append((np.resize(grouped[own], length), np.resize(draws[own], length)))
            num_batches = num_whole + bool(last)
            columns[0].append(at + size * np.arange(num_batches))
            columns[1].append(np.full(num_batches, size))
            columns[2].append(np.full(num_batches, size))
            columns[3].append(np.full(num_batches, bucket))
            if last:
                columns[1][-1][-1], columns[2][-1][-1] = last, rest
            at += length
        starts, lengths, num_real, buckets = (np.concatenate(column) for column in columns)
        order = shuffled(len(starts), seed=seed, stream=2 * number + 1) if shuffle else np.arange(len(starts))
        return cls(
            number=number,
            drawn=drawn,
            rows=np.concatenate([rows for rows, _ in parts]),
            draws=np.concatenate([drawn for _, drawn in parts]),
            starts=starts[order],
            lengths=lengths[order],
            num_real=num_real[order],
            buckets=buckets[order],
        )
