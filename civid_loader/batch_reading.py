"""What a loader's worker does: one planned batch of rows in, decoded samples out, failures told and not hidden."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import xxhash

from civid_loader.buckets import Bucket
from civid_loader.collation import Batch, collate
from civid_loader.errors import VideoError, VideoNotFoundError
from civid_loader.plan import BatchPlan
from civid_loader.quarantine import Failure
from civid_loader.sampling import RandomWindow, Sampler
from civid_loader.transforms.decode_clips import DecodeClips

Sample: TypeAlias = dict[str, Any]
Transform: TypeAlias = Callable[[Sample, np.random.Generator], Sample]
OnError = Literal["raise", "skip", "substitute"]
Missing = Literal["error", "drop_clip", "skip_sample"]
MAX_SUBSTITUTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchNotes:
    """What became of the samples of a batch."""

    results: tuple[Failure | None, ...]
    """Of each row tried, in order."""
    decode_seconds: float
    """Of all threads together."""
    num_bytes_read: int
    worker: int
    """Number of the worker process; 0 where there is none."""


@dataclass(kw_only=True)
class BatchReader(torch.utils.data.Dataset[tuple[Batch, BatchNotes]]):
    """Batches by (epoch, number). Plain data, so it goes to any worker."""

    dataset: Any
    plan: BatchPlan
    rank: int
    decode: DecodeClips
    frames: Sampler | RandomWindow
    transforms: Sequence[Transform]
    on_error: OnError
    missing: Missing
    decode_threads: int
    _pools: dict[int, ThreadPoolExecutor] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pools": {}}

    def __getitem__(self, position: tuple[int, int]) -> tuple[Batch, BatchNotes]:
        """The batch at (epoch, number)."""
        epoch, number = position
        planned = self.plan.batch(epoch, number, rank=self.rank)
        rows = planned.rows.tolist()
        reads = self._in_threads(lambda row: self._read(row, epoch, planned.bucket), rows)
        like = self._like(planned.bucket, [one.sample for one in reads if one.sample is not None])
        samples = []
        for read, weight in zip(reads, planned.weights.tolist(), strict=True):
            sample = _blank(read.row_id, like) if read.sample is None else read.sample
            samples.append(sample | {"weight": 0.0 if read.sample is None else weight})
        info = torch.utils.data.get_worker_info()
        notes = BatchNotes(
            results=tuple(result for read in reads for result in read.results),
            decode_seconds=sum(read.seconds for read in reads),
            num_bytes_read=sum(read.sample["num_bytes_read"] for read in reads if read.sample is not None),
            worker=info.id if info is not None else 0,
        )
        for sample in samples:
            sample.pop("num_bytes_read", None)
        return collate(samples), notes

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
        if bucket is not None:
            frames = replace(frames, n=bucket.num_frames)  # type: ignore[type-var]
        sampler = frames.draw(rng) if isinstance(frames, RandomWindow) else frames
        size = (bucket.height, bucket.width) if bucket is not None else self.decode.size
        decode = replace(self.decode, frames=sampler, size=size)
        columns = decode({"sample_id": [data["sample_id"]], "clips": [data["clips"]]})
        sample: Sample = {name: values[0] for name, values in columns.items()} | {"row": data}
        for transform in self.transforms:
            sample = transform(sample, rng)
        sample.pop("row", None)
        return sample

    def _like(self, bucket: Bucket | None, samples: Sequence[Sample]) -> torch.Tensor | None:
        """Frames [N, T, C, H, W] such as this batch has; None where nobody knows."""
        if samples:
            frames: torch.Tensor = samples[0]["frames_NTCHW"]
            return frames
        size = (bucket.height, bucket.width) if bucket is not None else self.decode.size
        return None if size is None else torch.zeros((1, 1, 3, *size), dtype=torch.uint8)


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


def _blank(sample_id: str, like: torch.Tensor | None) -> Sample:
    """A sample without a frame, that keeps the place of one that could not be read."""
    if like is None:
        raise ValueError(
            f"sample {sample_id} and all others of its batch cannot be read, so nobody knows their size; pass size="
        )
    return {
        "sample_id": sample_id,
        "clip_ids": [None],
        "frames_NTCHW": like.new_zeros((1, 1, *like.shape[2:])),
        "mask_NT": torch.zeros((1, 1), dtype=torch.bool),
        "pts_seconds_NT": torch.zeros((1, 1), dtype=torch.float64),
        "texts": [None],
        "num_bytes_read": 0,
    }
