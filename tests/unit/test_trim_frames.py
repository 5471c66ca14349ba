import numpy as np
import pytest
import torch

from civid_loader.transforms.trim_frames import TrimFrames
from support.samples import a_sample, frame_numbers, hide

RNG = np.random.default_rng(0)


def test_the_first_and_the_last_moments_go() -> None:
    sample = a_sample(8, 3, 0, fps=4.0)
    changed = TrimFrames(start_seconds=0.5, end_seconds=0.25)(sample, RNG)
    assert [frame_numbers(changed, n, of=sample) for n in range(3)] == [
        [2, 3, 4, 5, 6],
        [1, None, None, None, None],  # 0 to 0.5 s: nothing is left, so the middle one stays
        [None] * 5,
    ]
    assert changed["pts_seconds_NT"][0].tolist() == [0.5, 0.75, 1.0, 1.25, 1.5]


def test_times_count_from_the_frames_that_are_shown() -> None:
    sample = hide(a_sample(6, fps=10.0), 0, 0, 5)
    assert frame_numbers(TrimFrames(start_seconds=0.1)(sample, RNG), 0, of=sample) == [2, 3, 4]


def test_nothing_to_trim_changes_nothing() -> None:
    sample = a_sample(5, 2)
    changed = TrimFrames()(sample, RNG)
    assert torch.equal(changed["frames_NTCHW"], sample["frames_NTCHW"])


def test_mistakes() -> None:
    for settings in ({"start_seconds": -1.0}, {"end_seconds": float("nan")}):
        with pytest.raises(ValueError, match="a number of seconds of at least 0"):
            TrimFrames(**settings)
