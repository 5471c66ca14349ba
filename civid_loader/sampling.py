"""Which moments of a clip to look at. A sampler turns a duration into times; decoding turns times into frames.

Times are seconds from the clip's first moment; the frame at time t is the last one with pts <= t.
"""

import math
from dataclasses import dataclass
from typing import Protocol


class Sampler(Protocol):
    """The times of a clip to look at, made from what is known of it before decoding."""

    def times_seconds(self, *, duration_seconds: float, fps: float) -> list[float]:
        """Times in [0, duration_seconds), at least one, in the order the frames are wanted.

        `fps` is the average frame rate; 0 where the file states none.
        """
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """`n` times in the middle of `n` equal parts: t_i = (i + 1/2) D/n.

    8 of 100 frames: 6 18 31 43 56 68 81 93.
    """

    n: int
    """Number of frames, >= 1. A clip with fewer gives some of its frames more than once."""

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"Uniform(n={self.n!r}): n is the number of frames, a whole number of at least 1")

    def times_seconds(self, *, duration_seconds: float, fps: float) -> list[float]:
        """See `Sampler`."""
        return [(i + 0.5) * duration_seconds / self.n for i in range(self.n)]


@dataclass(frozen=True, slots=True)
class Fps:
    """`fps` times per second from the clip's start: t_i = i/fps while t_i < D - 1/2 frame of the file, at least one.

    2 per second of 9.7 s at 30 fps: 20 times, 0 to 9.5. Counting floor(D * fps) instead would drop the tail.
    """

    fps: float
    """Frames per second, > 0. More than the file has gives some frames more than once."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"Fps(fps={self.fps!r}): fps is a number of frames per second above 0")

    def times_seconds(self, *, duration_seconds: float, fps: float) -> list[float]:
        """See `Sampler`."""
        limit_seconds = duration_seconds - (0.5 / fps if fps else 0.0)
        # i/r < limit, for whole i >= 0: ceil(limit * r) of them. 11 s at 0.5 fps: ceil(5.49) = 6, the last at 10 s.
        return [i / self.fps for i in range(max(1, math.ceil(limit_seconds * self.fps)))]


@dataclass(frozen=True, slots=True)
class Middle:
    """The one time in the middle: t = D/2."""

    def times_seconds(self, *, duration_seconds: float, fps: float) -> list[float]:
        """See `Sampler`."""
        return [duration_seconds / 2]


@dataclass(frozen=True, slots=True)
class Times:
    """The same times for every clip. A time past a clip's end gives its last frame, and `pts_seconds` shows it."""

    seconds: tuple[float, ...]
    """Seconds from the clip's start, finite and >= 0, in the order the frames are wanted."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", tuple(self.seconds))
        if not self.seconds or not all(math.isfinite(t) and t >= 0 for t in self.seconds):
            raise ValueError(f"Times({self.seconds!r}): give at least one time, each a number of seconds of at least 0")

    def times_seconds(self, *, duration_seconds: float, fps: float) -> list[float]:
        """See `Sampler`."""
        return list(self.seconds)
