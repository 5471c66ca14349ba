"""Sizes of samples: measured where the media layer tells, else as upstream states them."""

from pathlib import Path
from typing import Any

import pytest

from civid_loader.errors import AnnotationError
from civid_loader.sample_sizes import read_sizes
from support.sized_rows import LARGE, TIMED, sample, write


def test_as_upstream_states_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            sample(0, LARGE),
            sample(1, TIMED, LARGE),
            sample(2, None),
            sample(3, {"width": 640}, LARGE),
            sample(4, LARGE),
        ],
    )
    found = read_sizes(tmp_path)
    assert found.sizes.tolist() == [[90, 720, 1280], [90, 480, 640], [90, 720, 1280], [90, 720, 1280], [90, 720, 1280]]
    assert (found.num_measured, found.num_unknown) == (0, 1), "the third has the most common size"
    assert found.num_clips.tolist() == [1, 2, 1, 2, 1]


def test_what_was_measured_wins(tmp_path: Path) -> None:
    write(tmp_path, [sample(0, LARGE), sample(1, LARGE, LARGE)])
    rows: list[dict[str, Any]] = [
        {"clip_id": "1/1", "status": "ok", "clip_num_frames": 30, "height": 360, "width": 640},
        {"clip_id": "0/0", "status": "ok", "clip_num_frames": 80, "height": 1080, "width": 1920},
        {"clip_id": "1/0", "status": "missing"},
    ]
    write(tmp_path, rows, "media")
    found = read_sizes(tmp_path)
    assert found.sizes.tolist() == [[80, 1080, 1920], [30, 720, 1280]]
    assert (found.num_measured, found.num_unknown) == (2, 0)


def test_splits_and_what_is_not_known_at_all(tmp_path: Path) -> None:
    write(tmp_path, [sample(0, LARGE)])
    write(tmp_path, [sample(1, None)], split="test")
    assert len(read_sizes(tmp_path, split="train").sizes) == 1
    with pytest.raises(AnnotationError, match="no sample's size is known; run `civid probe"):
        read_sizes(tmp_path, split="test")
    with pytest.raises(AnnotationError, match="has no table"):
        read_sizes(tmp_path / "nowhere")
