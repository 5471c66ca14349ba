"""One chunk of clips through all stages: what a worker does, wherever it runs.

Decoding runs in threads ahead of the stages; a few clips are in memory at a time. Clips go through the stages in
batches that depend on nothing but their order, so every engine finds the same. Where a stage asks a model, each clip,
or each sequence of clips, has a thread of its own, which decodes and asks; there are more threads than the model takes
requests, so that the next clip is decoded by the time one is answered.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeAlias, TypeVar

import torch

from civid_loader.errors import StageError
from civid_loader.processing import registry
from civid_loader.processing.answers import Answers, Usage
from civid_loader.processing.asking import AskingStage, Unit
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.planner import DecodedClip, DecodePlan, decode_clip
from civid_loader.processing.stage import Row, Stage
from civid_loader.processing.stage_rows import rows_of_batch, rows_of_unit, unit_of
from civid_loader.processing.weights import Weights

BATCH_CLIPS: Final = 8
"""Clips that a stage gets at a time."""
UNIT_KEYS: Final[dict[Unit, str]] = {"clip": "clip_id", "sample": "sample_id", "movie": "movie_id"}
"""Unit -> the column of a clip that says which one it is in."""
Decode: TypeAlias = Callable[[Mapping[str, Any]], DecodedClip]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSpec:
    """A stage as a worker makes it. Picklable."""

    name: str
    params: Mapping[str, Any]
    weights: Mapping[str, Weights]

    def make(self) -> Stage[Any]:
        """The stage, nothing loaded."""
        return registry.make(self.name, self.params, weights=self.weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is the same for all chunks of a run. Picklable."""

    stages: tuple[StageSpec, ...]
    videos: str | None
    """Video root."""
    pictures: str | None = None
    """Root of the pictures that the dataset points to."""
    device: str
    decode_threads: int
    timeout_seconds: float | None
    """For decoding one clip."""
    captioner: CaptionerSpec | None = None
    """Whom stages ask."""
    answers: Path | None = None
    """File in which its answers are kept; None: nowhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A chunk. Picklable."""

    index: int
    clips: Sequence[Mapping[str, Any]]
    """See `ClipInput.row`."""
    skipped: Mapping[str, str]
    """Clip id -> why it must not be tried: it has killed a worker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of a chunk."""

    index: int
    rows: Sequence[Row]
    """One per clip, in order: `clip_id`, all columns, `reason`."""
    decode_seconds: float
    """Of all threads together."""
    model_seconds: float
    """In stages, of all threads together."""
    usage: Usage
    """What was asked since the chunk before."""
    num_frames: tuple[int, int]
    """(decoded, used), see `DecodedClip`."""
    is_stuck: bool
    """A thread of this worker does not come back: replace it."""


@dataclass(kw_only=True)
class _Spent:
    """Seconds, counted by several threads."""

    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "model": 0.0})
    num_frames: tuple[int, int] = (0, 0)
    is_stuck: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        start = perf_counter()
        yield
        with self._lock:
            self.seconds[what] += perf_counter() - start

    def count(self, clip: DecodedClip) -> None:
        with self._lock:
            decoded, used = self.num_frames
            self.num_frames = decoded + clip.num_frames_decoded, used + clip.num_frames_used
            self.is_stuck |= (clip.reason or "").startswith("StuckVideoError")


class Worker:
    """The stages of a run, loaded once."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._plan = DecodePlan.of([spec.make() for spec in setup.stages])
        for stage in self._plan.stages:
            stage.setup(device=setup.device)
        self._unit = unit_of(self._plan.stages)
        self._num_torch_threads = torch.get_num_threads()
        if self._unit is not None:
            self._connect()

    def _connect(self) -> None:
        setup = self._setup
        if setup.captioner is None:
            raise StageError("a stage asks a model: name a backend and its model")
        captioner = setup.captioner.make(device=setup.device)
        captioner.load()
        self._answers = Answers(captioner=captioner, path=setup.answers)
        for stage in self._plan.stages:
            if isinstance(stage, AskingStage):
                stage.connect(self._answers, pictures=setup.pictures)
        if setup.captioner.is_server and all(isinstance(stage, AskingStage) for stage in self._plan.stages):
            # Torch only copies frames here; helpers of its own for each thread that decodes take 19 ms of CPU per small
            # clip in place of 14.
            torch.set_num_threads(1)
        num_asking = captioner.max_in_flight
        self._decode_slots = threading.Semaphore(max(1, setup.decode_threads))
        self._model_lock = threading.Lock()
        self._num_threads = num_asking + max(num_asking // 4, 2 * setup.decode_threads)
        self._pool = ThreadPoolExecutor(self._num_threads, "civid-asking")

    def stream(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """Go through chunks, in the order in which they are done.

        Where a model is asked, so many are begun that every thread has a unit, and two at least, so that one goes on
        while the last answers of another are awaited: a chunk may be a single movie, asked about shot by shot.
        """
        if self._unit is None:
            yield from map(self.run, jobs)
            return
        with ThreadPoolExecutor(self._num_threads, "civid-chunks") as pool:
            under_way: dict[Future[Result], int] = {}
            try:
                for job in jobs:
                    under_way[pool.submit(self.run, job)] = len(self._units_of(job))
                    while len(under_way) > 2 and sum(under_way.values()) >= self._num_threads:
                        yield from _done_of(under_way)
                while under_way:
                    yield from _done_of(under_way)
            except BaseException:
                self.close()  # else other chunks are waited for, and a server that is gone keeps them long
                raise

    def run(self, job: Job, note: Callable[[str, str], None] = lambda event, clip_id: None) -> Result:
        """Go through a chunk; `note` is told ("begin" | "end", clip id) around the decoding of each clip."""
        spent = _Spent()

        def decode(clip: Mapping[str, Any]) -> DecodedClip:
            if why := job.skipped.get(clip["clip_id"]):
                return DecodedClip(row=clip, frames={}, fps=0.0, duration_seconds=0.0, video=None, reason=why)
            note("begin", clip["clip_id"])
            with spent.on("decode"):
                decoded = decode_clip(
                    clip, self._plan, videos=self._setup.videos, timeout_seconds=self._setup.timeout_seconds
                )
            note("end", clip["clip_id"])
            spent.count(decoded)
            return decoded

        rows = self._in_batches(job, decode, spent) if self._unit is None else self._in_units(job, decode, spent)
        return Result(
            index=job.index,
            rows=rows,
            decode_seconds=spent.seconds["decode"],
            model_seconds=spent.seconds["model"],
            usage=Usage() if self._unit is None else self._answers.take_usage(),
            num_frames=spent.num_frames,
            is_stuck=spent.is_stuck,
        )

    def close(self) -> None:
        """Let go of the models; what is still asked is given up."""
        if self._unit is not None:
            self._answers.captioner.close()  # first: threads wait for its answers, and keep those that came
            self._pool.shutdown(cancel_futures=True)
            self._answers.close()
            torch.set_num_threads(self._num_torch_threads)
        for stage in self._plan.stages:
            stage.teardown()

    def _in_batches(self, job: Job, decode: Decode, spent: _Spent) -> list[Row]:
        rows: list[Row] = []
        with _decoding(decode, job.clips, threads=self._setup.decode_threads) as clips:
            while batch := list(islice(clips, BATCH_CLIPS)):
                with spent.on("model"):
                    rows += rows_of_batch(self._plan.stages, batch)
        return rows

    def _in_units(self, job: Job, decode: Decode, spent: _Spent) -> list[Row]:
        def decoded(clips: Sequence[Mapping[str, Any]]) -> Iterator[DecodedClip]:
            for clip in clips:
                with self._decode_slots:
                    found = decode(clip)
                with spent.on("model"):  # until the next clip is asked for
                    yield found

        def rows_of(clips: Sequence[Mapping[str, Any]]) -> list[Row]:
            return list(rows_of_unit(self._plan.stages, decoded(clips), lock=self._model_lock))

        return [row for rows in self._pool.map(rows_of, self._units_of(job)) for row in rows]

    def _units_of(self, job: Job) -> list[list[Mapping[str, Any]]]:
        """Its clips, those together that are gone through in order."""
        assert self._unit is not None
        key = UNIT_KEYS[self._unit]
        return [list(clips) for _, clips in groupby(job.clips, key=lambda clip: clip[key])]


def _done_of(under_way: dict[Future[Result], int]) -> Iterator[Result]:
    """Results of those that are done, at least one, which are taken out."""
    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
        del under_way[future]
        yield future.result()


@contextmanager
def _decoding(decode: Decode, clips: Iterable[Mapping[str, Any]], *, threads: int) -> Iterator[Iterator[DecodedClip]]:
    """Decoded clips in order, a few ahead of who takes them."""
    if threads < 1:
        yield map(decode, clips)
        return
    with ThreadPoolExecutor(threads, "civid-stages") as pool:
        yield _ahead(pool, decode, clips, num_ahead=threads + BATCH_CLIPS)


def _ahead(pool: ThreadPoolExecutor, call: Callable[[T], R], items: Iterable[T], *, num_ahead: int) -> Iterator[R]:
    """What comes of items, in order, so many of them begun ahead of who takes it."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(call, item))
        if len(waiting) > num_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
