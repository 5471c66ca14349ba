from typing import Any

import numpy as np
import pytest
import torch

from civid_loader.transforms.crop_frames import CropFrames
from support.samples import a_sample


def where_from(cropped: torch.Tensor, whole: torch.Tensor) -> list[tuple[int, int]]:
    """Places (top, left) whose pixels are those of the crop, in all clips and frames."""
    height, width = cropped.shape[-2:]
    return [
        (top, left)
        for top in range(whole.shape[-2] - height + 1)
        for left in range(whole.shape[-1] - width + 1)
        if torch.equal(whole[..., top : top + height, left : left + width], cropped)
    ]


@pytest.mark.parametrize(("given", "place"), [((8, 8), (2, 1)), ((9, 9), (2, 1)), ((4, 6), (0, 0))])
def test_the_centre(given: tuple[int, int], place: tuple[int, int]) -> None:
    sample = a_sample(3, 2, size=given)
    cropped = CropFrames(size=(4, 6))(sample, np.random.default_rng(0))["frames_NTCHW"]
    assert where_from(cropped, sample["frames_NTCHW"]) == [place]
    assert cropped.is_contiguous()


def test_one_random_place_for_all_clips_and_every_place_comes() -> None:
    sample, rng = a_sample(3, 2, size=(7, 7)), np.random.default_rng(0)
    crop = CropFrames(size=(5, 6), place="random")
    found = [where_from(crop(sample, rng)["frames_NTCHW"], sample["frames_NTCHW"]) for _ in range(100)]
    assert {len(places) for places in found} == {1}, "the same place in each frame"
    assert {places[0] for places in found} == {(top, left) for top in range(3) for left in range(2)}


def test_as_much_is_drawn_whatever_the_size() -> None:
    """So that what comes after a crop does not depend on how large a video was."""
    after = []
    for size in ((5, 6), (7, 6), (70, 60)):
        rng = np.random.default_rng(5)
        CropFrames(size=(5, 6), place="random")(a_sample(1, size=size), rng)
        after.append(rng.bit_generator.state["state"])
    assert after[1:] == after[:1] * 2


def test_what_is_too_small_names_the_cure() -> None:
    with pytest.raises(ValueError, match=r"sample s0: .*4x6 px.*size=\(5, 6\)\); put ResizeFrames"):
        CropFrames(size=(5, 6))(a_sample(1), np.random.default_rng(0))


@pytest.mark.parametrize("size", [(0, 4), 4])
def test_settings_are_checked(size: Any) -> None:
    with pytest.raises(ValueError, match=r"CropFrames\(size=.*two whole numbers"):
        CropFrames(size=size)
    with pytest.raises(ValueError, match=r"place='center'\): must be one of centre, random"):
        CropFrames(size=(4, 4), place="center")  # type: ignore[arg-type]
