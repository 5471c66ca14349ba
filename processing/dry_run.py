"""What a run would do and how long it may take, from a few clips that are really worked through."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from civid_loader.processing.answers import added
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.chunks import plan_chunks, read_clips
from civid_loader.processing.earlier_captions import EarlierCaptions
from civid_loader.processing.planner import DecodePlan, check_root, decode_clip
from civid_loader.processing.run_checks import check_device
from civid_loader.processing.stage_rows import is_error, unit_of
from civid_loader.processing.work import Job, Result, Setup, StageSpec, Worker

SAMPLE_CLIPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A plan and its price."""

    num_clips: int
    num_chunks: int
    stages: tuple[str, ...]
    """In their order."""
    missing: Mapping[str, str]
    """Stages whose weights are not here -> how to get them. They are in the plan, and not in the times."""
    num_requests: int
    """Sets of frames that all stages want together; each clip is decoded once for all of them."""
    models: tuple[str, ...]
    """To load, in each worker."""
    num_sampled: int
    num_failed: int
    """Of those sampled, clips with which something went wrong; averages are of the others."""
    reasons: tuple[str, ...]
    """What went wrong, each once."""
    frames_decoded_per_clip: float
    """For all stages together, those in between too that frames refer to."""
    frames_used_per_clip: float
    """That some stage looks at."""
    load_seconds: float
    """To load the models."""
    seconds_per_clip: float | None
    """Of one worker that decodes and computes in turn; null where no sampled clip is good, or no stage can run."""
    decode_share: float
    """Of that time, from 0 to 1."""
    tokens_per_clip: float | None
    """Read and written by the model that is asked; 0 where none is, None where it does not say."""

    def __str__(self) -> str:
        lines = [
            f"{self.num_clips:,} clips in {self.num_chunks:,} chunks; stages: {', '.join(self.stages)}",
            f"one decoding pass per clip for {self.num_requests} sets of frames",
            f"models: {', '.join(self.models) or 'none'} ({self.load_seconds:.1f} s to load)",
            *(f"stage {name} cannot run yet: {how}" for name, how in self.missing.items()),
        ]
        if self.num_failed:
            told = f"something went wrong with {self.num_failed} of {self.num_sampled} clips: "
            lines.append(told + "; ".join(self.reasons[:3]))
        decoded, used = self.frames_decoded_per_clip, self.frames_used_per_clip
        lines.append(
            f"frames: {decoded:,.1f} decoded per clip, {used:,.1f} of them looked at; in all about "
            f"{decoded * self.num_clips:,.0f} and {used * self.num_clips:,.0f}"
        )
        if self.seconds_per_clip is None:
            return "\n".join([*lines, "no time to expect: no stage can run yet, or no clip is good"])
        hours = self.num_clips * self.seconds_per_clip / 3600
        without = f", without {', '.join(self.missing)}" if self.missing else ""
        lines += [
            f"{self.num_sampled - self.num_failed} clips took {self.seconds_per_clip:.2f} s each "
            f"({self.decode_share:.0%} decoding)",
            f"about {hours:,.2f} hours for one worker with one decoding thread{without}",
        ]
        if self.tokens_per_clip:
            lines.append(f"{self.tokens_per_clip * self.num_clips:,.0f} tokens in all")
        return "\n".join(lines)


def estimate(
    dataset: str | os.PathLike[str],
    stages: Sequence[StageSpec],
    *,
    videos: str | os.PathLike[str] | None,
    device: str,
    timeout_seconds: float | None,
    captioner: CaptionerSpec | None = None,
    captions_from: str | None = None,
    limit: int | None = None,
    missing: Mapping[str, str] | None = None,
) -> Estimate:
    """Plan a run, and work through its first clips in this process; nothing is written.

    Args:
        dataset: folder of a built dataset.
        stages: see `StageSpec`.
        videos: root of its video files.
        device: cpu or cuda.
        timeout_seconds: for decoding one clip.
        captioner: whom stages ask that ask a model.
        captions_from: as of the run.
        limit: as of the run.
        missing: stages without weights -> how to get them; they, and those that need them, are planned only.

    Raises:
        StageError: stages that do not fit together; no GPU.
        AnnotationError: no built dataset.
        VideoRootError: there is no such root of videos, or pointers need one.
    """
    check_device(device)
    root = Path(dataset)
    plan = DecodePlan.of([spec.make() for spec in stages])
    chunks = plan_chunks(root, limit=limit, unit=unit_of(plan.stages))
    setup = Setup(
        stages=_runnable(stages, plan, missing or {}),
        videos=None if videos is None else os.fspath(videos),
        device=device,
        decode_threads=0,
        timeout_seconds=timeout_seconds,
        captioner=captioner,
    )
    clips = read_clips(root, chunks.listed[0])[:SAMPLE_CLIPS] if chunks.listed else []
    check_root(plan, clips, videos=setup.videos)
    if captions_from is not None:
        clips = EarlierCaptions.of(root, captions_from, into="").added(clips)
    load_seconds, seconds, result = _tried(setup, clips)
    num_frames, reasons = result.num_frames, [row["reason"] for row in result.rows]
    if missing:  # what is decoded for the others counts too
        decoded = [decode_clip(clip, plan, videos=setup.videos, timeout_seconds=timeout_seconds) for clip in clips]
        num_frames = sum(one.num_frames_decoded for one in decoded), sum(one.num_frames_used for one in decoded)
        reasons = [one.reason or reason for one, reason in zip(decoded, reasons, strict=True)]
    failed = [reason for reason in reasons if reason is not None and is_error(reason)]
    num_good = len(clips) - len(failed)
    each = max(1, num_good)
    tokens = added(result.usage.prompt_tokens, result.usage.completion_tokens)
    return Estimate(
        num_clips=chunks.num_clips,
        num_chunks=len(chunks.listed),
        stages=tuple(stage.name for stage in plan.stages),
        missing=dict(missing or {}),
        num_requests=len(plan.requests),
        models=tuple(sorted({weights.id for spec in stages for weights in spec.weights.values()})),
        num_sampled=len(clips),
        num_failed=len(failed),
        reasons=tuple(dict.fromkeys(failed)),
        frames_decoded_per_clip=num_frames[0] / each,
        frames_used_per_clip=num_frames[1] / each,
        load_seconds=load_seconds,
        seconds_per_clip=seconds / num_good if num_good and setup.stages else None,
        decode_share=result.decode_seconds / seconds if seconds else 0.0,
        tokens_per_clip=None if tokens is None else tokens / each,
    )


def _runnable(stages: Sequence[StageSpec], plan: DecodePlan, missing: Mapping[str, str]) -> tuple[StageSpec, ...]:
    """Those that have their weights, as have the stages that they need."""
    able: set[str] = set()
    for stage in plan.stages:  # each after what it needs
        if stage.name not in missing and able.issuperset(stage.needs):
            able.add(stage.name)
    return tuple(spec for spec in stages if spec.name in able)


def _tried(setup: Setup, clips: Sequence[Mapping[str, Any]]) -> tuple[float, float, Result]:
    """Seconds to load the models, seconds to go through clips, and what came out."""
    start = perf_counter()
    worker = Worker(setup)
    load_seconds = perf_counter() - start
    start = perf_counter()
    result = worker.run(Job(index=0, clips=clips, skipped={}))
    seconds = perf_counter() - start
    worker.close()
    return load_seconds, seconds, result
