from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from civid_loader.transforms.resample_fps import ResampleFps
from support.samples import a_sample, frame_numbers, hide

RNG = np.random.default_rng(0)


def test_a_lower_rate() -> None:
    sample = a_sample(12, 3)
    changed = ResampleFps(fps=10)(sample, RNG)
    assert frame_numbers(changed, 0, of=sample) == [0, 2, 5, 7, 10]
    assert frame_numbers(changed, 1, of=sample) == [0, None, None, None, None]
    assert changed["pts_seconds_NT"][0].tolist() == pytest.approx([0, 0.08, 0.2, 0.28, 0.4]), "of the frames themselves"
    assert changed["pts_seconds_NT"][1].tolist() == [0] * 5


def test_a_higher_rate_repeats() -> None:
    sample = a_sample(3)
    changed = ResampleFps(fps=50)(sample, RNG)
    assert frame_numbers(changed, 0, of=sample) == [0, 0, 1, 1, 2]


def test_the_same_rate_changes_nothing() -> None:
    for fps in (23.976, 24, 25, 29.97, 30, 59.94, 120):
        sample = a_sample(400, size=(1, 1), fps=fps)
        changed = ResampleFps(fps=fps)(sample, RNG)
        assert torch.equal(changed["pts_seconds_NT"], sample["pts_seconds_NT"])


def test_it_begins_at_the_first_shown_frame_and_a_gap_keeps_the_frame_before() -> None:
    sample = hide(a_sample(12), 0, 0, 5, 6)
    changed = ResampleFps(fps=12.5)(sample, RNG)
    assert frame_numbers(changed, 0, of=sample) == [1, 3, 4, 7, 9, 11]


def test_times_in_any_other_order_are_an_error() -> None:
    sample = a_sample(3)
    sample["pts_seconds_NT"] = torch.tensor([[0.0, 0.2, 0.1]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"sample s0, clip c0: .*not in order of time.*ascending"):
        ResampleFps(fps=5)(sample, RNG)


@given(
    steps=st.lists(st.integers(0, 9000), max_size=30),
    fps=st.fractions(Fraction(1, 4), 60, max_denominator=7),
)
def test_it_is_what_exact_arithmetic_gives(steps: list[int], fps: Fraction) -> None:
    """Times on a clock of 1/90000 s; a wait of i/fps lands on a frame, or at least 1/(90000 * 7 * 60) s away."""
    exact = [Fraction(sum(steps[:k]), 90_000) for k in range(len(steps) + 1)]
    sample = a_sample(len(exact), size=(1, 1))
    sample["pts_seconds_NT"] = torch.tensor([[float(moment) + 5 for moment in exact]], dtype=torch.float64)
    changed = ResampleFps(fps=float(fps))(sample, RNG)
    expected, i, tolerance = [], 0, Fraction(1, 10**6)
    while i / fps <= exact[-1] + tolerance:
        expected.append(max(k for k, moment in enumerate(exact) if moment <= i / fps + tolerance))
        i += 1
    assert torch.equal(changed["pts_seconds_NT"][0], sample["pts_seconds_NT"][0, expected])
    assert changed["mask_NT"].all()


@pytest.mark.parametrize("fps", [0, -1, float("inf"), float("nan"), "25"])
def test_settings_are_checked(fps: Any) -> None:
    with pytest.raises(ValueError, match=r"ResampleFps\(fps=.*a number of frames per second above 0"):
        ResampleFps(fps=fps)
