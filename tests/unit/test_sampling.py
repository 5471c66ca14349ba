"""Test vectors: N = 100 frames at 25 fps, so the frame at time t is floor(25 t)."""

import math

import pytest

from civid_loader.sampling import Fps, Middle, Sampler, Times, Uniform


def frames_of_100(sampler: Sampler) -> list[int]:
    return [math.floor(t * 25 + 1e-6) for t in sampler.times_seconds(duration_seconds=4.0, fps=25)]


def test_uniform_takes_the_middle_of_equal_parts() -> None:
    assert frames_of_100(Uniform(8)) == [6, 18, 31, 43, 56, 68, 81, 93]
    assert Uniform(1).times_seconds(duration_seconds=3.0, fps=25) == [1.5]


@pytest.mark.parametrize(
    ("duration_seconds", "fps", "wanted_fps", "num_times", "last_seconds"),
    [(10, 30, 2, 20, 9.5), (9.7, 30, 2, 20, 9.5), (11, 30, 0.5, 6, 10), (30.1, 30, 0.5, 16, 30), (0.4, 30, 2, 1, 0)],
)
def test_fps_keeps_the_tail(
    duration_seconds: float, fps: float, wanted_fps: float, num_times: int, last_seconds: float
) -> None:
    times = Fps(wanted_fps).times_seconds(duration_seconds=duration_seconds, fps=fps)
    assert (len(times), times[0], times[-1]) == (num_times, 0, last_seconds)
    assert times == [i / wanted_fps for i in range(num_times)]


def test_fps_ends_half_a_frame_before_the_end() -> None:
    """A time within the last half frame would show the last frame again: 1.03 s at 25 fps holds 25 frames and a bit."""
    assert len(Fps(25).times_seconds(duration_seconds=1.03, fps=25)) == 26
    assert len(Fps(25).times_seconds(duration_seconds=1.01, fps=25)) == 25
    assert len(Fps(25).times_seconds(duration_seconds=1.01, fps=0)) == 26, "an unknown rate has no half frame"
    assert Fps(2).times_seconds(duration_seconds=0.01, fps=25) == [0], "at least one"


@pytest.mark.parametrize("num_frames", [1, 2, 24, 25, 299, 300, 1001])
def test_fps_at_the_rate_of_the_file_takes_every_frame_once(num_frames: int) -> None:
    for fps in (24, 25, 30000 / 1001, 60):
        assert len(Fps(fps).times_seconds(duration_seconds=num_frames / fps, fps=fps)) == num_frames


def test_middle_and_times() -> None:
    assert Middle().times_seconds(duration_seconds=3.0, fps=25) == [1.5]
    assert Times((2.0, 0.5)).times_seconds(duration_seconds=1.0, fps=25) == [2.0, 0.5], "the order asked for"
    assert hash(Times([1.0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1, 2.0, "8"])
def test_uniform_refuses_what_is_no_count(n: object) -> None:
    with pytest.raises(ValueError, match=r"Uniform\(n=.*at least 1"):
        Uniform(n)  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [0, -2.0, math.nan, math.inf])
def test_fps_refuses_what_is_no_rate(fps: float) -> None:
    with pytest.raises(ValueError, match=r"Fps\(fps=.*above 0"):
        Fps(fps)


@pytest.mark.parametrize("seconds", [(), (-0.1,), (0.0, math.nan), (math.inf,)])
def test_times_refuses_what_is_no_time(seconds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least one time"):
        Times(seconds)
