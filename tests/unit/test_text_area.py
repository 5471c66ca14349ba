"""Area of text: of rectangles whose area is known, through a detector with random weights, and against transformers."""
# ruff: noqa: N806 - arrays carry their shape.

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import transformers

from civid_loader.errors import ModelError
from civid_loader.processing.scores.text_area import TextArea, TextAreaParams, text_share
from support import tiny_models
from support.noise_clips import clips_for, noise_clips
from support.stages_clip import make_text_area
from support.tiny_models import as_weights

PARAMS = TextAreaParams()


def _map(*rectangles: tuple[int, int, int, int], value: float = 0.9) -> Any:
    """Probabilities with (top, left, bottom, right) rectangles of text."""
    probability_HW = np.zeros((200, 300), np.float32)
    for top, left, bottom, right in rectangles:
        probability_HW[top:bottom, left:right] = value
    return probability_HW


def test_rectangles_are_grown() -> None:
    # 101 x 21 pixels, 100 x 20 between their centres: grown by 100 x 20 x 1.5 / 240 = 12.5 on each side.
    assert text_share(_map((50, 50, 71, 151)), PARAMS) == pytest.approx(125 * 45 / 60_000, rel=0.03)
    assert text_share(_map((50, 50, 71, 151)), TextAreaParams(grow_ratio=0)) == 101 * 21 / 60_000


def test_overlaps_count_once_and_borders_hold() -> None:
    one = text_share(_map((50, 50, 71, 151)), PARAMS)
    two = text_share(_map((50, 50, 71, 151), (77, 50, 98, 151)), PARAMS)  # grown, they overlap
    assert one < two < 1.9 * one
    assert text_share(_map((0, 0, 200, 300)), PARAMS) == 1.0
    assert text_share(_map(), PARAMS) == 0.0


def test_improbable_and_tiny_regions_are_no_text() -> None:
    assert text_share(_map((50, 50, 71, 151), value=0.5), PARAMS) == 0.0
    assert text_share(_map((50, 50, 71, 151), value=0.25), TextAreaParams(box_threshold=0.1)) == 0.0
    assert text_share(_map((50, 50, 53, 151)), PARAMS) == 0.0


def test_rotated_rectangles_are_not_boxed_upright() -> None:
    probability_HW = _map()
    cv2.fillPoly(probability_HW, [np.array([[60, 60], [160, 160], [150, 170], [50, 70]], np.int32)], 0.9)
    share = text_share(probability_HW, TextAreaParams(grow_ratio=0))
    assert share == pytest.approx(141 * 14 / 60_000, rel=0.1)


def test_boxes_are_those_of_transformers() -> None:
    probability_HW = _map((20, 30, 41, 131), (100, 50, 131, 251), (160, 20, 163, 22))
    processor: Any = transformers.PPOCRV5ServerDetImageProcessor()
    output = SimpleNamespace(last_hidden_state=torch.from_numpy(probability_HW)[None, None])
    (found,) = processor.post_process_object_detection(output, target_sizes=torch.tensor([[200, 300]]))
    covered_HW = np.zeros((200, 300), np.uint8)
    for corners in found["boxes"].numpy():
        cv2.fillPoly(covered_HW, [corners.reshape(-1, 2).astype(np.int32)], 1)
    assert text_share(probability_HW, PARAMS) == pytest.approx(covered_HW.mean(), rel=0.02)


def test_batch_and_order_do_not_matter(tmp_path: Path) -> None:
    stage = make_text_area(tmp_path)
    stage.setup(device="cpu")
    rows = stage.run(clips_for(stage, noise_clips()))
    assert stage.run(clips_for(stage, noise_clips())[::-1])[::-1] == rows
    assert [stage.run([one])[0] for one in clips_for(stage, noise_clips())] == rows
    assert all(0 <= row["text_area_mean"] <= row["text_area_max"] <= 1 for row in rows)
    assert len({row["text_area_mean"] for row in rows}) > 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"num_frames": 0}, "num_frames=0: a whole number of at least 1"),
        ({"num_frames": 1.5}, r"num_frames=1\.5: a whole number"),
        ({"box_threshold": 1.1}, r"box_threshold=1\.1: from 0 to 1"),
        ({"grow_ratio": -1.0}, "at least 0"),
    ],
)
def test_parameters_that_are_none(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextAreaParams(**params)


def test_another_model_is_refused(tmp_path: Path) -> None:
    dino = tiny_models.save_dino(tmp_path / "dino")
    with pytest.raises(ModelError, match=r"model dino \(detector\): its type 'vit' is no detector of PP-OCR"):
        TextArea(PARAMS, weights={"detector": as_weights(dino)}).setup(device="cpu")
    folder = tiny_models.save_text_detector(tmp_path / "detector")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"\(detector\).*cannot be loaded.*--model detector=PATH"):
        TextArea(PARAMS, weights={"detector": as_weights(folder)}).setup(device="cpu")
