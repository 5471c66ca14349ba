"""Faults of the picture itself: blur, clipping, compression blocks, noise, black borders, a picture that stands still.

All are our own measures, of luma Y = 0.299 R + 0.587 G + 0.114 B of sRGB values, 0 to 255, and none needs a model:

- sharpness of a frame: variance of the Laplacian (4 neighbours), shorter side at 480 px (Pech-Pacheco et al., ICPR
  2000).
- clipped: share of pixels with Y <= 4, or Y >= 251.
- blockiness of a frame: (b + 1) / (i + 1), b the mean |difference| of neighbours on both sides of an edge of the grid
  of 8x8 px that starts at the upper left corner, i that of all others. 1: there is no grid. The ones keep flat
  pictures at 1. It sees a grid only at the size it was coded at, hence frames as stored.
- noise of a frame: sqrt(pi/2) / 6 times the mean |Y * [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]|: the standard deviation of
  white noise on a smooth picture. Immerkaer, CVIU 64(2), 1996. Fine texture counts as noise.
- letterbox: rows or columns along the edges of which at most 1 % of all frames' pixels have Y > 24.
- frozen: share of steps from one frame to the next, at 2 fps and 256x256 px, in which no value of any pixel changes by
  more than 2: what encoding alone may do to a still picture.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage

Luma = npt.NDArray[np.uint8]

_DARK_LUMA: Final = 4
_BRIGHT_LUMA: Final = 251
_BORDER_LUMA: Final = 24
_BORDER_SHARE: Final = 0.01
_BLOCK_PX: Final = 8
_NOISE_KERNEL: Final = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class TechnicalQualityParams:
    """Of `TechnicalQuality`."""

    num_frames: int = 8
    """Looked at for everything but `frozen_share`, evenly spread."""
    sharpness_side_px: int = 480
    """Shorter side of the frames whose sharpness is measured."""
    frozen_fps: float = 2.0
    """Frames per second compared with the one before."""
    frozen_tolerance: int = 2
    """By how much a value, 0 to 255, may change in a picture that stands still."""


class TechnicalQuality(Stage[TechnicalQualityParams]):
    """Blur, clipping, blocks, noise, borders, standstill."""

    name = "technical_quality"
    version = 1
    Params = TechnicalQualityParams
    cost = "CPU, 15 ms per frame of 720p"
    columns = (
        Column(name="sharpness_mean", dtype="float32", doc="Variance of the Laplacian, mean over the frames."),
        Column(name="sharpness_min", dtype="float32", doc="That of the most blurred frame."),
        Column(name="clipped_dark_share", dtype="float32", doc="Share of black pixels, 0 to 1."),
        Column(name="clipped_bright_share", dtype="float32", doc="Share of white pixels, 0 to 1."),
        Column(name="blockiness", dtype="float32", doc="Steps on the 8x8 grid by those off it, mean; 1: no grid."),
        Column(name="noise_std", dtype="float32", doc="Standard deviation of white noise, 0 to 255, mean."),
        Column(name="letterbox_rows_share", dtype="float32", doc="Share of the height that is black border."),
        Column(name="letterbox_columns_share", dtype="float32", doc="Share of the width that is black border."),
        Column(
            name="frozen_share", dtype="float32", doc="Share of steps at 2 fps without any change; null for one frame."
        ),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        side = self.params.sharpness_side_px
        return {
            "native": FrameRequest(mode="uniform_mid", value=self.params.num_frames),
            "fixed": FrameRequest(
                mode="uniform_mid", value=self.params.num_frames, size=(side, side), resize="short_side"
            ),
            "steps": FrameRequest(mode="fps", value=self.params.frozen_fps, size=(256, 256)),
        }

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        luma_THW = _luma(clip.frames["native"])
        sharpness = [float(cv2.Laplacian(image_HW, cv2.CV_64F).var()) for image_HW in _luma(clip.frames["fixed"])]
        bright_THW = luma_THW > _BORDER_LUMA
        return {
            "sharpness_mean": float(np.mean(sharpness)),
            "sharpness_min": min(sharpness),
            "clipped_dark_share": float((luma_THW <= _DARK_LUMA).mean()),
            "clipped_bright_share": float((luma_THW >= _BRIGHT_LUMA).mean()),
            "blockiness": _mean([_blockiness(image_HW) for image_HW in luma_THW]),
            "noise_std": _mean([_noise_std(image_HW) for image_HW in luma_THW]),
            "letterbox_rows_share": _border_share(bright_THW.mean(axis=(0, 2))),
            "letterbox_columns_share": _border_share(bright_THW.mean(axis=(0, 1))),
            "frozen_share": self._frozen_share(clip.frames["steps"]),
        }

    def _frozen_share(self, frames_THWC: npt.NDArray[np.uint8]) -> float | None:
        if len(frames_THWC) < 2:
            return None
        return float(
            np.mean([cv2.absdiff(*pair).max() <= self.params.frozen_tolerance for pair in pairwise(frames_THWC)])
        )


def _luma(frames_THWC: npt.NDArray[np.uint8]) -> Luma:
    return np.stack([cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY) for frame_HWC in frames_THWC]).astype(np.uint8)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _blockiness(image_HW: Luma) -> float | None:
    """Of pictures with an edge of the grid in both directions."""
    if min(image_HW.shape) <= _BLOCK_PX:
        return None
    on, off = [0.0, 0], [0.0, 0]
    for image in (image_HW, image_HW.T):
        # Step k is from column k to k + 1: with blocks of 8, those from 7 to 8, from 15 to 16 ...
        sums = cv2.absdiff(image[:, 1:], image[:, :-1]).sum(axis=0, dtype=np.int64)
        is_edge = np.arange(1, image.shape[1]) % _BLOCK_PX == 0
        for total, chosen in ((on, is_edge), (off, ~is_edge)):
            total[0] += float(sums[chosen].sum())
            total[1] += int(chosen.sum()) * image.shape[0]
    return (on[0] / on[1] + 1) / (off[0] / off[1] + 1)


def _noise_std(image_HW: Luma) -> float | None:
    """Of pictures with a pixel that has all neighbours."""
    if min(image_HW.shape) < 3:
        return None
    response: npt.NDArray[Any] = cv2.filter2D(image_HW, cv2.CV_32F, _NOISE_KERNEL)[1:-1, 1:-1]
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(response).mean(dtype=np.float64))


def _border_share(bright_share: npt.NDArray[np.float64]) -> float | None:
    """Of the lines, how many lie before the first and behind the last bright one. None: there is no picture at all."""
    bright = np.flatnonzero(bright_share > _BORDER_SHARE)
    if not len(bright):
        return None
    return float(1 - (bright[-1] + 1 - bright[0]) / len(bright_share))
