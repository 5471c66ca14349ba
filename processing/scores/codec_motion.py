"""How much moves, from the motion vectors that a video is coded with: to pass over still clips before optical flow.

Vectors say what was cheap to code, not what moved; another encoder gives others. So this is a prefilter, and never a
score to publish or to compare between datasets.

A frame's field is |v| / (height + width) of the vector over each pixel, 0 where a block has none; that of a clip is its
mean over the frames, about 2 per second of the clip's first half. NeMo Curator and Cosmos-Curate take as still what has
a mean below 0.00098, or a patch of 256x256 px below 0.000001.

Legend: H height, W width.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags2

from civid_loader.errors import VideoError
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.videos import ByteSource, as_file

_CODECS: Final = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video", "h263", "flv1"})
"""Whose decoder in FFmpeg tells the vectors."""
_CELL_PX: Final = 4
"""No block of theirs is smaller."""
_TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecMotionParams:
    """Of `CodecMotion`."""

    fps: float = 2.0
    """Frames per second looked at, of those that have vectors."""
    share: float = 0.5
    """Of the clip, from its start, that is looked at; at most 1."""
    patch_px: int = 256
    """Sides of the patches; pictures that are smaller have one."""

    def __post_init__(self) -> None:
        if self.fps <= 0 or not 0 < self.share <= 1 or self.patch_px < 1:
            raise ValueError(f"{self}: fps > 0, share above 0 and at most 1, patch_px at least 1")


class CodecMotion(Stage[CodecMotionParams]):
    """Size of motion vectors."""

    name = "codec_motion"
    version = 1
    Params = CodecMotionParams
    cost = "CPU, decodes half of each clip once more"
    needs_video = True
    columns = (
        Column(
            name="codec_motion_mean",
            dtype="float32",
            doc="Mean size of motion vectors by height + width; null where the codec has none. A prefilter, no score.",
        ),
        Column(
            name="codec_motion_patch_min", dtype="float32", doc="Of the patch with the least motion; see its neighbour."
        ),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        if clip.video is None:
            return {"reason": "there is no video file to read motion vectors from"}
        start = clip.span_seconds[0]
        end = start + self.params.share * clip.duration_seconds
        try:
            fields = list(_fields(clip.video, start=start, end=end, step=1 / self.params.fps))
        except VideoError as error:
            # Where the file lies is nobody's business.
            return {"reason": f"{type(error).__name__}: {error}".replace(clip.video.name, "the file")}
        except av.error.FFmpegError as error:
            return {"reason": f"the file cannot be read as a video ({error.strerror})"}
        if not fields:
            return {"not_computable": "no motion vectors: its codec tells none, or every frame is coded by itself"}
        if len({field_HW.shape for field_HW in fields}) > 1:
            return {"reason": "the frames of the file change in size"}
        mean_HW = np.mean(fields, axis=0)
        return {"codec_motion_mean": float(mean_HW.mean()), "codec_motion_patch_min": self._patch_min(mean_HW)}

    def _patch_min(self, field_HW: npt.NDArray[np.float64]) -> float:
        """Of whole patches only: what is left over at the edges would be a small one."""
        side = max(1, self.params.patch_px // _CELL_PX)
        rows, columns = (max(1, length // side) for length in field_HW.shape)
        cut_HW = field_HW[: rows * side, : columns * side]
        patches = (band for part in np.array_split(cut_HW, rows) for band in np.array_split(part, columns, axis=1))
        return min(float(patch.mean()) for patch in patches)


def _fields(source: ByteSource, *, start: float, end: float, step: float) -> Iterator[npt.NDArray[np.float64]]:
    """The fields of frames within [start, end) in seconds from the first frame, `step` apart, by cells of 4x4 px."""
    with (
        as_file(source, timeout_seconds=_TIMEOUT_SECONDS) as file,
        av.open(file, "r", metadata_errors="replace") as container,
    ):
        if not container.streams.video or container.streams.video[0].codec_context.name not in _CODECS:
            return
        stream = container.streams.video[0]
        stream.codec_context.flags2 |= Flags2.export_mvs
        first = stream.start_time or 0
        if start > 0 and stream.time_base:
            # To the keyframe before; what comes earlier than the span is decoded for its vectors' sake, not looked at.
            container.seek(first + int(start / stream.time_base), stream=stream)
        wanted = start
        for frame in container.decode(stream):
            if frame.pts is None or frame.time_base is None:
                continue
            seconds = float((frame.pts - first) * frame.time_base)
            if seconds >= end - 1e-6:
                return
            vectors = frame.side_data.get("MOTION_VECTORS")
            if seconds < wanted - 1e-6 or vectors is None:
                continue  # frames coded by themselves have none; the next one stands in
            yield _field(vectors.to_ndarray(), height=frame.height, width=frame.width)
            wanted = max(wanted + step, seconds + step / 2)


def _field(vectors: npt.NDArray[Any], *, height: int, width: int) -> npt.NDArray[np.float64]:
    """|v| / (height + width), [H/4, W/4]; of blocks with two vectors, the second."""
    field_HW = np.zeros((-(-height // _CELL_PX), -(-width // _CELL_PX)))
    sizes = np.hypot(vectors["motion_x"], vectors["motion_y"]) / np.maximum(vectors["motion_scale"], 1)
    lefts, tops = ((vectors[f"dst_{axis}"] - vectors[side] // 2) // _CELL_PX for axis, side in (("x", "w"), ("y", "h")))
    across, down = (np.maximum(vectors[side] // _CELL_PX, 1) for side in ("w", "h"))
    for size, left, top, columns, rows in zip(sizes, lefts, tops, across, down, strict=True):
        field_HW[max(top, 0) : top + rows, max(left, 0) : left + columns] = size
    return field_HW / (height + width)
