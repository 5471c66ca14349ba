"""How bright and how colourful a clip is (MiraData section 3.2 names the statistics; the definitions are ours).

Luma is Y = 0.299 R + 0.587 G + 0.114 B of sRGB values, 0 to 255; y_t is its mean over frame t.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N806 - arrays carry their shape.

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage

_LUMA: Final = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourParams:
    """Of `Colour`."""

    fps: float = 2.0
    """Frames per second looked at."""


class Colour(Stage[ColourParams]):
    """Brightness and saturation."""

    name = "colour"
    version = 1
    Params = ColourParams
    cost = "CPU, 1 ms per frame"
    columns = (
        Column(name="luma_mean", dtype="float32", doc="Mean luma, 0 to 255."),
        Column(name="luma_bright80", dtype="float32", doc="Mean of the brightest 80 % of frames."),
        Column(name="luma_dark80", dtype="float32", doc="Mean of the darkest 80 % of frames."),
        Column(name="luma_std", dtype="float32", doc="Standard deviation of y_t over the frames."),
        Column(name="saturation_mean", dtype="float32", doc="Mean HSV saturation, 0 to 1."),
        Column(name="rgb_mean", dtype="list<float32>", doc="Mean red, green and blue, 0 to 255."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {"frames": FrameRequest(mode="fps", value=self.params.fps, size=(256, 256))}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        frames_THWC = clip.frames["frames"]
        rgb_TC = frames_THWC.reshape(len(frames_THWC), -1, 3).mean(axis=1, dtype=np.float64)
        luma_T = np.sort(rgb_TC @ _LUMA)
        most = math.ceil(0.8 * len(luma_T))
        saturation = [cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255 for frame in frames_THWC]
        return {
            "luma_mean": float(luma_T.mean()),
            "luma_bright80": float(luma_T[-most:].mean()),
            "luma_dark80": float(luma_T[:most].mean()),
            "luma_std": float(luma_T.std()),
            "saturation_mean": float(np.mean(saturation)),
            "rgb_mean": [float(value) for value in rgb_TC.mean(axis=0)],
        }
