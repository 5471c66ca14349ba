from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from civid_loader.transforms.normalize_frames import NormalizeFrames
from support.samples import a_sample

RNG = np.random.default_rng(0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def every_value(transform: NormalizeFrames) -> torch.Tensor:
    """All 256 values of a channel, normalised."""
    sample = a_sample(1, size=(1, 256))
    sample["frames_NTCHW"] = torch.arange(256, dtype=torch.uint8).expand(1, 1, 3, 1, 256)
    frames: torch.Tensor = transform(sample, RNG)["frames_NTCHW"]
    return frames[0, 0, :, 0]


def test_the_default_is_from_minus_one_to_one() -> None:
    values = every_value(NormalizeFrames())
    assert values.dtype == torch.float32
    assert torch.allclose(values, torch.linspace(-1, 1, 256).expand(3, 256), atol=1e-6)
    assert (float(values.min()), float(values.max())) == (-1, 1)
    assert torch.equal(every_value(NormalizeFrames(mean=0, std=1)), torch.arange(256).div(255).expand(3, 256))


def test_channels_are_as_torchvision_normalises_them() -> None:
    sample = a_sample(2, 2)
    expected = functional.normalize(sample["frames_NTCHW"].float() / 255, mean=list(MEAN), std=list(STD))
    assert torch.allclose(NormalizeFrames(mean=MEAN, std=STD)(sample, RNG)["frames_NTCHW"], expected)
    assert NormalizeFrames(mean=list(MEAN)) == NormalizeFrames(mean=MEAN), "a list will do"  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_rounded_once(dtype: torch.dtype) -> None:
    values = every_value(NormalizeFrames(mean=MEAN, std=STD, dtype=dtype))
    exact = (np.arange(256) / 255 - np.array(MEAN)[:, None]) / np.array(STD)[:, None]
    assert values.dtype == dtype
    step = torch.finfo(dtype).eps * 4  # of numbers from 2 to 4, as the largest are; half of it is what rounding costs
    assert np.abs(values.double().numpy() - exact).max() <= step / 2 * 1.01


def test_places_without_a_frame_stay_zero() -> None:
    changed = NormalizeFrames()(a_sample(3, 1), RNG)
    assert not changed["frames_NTCHW"][1, 1:].any()
    assert changed["frames_NTCHW"][1, 0].any()


def test_a_second_time_is_an_error() -> None:
    once = NormalizeFrames()(a_sample(1), RNG)
    with pytest.raises(ValueError, match=r"sample s0: its frames are torch\.float32, not torch\.uint8.*once"):
        NormalizeFrames()(once, RNG)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "mean=.*from 0 to 1.*divide those"),
        ({"std": 0}, "std=0.: .*above 0 to 1"),
        ({"std": (0.2, 0.2)}, "one number or three"),
        ({"mean": float("nan")}, "mean=nan"),
        ({"std": None}, "std=None"),
        ({"dtype": torch.uint8}, "must be one of torch.float16, torch.bfloat16"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NormalizeFrames(**setting)
