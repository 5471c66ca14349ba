"""Samplers: the published definitions, number by number; and what holds for every one of them."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from civid_loader import sampling
from civid_loader.sampling import (
    All,
    ClipTimes,
    Fps,
    Middle,
    Sampler,
    Snapped,
    Thirds,
    Times,
    Uniform,
    UniformEnds,
    UniformPieces,
    Window,
    pieces,
)

EVERY: list[Sampler] = [
    Uniform(8), Uniform(1), UniformEnds(6), UniformEnds(1), Thirds(), Fps(2), Fps(0.5, include_last=True), Fps(50),
    Fps(30, max_frames=5), Window(16), Window(4, stride=3, start=0.0), Window(3, start=1.0), Middle(), All(),
    All(max_frames=7), Times((0.0, 0.3)), Snapped(Uniform(8)), UniformPieces(6, 30.0), UniformPieces(2, 3.0, 1.0),
]  # fmt: skip


def clip(
    num_frames: int = 100, *, fps: float = 25.0, gop: int = 12, pts_seconds: Sequence[float] | None = None
) -> ClipTimes:
    pts = np.arange(num_frames) / fps if pts_seconds is None else np.array(pts_seconds)
    is_key = np.arange(len(pts)) % gop == 0
    return ClipTimes(pts_seconds=pts, is_key=is_key, duration_seconds=float(pts[-1] + 1 / fps))


def numbers(sampler: Sampler, of: ClipTimes) -> list[int]:
    """The frames a sampler's times mean: the last that begins at or before each."""
    times = np.array(sampler.times_seconds(of))
    found: list[int] = (np.searchsorted(of.pts_seconds, times + 1e-6, side="right") - 1).tolist()
    return found


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Uniform(8), [6, 18, 31, 43, 56, 68, 81, 93]),
        (UniformEnds(8), [0, 14, 28, 42, 56, 70, 84, 99]),
        (Thirds(3), [25, 50, 75]),
        (Middle(), [50]),
        (All(), list(range(100))),
        (All(max_frames=4), [0, 33, 66, 99]),
        (Window(4, start=0.0), [0, 1, 2, 3]),
        (Window(4, start=1.0), [96, 97, 98, 99]),
        (Window(4, stride=10), [34, 44, 54, 64]),
        (Snapped(Uniform(8)), [12, 24, 36, 48, 60, 72, 84, 96]),
        (Times((0.1, 3.0, 0.1)), [2, 75, 2]),
    ],
)
def test_of_100_frames(sampler: Sampler, expected: list[int]) -> None:
    assert numbers(sampler, clip()) == expected


@pytest.mark.parametrize(
    ("duration_seconds", "rate", "count", "last"),
    [(10, 2, 20, 9.5), (9.7, 2, 20, 9.5), (11, 0.5, 6, 10), (30.1, 0.5, 16, 30), (0.4, 2, 1, 0)],
)
def test_times_per_second(duration_seconds: float, rate: float, count: int, last: float) -> None:
    of = clip(round(duration_seconds * 30), fps=30)
    times = Fps(rate).times_seconds(of)
    assert (len(times), times[-1]) == (count, last)
    assert times[:2] == [0, 1 / rate][:count]


def test_the_tail_can_be_looked_at_and_many_times_thinned() -> None:
    of = clip(100)  # 4 s: frames at 0, 1, 2, 3 s and the last at 3.96 s
    assert numbers(Fps(1, include_last=True), of) == [0, 25, 50, 75, 99]
    assert numbers(Fps(25, include_last=True), of) == list(range(100)), "the last is there already"
    assert numbers(Fps(25, max_frames=3), of) == [0, 50, 99]
    assert numbers(Fps(1, max_frames=10), of) == [0, 25, 50, 75]


def test_frames_are_counted_not_timed_where_the_rate_varies() -> None:
    of = clip(pts_seconds=[0.0, 0.1, 0.15, 1.0, 2.5, 2.54])
    assert numbers(UniformEnds(3), of) == [0, 2, 5]
    assert numbers(Window(3, start=0.0), of) == [0, 1, 2]
    assert numbers(All(), of) == [0, 1, 2, 3, 4, 5]
    assert numbers(Uniform(2), of) == [2, 3], "a quarter and three quarters of 2.58 s"


def test_too_few_frames_are_given_again() -> None:
    of = clip(3)
    assert numbers(Window(5), of) == [0, 1, 2, 2, 2]
    assert numbers(UniformEnds(5), of) == [0, 0, 1, 1, 2]
    assert numbers(Uniform(6), of) == [0, 0, 1, 1, 2, 2]
    assert numbers(Thirds(3), clip(1)) == [0, 0, 0]


@pytest.mark.parametrize(
    ("duration_seconds", "shortest", "ends"),
    [
        (30.0, 0.0, [30.0]),
        (30.000000000000004, 0.0, [30.000000000000004]),
        (30.1, 0.0, [30.0, 30.1]),
        (30.1, 2.0, [30.1]),
        (31.99, 2.0, [31.99]),
        (32.0, 2.0, [30.0, 32.0]),
        (95.0, 0.0, [30.0, 60.0, 90.0, 95.0]),
        (0.18, 2.0, [0.18]),
    ],
)
def test_pieces_of_half_a_minute(duration_seconds: float, shortest: float, ends: list[float]) -> None:
    found = pieces(duration_seconds, seconds=30.0, min_tail_seconds=shortest)
    assert found == list(zip([0.0, *ends[:-1]], ends, strict=True))


def test_frames_of_each_piece() -> None:
    assert UniformPieces(6, 30.0).times_seconds(clip(1000))[:6] == [2.5, 7.5, 12.5, 17.5, 22.5, 27.5]
    assert UniformPieces(2, 30.0).times_seconds(clip(1000))[2:] == [32.5, 37.5]
    assert numbers(UniformPieces(8, 30.0), clip()) == numbers(Uniform(8), clip()), "a short clip is one piece"


def test_a_clip_without_keyframes_is_not_snapped() -> None:
    of = ClipTimes(pts_seconds=np.arange(4) / 25, is_key=np.zeros(4, bool), duration_seconds=0.16)
    assert numbers(Snapped(Uniform(4)), of) == [0, 1, 2, 3]


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
@given(
    steps=st.lists(st.floats(0.001, 3.0), min_size=0, max_size=40), tail=st.floats(0.001, 1.0), first=st.floats(-0.5, 0)
)
def test_what_holds_for_every_sampler(sampler: Sampler, steps: list[float], tail: float, first: float) -> None:
    """Times lie within the clip, and their number does not depend on its frames where the sampler names it."""
    pts = np.cumsum([first if not steps else 0.0, *steps])
    duration = max(float(pts[-1]) + tail, 0.001)
    of = ClipTimes(pts_seconds=pts, is_key=np.ones(len(pts), bool), duration_seconds=duration)
    times = sampler.times_seconds(of)
    assert times
    assert all(np.isfinite(times))
    if not isinstance(sampler, Times):
        assert max(times) < duration
        assert min(times) >= min(0.0, first)
    if hasattr(sampler, "n"):
        assert len(times) == sampler.n
    assert pickle.loads(pickle.dumps(sampler)) == sampler  # noqa: S301 - our own


def test_every_sampler_is_tested() -> None:
    there = {
        name for name, value in vars(sampling).items() if isinstance(value, type) and hasattr(value, "times_seconds")
    }
    assert there - {"Sampler"} == {type(sampler).__name__ for sampler in EVERY}


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Uniform, {"n": 0}, r"Uniform\(n=0\): n is the number of frames"),
        (Uniform, {"n": 2.5}, "a whole number"),
        (UniformEnds, {"n": 0}, "UniformEnds"),
        (Thirds, {"n": -1}, "Thirds"),
        (Window, {"n": 0}, "Window"),
        (Window, {"n": 1, "stride": 0}, r"Window\(stride=0\): a whole number of frames"),
        (Window, {"n": 1, "start": 1.5}, r"Window\(start=1\.5\): from 0"),
        (Fps, {"fps": 0}, "above 0"),
        (Fps, {"fps": float("nan")}, "above 0"),
        (Fps, {"fps": 1, "max_frames": 0}, r"Fps\(max_frames=0\)"),
        (All, {"max_frames": 0}, r"All\(max_frames=0\)"),
        (UniformPieces, {"num_frames": 0, "seconds": 30.0}, "number of frames"),
        (UniformPieces, {"num_frames": 1, "seconds": 0.0}, r"pieces of 0\.0 s"),
        (UniformPieces, {"num_frames": 1, "seconds": 2.0, "min_tail_seconds": 3.0}, r"tails from 3\.0 s"),
        (Times, {"seconds": ()}, "at least one time"),
        (Times, {"seconds": (-1.0,)}, "at least 0"),
        (Times, {"seconds": (float("inf"),)}, "at least one time"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)
