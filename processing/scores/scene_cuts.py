"""Hard cuts within a clip (LVD-2M; MiraData and CI-VID split their sources by them).

The score of a frame is the mean over its pixels, and over hue, saturation and value, of how far they are from the frame
before, in OpenCV's HSV of 8 bits (hue 0 to 179, and not as a circle); PySceneDetect's ContentDetector computes it. A
frame begins a shot where the score is at least the threshold: 50 for LVD-2M, 26 for MiraData, 3 for CI-VID.

What it cannot see: the largest score is about 230, yet from saturated red to saturated blue it is 47; and a fade of 2 s
looked at every 2 s is a jump.
"""
# ruff: noqa: N806 - arrays carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
from scenedetect import ContentDetector, FrameTimecode

from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage

_LONG_SIDE_PX: Final = 256
"""What `SceneManager` brings the longer side to, bilinearly; the score depends on it (40.2 so, 38.8 by area)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneCutsParams:
    """Of `SceneCuts`."""

    fps: float | None = 0.5
    """Frames per second looked at; None: every frame, as for splitting."""
    threshold: float = 50.0
    """Score from which on a frame begins a shot, itself included."""
    min_scene_len_frames: int = 0
    """Frames looked at that a shot has at least; cuts nearer to each other are one. 0: any number."""
    include_last: bool = False
    """Look at the last frame too, so that a tail shorter than 1/fps is seen. With `fps` only."""

    def __post_init__(self) -> None:
        if self.min_scene_len_frames < 0:
            raise ValueError(f"min_scene_len_frames={self.min_scene_len_frames}: a number of frames, at least 0")
        if self.include_last and self.fps is None:
            raise ValueError("include_last=True: without fps every frame is looked at, the last one too")


class SceneCuts(Stage[SceneCutsParams]):
    """Hard cuts."""

    name = "scene_cuts"
    version = 1
    Params = SceneCutsParams
    cost = "CPU, 1 ms per frame"
    columns = (
        Column(name="cut_max", dtype="float32", doc="Largest score, 0 to 255; null for a single frame."),
        Column(name="cut_count", dtype="int32", doc="Number of cuts."),
        Column(name="cut_times", dtype="list<float32>", unit="s", doc="When a shot begins, from the clip's start."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {
            "frames": FrameRequest(
                mode="all" if self.params.fps is None else "fps",
                value=self.params.fps or 0,
                size=(_LONG_SIDE_PX, _LONG_SIDE_PX),
                resize="long_side_at_most",
                interpolation="linear",
                include_last=self.params.include_last,
            )
        }

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        frames_THWC, times_T = clip.frames["frames"], clip.times_seconds["frames"]
        if len(frames_THWC) < 2:
            return {"not_computable": "one frame is looked at; a cut is between two"}
        detector = ContentDetector(threshold=self.params.threshold, min_scene_len=self.params.min_scene_len_frames)
        cuts: set[int] = set()
        scores: list[float] = []
        for number, frame_HWC in enumerate(frames_THWC):
            # The rate is a label here: shots are measured in frames.
            at = FrameTimecode(number, fps=1.0)
            cuts.update(cut.frame_num for cut in detector.process_frame(at, cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)))
            # Its public way to the scores, a StatsManager, makes it look for edges too, which takes twice as long.
            scores.append(detector._frame_score)
        return {
            "cut_max": float(max(scores)),
            "cut_count": len(cuts),
            "cut_times": [float(times_T[number]) for number in sorted(cuts)],
        }
