from typing import Any

import numpy as np
import pytest
import torch

from civid_loader.transforms.flip_frames import FlipFrames
from support.samples import a_sample


def test_all_frames_or_none() -> None:
    sample, rng = a_sample(4, 2), np.random.default_rng(0)
    mirrored = torch.from_numpy(sample["frames_NTCHW"].numpy()[..., ::-1].copy())
    seen = []
    for _ in range(400):
        flipped = FlipFrames(probability=0.25)(sample, rng)
        assert torch.equal(flipped["frames_NTCHW"], mirrored if flipped["is_flipped"] else sample["frames_NTCHW"])
        seen.append(flipped["is_flipped"])
    assert 60 < sum(seen) < 140


def test_never_and_always() -> None:
    rng = np.random.default_rng(0)
    assert not any(FlipFrames(probability=0)(a_sample(1), rng)["is_flipped"] for _ in range(50))
    assert all(FlipFrames(probability=1)(a_sample(1), rng)["is_flipped"] for _ in range(50))


def test_twice_is_not_flipped() -> None:
    sample, rng, flip = a_sample(2, 3), np.random.default_rng(0), FlipFrames(probability=1)
    twice = flip(flip(sample, rng), rng)
    assert twice["is_flipped"] is False
    assert torch.equal(twice["frames_NTCHW"], sample["frames_NTCHW"])


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), None])
def test_settings_are_checked(probability: Any) -> None:
    with pytest.raises(ValueError, match=r"FlipFrames\(probability=.*from 0, never, to 1, always"):
        FlipFrames(probability=probability)
