"""What a run would do and how long it may take, from a few clips that are really worked through."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from civid_loader.processing.answers import added
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.chunks import plan_chunks, read_clips
from civid_loader.processing.earlier_captions import EarlierCaptions
from civid_loader.processing.planner import DecodePlan
from civid_loader.processing.work import Job, Setup, StageSpec, Worker

SAMPLE_CLIPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A plan and its price."""

    num_clips: int
    num_chunks: int
    stages: tuple[str, ...]
    """In their order."""
    num_requests: int
    """Sets of frames that all stages want together; each clip is decoded once for all of them."""
    models: tuple[str, ...]
    """To load, in each worker."""
    num_sampled: int
    num_failed: int
    """Of those sampled, clips without values."""
    load_seconds: float
    """To load the models."""
    seconds_per_clip: float
    """Of one worker that decodes and computes in turn."""
    decode_share: float
    """Of that time, from 0 to 1."""
    tokens_per_clip: float | None
    """Read and written by the model that is asked; 0 where none is, None where it does not say."""

    def __str__(self) -> str:
        hours = self.num_clips * self.seconds_per_clip / 3600
        return "\n".join(
            [
                f"{self.num_clips:,} clips in {self.num_chunks:,} chunks; stages: {', '.join(self.stages)}",
                f"one decoding pass per clip for {self.num_requests} sets of frames",
                f"models: {', '.join(self.models) or 'none'} ({self.load_seconds:.1f} s to load)",
                f"{self.num_sampled} clips took {self.seconds_per_clip:.2f} s each ({self.decode_share:.0%} decoding), "
                f"{self.num_failed} of them have no values",
                f"about {hours:,.2f} hours for one worker with one decoding thread",
                *([f"{self.tokens_per_clip * self.num_clips:,.0f} tokens in all"] if self.tokens_per_clip else []),
            ]
        )


def estimate(
    dataset: str | os.PathLike[str],
    stages: Sequence[StageSpec],
    *,
    videos: str | os.PathLike[str] | None,
    device: str,
    timeout_seconds: float | None,
    captioner: CaptionerSpec | None = None,
    captions_from: str | None = None,
) -> Estimate:
    """Plan a run, and work through its first clips in this process; nothing is written.

    Raises:
        StageError: stages that do not fit together.
        AnnotationError: no built dataset.
    """
    root = Path(dataset)
    plan = DecodePlan.of([spec.make() for spec in stages])
    chunks = plan_chunks(root)
    videos_root = None if videos is None else os.fspath(videos)
    setup = Setup(
        stages=tuple(stages),
        videos=videos_root,
        device=device,
        decode_threads=0,
        timeout_seconds=timeout_seconds,
        captioner=captioner,
    )
    start = perf_counter()
    worker = Worker(setup)
    load_seconds = perf_counter() - start
    clips = read_clips(root, chunks.listed[0])[:SAMPLE_CLIPS]
    if captions_from is not None:
        clips = EarlierCaptions.of(root, captions_from, into="").added(clips)
    start = perf_counter()
    result = worker.run(Job(index=0, clips=clips, skipped={}))
    seconds = perf_counter() - start
    worker.close()
    tokens = added(result.usage.prompt_tokens, result.usage.completion_tokens)
    return Estimate(
        num_clips=chunks.num_clips,
        num_chunks=len(chunks.listed),
        stages=tuple(stage.name for stage in plan.stages),
        num_requests=len(plan.requests),
        models=tuple(sorted({weights.id for spec in stages for weights in spec.weights.values()})),
        num_sampled=len(clips),
        num_failed=sum(row["reason"] is not None for row in result.rows),
        load_seconds=load_seconds,
        seconds_per_clip=seconds / len(clips),
        decode_share=result.decode_seconds / seconds,
        tokens_per_clip=None if tokens is None else tokens / len(clips),
    )
