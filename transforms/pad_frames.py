"""Every clip as long as asked for.

Legend: N clips of a sample, T frames.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from civid_loader.picking import pick_frames, shown_places

Fill = Literal["blank", "last", "loop"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PadFrames:
    """Clips of at least `num_frames`: shown frames first, then the fill. Longer ones keep all they have.

    To 8 from 3: blank 0 1 2 - - - - -, last 0 1 2 2 2 2 2 2, loop 0 1 2 1 0 1 2 1 (forth and back, without a jump).
    A clip without a frame stays blank.
    """

    num_frames: int
    """>= 1."""
    fill: Fill = "blank"
    """blank: mask False; last: the last frame again; loop: backwards, forwards and so on. Repeated frames are shown,
    with the time at which they appear in the file."""

    def __post_init__(self) -> None:
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise ValueError(f"PadFrames(num_frames={self.num_frames!r}): a whole number of at least 1")
        if self.fill not in get_args(Fill):
            raise ValueError(f"PadFrames(fill={self.fill!r}): must be one of {', '.join(get_args(Fill))}")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with T >= `num_frames`; nothing is drawn."""
        shown = shown_places(sample)
        length = max(self.num_frames, *map(len, shown))
        return pick_frames(sample, [self._filled(of_clip) for of_clip in shown], num_frames=length)

    def _filled(self, places: torch.Tensor) -> torch.Tensor:
        missing = self.num_frames - len(places)
        if self.fill == "blank" or missing <= 0 or not len(places):
            return places
        if self.fill == "last":
            return torch.cat([places, places[-1:].repeat(missing)])
        period = max(1, 2 * len(places) - 2)
        phase = torch.arange(self.num_frames) % period
        return places[torch.minimum(phase, period - phase)] if len(places) > 1 else places.repeat(self.num_frames)
