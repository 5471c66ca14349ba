"""The training loader: planned batches, decoded in workers, and a place that is never lost.

A position is an epoch and a number of batches. What a batch holds depends on neither workers nor threads nor time, so
a run that was stopped anywhere goes on with the same batches, bit for bit.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, cast

import torch
from tqdm.auto import tqdm

from civid_loader.batch_reading import BatchNotes, BatchReader, Missing, OnError, Positions, Transform
from civid_loader.buckets import Bucket
from civid_loader.collation import B, Sample, collate
from civid_loader.epoch import Tail
from civid_loader.errors import LoaderStateError, StuckVideoError
from civid_loader.loader_checks import (
    Root,
    check_counts,
    check_frames,
    check_options,
    check_rows,
    check_sizes,
    check_timeout,
    roots_of,
)
from civid_loader.loader_stats import LoaderStats
from civid_loader.ordering import Mix
from civid_loader.plan import BatchPlan
from civid_loader.quarantine import Quarantine
from civid_loader.row_ids import ids_hash
from civid_loader.sample_sizes import SampleSizes
from civid_loader.sampling import Middle, RandomWindow, Sampler
from civid_loader.transforms.crop_frames import Place
from civid_loader.transforms.decode_clips import DecodeClips

STATE_VERSION: Final = 1
_EPOCHS_OF_A_MIX: Final = 8
"""Looked at for a batch: of a mix that fills few, an epoch may have none."""


class SequenceLoader(Generic[B]):
    """Batches of a dataset, decoded, in an order that depends on seed and epoch only; an iterable of one epoch.

    ```python
    loader = SequenceLoader(ds, videos="/data/civid", frames=Uniform(16), size=(256, 256), batch_size=8, num_workers=8)
    for epoch in range(3):
        for batch in loader:
            ...
            torch.save({"loader": loader.state_dict()}, "checkpoint.pt")
    ```
    """

    def __init__(
        self,
        dataset: Any,
        *,
        videos: Root | Mapping[str, Root] | None,
        frames: Sampler | RandomWindow,
        size: tuple[int, int] | None = None,
        crop: Place = "centre",
        captions: Sequence[str] | None = None,
        transforms: Sequence[Transform] = (),
        collate: Callable[[Sequence[Sample]], B] = cast(Any, collate),  # noqa: B008 - of the default kind of batch
        batch_size: int | None = None,
        buckets: Sequence[Bucket] | None = None,
        sizes: Any = None,
        max_frames: int | None = None,
        max_pixels: int | None = None,
        mix: Mix | None = None,
        tail: Tail = "pad",
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        num_workers: int = 0,
        decode_threads: int = 1,
        prefetch: int = 2,
        pin_memory: bool | None = None,
        multiprocessing_context: str | None = None,
        on_error: OnError = "raise",
        missing: Missing = "error",
        decode_timeout_seconds: float | None = 120.0,
        quarantine: str | os.PathLike[str] | None = None,
        max_consecutive_failures: int = 100,
        max_failures: int | None = None,
        progress: bool = False,
    ) -> None:
        """Plan; nothing is read yet.

        Args:
            dataset: rows of the schema, by number: a `datasets.Dataset`, or anything with `len` and `[i]`.
            videos: the video root, see `DecodeClips`; or, where rows are of several datasets, the root of each by its
                name in the column `dataset`: `{"civid": "/data/civid", "miradata": "/data/miradata"}`.
            frames: which frames of a clip; with buckets its `n` is that of the bucket.
            size: (height, width) in px; with buckets that of the bucket.
            crop: to that size: centre, or random: one place for all clips of a sample, drawn for each epoch.
            captions: kinds in order of preference, see `DecodeClips`.
            transforms: each `(sample, rng) -> sample`; the sample is that of `DecodeClips`, with the row as `row`.
            collate: makes a batch of samples; `PackClips` packs clips of different lengths instead of padding them.
            batch_size, buckets, max_frames, max_pixels, mix, tail, shuffle, seed: see `BatchPlan`.
            sizes: of each row, where there are buckets: of `read_sizes`; or [N, 3], (frames, height, width), of samples
                of one clip each.
            rank: of this process; None: that of `torch.distributed`, or 0.
            world_size: number of ranks; None: that of `torch.distributed`, or 1.
            num_workers: processes that decode; 0: this one.
            decode_threads: samples decoded at once in each.
            prefetch: batches that each worker has ready.
            pin_memory: None: if there is a GPU.
            multiprocessing_context: "fork" or "spawn"; None: torch's default.
            on_error: a sample that cannot be read: raise, skip (it stays, without frames, with weight 0), or take
                another of its bucket.
            missing: a clip without a file: error (see `on_error`), drop_clip (its place stays empty), or skip_sample.
            decode_timeout_seconds: for each clip; longer is an error. Where a call does not return even then, the
                workers are replaced, which ends it; without workers its thread stays behind.
            quarantine: JSON lines file for samples that could not be read; ranks other than 0 add their number to it.
            max_consecutive_failures: so many samples in a row that cannot be read stop the run.
            max_failures: more than so many altogether, too.
            progress: show a bar (tqdm), where stderr is a terminal.

        Raises:
            ValueError: settings that do not fit, see `BatchPlan` and `DecodeClips`.
        """
        check_options(on_error=on_error, missing=missing, crop=crop)
        check_counts(0, num_workers=num_workers)
        check_counts(
            1, decode_threads=decode_threads, prefetch=prefetch, max_consecutive_failures=max_consecutive_failures
        )
        check_timeout(decode_timeout_seconds)
        check_rows(dataset)
        check_frames(frames, is_bucketed=buckets is not None)
        check_sizes(sizes, num_rows=len(dataset), is_bucketed=buckets is not None)
        self.rank = _distributed("get_rank", 0) if rank is None else rank
        world_size = _distributed("get_world_size", 1) if world_size is None else world_size
        if not 0 <= self.rank < world_size:
            raise ValueError(f"rank={self.rank}: there are {world_size} ranks, from 0 on")
        self.plan = BatchPlan(
            [0] * len(dataset) if sizes is None else sizes,
            num_clips=sizes.num_clips if isinstance(sizes, SampleSizes) else None,
            buckets=buckets,
            batch_size=batch_size,
            max_frames=max_frames,
            max_pixels=max_pixels,
            mix=mix,
            seed=seed,
            world_size=world_size,
            tail=tail,
            shuffle=shuffle,
        )
        if not any(map(self.plan.num_batches, range(1 if mix is None else _EPOCHS_OF_A_MIX))):
            raise ValueError(
                f"no batch: {len(self.plan.sizes)} samples do not fill one of {self.plan.batch_sizes}, and tail='drop'"
            )
        decode = partial(DecodeClips, captions=captions, threads=1, timeout_seconds=decode_timeout_seconds)
        decode(videos=None, frames=Middle(), size=size)  # which checks the rest
        self._positions = Positions()
        reader = BatchReader(
            dataset=dataset,
            plan=self.plan,
            rank=self.rank,
            decode=decode,
            videos=roots_of(videos),
            frames=frames,
            size=size,
            crop=crop,
            transforms=tuple(transforms),
            collate=collate,
            on_error=on_error,
            missing=missing,
            decode_threads=decode_threads,
        )
        self._make_workers: Callable[[], Any] = partial(
            torch.utils.data.DataLoader,
            reader,
            batch_size=None,
            sampler=self._positions,
            num_workers=num_workers,
            prefetch_factor=prefetch if num_workers else None,
            persistent_workers=bool(num_workers),
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            # It seeds the workers, which draw nothing from it; the global one is the model's.
            generator=torch.Generator(),
        )
        self._workers = self._make_workers()
        path = None if quarantine is None else Path(quarantine)
        self._quarantine = Quarantine(
            path.with_name(f"{path.name}.{self.rank}") if path is not None and self.rank else path,
            max_consecutive=max_consecutive_failures,
            max_failures=max_failures,
        )
        self._data = ids_hash(dataset)
        self._progress = progress
        self._stats = LoaderStats()
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        """Batches of the current epoch, those that are done included."""
        return self.plan.num_batches(self._epoch)

    def __iter__(self) -> Iterator[B]:
        """What is left of the current epoch; then the next one is the current."""
        epoch, count, number = self._epoch, len(self), self._batch
        is_hidden = None if self._progress else True  # None: where stderr is no terminal
        if number >= count:  # an epoch of a mix may have no batch
            self._epoch, self._batch = epoch + 1, 0
        with tqdm(desc=f"epoch {epoch}", total=count, initial=number, unit="batch", disable=is_hidden) as bar:
            start = asked = time.perf_counter()
            while number < count:
                for batch, notes in self._batches(epoch, number, count):
                    now = time.perf_counter()
                    self._stats.add(notes, wait_seconds=now - asked, total_seconds=now - start)
                    self._quarantine.note(notes.attempts)
                    start, number = now, number + 1
                    # Before it is given: what the training loop has seen counts as done.
                    self._epoch, self._batch = (epoch, number) if number < count else (epoch + 1, 0)
                    bar.set_postfix_str(f"waiting {self._stats.wait_share:.0%}", refresh=False)
                    bar.update()
                    yield batch
                    asked = time.perf_counter()

    def _batches(self, epoch: int, start: int, stop: int) -> Iterator[tuple[B, BatchNotes]]:
        """Batches of an epoch, up to one in which a call got stuck: then the workers are new, and the rest is to do."""
        self._positions.set(epoch, start, stop)
        for batch, notes in self._workers:
            yield batch, notes
            if any(one.error == StuckVideoError.__name__ for attempt in notes.attempts for one in attempt.failures):
                self._workers = self._make_workers()
                return

    def stats(self) -> LoaderStats:
        """What was done since the loader was made."""
        return self._stats

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; nothing happens if it is the current one, so a place that was loaded stays.

        `for epoch in range(state["epoch"], 10): loader.set_epoch(epoch)` goes on in the middle of the first of them.
        """
        if epoch < 0:
            raise ValueError(f"epoch={epoch}: epochs are counted from 0")
        if epoch != self._epoch:
            self._epoch, self._batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The place: under 1 KB, plain values, the same for every rank."""
        return {"version": STATE_VERSION, "epoch": self._epoch, "batch": self._batch, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, with any number of workers, and of ranks if the global batch is the same.

        Raises:
            LoaderStateError: the state is of other data, another seed or plan, or another version; says of what.
        """
        if not isinstance(state, Mapping):
            raise LoaderStateError(f"a state is what state_dict() gives, not {type(state).__name__}")
        if state.get("version") != STATE_VERSION:
            raise LoaderStateError(f"a state of version {state.get('version')!r}; this package reads {STATE_VERSION}")
        own = self._identity()
        differing = [
            f"{name} was {state.get(name)!r}, is {own[name]!r}" for name in own if state.get(name) != own[name]
        ]
        if differing:
            raise LoaderStateError(
                "the state is of another run: " + "; ".join(differing) + ". Make the loader as it was, or start over"
            )
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if epoch < 0 or not 0 <= batch < max(1, self.plan.num_batches(epoch)):
            raise LoaderStateError(f"the state is at batch {batch} of epoch {epoch}, which there is not: it was edited")
        self._epoch, self._batch = epoch, batch

    def _identity(self) -> dict[str, Any]:
        return {"data": self._data, **self.plan.identity}


def _distributed(what: str, default: int) -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(getattr(torch.distributed, what)())
    return default
