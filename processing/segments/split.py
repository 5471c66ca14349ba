"""A film cut into scenes where neighbouring frames differ (PySceneDetect's ContentDetector, BSD-3).

CI-VID's code cuts at threshold 3.0, MiraData at 26, on every frame. The score of two frames is the mean
of |difference| over pixels and over H, S, V as OpenCV has them in 8 bits; a cut is a score >= threshold. Scores are of
frames whose long side is at most 256 px, as the library does it; other sizes give other scores.

Legend: T frames, H height, W width, C = 3 channels; RGB unless a name says BGR.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, get_args

import av.error
import cv2
import numpy as np
import numpy.typing as npt
from scenedetect import ContentDetector, FrameTimecode
from scenedetect.detector import FlashFilter

from civid_loader.deadlines import Deadline
from civid_loader.errors import UnreadableVideoError, VideoError
from civid_loader.media import probe
from civid_loader.packets import PacketIndex
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.stream import open_stream
from civid_loader.videos import ByteSource, as_file

SIDE_PX: Final = 256
"""Largest long side of the frames that are compared."""

Image = npt.NDArray[np.uint8]
ShortScenes = Literal["merge", "suppress"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A part of a video, from a frame to a frame, the last one not included."""

    start_seconds: float
    """From the first frame of the video."""
    end_seconds: float
    """When the frame after the last appears, or the video ends."""
    start_frame: int
    """Number of its first frame, from 0."""
    end_frame: int
    """Number of the frame after its last."""

    @property
    def duration_seconds(self) -> float:
        """Of the span."""
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitParams:
    """Of `Split`."""

    threshold: float = 26.0
    """Score from which on there is a cut, 0 to 230: 3.0 CI-VID, 26 MiraData, 27 the library's own."""
    min_scene_len_frames: int = 15
    """Of cuts nearer to each other than this one is left, see `short_scenes`. 0: every cut counts."""
    short_scenes: ShortScenes = "merge"
    """merge, the library's default since 0.6.4: cuts that follow each other closely are one, so that at a low threshold
    a long movement, with hard cuts in it, is one scene. suppress, the default before: the first counts, the next one
    only `min_scene_len_frames` later, so that a long movement becomes many short scenes."""

    def __post_init__(self) -> None:
        if not self.threshold > 0 or self.min_scene_len_frames < 0:
            raise ValueError(f"{self}: threshold is above 0 and min_scene_len_frames at least 0")
        if self.short_scenes not in get_args(ShortScenes):
            raise ValueError(f"short_scenes={self.short_scenes!r}: must be one of {', '.join(get_args(ShortScenes))}")


class Split(Stage[SplitParams]):
    """Scenes of a clip. Films, which do not fit into memory as frames, go through `split_video`."""

    name = "split"
    version = 2
    Params = SplitParams
    cost = "CPU, 1 ms per frame and decoding; every frame"
    columns = (
        Column(name="scene_count", dtype="int32", doc="Scenes, 1 more than cuts."),
        Column(name="scene_starts", dtype="list<float32>", unit="s", doc="When each begins, the first at 0."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        size = (SIDE_PX, SIDE_PX)
        # The library reduces and never enlarges; enlarged pictures have other scores.
        return {"frames": FrameRequest(mode="all", size=size, resize="long_side_at_most", interpolation="linear")}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        frames_BGR = (np.ascontiguousarray(frame[..., ::-1]) for frame in clip.frames["frames"])
        cuts = find_cuts(frames_BGR, self.params)
        starts = [0.0, *(float(clip.times_seconds["frames"][cut]) for cut in cuts)]
        return {"scene_count": len(starts), "scene_starts": starts}


def find_cuts(frames_BGR: Iterable[Image], params: SplitParams) -> list[int]:
    """Numbers of the frames that begin a new scene, ascending. One frame is held at a time.

    Args:
        frames_BGR: uint8 [H, W, C], BGR, all of one size; larger ones are reduced as the library does.
        params: see there.
    """
    mode = FlashFilter.Mode.MERGE if params.short_scenes == "merge" else FlashFilter.Mode.SUPPRESS
    detector = ContentDetector(threshold=params.threshold, min_scene_len=params.min_scene_len_frames, filter_mode=mode)
    cuts: list[int] = []
    # The rate only labels frames: lengths are counted in frames.
    last = None
    for number, frame_BGR in enumerate(frames_BGR):
        last = FrameTimecode(number, fps=25.0)
        cuts += [cut.frame_num for cut in detector.process_frame(last, _reduced(frame_BGR))]
    if last is not None:
        cuts += [cut.frame_num for cut in detector.post_process(last)]
    return sorted(set(cuts))


def split_video(
    source: ByteSource, params: SplitParams, *, index: PacketIndex | None = None, timeout_seconds: float | None = None
) -> list[Span]:
    """Scenes of a video, in order and without gaps, from its first frame to its last.

    The video is decoded once from beginning to end; in memory are one frame, those its codec refers to, and the times
    of all packets (41 bytes each: 7 MB for 2 hours). Of a file that is cut off, the frames before the cut count.

    Args:
        source: the video's bytes.
        params: see there.
        index: of the whole file, as `media.probe` finds it; None: found now.
        timeout_seconds: limit for reading and decoding; None: without, as films are long.

    Raises:
        UnreadableVideoError: not a video, or damaged.
        VideoError: as reading the source raises.
    """
    index = probe(source, timeout_seconds=timeout_seconds).index if index is None else index
    shown_pts = index.pts[index.shown]
    numbers: list[int] = []
    frames_BGR = _decoded(source, index, shown_pts, numbers, Deadline(timeout_seconds))
    cuts = find_cuts(frames_BGR, params)
    if not numbers:
        raise UnreadableVideoError(f"{source.name}: not one frame can be decoded; download it again")
    end = numbers[-1] + 1
    moments = [*index.seconds(shown_pts).tolist(), index.end_seconds]
    edges = [0, *(numbers[cut] for cut in cuts), end]
    return [
        Span(start_seconds=moments[first], end_seconds=moments[last], start_frame=first, end_frame=last)
        for first, last in pairwise(edges)
    ]


def _decoded(
    source: ByteSource, index: PacketIndex, shown_pts: npt.NDArray[np.int64], numbers: list[int], deadline: Deadline
) -> Iterator[Image]:
    """Frames as BGR; `numbers` gets the number of each among those that are shown."""
    try:
        with (
            as_file(source, timeout_seconds=deadline.left_seconds) as file,
            open_stream(file, deadline) as stream,
        ):
            assert stream.tick_seconds == index.tick_seconds
            # The demuxer may count from another moment than the file's own tables, which the index is made of.
            shift = index.first_pts - stream.index(end_seconds=1e-3).first_pts
            for frame in stream.decode_all():
                pts = -1 if frame.pts is None else frame.pts + shift
                place = int(np.searchsorted(shown_pts, pts))
                if place < len(shown_pts) and shown_pts[place] == pts:
                    numbers.append(place)
                    yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    except VideoError as error:
        raise error.within(source.name) from error
    except av.error.FFmpegError as error:
        if not (index.is_truncated and numbers):
            raise UnreadableVideoError(
                f"{source.name}: damaged after frame {numbers[-1] if numbers else 0} ({error.strerror}); download it "
                "again"
            ) from error


def _reduced(frame_BGR: Image) -> Image:
    height, width = frame_BGR.shape[:2]
    factor = max(height, width) / SIDE_PX
    if factor <= 1:
        return frame_BGR
    size = max(1, round(width / factor)), max(1, round(height / factor))
    return np.asarray(cv2.resize(frame_BGR, size, interpolation=cv2.INTER_LINEAR), np.uint8)
