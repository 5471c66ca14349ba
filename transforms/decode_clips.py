"""Rows with pointers in, samples with decoded frames out: the transform between a dataset and the training loop.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N806 - tensors carry their shape.

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import torch

from civid_loader.captions import check_kinds, text_of
from civid_loader.deadlines import run_within
from civid_loader.decoding import DEFAULT_TIMEOUT_SECONDS, Frames, read_frames
from civid_loader.errors import (
    CorruptVideoError,
    UnreadableVideoError,
    VideoError,
    VideoNotFoundError,
    VideoTimeoutError,
)
from civid_loader.pixels import CENTRE
from civid_loader.sampling import Sampler
from civid_loader.schema import SINGLE_CAPTION_KINDS
from civid_loader.transforms.resize_frames import checked_size
from civid_loader.video_shards import has_videos
from civid_loader.videos import ByteSource, open_range, open_video

DEFAULT_CAPTIONS: Final = ("dense", "content", "refined", "plot", "raw", "short")
"""The caption a clip is trained on where the user names none: the first of these that it has. The fullest description
each dataset gives comes first: MiraData dense, CI-VID content, LVD-2M refined, MovieBench plot."""

Missing = Literal["error", "mask"]
Repeats = Literal["keep", "mask"]

Row: TypeAlias = Mapping[str, Any]
_SHARD: Final = re.compile(r"videos/[^/\\]+\.parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeClips:
    """Decode the clips of each sample; for `Dataset.with_transform`. Holds settings only, so it pickles.

    Per sample it returns `sample_id`; `clip_ids`, list of N; `frames_NTCHW`, uint8; `mask_NT`, bool, False where there
    is no frame: the clip is missing, has fewer times than another clip of the sample, or is damaged there;
    `pts_seconds_NT`, float64, seconds from the clip's start, 0 where the mask is False; `texts`, list of N, None where
    the clip has no such caption; `num_bytes_read` of the files. Frames are 0 where the mask is False. Of the row it
    needs `sample_id` and `clips`; where it also has `media`, the joined layer, its packet indexes and places in shards
    spare the reading of headers and footers.

    Raises, when a row is read:
        VideoError: the class that `open_video` or `read_frames` raised, with the sample and the clip in front.
        ValueError: clips of one sample differ in size and `size` is None; columns are missing; see also `open_video`.
    """

    videos: str | None
    """The video root: the folder relative pointers start from; or the folder or URL (`hf://datasets/org/name`) of a
    dataset with a `videos` config, where each clip is found by its id, whatever its pointer says. None when there are
    only absolute pointers and URLs."""
    frames: Sampler
    """Times of each clip to decode."""
    size: tuple[int, int] | None = None
    """(height, width) in px, see `read_frames`; None = as stored, if all clips of a sample agree."""
    crop_at: tuple[float, float] = CENTRE
    """Where the crop to `size` lies, see `read_frames`; the same for all clips."""
    captions: Sequence[str] | None = None
    """Kinds in order of preference, of `schema.SINGLE_CAPTION_KINDS` (no transitions); None = `DEFAULT_CAPTIONS`."""
    missing: Missing = "error"
    """A clip without a file: raise, or keep its place with mask False."""
    damaged: Missing = "error"
    """A clip that cannot be read, in whole or in part: raise, or mask the frames that are damaged or not there."""
    repeats: Repeats = "keep"
    """Of a clip with fewer frames than asked for, some come more than once: keep them, or mask all but the first."""
    threads: int | None = None
    """Of the decoder, see `read_frames`; None: one in a worker process, else as many as there are cores."""
    timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS
    """For each clip. A call that does not return even then is left behind in its thread, and is an error too."""

    def __post_init__(self) -> None:
        for name, options in (("missing", Missing), ("damaged", Missing), ("repeats", Repeats)):
            if getattr(self, name) not in get_args(options):
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(get_args(options))}")
        if self.size is not None:
            checked_size("DecodeClips", self.size)
        if self.captions is not None:
            check_kinds(self.captions, name="captions", of="a clip", allowed=SINGLE_CAPTION_KINDS)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Columns of rows in, columns of samples out, in the same order."""
        if absent := {"sample_id", "clips"} - batch.keys():
            raise ValueError(f"the columns {sorted(absent)} are needed to decode clips; there are {sorted(batch)}")
        media = batch.get("media") or [None] * len(batch["clips"])
        samples = [self._sample(*row) for row in zip(batch["sample_id"], batch["clips"], media, strict=True)]
        return {column: [sample[column] for sample in samples] for column in samples[0]} if samples else {}

    def read_each(self, row: Row) -> list[Frames | VideoError]:
        """Of each clip of a row its frames, or why there are none; what is whole of a damaged one is `error.frames`."""
        facts = row.get("media") or [None] * len(row["clips"])
        return [self._frames_of(row["sample_id"], *pair) for pair in zip(row["clips"], facts, strict=True)]

    def stack(self, row: Row, decoded: Sequence[Frames | None]) -> dict[str, Any]:
        """The sample of a row, of the frames of each of its clips; None keeps a clip's place empty."""
        clips = row["clips"]
        return {
            "sample_id": row["sample_id"],
            "clip_ids": [clip["clip_id"] for clip in clips],
            **self._stack(row["sample_id"], decoded),
            "num_bytes_read": sum(frames.num_bytes_read for frames in decoded if frames is not None),
            "texts": [text_of(clip["captions"] or [], self.captions or DEFAULT_CAPTIONS) for clip in clips],
        }

    def _sample(self, sample_id: str, clips: Sequence[Row], media: Sequence[Row | None] | None) -> dict[str, Any]:
        row = {"sample_id": sample_id, "clips": clips, "media": media}
        return self.stack(row, [self._allowed(one) for one in self.read_each(row)])

    def _allowed(self, found: Frames | VideoError) -> Frames | None:
        """What to show of a clip; None: nothing, and that is allowed."""
        if isinstance(found, VideoNotFoundError):
            if self.missing == "error":
                raise found.with_cure("missing='mask' keeps its place empty")
            return None
        if isinstance(found, UnreadableVideoError | VideoTimeoutError):
            if self.damaged == "error":
                raise found.with_cure("damaged='mask' keeps its place empty")
            return found.frames
        if isinstance(found, VideoError):
            raise found
        return found

    def _frames_of(self, sample_id: str, clip: Row, media: Row | None) -> Frames | VideoError:
        try:
            frames = run_within(self.timeout_seconds, lambda: self._read(clip, media or {}))
            if self.damaged == "error" and bool(frames.is_corrupt.any()):
                raise CorruptVideoError(f"{clip['video']}: {int(frames.is_corrupt.sum())} of its frames are damaged")
        except VideoError as error:
            wider = error.within(f"sample {sample_id}, clip {clip['clip_id']}")
            wider.__cause__ = error
            return wider
        return frames

    def _read(self, clip: Row, media: Row) -> Frames:
        own = self._own(clip, media)
        source = clip["source"] or {}
        span = (source.get("start_seconds") or 0.0, source.get("end_seconds"))
        if own is None and clip["video"] is None:
            raise VideoNotFoundError("upstream names no video")
        is_cut = clip["trimmed"] or (own is not None and not _is_own(clip["video"]))
        return read_frames(
            own or open_video(clip["video"], root=self.videos, dataset=self.videos),
            self.frames,
            span=None if is_cut else span,
            size=self.size,
            crop_at=self.crop_at,
            index=media.get("packet_index"),
            threads=self.threads,
            timeout_seconds=self.timeout_seconds,
        )

    def _own(self, clip: Row, media: Row) -> ByteSource | None:
        """The clip in the `videos` config of the video root; None where the pointer says where it is."""
        if self.videos is None or not has_videos(self.videos):
            return None
        shard, offset, num_bytes = (media.get(name) for name in ("shard", "byte_offset", "num_bytes"))
        # A layer is not trusted: it must not name other files.
        if shard is not None and offset is not None and num_bytes and _SHARD.fullmatch(shard):
            return open_range(f"{self.videos.rstrip('/')}/{shard}", offset=offset, num_bytes=num_bytes)
        pointer = clip["video"]
        try:
            named = pointer if _is_own(pointer) else f"videos:{clip['clip_id']}"
            return open_video(named, root=self.videos, dataset=self.videos)
        except VideoNotFoundError:
            # Of a copy that could not be made the row may still name the original.
            is_elsewhere = pointer is not None and ("://" in pointer or os.path.isabs(pointer))
            if is_elsewhere or (pointer is not None and "://" not in self.videos and not _is_own(pointer)):
                return None
            raise

    def _stack(self, sample_id: str, clips: Sequence[Frames | None]) -> dict[str, torch.Tensor]:
        """One tensor of all clips; places without a frame stay 0."""
        shapes = {tuple(clip.frames_TCHW.shape[1:]) for clip in clips if clip is not None}
        shapes = {(3, *self.size)} if self.size else shapes
        if len(shapes) != 1:
            found = ", ".join(f"{height}x{width}" for _, height, width in sorted(shapes)) or "none, all are missing"
            raise ValueError(f"sample {sample_id}: its clips have no one size (height x width: {found}); pass size=")
        if len(clips) == 1 and clips[0] is not None and len(self._places(clips[0])) == len(clips[0].pts_seconds):
            # Nearly all samples of three of the datasets: nothing to pad, so nothing to copy.
            only = clips[0]
            mask_NT = torch.ones((1, len(only.pts_seconds)), dtype=torch.bool)
            return {
                "frames_NTCHW": only.frames_TCHW[None],
                "mask_NT": mask_NT,
                "pts_seconds_NT": only.pts_seconds[None],
            }
        # A sample without a frame is as long as the others of its batch, where that is known.
        usual = getattr(self.frames, "n", 1)
        num_frames = max((len(clip.pts_seconds) for clip in clips if clip is not None), default=usual)
        frames_NTCHW = torch.zeros((len(clips), num_frames, *shapes.pop()), dtype=torch.uint8)
        mask_NT = torch.zeros((len(clips), num_frames), dtype=torch.bool)
        pts_seconds_NT = torch.zeros((len(clips), num_frames), dtype=torch.float64)
        for n, clip in enumerate(clips):
            if clip is not None:
                for t in self._places(clip):  # one by one: with a list of places every frame is copied twice
                    frames_NTCHW[n, t] = clip.frames_TCHW[t]
                    mask_NT[n, t] = True
                    pts_seconds_NT[n, t] = clip.pts_seconds[t]
        return {"frames_NTCHW": frames_NTCHW, "mask_NT": mask_NT, "pts_seconds_NT": pts_seconds_NT}

    def _places(self, clip: Frames) -> list[int]:
        """The frames of a clip to show."""
        moments = clip.pts_seconds.tolist()
        return [
            t
            for t, is_corrupt in enumerate(clip.is_corrupt.tolist())
            if not is_corrupt and (self.repeats == "keep" or moments[t] not in moments[:t])
        ]


def _is_own(pointer: str | None) -> bool:
    return pointer is not None and pointer.startswith("videos:")
