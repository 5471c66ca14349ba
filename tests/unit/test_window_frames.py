from typing import Any

import numpy as np
import pytest

from civid_loader.transforms.window_frames import WindowFrames
from support.samples import a_sample, frame_numbers, hide


def test_every_window_comes_and_no_other() -> None:
    sample, rng = a_sample(7), np.random.default_rng(0)
    windows = {tuple(frame_numbers(WindowFrames(n=3, stride=2)(sample, rng), 0, of=sample)) for _ in range(100)}
    assert windows == {(0, 2, 4), (1, 3, 5), (2, 4, 6)}


def test_times_follow_the_frames() -> None:
    changed = WindowFrames(n=4)(a_sample(4, fps=10), np.random.default_rng(0))
    assert changed["pts_seconds_NT"][0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("n", "stride", "expected"),
    [(4, 1, [0, 1, 2, None]), (2, 5, [0, None]), (3, 2, [0, 2, None]), (1, 9, [1])],
)
def test_what_is_too_short_is_padded(n: int, stride: int, expected: list[int | None]) -> None:
    sample = a_sample(3)
    changed = WindowFrames(n=n, stride=stride)(sample, np.random.default_rng(0))
    assert frame_numbers(changed, 0, of=sample) == expected


def test_damaged_frames_are_passed_over() -> None:
    sample = hide(a_sample(6, 6), 1, 0, 3)
    changed = WindowFrames(n=4)(sample, np.random.default_rng(0))
    assert frame_numbers(changed, 1, of=sample) == [1, 2, 4, 5]


def test_a_draw_for_each_clip_or_for_the_sample() -> None:
    sample, differ = a_sample(50, 50), {}
    for draw in ("clip", "sample"):
        window, rng = WindowFrames(n=1, draw=draw), np.random.default_rng(0)
        changed = [window(sample, rng) for _ in range(20)]
        differ[draw] = sum(frame_numbers(one, 0, of=sample) != frame_numbers(one, 1, of=sample) for one in changed)
    assert differ["clip"] > 10
    assert differ["sample"] == 0


def test_one_draw_is_a_share_of_the_room() -> None:
    sample, rng = a_sample(11, 101), np.random.default_rng(0)
    for _ in range(20):
        changed = WindowFrames(n=1, draw="sample")(sample, rng)
        short, long = (frame_numbers(changed, n, of=sample)[0] for n in range(2))
        assert short is not None
        assert long is not None
        assert abs(short / 11 - long / 101) < 1 / 11


@pytest.mark.parametrize("setting", [{"n": 0}, {"n": 2.0}, {"n": 2, "stride": 0}])
def test_settings_are_checked(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"WindowFrames\({list(setting)[-1]}=.*a whole number of frames"):
        WindowFrames(**setting)
    with pytest.raises(ValueError, match=r"draw='batch'\): must be one of clip, sample"):
        WindowFrames(n=2, draw="batch")  # type: ignore[arg-type]
