"""Which sample in which batch: an epoch is a list of global batches, a pure function of seed and epoch.

An epoch is never stored: a position is its number and how many batches of it are done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import xxhash

from civid_loader.bucket_report import BucketReport, report_on
from civid_loader.buckets import Bucket, Longs, assign
from civid_loader.epoch import Epoch, Tail
from civid_loader.ordering import Mix

MAX_IDENTITY_CHARS = 160
"""Of one value of a plan's identity; a longer one ends with a hash of it all."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedBatch:
    """One rank's share of a global batch."""

    rows: Longs
    """[b], rows of the dataset."""
    weights: npt.NDArray[np.float32]
    """[b], 0 where a row only fills up the batch, else 1."""
    draws: Longs
    """[b], how often the epoch had the row before: 0 but where a `Mix` gives it several times."""
    bucket: Bucket | None
    """The shape of all of them; None in a plan without buckets."""


class BatchPlan:
    """Global batches of every epoch. Each sample is in exactly one batch of an epoch, unless `tail` or `mix` say else.

    All ranks have equally many batches, of the same bucket at the same step. With the batch size of all ranks together
    unchanged, the number of ranks does not change which samples make a batch.
    """

    def __init__(
        self,
        sizes: npt.ArrayLike,
        *,
        num_clips: npt.ArrayLike | None = None,
        buckets: Sequence[Bucket] | None = None,
        batch_size: int | None = None,
        max_frames: int | None = None,
        max_pixels: int | None = None,
        mix: Mix | None = None,
        seed: int = 0,
        world_size: int = 1,
        tail: Tail = "pad",
        shuffle: bool = True,
    ) -> None:
        """Check and sort.

        Args:
            sizes: [N, 3], (frames, height, width) of each sample, or a `SampleSizes`; without buckets only their number
                counts.
            num_clips: [N], clips of each sample; None: one. A bucket's budget is shared by samples with as many as its
                largest.
            buckets: shapes of batches; None: one for all, whatever their sizes.
            batch_size: samples per batch, of all ranks together.
            max_frames: instead: so many frames per rank and batch; needs buckets.
            max_pixels: instead: so many pixels, frames times height times width, per rank and batch; needs buckets.
            mix: datasets that the samples are of, and their shares; None: every sample once per epoch.
            seed: of the order.
            world_size: number of ranks.
            tail: what is left of a bucket: "pad" with samples of weight 0 to a whole batch, "short": only to a multiple
                of the ranks, or "drop".
            shuffle: False keeps the order of rows within a bucket, and takes one bucket after the other.

        Raises:
            ValueError: not exactly one of batch_size, max_frames and max_pixels; a batch that ranks cannot share
                equally; a budget that a single sample of a bucket exceeds; sizes that do not fit.
        """
        self.sizes = np.ascontiguousarray(sizes, np.int64)
        count = len(self.sizes)
        self.num_clips = np.ones(count, np.int64) if num_clips is None else np.ascontiguousarray(num_clips, np.int64)
        self.buckets = tuple(buckets or ())
        self.mix, self.seed, self.world_size, self.tail, self.shuffle = mix, index(seed), world_size, tail, shuffle
        self._check(buckets)
        self._bucket_of = assign(self.sizes, self.buckets) if self.buckets else np.zeros(count, np.int64)
        self.batch_sizes = self._batch_sizes(batch_size, max_frames, max_pixels)
        self._epoch: Epoch | None = None
        self._rows_by_bucket: list[Longs] | None = None

    def _check(self, buckets: Sequence[Bucket] | None) -> None:
        if buckets is not None and not self.buckets:
            raise ValueError("buckets is empty: give at least one, or None for batches of any size")
        if self.tail not in get_args(Tail):
            raise ValueError(f"tail={self.tail!r}: must be one of {', '.join(get_args(Tail))}")
        if self.world_size < 1:
            raise ValueError(f"world_size={self.world_size}: at least 1")
        if not len(self.sizes):
            raise ValueError("no samples: the dataset, or what a filter left of it, is empty")
        if self.buckets and (self.sizes.ndim != 2 or self.sizes.shape[1] != 3 or self.sizes.min() < 1):
            raise ValueError("sizes with buckets are [N, 3]: frames, height and width of each sample, all at least 1")
        if self.num_clips.shape != (len(self.sizes),) or self.num_clips.min() < 1:
            raise ValueError(f"num_clips is [N], at least 1 each: of {len(self.sizes)} samples")
        if self.mix is not None and sum(self.mix.num_rows) != len(self.sizes):
            raise ValueError(f"mix: its datasets have {sum(self.mix.num_rows)} rows, sizes are of {len(self.sizes)}")

    def _batch_sizes(self, batch_size: int | None, max_frames: int | None, max_pixels: int | None) -> tuple[int, ...]:
        given = {"batch_size": batch_size, "max_frames": max_frames, "max_pixels": max_pixels}
        named = [(name, value) for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise ValueError(f"give exactly one of {', '.join(given)}, not {[name for name, _ in named] or 'none'}")
        name, value = named[0][0], index(named[0][1])
        if name == "batch_size":
            if value < 1 or value % self.world_size:
                raise ValueError(
                    f"batch_size={value}: of all ranks together, a multiple of world_size={self.world_size}"
                )
            return (value,) * max(1, len(self.buckets))
        if not self.buckets:
            raise ValueError(f"{name} needs buckets: without them nobody knows how large a sample is")
        most_clips = np.ones(len(self.buckets), np.int64)
        np.maximum.at(most_clips, self._bucket_of, self.num_clips)
        costs = [one.num_frames if name == "max_frames" else one.num_pixels for one in self.buckets]
        costs = [cost * clips for cost, clips in zip(costs, most_clips.tolist(), strict=True)]
        for bucket, cost, clips in zip(self.buckets, costs, most_clips.tolist(), strict=True):
            if cost > value:
                raise ValueError(
                    f"{name}={value}: one sample of {clips} clips in {bucket} has {cost}; raise it, or leave it out"
                )
        return tuple(value // cost * self.world_size for cost in costs)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides which samples make a batch, as plain values for people to compare; the ranks do not."""
        mixed = () if self.mix is None else zip(self.mix.quotas, self.mix.num_rows, strict=True)
        values = {
            "buckets": " ".join(f"{one.num_frames}x{one.height}x{one.width}" for one in self.buckets),
            "batch_sizes": " ".join(map(str, self.batch_sizes)),
            "mix": " ".join(f"{of}/{rows}" for of, rows in mixed),
        }
        sizes = xxhash.xxh3_64_hexdigest(self._bucket_of.tobytes()) if self.buckets else ""
        return {
            "num_rows": len(self.sizes),
            "seed": self.seed,
            "tail": self.tail,
            "shuffle": self.shuffle,
            **{name: _shortened(value) for name, value in values.items()},
            "samples_by_bucket": sizes,
        }

    def num_batches(self, epoch: int = 0) -> int:
        """Batches of an epoch, the same for every rank; it differs between epochs only with `mix` and buckets."""
        return len(self._of(epoch).starts)

    def batch(self, epoch: int, index: int, *, rank: int = 0) -> PlannedBatch:
        """Batch number `index` of an epoch, the share of one rank.

        Raises:
            IndexError: there are not so many batches.
        """
        of = self._of(epoch)
        if not 0 <= index < len(of.starts):
            raise IndexError(f"batch {index} of {len(of.starts)} in epoch {epoch}")
        start, length, num_real = (int(column[index]) for column in (of.starts, of.lengths, of.num_real))
        share = length // self.world_size
        first = rank * share
        return PlannedBatch(
            rows=of.rows[start + first : start + first + share],
            weights=(np.arange(first, first + share) < num_real).astype(np.float32),
            draws=of.draws[start + first : start + first + share],
            bucket=self.buckets[of.buckets[index]] if self.buckets else None,
        )

    def substitute(self, row: int, attempt: int, *, epoch: int) -> int:
        """Another row of the same bucket, to stand in for one that cannot be read; itself, if there is no other."""
        others = self._rows_of(int(self._bucket_of[row]))
        if len(others) == 1:
            return row
        # Any start, and then one after the other: which one it is depends on seed, epoch and row only.
        key = xxhash.xxh3_64_intdigest(f"{self.seed}\0{epoch}\0{row}".encode())
        own = int(np.searchsorted(others, row))
        step = (key + attempt) % (len(others) - 1)
        return int(others[(own + 1 + step) % len(others)])

    def _rows_of(self, bucket: int) -> Longs:
        if self._rows_by_bucket is None:
            order = np.argsort(self._bucket_of, kind="stable")
            ends = np.cumsum(np.bincount(self._bucket_of, minlength=len(self.batch_sizes)))
            self._rows_by_bucket = np.split(order, ends[:-1])
        return self._rows_by_bucket[bucket]

    def report(self, epoch: int = 0) -> list[BucketReport]:
        """What an epoch does to the samples, bucket by bucket."""
        of = self._of(epoch)
        buckets = self.buckets or (None,)
        return [
            report_on(
                of,
                number,
                bucket=bucket,
                batch_size=batch_size,
                drawn=of.drawn[self._bucket_of[of.drawn] == number],
                sizes=self.sizes,
                num_clips=self.num_clips,
                world_size=self.world_size,
            )
            for number, (bucket, batch_size) in enumerate(zip(buckets, self.batch_sizes, strict=True))
        ]

    def _of(self, epoch: int) -> Epoch:
        if self._epoch is None or self._epoch.number != epoch:
            self._epoch = Epoch.of(
                epoch,
                drawn=None if self.mix is None else self.mix.rows(epoch, seed=self.seed),
                bucket_of=self._bucket_of,
                batch_sizes=self.batch_sizes,
                seed=self.seed,
                world_size=self.world_size,
                tail=self.tail,
                shuffle=self.shuffle,
            )
        return self._epoch


def _shortened(text: str) -> str:
    if len(text) <= MAX_IDENTITY_CHARS:
        return text
    return f"{text[:MAX_IDENTITY_CHARS]} ... {xxhash.xxh3_64_hexdigest(text.encode())}"
