"""Which moments of a clip to look at. A sampler turns what is known of a clip's frames into times.

Times are seconds from the clip's first moment; the frame at time t is the last one with pts <= t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

_ROUNDING_SECONDS: Final = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipTimes:
    """When the frames of a clip are shown: all there is to know before decoding."""

    pts_seconds: npt.NDArray[np.float64]
    """[N], ascending, N >= 1: when each frame of the clip begins, counted from the clip's start."""
    is_key: npt.NDArray[np.bool_]
    """[N], True for keyframes."""
    duration_seconds: float
    """When the clip ends, > 0."""

    @property
    def fps(self) -> float:
        """Average frame rate of the clip; of a single frame, one per duration."""
        steps = len(self.pts_seconds) - 1
        return float(steps / (self.pts_seconds[-1] - self.pts_seconds[0])) if steps else 1 / self.duration_seconds


class Sampler(Protocol):
    """The times of a clip to look at."""

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """Times in [0, duration), at least one, in the order the frames are wanted."""
        ...


def _check_count(name: str, n: int) -> None:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"{name}(n={n!r}): n is the number of frames, a whole number of at least 1")


def _frames(clip: ClipTimes, numbers: Sequence[int] | npt.NDArray[np.int64]) -> list[float]:
    """The times of frames k: the middle of the moment each is on screen, which no rounding moves to its neighbour."""
    ends = np.append(clip.pts_seconds[1:], max(clip.duration_seconds, float(clip.pts_seconds[-1])))
    times: list[float] = ((clip.pts_seconds + ends) / 2)[numbers].tolist()
    return times


@dataclass(frozen=True, slots=True)
class Uniform:
    """`n` times in the middle of `n` equal parts: t_i = (i + 1/2) D/n.

    8 of 100 frames: 6 18 31 43 56 68 81 93.
    """

    n: int
    """Number of frames, >= 1. A clip with fewer gives some of its frames more than once."""

    def __post_init__(self) -> None:
        _check_count("Uniform", self.n)

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        return [(i + 0.5) * clip.duration_seconds / self.n for i in range(self.n)]


@dataclass(frozen=True, slots=True)
class UniformEnds:
    """`n` frames from the first to the last: k = int(linspace(0, N - 1, n)). MovieBench annotates shots so, with n = 6.

    8 of 100 frames: 0 14 28 42 56 70 84 99.
    """

    n: int
    """Number of frames, >= 1; 1 gives the first."""

    def __post_init__(self) -> None:
        _check_count("UniformEnds", self.n)

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        return _frames(clip, np.linspace(0, len(clip.pts_seconds) - 1, self.n).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Thirds:
    """`n` frames inside the clip: k = int(N/(n + 1) * (i + 1)), a quarter, half and three quarters for n = 3 (CI-VID).

    3 of 100 frames: 25 50 75.
    """

    n: int = 3
    """Number of frames, >= 1."""

    def __post_init__(self) -> None:
        _check_count("Thirds", self.n)

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        count = len(clip.pts_seconds)
        return _frames(clip, [int(count / (self.n + 1) * (i + 1)) for i in range(self.n)])


@dataclass(frozen=True, slots=True)
class Fps:
    """`fps` times per second from the clip's start: t_i = i/fps while t_i < D - 1/2 frame of the file, at least one.

    2 per second of 9.7 s at 30 fps: 20 times, 0 to 9.5. Counting floor(D * fps) instead would drop the tail.
    """

    fps: float
    """Frames per second, > 0. More than the file has gives some frames more than once."""
    max_frames: int | None = None
    """Of more times than this, as many are kept, evenly spread from the first to the last."""
    include_last: bool = False
    """Look at the last frame too, so that a tail shorter than 1/fps is seen."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"Fps(fps={self.fps!r}): fps is a number of frames per second above 0")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"Fps(max_frames={self.max_frames!r}): a whole number of at least 1, or None")

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        limit_seconds = clip.duration_seconds - 0.5 / clip.fps
        # i/r < limit, for whole i >= 0: ceil(limit * r) of them. 11 s at 0.5 fps: ceil(5.49) = 6, the last at 10 s.
        times = [i / self.fps for i in range(max(1, math.ceil(limit_seconds * self.fps)))]
        last = _frames(clip, [-1])[0]
        if self.include_last and times[-1] < clip.pts_seconds[-1]:
            times.append(last)
        return _thinned(times, self.max_frames)


@dataclass(frozen=True, slots=True)
class Window:
    """`n` frames that follow each other, every `stride`-th of the file: k = k_0 + i * stride.

    Where the clip is too short, its last frame is given again.
    """

    n: int
    """Number of frames, >= 1."""
    stride: int = 1
    """Frames from one to the next, >= 1."""
    start: float = 0.5
    """Where the window lies: 0 as early as possible, 1 as late as possible. Randomness is the caller's."""

    def __post_init__(self) -> None:
        _check_count("Window", self.n)
        if not isinstance(self.stride, int) or self.stride < 1:
            raise ValueError(f"Window(stride={self.stride!r}): a whole number of frames of at least 1")
        if not 0 <= self.start <= 1:
            raise ValueError(f"Window(start={self.start!r}): from 0, as early as possible, to 1, as late as possible")

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        last = len(clip.pts_seconds) - 1
        first = round(self.start * max(0, last - (self.n - 1) * self.stride))
        return _frames(clip, [min(first + i * self.stride, last) for i in range(self.n)])


@dataclass(frozen=True, slots=True)
class RandomWindow:
    """A `Window` whose place is drawn anew for each sample and epoch; for loaders, which hand in the randomness."""

    n: int
    """Number of frames, >= 1."""
    stride: int = 1
    """Frames from one to the next, >= 1."""

    def __post_init__(self) -> None:
        Window(self.n, self.stride)

    def draw(self, rng: np.random.Generator) -> Window:
        """The window of one sample."""
        return Window(self.n, self.stride, start=float(rng.random()))


@dataclass(frozen=True, slots=True)
class UniformPieces:
    """`num_frames` times in the middle of equal parts of each piece of the clip, see `pieces`.

    6 per 30 s of 40 s: 2.5 7.5 12.5 17.5 22.5 27.5, and 30.8 32.5 34.2 35.8 37.5 39.2.
    """

    num_frames: int
    """Of each piece, >= 1."""
    seconds: float
    """Of a piece, > 0."""
    min_tail_seconds: float = 0.0
    """See `pieces`."""

    def __post_init__(self) -> None:
        _check_count("UniformPieces", self.num_frames)
        pieces(1.0, seconds=self.seconds, min_tail_seconds=self.min_tail_seconds)

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        found = pieces(clip.duration_seconds, seconds=self.seconds, min_tail_seconds=self.min_tail_seconds)
        n = self.num_frames
        return [start + (i + 0.5) * (end - start) / n for start, end in found for i in range(n)]


OfN: TypeAlias = Uniform | UniformEnds | Thirds | Window | RandomWindow
"""Those that give `n` frames, so that a bucket can say how many."""


@dataclass(frozen=True, slots=True)
class Middle:
    """The one time in the middle: t = D/2."""

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        return [clip.duration_seconds / 2]


@dataclass(frozen=True, slots=True)
class All:
    """Every frame of the clip."""

    max_frames: int | None = None
    """Of more frames than this, as many are kept, evenly spread from the first to the last."""

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"All(max_frames={self.max_frames!r}): a whole number of at least 1, or None")

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        return _thinned(_frames(clip, range(len(clip.pts_seconds))), self.max_frames)


@dataclass(frozen=True, slots=True)
class Times:
    """The same times for every clip. A time past a clip's end gives its last frame, and `pts_seconds` shows it."""

    seconds: tuple[float, ...]
    """Seconds from the clip's start, finite and >= 0, in the order the frames are wanted."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", tuple(self.seconds))
        if not self.seconds or not all(math.isfinite(t) and t >= 0 for t in self.seconds):
            raise ValueError(f"Times({self.seconds!r}): give at least one time, each a number of seconds of at least 0")

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        return list(self.seconds)


@dataclass(frozen=True, slots=True)
class Snapped:
    """The keyframe nearest to each time of another sampler: less decoding, for other frames.

    Times move by up to half the distance of keyframes, and may repeat. A clip without a keyframe keeps its times.
    """

    sampler: Sampler
    """Where to look, about."""

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        times = self.sampler.times_seconds(clip)
        keys = np.flatnonzero(clip.is_key)
        if not len(keys):
            return times
        moments = clip.pts_seconds[keys]
        nearest = [int(keys[np.argmin(np.abs(moments - t))]) for t in times]
        return _frames(clip, nearest)


def pieces(duration_seconds: float, *, seconds: float, min_tail_seconds: float = 0.0) -> list[tuple[float, float]]:
    """A clip in pieces [start, end) of so many seconds, the last as long as what is left; of 30 s each, 95 s are 4.

    30.1 s are 2, but a tail within the rounding of time stamps is none. One shorter than `min_tail_seconds` is a part
    of the piece before.

    Raises:
        ValueError: a length that is none.
    """
    if not (math.isfinite(seconds) and seconds > 0 and 0 <= min_tail_seconds <= seconds):
        raise ValueError(f"pieces of {seconds!r} s, tails from {min_tail_seconds!r} s: must be > 0, and 0 to as much")
    count = max(1, math.ceil((duration_seconds - _ROUNDING_SECONDS) / seconds))
    if count > 1 and duration_seconds - (count - 1) * seconds < min_tail_seconds:
        count -= 1
    return [(i * seconds, (i + 1) * seconds if i + 1 < count else duration_seconds) for i in range(count)]


def _thinned(times: list[float], max_frames: int | None) -> list[float]:
    if max_frames is None or len(times) <= max_frames:
        return times
    return [times[round(i)] for i in np.linspace(0, len(times) - 1, max_frames)]
