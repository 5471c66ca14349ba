"""Decode once: the frames that all stages want of a clip, in one pass, each resized once for equal requests.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from civid_loader.deadlines import run_within
from civid_loader.decoding import FrameSet, read_frame_sets
from civid_loader.errors import StageError, VideoError, VideoNotFoundError
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.resizing import ResizeTo
from civid_loader.processing.stage import ClipInput, FrameRequest, Stage
from civid_loader.sampling import ClipTimes, Middle, Sampler
from civid_loader.video_shards import has_videos
from civid_loader.videos import ByteSource, open_video

NO_VIDEO: Final = "upstream names no video"
"""Reason of a clip without a pointer."""
_NEVER: Final = ResizeTo(size=(1, 1), resize="stretch", interpolation="linear")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodePlan:
    """What to decode of each clip."""

    stages: tuple[Stage[Any], ...]
    """In an order in which each has what it needs."""
    requests: tuple[FrameRequest, ...]
    """Of all stages, each once."""

    @classmethod
    def of(cls, stages: Sequence[Stage[Any]]) -> "DecodePlan":
        """The plan for some stages.

        Raises:
            StageError: one needs another that is not among them; they find columns of the same name; or one works on
                whole sequences.
        """
        for stage in stages:
            if stage.kind == "sequence" and not isinstance(stage, AskingStage):
                raise StageError(f"stage {stage.name} makes sequences of a film's clips; `civid curate` runs it")
        ordered = _ordered(stages)
        _check_columns(ordered)
        requests = dict.fromkeys(request for stage in ordered for request in stage.requests().values())
        return cls(stages=tuple(ordered), requests=tuple(requests))

    @property
    def reads_no_video(self) -> bool:
        """The stages read texts only."""
        return not self.requests and not any(stage.needs_video for stage in self.stages)


@dataclass(slots=True)
class _Noting:
    """A sampler that keeps what it was told of the clip."""

    sampler: Sampler
    clip: ClipTimes | None = None

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        self.clip = clip
        return self.sampler.times_seconds(clip)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DecodedClip:
    """A clip as decoded for all stages of a plan, or why it could not be."""

    row: Mapping[str, Any]
    """The clip of the schema, with what its sample says."""
    frames: Mapping[FrameRequest, tuple[Any, Any]]
    """Request -> (uint8 [T, H, W, C], times in seconds [T])."""
    fps: float
    duration_seconds: float
    video: ByteSource | None
    reason: str | None
    """Null where it was decoded."""
    num_frames_decoded: int = 0
    """Those in between too that other frames refer to."""
    num_frames_used: int = 0
    """That some stage looks at, each once."""

    def input(self, stage: Stage[Any], row: Mapping[str, Any], shared: dict[Any, Any]) -> ClipInput:
        """What one stage gets of it; `row`: with the columns of the stages before."""
        of_stage = {name: self.frames[request] for name, request in stage.requests().items()}
        return ClipInput(
            id=self.row["clip_id"],
            frames={name: frames for name, (frames, _) in of_stage.items()},
            times_seconds={name: times for name, (_, times) in of_stage.items()},
            fps=self.fps,
            duration_seconds=self.duration_seconds,
            video=self.video if stage.needs_video else None,
            span_seconds=span_of(self.row) or (0.0, None),
            row=row,
            shared=shared,
        )


def check_root(plan: DecodePlan, clips: Sequence[Mapping[str, Any]], *, videos: str | None) -> None:
    """Make sure, before a run begins, that its pointers have a root to start from; files may still be missing.

    Raises:
        VideoRootError: `videos` is None or no folder, and a pointer needs it.
    """
    pointer = next((clip["video"] for clip in clips if clip["video"] is not None), None)
    if pointer is None or plan.reads_no_video or (videos is not None and has_videos(videos)):
        return
    with suppress(VideoError):
        open_video(pointer, root=videos, dataset=videos)


def decode_clip(
    row: Mapping[str, Any], plan: DecodePlan, *, videos: str | None, timeout_seconds: float | None
) -> DecodedClip:
    """Decode all that the stages of a plan want of a clip; what is wrong with its video is its reason."""
    if plan.reads_no_video:
        return DecodedClip(row=row, frames={}, fps=0.0, duration_seconds=0.0, video=None, reason=None)
    at = [_Noting(request.sampler()) for request in plan.requests]
    sets = [FrameSet(at=one, fit=ResizeTo.of(request)) for one, request in zip(at, plan.requests, strict=True)]
    if not sets:  # stages that look at packets only, and still want to know how long the clip is
        at = [_Noting(Middle())]
        sets = [FrameSet(at=at[0], fit=_NEVER)]
    try:
        if row["video"] is None:
            raise VideoNotFoundError(NO_VIDEO)
        is_own = videos is not None and has_videos(videos)
        pointer = f"videos:{row['clip_id']}" if is_own else row["video"]

        def read() -> tuple[ByteSource, list[Any]]:
            source = open_video(pointer, root=videos, dataset=videos)
            return source, read_frame_sets(source, sets, span=span_of(row), timeout_seconds=timeout_seconds)

        source, found = run_within(timeout_seconds, read)
    except VideoError as error:
        # The layer may be published: where the videos lie on this machine is nobody's business.
        reason = f"{type(error).__name__}: {error}"
        if videos is not None:
            reason = reason.replace(f"{videos}{os.sep}", "").replace(videos, "the video root")
        return DecodedClip(row=row, frames={}, fps=0.0, duration_seconds=0.0, video=None, reason=reason)
    clip = at[0].clip
    assert clip is not None
    frames = {
        request: (one.frames_TCHW.permute(0, 2, 3, 1).contiguous().numpy(), one.pts_seconds.numpy())
        for request, one in zip(plan.requests, found, strict=False)
    }
    return DecodedClip(
        row=row,
        frames=frames,
        fps=clip.fps,
        duration_seconds=clip.duration_seconds,
        video=source,
        reason=None,
        num_frames_decoded=found[0].num_decoded,
        num_frames_used=len(np.unique(np.concatenate([one.pts_seconds for one in found]))),
    )


def span_of(row: Mapping[str, Any]) -> tuple[float, float | None] | None:
    """The part of its file that a clip is; None: all of it."""
    source = row["source"] or {}
    return None if row["trimmed"] else (source.get("start_seconds") or 0.0, source.get("end_seconds"))


def _ordered(stages: Sequence[Stage[Any]]) -> list[Stage[Any]]:
    names = {stage.name for stage in stages}
    for stage in stages:
        if missing := [name for name in stage.needs if name not in names]:
            raise StageError(f"stage {stage.name} needs {missing[0]}: name it too")
    done: list[Stage[Any]] = []
    waiting = list(stages)
    while waiting:
        ready = [stage for stage in waiting if all(any(one.name == name for one in done) for name in stage.needs)]
        if not ready:
            raise StageError(f"stages need each other in a circle: {', '.join(stage.name for stage in waiting)}")
        done += ready
        waiting = [stage for stage in waiting if stage not in ready]
    return done


def _check_columns(stages: Sequence[Stage[Any]]) -> None:
    owner: dict[str, str] = {"clip_id": "the layer", "reason": "the layer"}
    for stage in stages:
        for column in stage.columns:
            if column.name in owner:
                raise StageError(
                    f"stages {owner[column.name]} and {stage.name} both find {column.name!r}: run one of them into a "
                    "layer of its own"
                )
            owner[column.name] = stage.name
