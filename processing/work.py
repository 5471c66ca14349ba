"""One chunk of clips through all stages: what a worker does, wherever it runs.

Decoding runs in threads ahead of the stages; a few clips are in memory at a time. Clips go through the stages in
batches that depend on nothing but their order, so every engine finds the same.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any, Final

import pyarrow as pa
from datasets import Features, List, Value

from civid_loader.processing import registry
from civid_loader.processing.planner import DecodedClip, DecodePlan, decode_clip
from civid_loader.processing.stage import Column, CorpusStage, Row, Stage
from civid_loader.processing.weights import Weights

BATCH_CLIPS: Final = 8
"""Clips that a stage gets at a time."""


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
    device: str
    decode_threads: int
    timeout_seconds: float | None
    """For decoding one clip."""


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
    """In stages."""
    is_stuck: bool
    """A thread of this worker does not come back: replace it."""


class Worker:
    """The stages of a run, loaded once."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._plan = DecodePlan.of([spec.make() for spec in setup.stages])
        for stage in self._plan.stages:
            stage.setup(device=setup.device)

    def run(self, job: Job, note: Callable[[str, str], None] = lambda event, clip_id: None) -> Result:
        """Go through a chunk; `note` is told ("begin" | "end", clip id) around the decoding of each clip."""
        spent = {"decode": 0.0, "model": 0.0}

        def decode(clip: Mapping[str, Any]) -> DecodedClip:
            if why := job.skipped.get(clip["clip_id"]):
                return DecodedClip(row=clip, frames={}, fps=0.0, duration_seconds=0.0, video=None, reason=why)
            note("begin", clip["clip_id"])
            start = perf_counter()
            decoded = decode_clip(
                clip, self._plan, videos=self._setup.videos, timeout_seconds=self._setup.timeout_seconds
            )
            spent["decode"] += perf_counter() - start
            note("end", clip["clip_id"])
            return decoded

        rows: list[Row] = []
        is_stuck = False
        clips = _ahead(decode, job.clips, threads=self._setup.decode_threads)
        while batch := list(islice(clips, BATCH_CLIPS)):
            start = perf_counter()
            rows += self._through_stages(batch)
            spent["model"] += perf_counter() - start
            is_stuck |= any((clip.reason or "").startswith("StuckVideoError") for clip in batch)
        return Result(
            index=job.index,
            rows=rows,
            decode_seconds=spent["decode"],
            model_seconds=spent["model"],
            is_stuck=is_stuck,
        )

    def close(self) -> None:
        """Let go of the models."""
        for stage in self._plan.stages:
            stage.teardown()

    def _through_stages(self, batch: Sequence[DecodedClip]) -> list[Row]:
        known: list[Row] = [{**clip.row} for clip in batch]
        found: list[Row] = [{"clip_id": clip.row["clip_id"], "reason": clip.reason} for clip in batch]
        shared: list[dict[Any, Any]] = [{} for _ in batch]
        whole = [i for i, clip in enumerate(batch) if clip.reason is None]
        for stage in self._plan.stages:
            names = [column.name for column in parts_of(stage)]
            empty = dict.fromkeys(names)
            for row in found:
                row |= empty
            rows = stage.run([batch[i].input(stage, known[i], shared[i]) for i in whole])
            assert len(rows) == len(whole), f"{stage.name}: {len(rows)} rows for {len(whole)} clips"
            for i, row in zip(whole, rows, strict=True):
                reason = row.get("reason")
                found[i] |= {name: row.get(name) for name in names}
                known[i] |= {name: row.get(name) for name in names}
                if reason:
                    found[i]["reason"] = "; ".join(filter(None, (found[i]["reason"], f"{stage.name}: {reason}")))
        return found


def _ahead(
    decode: Callable[[Mapping[str, Any]], DecodedClip], clips: Sequence[Mapping[str, Any]], *, threads: int
) -> Iterator[DecodedClip]:
    """Decoded clips in order, a few ahead of who takes them."""
    if threads < 1:
        yield from map(decode, clips)
        return
    with ThreadPoolExecutor(threads, "civid-stages") as pool:
        waiting: deque[Future[DecodedClip]] = deque()
        for clip in clips:
            waiting.append(pool.submit(decode, clip))
            if len(waiting) > threads + BATCH_CLIPS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def parts_of(stage: Stage[Any]) -> Sequence[Column]:
    """What a stage gives clip by clip; one that compares clips gives its columns only at the end."""
    return stage.parts if isinstance(stage, CorpusStage) else stage.columns


def features_of(columns: Iterable[Column]) -> Features:
    """Of a layer of scores with these columns."""
    own = {column.name: _feature(column.dtype) for column in columns}
    return Features({"clip_id": Value("string"), **own, "reason": Value("string")})


def _feature(dtype: str) -> Any:
    return List(_feature(dtype[5:-1])) if dtype.startswith("list<") else Value(dtype)


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows as Arrow. Not a number is missing, as everywhere."""
    clean = [{name: None if value != value else value for name, value in row.items()} for row in rows]
    return pa.Table.from_pylist(clean, schema=schema)
