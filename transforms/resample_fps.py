"""Frames at another rate, chosen by time.

Legend: N clips of a sample, T frames, K frames of one clip that are shown.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from civid_loader.picking import pick_frames, shown_places

TOLERANCE_SECONDS: Final = 1e-6
"""A frame that begins this much after a time still counts as shown then: 1/3 s is not a whole number of any clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResampleFps:
    """Frames of each clip at `fps`: at t_i = p_0 + i/fps the last shown frame with pts <= t_i, while t_i <= p_last.

    p_0 and p_last are when its first and its last shown frame appear. Nothing is interpolated: a higher rate than the
    clip has gives frames more than once, and so does a gap, where the frame before it stays. `pts_seconds_NT` stays
    when a frame appears in the file, not t_i. 25 to 10 per second: frames 0 2 5 7 10.

    Raises, when called:
        ValueError: the frames of a clip are not in order of time.
    """

    fps: float
    """Frames per second, > 0."""

    def __post_init__(self) -> None:
        if not isinstance(self.fps, int | float) or not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"ResampleFps(fps={self.fps!r}): fps is a number of frames per second above 0")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample at the new rate, T that of its longest clip; nothing is drawn."""
        places = []
        for n, shown in enumerate(shown_places(sample)):
            pts_seconds_K = sample["pts_seconds_NT"][n, shown]
            if bool((pts_seconds_K.diff() < 0).any()):
                raise ValueError(
                    f"sample {sample['sample_id']}, clip {sample['clip_ids'][n]}: its frames are not in order of time, "
                    "as ResampleFps needs them; give the sampler ascending times"
                )
            places.append(shown[self._chosen(pts_seconds_K)])
        return pick_frames(sample, places)

    def _chosen(self, pts_seconds_K: torch.Tensor) -> torch.Tensor:
        """Which of K frames to show at each time."""
        if not len(pts_seconds_K):
            return torch.empty(0, dtype=torch.int64)
        from_first_K = pts_seconds_K - pts_seconds_K[0] - TOLERANCE_SECONDS
        count = math.floor((float(from_first_K[-1]) + 2 * TOLERANCE_SECONDS) * self.fps) + 1
        times_seconds = torch.arange(count, dtype=torch.float64) / self.fps
        return torch.searchsorted(from_first_K, times_seconds, right=True) - 1
