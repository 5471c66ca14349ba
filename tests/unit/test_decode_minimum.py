"""Decoded for all stages together is what the frames they want need, and not one frame more."""

from pathlib import Path
from typing import Any

import pytest

from civid_loader.processing.planner import DecodePlan, decode_clip
from civid_loader.processing.registry import make
from civid_loader.processing.stage import Stage
from support.built import clip
from support.media import write_video

NUM_FRAMES, FPS, GOP = 95, 10, 20
STAGES = [
    ("colour", {"fps": 0.5}),
    ("scene_cuts", {"fps": 1.0}),
    ("technical_quality", {}),
    ("duplicates", {}),
]


def wanted_of(stage: Stage[Any], folder: Path) -> set[int]:
    """Numbers of the frames that a stage looks at, as they come out alone."""
    row = clip("a", "a.mp4")
    alone = decode_clip(row, DecodePlan.of([stage]), videos=str(folder), timeout_seconds=None)
    return {round(seconds * FPS) for _, times in alone.frames.values() for seconds in times}


def needed(frames: set[int]) -> int:
    """Of a file whose every frame refers to the one before, back to a keyframe every `GOP` frames."""
    last_of_group = {number // GOP: 0 for number in frames}
    for number in frames:
        last_of_group[number // GOP] = max(last_of_group[number // GOP], number % GOP)
    return sum(last + 1 for last in last_of_group.values())


@pytest.mark.parametrize("count", range(1, len(STAGES) + 1))
def test_the_union_costs_its_minimum(tmp_path: Path, count: int) -> None:
    write_video(tmp_path / "a.mp4", num_frames=NUM_FRAMES, fps=FPS, gop=GOP, size=(48, 64))
    stages = [make(name, params) for name, params in STAGES[:count]]
    wanted = set().union(*(wanted_of(stage, tmp_path) for stage in stages))
    found = decode_clip(clip("a", "a.mp4"), DecodePlan.of(stages), videos=str(tmp_path), timeout_seconds=None)
    assert found.num_frames_used == len(wanted)
    assert found.num_frames_decoded == needed(wanted) <= NUM_FRAMES
