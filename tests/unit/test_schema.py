"""The schema's rules, one by one; and its columns, as stock `datasets` reads them back."""

import math
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from civid_loader.errors import SchemaError
from civid_loader.schema import (
    CAPTION_KINDS,
    LEVELS,
    SINGLE_CAPTION_KINDS,
    TABLES,
    TRANSITION_CAPTION_KINDS,
    arrow_schema,
    caption,
    check_table,
    empty_sample,
)
from civid_loader.storage import write_shard

Row = dict[str, Any]


def words(**changes: Any) -> Row:
    return caption("dense", "a lamp swings over an empty table", "upstream:someone") | changes


def clip(**changes: Any) -> Row:
    source = {"platform": "here", "url": "https://example.org/v", "start_seconds": 1.0, "end_seconds": 2.5}
    media = {"width": 640, "height": 360, "fps": 25.0, "duration_seconds": 1.5, "num_frames": 37}
    return {
        "clip_id": "k/000", "index": 0, "video": "a/b.mp4", "trimmed": True, "source": source, "media": media,
        "captions": [words(), words(start_seconds=0.0, end_seconds=0.5)],
        "characters": [{"name": "Ann", "description": None}],
        "scores": [{"name": "flow", "unit": "px", "annotator": "upstream:x", "value": 21.5}],
    } | changes  # fmt: skip


def sample(**changes: Any) -> Row:
    return {
        **empty_sample(),
        "sample_id": "civid/full/1", "dataset": "civid", "subset": "full", "level": "sequence",
        "clips": [clip(), clip(clip_id="k/001", index=1)],
        "transitions": [{"from_index": 0, "to_index": 1, "captions": [words(kind="change_content")]}],
        "captions": [words(kind="synopsis")],
        "hierarchy": {"movie_id": "1000_Made_Up", "scene_index": 3},
        "flags": ["odd"],
        "provenance": {"annotation_file": "x.jsonl", "row_index": 0},
    } | changes  # fmt: skip


OTHERS: dict[str, Row] = {
    "characters": {"movie_id": "1000_Made_Up", "character_id": "1000_Made_Up/Ann", "name": "Ann", "aliases": ["Ann"]},
    "media": {"clip_id": "c", "status": "ok", "num_frames": 3},
    "videos": {"clip_id": "c", "video": {"bytes": b"mp4", "path": None}},
    "movies": {"movie_id": "1000_Made_Up", "title": "Made Up", "scene_ids": ["1000_Made_Up/1"]},
}


def table_of(*rows: Row, table: str = "annotations") -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(table))


def with_clip(**changes: Any) -> Row:
    return sample(clips=[clip(), clip(**changes)])


def refused(row: Row, *parts: str, table: str = "annotations") -> None:
    """The row is refused, also after a good one, with a message that holds the parts."""
    good = sample() if table == "annotations" else OTHERS[table]
    for rows in ((row,), (good, row)):
        with pytest.raises(SchemaError) as caught:
            check_table(table_of(*rows, table=table), table)
        for part in parts:
            assert part in str(caught.value)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_good_row_and_no_row_at_all_pass(table: str) -> None:
    good = sample() if table == "annotations" else OTHERS[table]
    check_table(table_of(good, good, table=table), table)
    check_table(arrow_schema(table).empty_table(), table)


def test_everything_that_may_be_missing_may_be_null() -> None:
    bare = {"clip_id": "c", "index": 0, "trimmed": False}
    optional = dict.fromkeys(["transitions", "captions", "hierarchy", "flags", "provenance"])
    check_table(table_of(sample(clips=[bare], **optional)), "annotations")


@pytest.mark.parametrize("column", ["sample_id", "dataset", "subset", "level", "clips"])
def test_a_sample_must_say_what_it_is(column: str) -> None:
    refused(sample(**{column: None}), f"{column}:", "required")


@pytest.mark.parametrize("column", ["clip_id", "index", "trimmed"])
def test_a_clip_must_say_what_it_is(column: str) -> None:
    refused(with_clip(**{column: None}), f"clips[].{column}:", "required")


@pytest.mark.parametrize("column", ["from_index", "to_index"])
def test_a_transition_must_say_between_what_it_is(column: str) -> None:
    step: Row = {"from_index": 0, "to_index": 1, "captions": []}
    refused(sample(transitions=[step, step | {column: None}]), f"transitions[].{column}:", "required")


@pytest.mark.parametrize(("table", "column"), [("movies", "movie_id"), ("characters", "character_id")])
def test_characters_and_movies_must_have_ids(table: str, column: str) -> None:
    refused(OTHERS[table] | {column: None}, f"{column}:", "required", table=table)


def test_a_sample_has_at_least_one_clip() -> None:
    refused(sample(clips=[]), "clips:", "at least one clip")


def captions_everywhere(bad: Row | None) -> list[tuple[str, Row]]:
    step = {"from_index": 0, "to_index": 1, "captions": [bad]}
    return [
        ("clips[].captions[]", with_clip(captions=[words(), bad])),
        ("transitions[].captions[]", sample(transitions=[step])),
        ("captions[]", sample(captions=[words(), bad])),
    ]


@pytest.mark.parametrize("field", ["kind", "text", "annotator"])
def test_a_caption_says_its_kind_text_and_annotator(field: str) -> None:
    for path, row in captions_everywhere(words(**{field: None})):
        refused(row, f"{path}.{field}:", "required")


@pytest.mark.parametrize("kind", ["Short", "dense ", "caption", "change"])
def test_caption_kinds_are_a_closed_vocabulary(kind: str) -> None:
    for path, row in captions_everywhere(words(kind=kind)):
        refused(row, f"{path}.kind:", "must be one of short, dense", repr(kind))


def test_every_kind_of_the_vocabulary_is_accepted_everywhere() -> None:
    assert len(set(CAPTION_KINDS)) == len(CAPTION_KINDS)
    assert set(CAPTION_KINDS) == {*SINGLE_CAPTION_KINDS, *TRANSITION_CAPTION_KINDS}
    rows = [row for kind in CAPTION_KINDS for _, row in captions_everywhere(words(kind=kind))]
    check_table(table_of(*rows), "annotations")


def test_levels_are_a_closed_vocabulary() -> None:
    check_table(table_of(*(sample(level=level) for level in LEVELS)), "annotations")
    refused(sample(level="shot"), "level:", "must be one of clip, sequence, scene", "'shot'")


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("sample_id", sample(sample_id="")),
        ("clips[].video", with_clip(video="")),
        ("clips[].source.url", with_clip(source={"url": ""})),
        ("clips[].captions[].text", with_clip(captions=[words(text="")])),
        ("clips[].characters[].name", with_clip(characters=[{"name": ""}])),
        ("clips[].scores[].unit", with_clip(scores=[{"name": "flow", "unit": "", "value": 1.0}])),
        ("hierarchy.imdb_id", sample(hierarchy={"imdb_id": ""})),
        ("flags[]", sample(flags=["fine", ""])),
        ("provenance.upstream_version", sample(provenance={"upstream_version": ""})),
    ],
)
def test_missing_text_is_null_and_never_empty(path: str, row: Row) -> None:
    refused(row, f"{path}:", "missing is null")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_missing_numbers_are_null_and_never_nan_or_infinite(value: float) -> None:
    refused(with_clip(media={"fps": value}), "clips[].media.fps:", "missing is null", str(value))
    refused(with_clip(source={"start_seconds": value}), "clips[].source.start_seconds:", "missing is null")
    refused(with_clip(scores=[{"name": "s", "value": value}]), "clips[].scores[].value:", "missing is null")
    for path, row in captions_everywhere(words(start_seconds=0.0, end_seconds=value)):
        refused(row, f"{path}.end_seconds:", "missing is null")


@pytest.mark.parametrize(("start", "end"), [(2.0, 2.0), (3.0, 2.0), (-1.0, 2.0), (-2.0, -1.0)])
def test_spans_run_forward_from_zero(start: float, end: float) -> None:
    span = {"start_seconds": start, "end_seconds": end}
    refused(with_clip(source=span), "clips[].source:", "0 <= start_seconds < end_seconds", str(start), str(end))
    for path, row in captions_everywhere(words(**span)):
        refused(row, f"{path}:", "0 <= start_seconds < end_seconds")


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.001), (5.0, None), (0.0, None), (None, 5.0), (None, None)])
def test_spans_with_an_open_end_are_fine(start: float | None, end: float | None) -> None:
    span = {"start_seconds": start, "end_seconds": end}
    rows = [with_clip(source=span), *(row for _, row in captions_everywhere(words(**span)))]
    check_table(table_of(*rows), "annotations")


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (None, -1.0), (None, 0.0)])
def test_a_span_with_an_open_end_still_does_not_leave_the_video(start: float | None, end: float | None) -> None:
    span = {"start_seconds": start, "end_seconds": end}
    refused(with_clip(source=span), "clips[].source:", "0 <= start_seconds < end_seconds")
    for path, row in captions_everywhere(words(**span)):
        refused(row, f"{path}:", "0 <= start_seconds < end_seconds")


def test_lists_hold_no_nulls() -> None:
    refused(sample(clips=[None]), "clips[]")
    refused(sample(clips=[clip(), None]), "clips[]")
    refused(sample(flags=["odd", None]), "flags[]")
    refused(with_clip(scores=[None]), "clips[].scores[]")
    for path, row in captions_everywhere(None):
        refused(row, path)


def test_a_bad_value_in_a_later_chunk_of_a_column_is_found() -> None:
    data = pa.concat_tables([table_of(sample()), table_of(sample(level="reel"))])
    assert data.column("level").num_chunks == 2
    with pytest.raises(SchemaError, match="level: must be one of"):
        check_table(data, "annotations")


def test_a_slice_is_judged_by_its_own_rows_only() -> None:
    data = table_of(sample(flags=[""]), sample(), sample(clips=[]))
    check_table(data.slice(1, 1), "annotations")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.drop_columns(["flags"]),
        lambda data: data.append_column("extra", pa.array(["x"])),
        lambda data: data.select([*reversed(data.column_names)]),
        lambda data: data.set_column(0, "sample_id", data.column(0).cast(pa.large_string())),
    ],
)
def test_other_columns_than_the_schemas_are_refused(change: Any) -> None:
    with pytest.raises(SchemaError, match=re.escape("annotations: columns are")):
        check_table(change(table_of(sample())), "annotations")


@pytest.mark.parametrize("table", sorted(TABLES))
def test_stock_datasets_reads_the_columns_back_as_they_were_declared(table: str, tmp_path: Path) -> None:
    good = sample() if table == "annotations" else OTHERS[table]
    data = table_of(good, good, table=table)
    path = tmp_path / "data.parquet"
    assert write_shard(path, [data], table=table) == 2
    direct = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "a"))
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "b"))
    for stock in (direct, loaded):
        assert stock.features == TABLES[table]
        assert stock.to_list() == data.to_pylist()
    arrow = pq.read_table(path)
    check_table(arrow, table)
    assert arrow.schema.metadata == arrow_schema(table).metadata
