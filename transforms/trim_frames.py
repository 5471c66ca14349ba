"""The first and the last moments of each clip left out, as near a cut they show the neighbour.

Legend: N clips of a sample, T frames.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from civid_loader.picking import pick_frames, shown_places


@dataclass(frozen=True, kw_only=True, slots=True)
class TrimFrames:
    """Leave out frames less than `start_seconds` after a clip's first shown one, or `end_seconds` before its last.

    4 fps, 0 to 1.75 s, with 0.5 and 0.25: those at 0.5 to 1.5 s stay. A clip shorter than that keeps its middle frame.
    """

    start_seconds: float = 0.0
    """>= 0."""
    end_seconds: float = 0.0
    """>= 0."""

    def __post_init__(self) -> None:
        for name in ("start_seconds", "end_seconds"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
                raise ValueError(f"TrimFrames({name}={value!r}): a number of seconds of at least 0")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with T that of its longest clip; nothing is drawn."""
        places = []
        for n, shown in enumerate(shown_places(sample)):
            moments = sample["pts_seconds_NT"][n, shown]
            if len(shown):
                first, last = moments.amin() + self.start_seconds, moments.amax() - self.end_seconds
                inside = shown[(moments >= first - 1e-6) & (moments <= last + 1e-6)]
                shown = inside if len(inside) else shown[len(shown) // 2][None]
            places.append(shown)
        return pick_frames(sample, places)
