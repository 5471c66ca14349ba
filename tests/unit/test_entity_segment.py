"""What a sequence is about: the rules, with an asker whose answers are written down."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from civid_loader.processing.registry import make
from civid_loader.processing.segments.entity_segment import (
    Entity,
    EntitySegment,
    EntitySegmentParams,
    Image,
    Kept,
    is_kept,
    kept_clips,
    segment,
)
from civid_loader.processing.stage import ClipInput

DOG, COOK = Entity(name="a brown dog", is_person=False), Entity(name="the cook", is_person=True)


@dataclass(kw_only=True)
class Scripted:
    """Frames are 1 x 1 pictures whose first value is their number: clip * 10 + frame."""

    entity: Entity | None
    seen: set[int] = field(default_factory=set)
    several: dict[int, bool | None] = field(default_factory=dict)
    same: bool | None = True
    asked: list[str] = field(default_factory=list)

    def main_entity(self, middle_frames: Sequence[Image]) -> Entity | None:
        self.asked.append("entity " + " ".join(str(_number(frame)) for frame in middle_frames))
        return self.entity

    def are_seen(self, entity: Entity, frames: Sequence[Image]) -> list[bool | None]:
        self.asked += [f"seen {_number(frame)}" for frame in frames]
        return [_number(frame) in self.seen for frame in frames]

    def are_several(self, entity: Entity, frames: Sequence[Image]) -> list[bool | None]:
        self.asked += [f"several {_number(frame)}" for frame in frames]
        return [self.several.get(_number(frame), False) for frame in frames]

    def is_same(self, entity: Entity, frames: Sequence[Image]) -> bool | None:
        self.asked.append("same " + " ".join(str(_number(frame)) for frame in frames))
        return self.same


def _number(frame: Image) -> int:
    return int(frame[0, 0, 0])


def _clips(count: int) -> list[Image]:
    return [np.full((3, 1, 1, 3), 10 * clip, np.uint8) + _STEPS for clip in range(count)]


_STEPS = np.arange(3, dtype=np.uint8)[:, None, None, None]


def test_no_entity_ends_it() -> None:
    asker = Scripted(entity=None)
    assert segment(_clips(3), asker) is None
    assert asker.asked == ["entity 1 11 21"]


def test_a_thing_needs_to_be_seen_only() -> None:
    asker = Scripted(entity=DOG, seen={0, 1, 12, 30, 31, 32})
    assert segment(_clips(4), asker) == Kept(entity=DOG, clips=(0, 1, 3), frames=(0, 2, 0))
    # Frames of a clip that has one are not asked about; nor of things whether there are several, or the same.
    assert asker.asked[1:] == [f"seen {n}" for n in (0, 10, 20, 30, 11, 21, 12, 22)]


def test_too_few_clips() -> None:
    assert segment(_clips(3), Scripted(entity=DOG, seen={10})) is None
    assert segment(_clips(3), Scripted(entity=DOG, seen={10}), min_clips=1) is not None


def test_persons_must_be_alone_and_the_same() -> None:
    seen = {0, 11, 20, 31}
    asker = Scripted(entity=COOK, seen=seen, several={11: True, 20: None})
    assert segment(_clips(4), asker) == Kept(entity=COOK, clips=(0, 2, 3), frames=(0, 0, 1))
    assert asker.asked[-5:] == ["several 0", "several 11", "several 20", "several 31", "same 0 20 31"]
    for same in (False, None):
        assert segment(_clips(4), Scripted(entity=COOK, seen=seen, same=same)) is None
    crowded = Scripted(entity=COOK, seen=seen, several=dict.fromkeys((0, 11, 20), True))
    assert segment(_clips(4), crowded) is None
    assert not any(question.startswith("same") for question in crowded.asked)


@pytest.mark.parametrize(
    ("good", "several", "expected"),
    [
        ([0, None, 2], [False, None, False], [0, 2]),
        ([0, 1, 2], [True, False, None], [1, 2]),
        ([0, None, None], [False, None, None], []),
        ([], [], []),
    ],
)
def test_kept_clips(good: list[int | None], several: list[bool | None], expected: list[int]) -> None:
    assert kept_clips(good, several, min_clips=2) == expected


def test_only_persons_must_be_the_same() -> None:
    assert is_kept(DOG, None)
    assert [is_kept(COOK, answer) for answer in (True, False, None)] == [True, False, False]


def _input(clip: int, seq_id: str | None, index: int) -> ClipInput:
    frames = {"frames": _clips(clip + 1)[clip]}
    row = {"seq_id": seq_id, "index": index}
    return ClipInput(id=f"c{clip}", frames=frames, times_seconds={}, fps=24.0, duration_seconds=2.0, row=row)


def test_stage() -> None:
    batch = [_input(2, "s", 1), _input(0, "t", 0), _input(1, "s", 0), _input(3, None, 0)]
    rows = EntitySegment(EntitySegmentParams(), asker=Scripted(entity=DOG, seen={0, 10, 22})).run(batch)
    assert rows[0] == rows[2] == {"entity": "a brown dog", "good_clips": ["c1", "c2"], "good_clip_idx": [0, 1]}
    assert rows[1] == {"entity": None, "good_clips": None, "good_clip_idx": None}
    assert rows[3] == {"reason": "it is in no sequence"}
    assert all("no model" in row["reason"] for row in make("entity_segment").run(batch))
