"""What a loader's worker does: one planned batch of rows in, decoded samples out, failures told and not hidden."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from civid_loader.quarantine import Attempt, Failure
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

    attempts: tuple[Attempt, ...]
    """Of each row tried, in order."""
    num_samples: int
    """Given to the training loop, without those that only fill up the batch."""
    decode_seconds: float
    """Of all threads together."""
    num_bytes_read: int
    worker: int
    """Number of the worker process; 0 where there is none."""
    padding_share: float | None
    """Of the batch, where it tells."""


@dataclass(kw_only=True)
class BatchReader(torch.utils.data.Dataset[tuple[B, BatchNotes]], Generic[B]):
    """Batches by (epoch, number). Plain data, so it goes to any worker."""

    dataset: Any
    plan: BatchPlan
    rank: int
    decode: Callable[..., DecodeClips]
    """With `videos`, `frames`, `size` and `crop_at`, which may differ from sample to sample."""
    videos: str | Mapping[str, str] | None
    """The video root; or that of each dataset, by the column `dataset` of a row."""
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
        draws = [
            _Draw(row=row, times_before=before, epoch=epoch, bucket=planned.bucket)
            for row, before in zip(planned.rows.tolist(), planned.draws.tolist(), strict=True)
        ]
        reads = self._in_threads(self._read, draws)
        like = next((one.sample for one in reads if one.sample is not None), None)
        if like is None and self._size(planned.bucket) is not None:
            like = self._blank(self.dataset[draws[0].row], draws[0])
        samples = []
        for read, weight in zip(reads, planned.weights.tolist(), strict=True):
            sample = blank_like(like, sample_id=read.row_id) if read.sample is None else read.sample
            samples.append(sample | {"weight": 0.0 if read.sample is None else weight})
        batch = self.collate(samples)
        info = torch.utils.data.get_worker_info()
        notes = BatchNotes(
            attempts=tuple(attempt for read in reads for attempt in read.attempts),
            num_samples=sum(sample["weight"] > 0 for sample in samples),
            decode_seconds=sum(read.seconds for read in reads),
            num_bytes_read=sum(read.sample["num_bytes_read"] for read in reads if read.sample is not None),
            worker=info.id if info is not None else 0,
            padding_share=getattr(batch, "padding_share", None),
        )
        return batch, notes

    def _in_threads(self, work: "Callable[[_Draw], _Read]", draws: "Sequence[_Draw]") -> "list[_Read]":
        if self.decode_threads == 1:
            return [work(draw) for draw in draws]
        pool = self._pools.setdefault(os.getpid(), ThreadPoolExecutor(self.decode_threads, "civid-samples"))
        return list(pool.map(work, draws))

    def _read(self, draw: "_Draw") -> "_Read":
        """A sample, or another in its place, or none."""
        start = time.perf_counter()
        data = self.dataset[draw.row]
        sample_id = data["sample_id"]
        sample = None
        attempts: list[Attempt] = []
        for number in range(MAX_SUBSTITUTES + 1):
            sample, attempt = self._try(data, draw)
            attempts.append(attempt)
            if attempt.is_read or self._leaves_out(attempt):
                break
            data = self.dataset[self.plan.substitute(draw.row, number, epoch=draw.epoch)]
        return _Read(sample=sample, row_id=sample_id, attempts=attempts, seconds=time.perf_counter() - start)

    def _leaves_out(self, attempt: Attempt) -> bool:
        """Whether a sample that cannot be read is left out, and no other takes its place."""
        is_missing = all(one.error == VideoNotFoundError.__name__ for one in attempt.failures)
        return self.on_error == "skip" or (self.missing != "error" and is_missing)

    def _try(self, data: Mapping[str, Any], draw: "_Draw") -> tuple[Sample | None, Attempt]:
        """A row's sample, or None; and which of its clips could not be read."""
        rng = sample_rng(self.plan.seed, draw.epoch, data["sample_id"], times_before=draw.times_before)
        decode = self._decode(data, draw.bucket, rng)
        found = decode.read_each(data)
        pairs = zip(data["clips"], found, strict=True)
        errors = [(clip, one) for clip, one in pairs if isinstance(one, VideoError)]
        failures = tuple(_failure(data, clip, error) for clip, error in errors)
        is_missing = all(isinstance(error, VideoNotFoundError) for _, error in errors)
        shown = [None if isinstance(one, VideoError) else one for one in found]
        is_read = not errors or (self.missing == "drop_clip" and is_missing and any(one is not None for one in shown))
        if not is_read:
            if self.on_error == "raise" and not (self.missing != "error" and is_missing):
                blamed = next(
                    one for _, one in errors if self.missing == "error" or not isinstance(one, VideoNotFoundError)
                )
                is_gone = isinstance(blamed, VideoNotFoundError)
                cure = "missing='drop_clip' or 'skip_sample'" if is_gone else "on_error='skip' or 'substitute'"
                raise blamed.with_cure(f"{cure} goes on without it")
            return None, Attempt(failures=failures, is_read=False)
        sample: Sample = self._transformed(decode.stack(data, shown) | {"row": data}, rng)
        return sample, Attempt(failures=failures, is_read=True)

    def _decode(self, data: Mapping[str, Any], bucket: Bucket | None, rng: np.random.Generator) -> DecodeClips:
        frames = self.frames
        if bucket is not None and isinstance(frames, OfN):
            frames = replace(frames, n=bucket.num_frames)
        sampler = frames.draw(rng) if isinstance(frames, RandomWindow) else frames
        down, across = rng.random(2).tolist() if self.crop == "random" else CENTRE
        return self.decode(videos=self._root_of(data), frames=sampler, size=self._size(bucket), crop_at=(down, across))

    def _root_of(self, data: Mapping[str, Any]) -> str | None:
        if self.videos is None or isinstance(self.videos, str):
            return self.videos
        try:
            return self.videos[data["dataset"]]
        except KeyError:
            raise ValueError(
                f"sample {data['sample_id']} is of dataset {data['dataset']!r}, and videos= has roots of "
                f"{', '.join(self.videos)} only"
            ) from None

    def _transformed(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for transform in self.transforms:
            sample = transform(sample, rng)
        sample.pop("row", None)
        return sample

    def _blank(self, data: Mapping[str, Any], draw: "_Draw") -> Sample:
        """What a sample of a batch looks like of which none can be read: a row's, without a frame, transformed."""
        rng = sample_rng(self.plan.seed, draw.epoch, data["sample_id"], times_before=draw.times_before)
        decode = self._decode(data, draw.bucket, rng)
        return self._transformed(decode.stack(data, [None] * len(data["clips"])) | {"row": data}, rng)

    def _size(self, bucket: Bucket | None) -> tuple[int, int] | None:
        return self.size if bucket is None else (bucket.height, bucket.width)


class Positions:
    """The batches to read next; a sampler for `DataLoader`, which asks it again for every epoch."""

    def __init__(self) -> None:
        self._epoch, self._start, self._stop = 0, 0, 0

    def set(self, epoch: int, start: int, stop: int) -> None:
        """Batches `start` to `stop` of an epoch."""
        self._epoch, self._start, self._stop = epoch, start, stop

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self._epoch, number) for number in range(self._start, self._stop))

    def __len__(self) -> int:
        return self._stop - self._start


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draw:
    """A row to read."""

    row: int
    times_before: int
    """That the epoch had it already."""
    epoch: int
    bucket: Bucket | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What came of one row."""

    sample: Sample | None
    row_id: str
    attempts: list[Attempt]
    seconds: float


def sample_rng(seed: int, epoch: int, sample_id: str, *, times_before: int = 0) -> np.random.Generator:
    """Randomness of one sample in one epoch, whoever reads it and when; another each time that the epoch has it."""
    again = f"\0{times_before}" if times_before else ""
    key = xxhash.xxh3_128_intdigest(f"{seed}\0{epoch}\0{sample_id}{again}".encode())
    return np.random.Generator(np.random.Philox(key=key))


def _failure(data: Mapping[str, Any], clip: Mapping[str, Any], error: VideoError) -> Failure:
    return Failure(
        sample_id=data["sample_id"],
        clip_id=clip["clip_id"],
        video=clip["video"],
        error=type(error).__name__,
        message=str(error),
    )
