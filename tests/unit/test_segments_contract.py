"""What holds for every stage of whole films: who it is, and rows for scenes in any order, with all or nothing known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from civid_loader.processing import registry
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.segments.entity_segment import Entity, EntitySegment
from civid_loader.processing.stage import ClipInput, Row, Stage
from civid_loader.processing.stage_rows import features_of, table_of
from civid_loader.schema import arrow_schema_of

NAMES: Final = [
    name
    for name in registry.names()
    if (kind := registry.find(name)).kind == "sequence" and not issubclass(kind, AskingStage)
]
GOLDEN: Final = {
    "entity_segment": "584b897b0b8c8ac6",
    "similarity_segment": "84cd00f527bb67d7",
    "split_stitch": "5e41eadc372c8d8d",
}
"""Fingerprints at the defaults: another one without a new `version` says that results are not what they were."""
NUM_SCENES: Final = 4


class Yes:
    """An asker that sees a dog everywhere."""

    def main_entity(self, middle_frames: Sequence[Any]) -> Entity:
        return Entity(name="a dog", is_person=False)

    def are_seen(self, entity: Entity, frames: Sequence[Any]) -> list[bool | None]:
        return [True for _ in frames]

    def are_several(self, entity: Entity, frames: Sequence[Any]) -> list[bool | None]:
        return [False for _ in frames]

    def is_same(self, entity: Entity, frames: Sequence[Any]) -> bool:
        return True


def made(name: str) -> Stage[Any]:
    if name == "entity_segment":
        return EntitySegment(registry.make(name).params, asker=Yes())
    params = {"imagebind_at_least": 0.5, "dino_at_least": 0.5, "min_seconds": 1.0} if name == "split_stitch" else {}
    return registry.make(name, params)


def scene(film: str, index: int, *, known: Mapping[str, Any]) -> ClipInput:
    """Scene `index` of a film, each as like the one before as 0.7."""
    return ClipInput(
        id=f"{film}-{index}",
        frames={"frames": np.full((3, 8, 8, 3), 40 * index, np.uint8)},
        times_seconds={"frames": np.arange(3.0)},
        fps=25.0,
        duration_seconds=2.0,
        row={"video": film, "index": index, **known},
    )


def known_of(index: int) -> dict[str, Any]:
    """What the stages read, all of it."""
    angle = index * np.arccos(0.7)
    vector = np.array([np.cos(angle), np.sin(angle)])
    ends = np.stack([vector, vector])
    return {"embeddings": np.stack([vector] * 3), "ends_imagebind": ends, "ends_dino": ends, "seq_id": "s"}


@pytest.fixture
def scenes() -> list[ClipInput]:
    return [scene(film, i, known=known_of(i) | {"seq_id": film}) for film in ("a", "b") for i in range(NUM_SCENES)]


def test_all_are_here() -> None:
    assert set(GOLDEN) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_who_it_was(name: str) -> None:
    assert registry.make(name).fingerprint() == GOLDEN[name]
    assert registry.make(name).asks_model == (name in ("entity_segment", "split_stitch"))


@pytest.mark.parametrize("name", NAMES)
def test_rows_have_the_columns_it_declares(name: str, scenes: list[ClipInput]) -> None:
    stage = made(name)
    rows = stage.run(scenes)
    assert all(set(row) == {column.name for column in stage.columns} for row in rows)
    table = as_table(stage, scenes, rows)
    for column in stage.columns:
        assert table.column(column.name).null_count < len(rows), f"{column.name} has no value for any scene"


@pytest.mark.parametrize("name", NAMES)
def test_films_and_order_do_not_matter(name: str, scenes: list[ClipInput]) -> None:
    stage = made(name)
    rows = {clip.id: row for clip, row in zip(scenes, stage.run(scenes), strict=True)}
    mixed = [scenes[i] for i in np.random.default_rng(1).permutation(len(scenes))]
    assert {clip.id: row for clip, row in zip(mixed, stage.run(mixed), strict=True)} == rows
    alone = stage.run(scenes[:NUM_SCENES])
    assert alone == [rows[clip.id] for clip in scenes[:NUM_SCENES]]
    assert stage.run([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_scenes_of_which_nothing_is_known_say_so(name: str, scenes: list[ClipInput]) -> None:
    stage = made(name)
    bare = [replace(clip, row={"video": "c", "index": i}) for i, clip in enumerate(scenes)]
    rows = stage.run(bare)
    assert len(rows) == len(bare)
    assert all(row.get("reason") for row in rows)
    as_table(stage, bare, rows)


def as_table(stage: Stage[Any], clips: Sequence[ClipInput], rows: Sequence[Row]) -> pa.Table:
    """As a layer holds them."""
    names = [column.name for column in stage.columns]
    full = [
        {"clip_id": clip.id, "reason": row.get("reason"), **{name: row.get(name) for name in names}}
        for clip, row in zip(clips, rows, strict=True)
    ]
    return table_of(full, arrow_schema_of(features_of(stage.columns)))
