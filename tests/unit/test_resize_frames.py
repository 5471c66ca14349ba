from typing import Any

import numpy as np
import pytest
import torch

from civid_loader.pixels import covering
from civid_loader.transforms.crop_frames import CropFrames
from civid_loader.transforms.resize_frames import ResizeFrames
from support.samples import a_sample

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("size", "mode", "given", "expected"),
    [
        ((256, 256), "cover", (360, 640), (256, 455)),
        ((256, 256), "fit", (360, 640), (144, 256)),
        ((256, 256), "stretch", (360, 640), (256, 256)),
        ((64, 32), "cover", (16, 16), (64, 64)),
        ((64, 32), "fit", (16, 16), (32, 32)),
        ((10, 10), "fit", (1, 100), (1, 10)),
        ((333, 333), "cover", (334, 997), (333, 994)),
    ],
)
def test_sizes(size: tuple[int, int], mode: Any, given: tuple[int, int], expected: tuple[int, int]) -> None:
    resized = ResizeFrames(size=size, mode=mode)(a_sample(2, 1, size=given), RNG)["frames_NTCHW"]
    assert resized.shape == (2, 2, 3, *expected)
    assert resized.dtype == torch.uint8


@pytest.mark.parametrize("height", range(1, 40, 3))
@pytest.mark.parametrize("width", range(1, 40, 4))
def test_cover_covers_and_fit_fits(height: int, width: int) -> None:
    sample = a_sample(1, size=(height, width))
    cover = ResizeFrames(size=(12, 17), mode="cover")(sample, RNG)["frames_NTCHW"].shape[-2:]
    fit = ResizeFrames(size=(12, 17), mode="fit")(sample, RNG)["frames_NTCHW"].shape[-2:]
    assert cover[0] >= 12 and cover[1] >= 17 and (cover[0] == 12 or cover[1] == 17)  # noqa: PT018 - one statement
    assert 1 <= fit[0] <= 12 and 1 <= fit[1] <= 17 and (fit[0] == 12 or fit[1] == 17)  # noqa: PT018 - one statement


def test_covered_and_cropped_it_is_what_decoding_at_that_size_gives() -> None:
    sample = a_sample(3, 2, size=(45, 80))
    changed = CropFrames(size=(20, 20))(ResizeFrames(size=(20, 20))(sample, RNG), RNG)
    for n, t in ((0, 0), (0, 2), (1, 1)):
        assert torch.equal(changed["frames_NTCHW"][n, t], covering(sample["frames_NTCHW"][n, t], (20, 20)))


def test_details_finer_than_a_pixel_become_grey() -> None:
    """Without antialiasing every eighth column of a fine pattern would give black or white."""
    sample = a_sample(1, size=(64, 64))
    sample["frames_NTCHW"] = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 1, 3, 64, 64)
    resized = ResizeFrames(size=(8, 8))(sample, RNG)["frames_NTCHW"]
    assert resized.float().sub(127.5).abs().max() < 16


def test_any_leading_dimensions_and_floats() -> None:
    sample = a_sample(2, 2, size=(8, 8))
    one = ResizeFrames(size=(4, 4))(sample, RNG)["frames_NTCHW"]
    batch = {**sample, "frames_NTCHW": sample["frames_NTCHW"].expand(5, 2, 2, 3, 8, 8)}
    assert torch.equal(ResizeFrames(size=(4, 4))(batch, RNG)["frames_NTCHW"], one.expand(5, 2, 2, 3, 4, 4))
    floats = {**sample, "frames_NTCHW": sample["frames_NTCHW"].float()}
    resized = ResizeFrames(size=(4, 4))(floats, RNG)["frames_NTCHW"]
    assert resized.dtype == torch.float32
    assert (resized - one.float()).abs().max() <= 1


@pytest.mark.parametrize("size", [256, (256,), (0, 4), (4, 4.0), "44", (1, 2, 3)])
def test_settings_are_checked(size: Any) -> None:
    with pytest.raises(ValueError, match=r"ResizeFrames\(size=.*\(height, width\) in px, two whole numbers"):
        ResizeFrames(size=size)
    with pytest.raises(ValueError, match=r"mode='crop'\): must be one of cover, fit, stretch"):
        ResizeFrames(size=(4, 4), mode="crop")  # type: ignore[arg-type]
