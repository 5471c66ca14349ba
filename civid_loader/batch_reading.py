"""What a loader's worker does: one planned batch of rows in, decoded samples out, failures told and not hidden."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeAlias

import numpy as np
import torch
import xxhash

from civid_loader.buckets import Bucket
from civid_loader.collation import B, Sample, blank_like
from civid_loader.errors import VideoError, VideoNotFoundError
from civid_loader.pixels import CENTRE
from civid_loader.plan import BatchPlan
from civid_loader.quarantine import Failure
from civid_loader.sampling import OfN, RandomWindow, Sampler
from civid_loader.transforms.crop_frames import Place
from civid_loader.transforms.decode_clips import DecodeClips

Transform: TypeAlias = Callable[[Sample, np.random.Generator], Sample]
OnError = Literal["raise", "skip", "substitute"]
Missing = Literal["error", "drop_clip", "skip_sample"]
MAX_SUBSTITUTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchNotes:
    """What became of the samples of a batch."""

    results: tuple[Failure | None, ...]
    """Of each row tried, in order."""
    num_samples: int
    """Given to the training loop, without those that only fill up the batch."""
    decode_seconds: float
    """Of all threads together."""
    num_bytes_read: int
    worker: int
    """Number of the worker process; 0 where there is none."""


@dataclass(kw_only=True)
class BatchReader(torch.utils.data.Dataset[tuple[B, BatchNotes]], Generic[B]):
    """Batches by (epoch, number). Plain data, so it goes to any worker."""

    dataset: Any
    plan: BatchPlan
    rank: int
    decode: Callable[..., DecodeClips]
    """With `frames`, `size` and `crop_at`, which may differ from sample to sample."""
    frames: Sampler | RandomWindow
    size: tuple[int, int] | None
    crop: Place
    transforms: Sequence[Transform]
    collate: Callable[[Sequence[Sample]], B]
    on_error: OnError
    missing: Missing
    decode_threads: int
    _pools: dict[int, ThreadPoolExecutor] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pools": {}}

    def __getitem__(self, position: tuple[int, int]) -> tuple[B, BatchNotes]:
        """The batch at (epoch, number)."""
        epoch, number = position
        planned = self.plan.batch(epoch, number, rank=self.rank)
        rows = planned.rows.tolist()
        reads = self._in_threads(lambda row: self._read(row, epoch, planned.bucket), rows)
        like = self._like(planned.bucket, [one.sample for one in reads if one.sample is not None])
        samples = []
        for read, weight in zip(reads, planned.weights.tolist(), strict=True):
            sample = blank_like(like, sample_id=read.row_id) if read.sample is None else read.sample
            samples.append(sample | {"weight": 0.0 if read.sample is None else weight})
        info = torch.utils.data.get_worker_info()
        notes = BatchNotes(
            results=tuple(result for read in reads for result in read.results),
            num_samples=sum(sample["weight"] > 0 for sample in samples),
            decode_seconds=sum(read.seconds for read in reads),
            num_bytes_read=sum(read.sample["num_bytes_read"] for read in reads if read.sample is not None),
            worker=info.id if info is not None else 0,
        )
        return self.collate(samples), notes

    def _in_threads(self, work: "Callable[[int], _Read]", rows: Sequence[int]) -> "list[_Read]":
        if self.decode_threads == 1:
            return [work(row) for row in rows]
        pool = self._pools.setdefault(os.getpid(), ThreadPoolExecutor(self.decode_threads, "civid-samples"))
        return list(pool.map(work, rows))

    def _read(self, row: int, epoch: int, bucket: Bucket | None) -> "_Read":
        """A sample, or another in its place, or none."""
        start = time.perf_counter()
        results: list[Failure | None] = []
        data = self.dataset[row]
        sample_id = data["sample_id"]
        sample = None
        for attempt in range(MAX_SUBSTITUTES + 1):
            try:
                sample = self._sample(data, epoch, bucket)
                results.append(None)
                break
            except VideoError as error:
                if self.missing == "skip_sample" and isinstance(error, VideoNotFoundError):
                    results.append(_failure(data, error))
                    break
                if self.on_error == "raise":
                    raise
                results.append(_failure(data, error))
                if self.on_error == "skip":
                    break
            data = self.dataset[self.plan.substitute(row, attempt, epoch=epoch)]
        return _Read(sample=sample, row_id=sample_id, results=results, seconds=time.perf_counter() - start)

    def _sample(self, data: Mapping[str, Any], epoch: int, bucket: Bucket | None) -> Sample:
        rng = sample_rng(self.plan.seed, epoch, data["sample_id"])
        frames = self.frames
        if bucket is not None and isinstance(frames, OfN):
            frames = replace(frames, n=bucket.num_frames)
        sampler = frames.draw(rng) if isinstance(frames, RandomWindow) else frames
        down, across = rng.random(2).tolist() if self.crop == "random" else CENTRE
        decode = self.decode(frames=sampler, size=self._size(bucket), crop_at=(down, across))
        columns = decode({name: [data[name]] for name in ("sample_id", "clips", "media") if name in data})
        sample: Sample = {name: values[0] for name, values in columns.items()} | {"row": data}
        for transform in self.transforms:
            sample = transform(sample, rng)
        sample.pop("row", None)
        return sample

    def _size(self, bucket: Bucket | None) -> tuple[int, int] | None:
        return self.size if bucket is None else (bucket.height, bucket.width)

    def _like(self, bucket: Bucket | None, samples: Sequence[Sample]) -> Sample | None:
        """A sample such as this batch has; None where nobody knows."""
        if samples:
            return samples[0]
        size = self._size(bucket)
        return None if size is None else {"frames_NTCHW": torch.zeros((1, 1, 3, *size), dtype=torch.uint8)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What came of one row."""

    sample: Sample | None
    row_id: str
    results: list[Failure | None]
    seconds: float


def sample_rng(seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """Randomness of one sample in one epoch, whoever reads it and when."""
    key = xxhash.xxh3_128_intdigest(f"{seed}\0{epoch}\0{sample_id}".encode())
    return np.random.Generator(np.random.Philox(key=key))


def _failure(data: Mapping[str, Any], error: VideoError) -> Failure:
    return Failure(sample_id=data["sample_id"], error=type(error).__name__, message=str(error))
