"""Left and right exchanged, in all frames of a sample or in none."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipFrames:
    """Mirror all clips of a sample with one draw, and say so in `is_flipped`.

    Captions are not changed: those that speak of left, right or written words are wrong for a mirrored picture, which
    `is_flipped` lets a later transform act on.
    """

    probability: float = 0.5
    """Of mirroring a sample, from 0 to 1."""

    def __post_init__(self) -> None:
        if not isinstance(self.probability, int | float) or not 0 <= self.probability <= 1:
            raise ValueError(f"FlipFrames(probability={self.probability!r}): from 0, never, to 1, always")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample, mirrored or not; `is_flipped` (bool) counts what an earlier `FlipFrames` did."""
        flips = bool(rng.random() < self.probability)
        frames = sample["frames_NTCHW"]
        return {
            **sample,
            "frames_NTCHW": frames.flip(-1) if flips else frames,
            "is_flipped": flips != sample.get("is_flipped", False),
        }
