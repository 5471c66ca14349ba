"""Faults of pictures: each is planted in a size that is known, and measured."""
# ruff: noqa: N803, N806 - arrays carry their shape.

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from civid_loader.processing.scores.technical_quality import TechnicalQuality, TechnicalQualityParams
from support.media import write_video
from support.stages import clip_of, decoded_clip

Images = npt.NDArray[np.uint8]
FPS = 4


def quality_of(images_NHWC: Images, **params: Any) -> dict[str, Any]:
    stage = TechnicalQuality(TechnicalQualityParams(**params))
    return stage.run([clip_of(images_NHWC, stage.requests(), fps=FPS)])[0]


def still(image_HW: npt.NDArray[Any], *, num_frames: int = 8) -> Images:
    """A grey picture, over and over."""
    return np.repeat(image_HW[None, ..., None], num_frames, axis=0).repeat(3, axis=-1).astype(np.uint8)


def noise(std: float, *, size: tuple[int, int] = (96, 128), seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).normal(128, std, size).round().clip(0, 255)


def test_a_constant_picture_has_no_fault_but_standing_still() -> None:
    assert quality_of(still(np.full((48, 64), 128))) == {
        "sharpness_mean": 0.0,
        "sharpness_min": 0.0,
        "clipped_dark_share": 0.0,
        "clipped_bright_share": 0.0,
        "blockiness": 1.0,
        "noise_std": 0.0,
        "letterbox_rows_share": 0.0,
        "letterbox_columns_share": 0.0,
        "frozen_share": 1.0,
    }


def test_an_edge_has_the_sharpness_of_its_step() -> None:
    """A step of s is -s and s in two columns: a variance of 2 s**2 / width."""
    image_HW = np.full((32, 64), 100)
    image_HW[:, 32:] = 140
    row = quality_of(still(image_HW), sharpness_side_px=32)
    assert row["sharpness_mean"] == pytest.approx(2 * 40**2 / 64)


def test_blur_takes_sharpness_away() -> None:
    image_HW = noise(30)
    blurred = [cv2.GaussianBlur(image_HW, (0, 0), sigma) for sigma in (1, 2, 4)]
    values = [quality_of(still(one))["sharpness_mean"] for one in (image_HW, *blurred)]
    assert values == sorted(values, reverse=True)
    mixed = np.concatenate([still(image_HW, num_frames=4), still(blurred[2], num_frames=4)])
    row = quality_of(mixed)
    assert row["sharpness_min"] == pytest.approx(values[3])
    assert row["sharpness_mean"] == pytest.approx((values[0] + values[3]) / 2)


def test_clipped_pixels_are_counted() -> None:
    image_HW = np.full((40, 40), 128)
    image_HW[:10], image_HW[10:14] = 255, 251
    image_HW[20:25], image_HW[25] = 4, 5
    row = quality_of(still(image_HW))
    assert row["clipped_bright_share"] == pytest.approx(14 / 40)
    assert row["clipped_dark_share"] == pytest.approx(5 / 40)


@pytest.mark.parametrize("step", [3, 20])
def test_blocks_have_the_blockiness_of_their_steps(step: int) -> None:
    """Blocks of 8 px like a chess board: each edge of the grid is a step, and there is none within."""
    rows, columns = np.indices((64, 96)) // 8
    board = 100 + step * ((rows + columns) % 2)
    assert quality_of(still(board))["blockiness"] == pytest.approx(step + 1)
    shifted = np.roll(board, (3, 3), axis=(0, 1))
    assert quality_of(still(shifted))["blockiness"] < 1


def test_a_grid_is_not_seen_where_there_is_none() -> None:
    assert quality_of(still(noise(10)))["blockiness"] == pytest.approx(1, abs=0.05)
    ramp = np.broadcast_to(np.arange(128), (96, 128))
    assert quality_of(still(ramp))["blockiness"] == pytest.approx(1, abs=0.01)


def test_strong_compression_shows_as_blocks(tmp_path: Path) -> None:
    stage = TechnicalQuality(TechnicalQualityParams())
    smooth = cv2.GaussianBlur(noise(90), (0, 0), 3)
    image_HW = (128 + (smooth - 128) * 5).clip(0, 255)
    found = []
    for quality in (2, 31):
        coder = {"qmin": str(quality), "qmax": str(quality)}
        path = write_video(
            tmp_path / f"{quality}.avi",
            num_frames=8,
            size=(96, 128),
            codec="mjpeg",
            pixel_format="yuvj420p",
            encoder=coder,
            image=lambda _: still(image_HW)[0],
        )
        found.append(stage.run([decoded_clip(path, stage.requests(), fps=25, duration_seconds=0.32)])[0]["blockiness"])
    assert found[0] == pytest.approx(1, abs=0.2)
    assert found[1] > found[0] + 0.4


@pytest.mark.parametrize("std", [2, 10, 25])
def test_white_noise_has_its_standard_deviation(std: float) -> None:
    assert quality_of(still(noise(std)))["noise_std"] == pytest.approx(std, rel=0.05)


def test_a_ramp_is_no_noise() -> None:
    assert quality_of(still(np.add.outer(np.arange(96), np.arange(128))))["noise_std"] == 0


@pytest.mark.parametrize(
    ("top", "bottom", "left", "right"), [(0, 0, 0, 0), (12, 12, 0, 0), (0, 0, 16, 8), (3, 5, 7, 9)]
)
def test_borders_have_their_size(top: int, bottom: int, left: int, right: int) -> None:
    image_HW = noise(10, size=(96, 128))
    image_HW[:top], image_HW[96 - bottom :], image_HW[:, :left], image_HW[:, 128 - right :] = 16, 0, 5, 24
    row = quality_of(still(image_HW))
    assert row["letterbox_rows_share"] == pytest.approx((top + bottom) / 96)
    assert row["letterbox_columns_share"] == pytest.approx((left + right) / 128)


def test_a_border_is_one_in_all_frames() -> None:
    dark, bright = np.full((96, 128), 120), np.full((96, 128), 120)
    dark[:20] = 0
    row = quality_of(np.concatenate([still(dark, num_frames=7), still(bright, num_frames=1)]))
    assert row["letterbox_rows_share"] == 0


def test_black_all_over_is_no_border() -> None:
    row = quality_of(still(np.zeros((48, 64))))
    assert (row["letterbox_rows_share"], row["letterbox_columns_share"]) == (None, None)
    assert row["clipped_dark_share"] == 1


def test_the_part_that_stands_still_is_counted() -> None:
    """21 frames at 4 per second: 11 are looked at, and of their 10 steps the last 5 show nothing new."""
    moves = np.stack([noise(40, seed=seed) for seed in range(10)])
    stands = np.repeat(noise(40, seed=10)[None], 11, axis=0)
    images_NHWC = np.concatenate([still(one, num_frames=1) for one in (*moves, *stands)])
    assert quality_of(images_NHWC)["frozen_share"] == pytest.approx(0.5)


def test_what_encoding_does_is_no_motion() -> None:
    image_HW = np.full((256, 256), 100)
    flicker = np.concatenate([still(image_HW + 2 * (number % 2), num_frames=1) for number in range(9)])
    assert quality_of(flicker, frozen_fps=4)["frozen_share"] == 1
    assert quality_of(flicker, frozen_fps=4, frozen_tolerance=1)["frozen_share"] == 0


def test_a_tiny_single_frame() -> None:
    row = quality_of(still(np.full((2, 2), 128), num_frames=1))
    assert {name for name, value in row.items() if value is None} == {"blockiness", "noise_std", "frozen_share"}
