"""Brightness and colour: what follows from their definitions."""
# ruff: noqa: N803, N806 - arrays carry their shape.

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from civid_loader.processing.scores.colour import Colour, ColourParams
from support.stages import clip_of

Images = npt.NDArray[np.uint8]
LUMAS = ("luma_mean", "luma_bright80", "luma_dark80")
FPS = 2
"""As many as are looked at: every frame is."""


def colour_of(images_NHWC: Images) -> dict[str, Any]:
    stage = Colour(ColourParams())
    return stage.run([clip_of(images_NHWC, stage.requests(), fps=FPS)])[0]


def flat(*colours: tuple[int, int, int]) -> Images:
    return np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in colours])


def greys(*values: int) -> Images:
    return flat(*[(value, value, value) for value in values])


def random_images(num_frames: int, *, low: int = 0, high: int = 256) -> Images:
    return np.random.default_rng(0).integers(low, high, (num_frames, 256, 256, 3), np.uint8)


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_of_a_constant_all_are_that(grey: int) -> None:
    row = colour_of(greys(*[grey] * 5))
    assert [row[name] for name in LUMAS] == pytest.approx([grey] * 3)
    assert row["rgb_mean"] == [grey] * 3
    assert (row["luma_std"], row["saturation_mean"]) == (0, 0)


def test_the_share_is_rounded_up() -> None:
    """Of 6 frames 0.8 are 4.8: the 5 brightest, the 5 darkest."""
    row = colour_of(greys(60, 10, 50, 20, 40, 30))
    assert row["luma_mean"] == pytest.approx(35)
    assert row["luma_bright80"] == pytest.approx(40)
    assert row["luma_dark80"] == pytest.approx(30)
    assert row["luma_std"] == pytest.approx(np.std([10, 20, 30, 40, 50, 60]))


@pytest.mark.parametrize(
    ("colour", "luma", "saturation"),
    [((255, 0, 0), 76.245, 1), ((0, 255, 0), 149.685, 1), ((0, 0, 255), 29.07, 1), ((200, 100, 100), 129.9, 0.5)],
)
def test_red_green_and_blue_weigh_what_they_should(
    colour: tuple[int, int, int], luma: float, saturation: float
) -> None:
    row = colour_of(flat(colour, colour))
    assert row["luma_mean"] == pytest.approx(luma)
    assert row["saturation_mean"] == pytest.approx(saturation, abs=0.005)
    assert row["rgb_mean"] == list(colour)


def test_the_dark_are_darker_than_the_bright() -> None:
    images_NHWC = (random_images(7) * np.linspace(0.2, 1, 7)[:, None, None, None]).astype(np.uint8)
    row = colour_of(images_NHWC)
    assert row["luma_dark80"] < row["luma_mean"] < row["luma_bright80"]


def test_the_order_of_frames_does_not_matter() -> None:
    images_NHWC = random_images(6)
    before, after = (colour_of(one) for one in (images_NHWC, images_NHWC[[3, 0, 5, 1, 4, 2]]))
    assert before.pop("rgb_mean") == pytest.approx(after.pop("rgb_mean"))
    assert before == pytest.approx(after)


def test_light_adds_to_all() -> None:
    images_NHWC = random_images(4, low=20, high=200)
    before, after = colour_of(images_NHWC), colour_of(images_NHWC + 30)
    assert [after[name] - before[name] for name in LUMAS] == pytest.approx([30] * 3)
    assert np.subtract(after["rgb_mean"], before["rgb_mean"]) == pytest.approx([30] * 3)
    assert after["luma_std"] == pytest.approx(before["luma_std"])


def test_a_single_frame_has_values() -> None:
    row = colour_of(greys(50))
    assert [row[name] for name in LUMAS] == pytest.approx([50] * 3)
    assert row["luma_std"] == 0


def test_frames_are_looked_at_as_often_as_asked_for() -> None:
    assert {name: (one.value, one.size) for name, one in Colour(ColourParams(fps=0.5)).requests().items()} == {
        "frames": (0.5, (256, 256))
    }
