"""Which sample in which batch: an epoch is a list of global batches, a pure function of seed and epoch.

An epoch is never stored: a position is its number and how many batches of it are done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import xxhash

from civid_loader.buckets import Bucket, Longs, assign, fit
from civid_loader.ordering import Mix, shuffled

Tail = Literal["pad", "short", "drop"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedBatch:
    """One rank's share of a global batch."""

    rows: Longs
    """[b], rows of the dataset."""
    weights: npt.NDArray[np.float32]
    """[b], 0 where a row only fills up the batch, else 1."""
    bucket: Bucket | None
    """The shape of all of them; None in a plan without buckets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketReport:
    """What becomes of one bucket's samples in an epoch."""

    bucket: Bucket | None
    batch_size: int
    """Of all ranks together."""
    num_samples: int
    num_batches: int
    """Steps of each rank."""
    num_filling: int
    """Rows with weight 0, that fill up the last batch."""
    num_dropped: int
    scale: float
    """Mean factor of height and width; above 1 pictures get larger."""
    crop_share: float
    """Mean share of the scaled picture that is cropped away."""
    upscaled_share: float
    """Share of samples whose picture is smaller than the bucket."""
    padding_share: float
    """Mean share of the bucket's frames that the samples do not have."""


class BatchPlan:
    """Global batches of every epoch. Each sample is in exactly one batch of an epoch, unless `tail` or `mix` say else.

    All ranks have equally many batches, of the same bucket at the same step. With the batch size of all ranks together
    unchanged, the number of ranks does not change which samples make a batch.
    """

    def __init__(
        self,
        sizes: npt.ArrayLike,
        *,
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
            sizes: [N, 3], (frames, height, width) of each sample; without buckets only their number counts.
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
        self.buckets = tuple(buckets or ())
        self.mix, self.seed, self.world_size, self.tail, self.shuffle = mix, seed, world_size, tail, shuffle
        self._check()
        self.batch_sizes = self._batch_sizes(batch_size, max_frames, max_pixels)
        count = len(self.sizes)
        self._bucket_of = assign(self.sizes, self.buckets) if self.buckets else np.zeros(count, np.int64)
        self._epoch: _Epoch | None = None

    def _check(self) -> None:
        if self.tail not in get_args(Tail):
            raise ValueError(f"tail={self.tail!r}: must be one of {', '.join(get_args(Tail))}")
        if self.world_size < 1:
            raise ValueError(f"world_size={self.world_size}: at least 1")
        if not len(self.sizes):
            raise ValueError("no samples: the dataset, or what a filter left of it, is empty")
        if self.buckets and (self.sizes.ndim != 2 or self.sizes.shape[1] != 3 or self.sizes.min() < 1):
            raise ValueError("sizes with buckets are [N, 3]: frames, height and width of each sample, all at least 1")
        if self.mix is not None and sum(self.mix.num_rows) != len(self.sizes):
            raise ValueError(f"mix: its datasets have {sum(self.mix.num_rows)} rows, sizes are of {len(self.sizes)}")

    def _batch_sizes(self, batch_size: int | None, max_frames: int | None, max_pixels: int | None) -> tuple[int, ...]:
        given = {"batch_size": batch_size, "max_frames": max_frames, "max_pixels": max_pixels}
        named = [(name, value) for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise ValueError(f"give exactly one of {', '.join(given)}, not {[name for name, _ in named] or 'none'}")
        name, value = named[0]
        if name == "batch_size":
            if value < 1 or value % self.world_size:
                raise ValueError(
                    f"batch_size={value}: of all ranks together, a multiple of world_size={self.world_size}"
                )
            return (value,) * max(1, len(self.buckets))
        if not self.buckets:
            raise ValueError(f"{name} needs buckets: without them nobody knows how large a sample is")
        costs = [one.num_frames if name == "max_frames" else one.num_pixels for one in self.buckets]
        for bucket, cost in zip(self.buckets, costs, strict=True):
            if cost > value:
                raise ValueError(f"{name}={value}: one sample of {bucket} has {cost}; raise it, or leave it out")
        return tuple(value // cost * self.world_size for cost in costs)

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides which samples make a batch; the number of ranks does not."""
        hashed = xxhash.xxh3_128(self.sizes.tobytes())
        hashed.update(repr((self.buckets, self.batch_sizes, self.mix, self.seed, self.tail, self.shuffle)).encode())
        return hashed.hexdigest()

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
            bucket=self.buckets[of.buckets[index]] if self.buckets else None,
        )

    def substitute(self, row: int, attempt: int, *, epoch: int) -> int:
        """Another row of the same bucket, to stand in for one that cannot be read; itself, if there is no other."""
        others = np.flatnonzero(self._bucket_of == self._bucket_of[row])
        order = shuffled(len(others), seed=self.seed, stream=(1 << 61) + (epoch << 32) + row)
        others = others[order]
        others = others[others != row]
        return int(others[attempt % len(others)]) if len(others) else row

    def report(self, epoch: int = 0) -> list[BucketReport]:
        """What an epoch does to the samples, bucket by bucket."""
        of = self._of(epoch)
        reports = []
        for b, batch_size in enumerate(self.batch_sizes):
            rows = of.drawn[self._bucket_of[of.drawn] == b]
            batches = of.buckets == b
            scale, crop, upscaled, padding = 1.0, 0.0, 0.0, 0.0
            if self.buckets and len(rows):
                change = fit(self.sizes[rows], self.buckets[b : b + 1])
                crop, padding = float(change.crop_share.mean()), float(change.padding_share.mean())
                scale, upscaled = float(change.scale.mean()), float((change.scale > 1).mean())
            num_real = int(of.num_real[batches].sum())
            reports.append(
                BucketReport(
                    bucket=self.buckets[b] if self.buckets else None,
                    batch_size=batch_size,
                    num_samples=len(rows),
                    num_batches=int(batches.sum()),
                    num_filling=int(of.lengths[batches].sum()) - num_real,
                    num_dropped=len(rows) - num_real,
                    scale=scale,
                    crop_share=crop,
                    upscaled_share=upscaled,
                    padding_share=padding,
                )
            )
        return reports

    def _of(self, epoch: int) -> "_Epoch":
        if self._epoch is None or self._epoch.number != epoch:
            self._epoch = _Epoch.of(self, epoch, self._bucket_of)
        return self._epoch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Epoch:
    """The batches of one epoch, in their order."""

    number: int
    drawn: Longs
    """Rows of the epoch, each as often as it comes."""
    rows: Longs
    """Rows, bucket by bucket, with those that fill up."""
    starts: Longs
    """[batches], where each begins in `rows`."""
    lengths: Longs
    """[batches], of all ranks together."""
    num_real: Longs
    """[batches], rows that do not only fill up."""
    buckets: Longs
    """[batches]"""

    @classmethod
    def of(cls, plan: BatchPlan, epoch: int, bucket_of: Longs) -> "_Epoch":
        drawn = np.arange(len(plan.sizes)) if plan.mix is None else plan.mix.rows(epoch, seed=plan.seed)
        if plan.shuffle:
            drawn = drawn[shuffled(len(drawn), seed=plan.seed, stream=2 * epoch)]
        grouped = drawn[np.argsort(bucket_of[drawn], kind="stable")]
        counts = np.bincount(bucket_of[drawn], minlength=len(plan.batch_sizes))
        parts: list[Longs] = []
        columns: list[list[Longs]] = [[], [], [], []]
        begin = at = 0
        for bucket, (count, size) in enumerate(zip(counts.tolist(), plan.batch_sizes, strict=True)):
            rows = grouped[begin : begin + count]
            begin += count
            num_whole, rest = divmod(count, size)
            tail = 0 if plan.tail == "drop" or not rest else size
            if plan.tail == "short" and rest:
                tail = -(-rest // plan.world_size) * plan.world_size
            parts.append(np.resize(rows, num_whole * size + tail) if count else rows)
            num_batches = num_whole + bool(tail)
            columns[0].append(at + size * np.arange(num_batches))
            columns[1].append(np.full(num_batches, size))
            columns[2].append(np.full(num_batches, size))
            columns[3].append(np.full(num_batches, bucket))
            if tail:
                columns[1][-1][-1], columns[2][-1][-1] = tail, rest
            at += num_whole * size + tail
        starts, lengths, num_real, buckets = (np.concatenate(column) for column in columns)
        order = shuffled(len(starts), seed=plan.seed, stream=2 * epoch + 1) if plan.shuffle else np.arange(len(starts))
        return cls(
            number=epoch,
            drawn=drawn,
            rows=np.concatenate(parts),
            starts=starts[order],
            lengths=lengths[order],
            num_real=num_real[order],
            buckets=buckets[order],
        )
