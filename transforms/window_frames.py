"""A window of each clip at a random place."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from civid_loader.picking import pick_frames, shown_places

Draw = Literal["clip", "sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowFrames:
    """`n` frames of each clip, every `stride`-th of those shown, from a random one on.

    A clip with fewer than (n - 1) * stride + 1 frames gives what it has from its first on, and is padded: mask False.
    So the result always has T = n.
    """

    n: int
    """Number of frames, >= 1."""
    stride: int = 1
    """Frames from one to the next, >= 1."""
    draw: Draw = "clip"
    """clip: one place for each clip; sample: one for all, as a share of the room that each clip leaves, so that clips
    of the same length begin at the same frame."""

    def __post_init__(self) -> None:
        for name in ("n", "stride"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"WindowFrames({name}={value!r}): a whole number of frames of at least 1")
        if self.draw not in get_args(Draw):
            raise ValueError(f"WindowFrames(draw={self.draw!r}): must be one of {', '.join(get_args(Draw))}")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with T = n; N numbers are drawn, or one."""
        shown = shown_places(sample)
        shares = rng.random(len(shown)) if self.draw == "clip" else np.full(len(shown), rng.random())
        span = (self.n - 1) * self.stride + 1
        places = []
        for of_clip, share in zip(shown, shares.tolist(), strict=True):
            start = int(share * (max(0, len(of_clip) - span) + 1))
            places.append(of_clip[start : start + span : self.stride])
        return pick_frames(sample, places, num_frames=self.n)
