"""What `inspect` says of tables, records, folders and built datasets."""

import json
from pathlib import Path

import pytest

import civid_loader as cl
from civid_loader.errors import AnnotationError
from civid_loader.inspection import inspect

TABLE = (
    "key,video_id,refined_caption,total score,span,video_time,mood\n"
    "a.1_0,a,A boat.,20.5,\"['0:00:01', '0:00:11']\",10,calm\n"
    "b.1_0,,A boat.,21,\"['0:00:01', '0:00:11']\",10.5,nan\n"
    "c.1_0,c,A buoy.,22,soon,12,\n"
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "ytb_600k_720p.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_table(table: Path) -> None:
    found = inspect(table)
    assert (found.kind, found.num_rows, found.is_complete, found.datasets) == ("CSV table", 3, True, ["lvd2m"])
    columns = {column.name: column for column in found.columns}
    assert (columns["video_id"].num_null, columns["video_id"].num_distinct) == (1, 2)
    assert (columns["refined_caption"].num_distinct, columns["refined_caption"].example) == (2, "A boat.")
    assert [list(columns[name].kinds) for name in ("total score", "video_time", "key")] == [
        ["number"],
        ["number"],
        ["text"],
    ]
    assert (columns["mood"].num_null, columns["mood"].is_read, columns["key"].is_read) == (2, False, True)
    assert found.odd_rows == ["row 2: span is not a list of two times"]
    assert found.first_rows[0]["key"] == "a.1_0"


def test_only_the_first_rows_of_a_big_file_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"idx": {i}, "single_captions": []}}\n' for i in range(50)), encoding="utf-8")
    found = inspect(path, max_rows=20)
    assert (found.num_rows, found.is_complete) == (20, False)
    assert inspect(path).is_complete


def test_records(tmp_path: Path) -> None:
    item = {"video_content": "A boat.", "weather": "fog"}
    records = [{"single_captions:": [item, item], "idx": 1, "mood": None}, {"single_captions:": [json.dumps(item)]}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records) + '{"cut', encoding="utf-8")
    found = inspect(path)
    assert (found.kind, found.num_rows, found.datasets) == ("JSON records", 2, ["civid"])
    columns = {column.name: column for column in found.columns}
    assert (columns["idx"].num_null, columns["mood"].num_null) == (1, 2)
    assert columns["single_captions:[].video_content"].is_read
    assert not columns["single_captions:[].weather"].is_read
    assert any("row 2" in line and "cut off" in line for line in found.odd_rows)


def test_records_of_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"x": 1}, {"x": 2.5}, {"x": "three"}]', encoding="utf-8")
    found = inspect(tmp_path / "a.json")
    assert found.datasets == []
    assert found.columns[0].kinds == {"whole number": 1, "number": 1, "text": 1}


def test_folder(table: Path) -> None:
    (table.parent / "x.mp4").write_bytes(b"v")
    found = inspect(table.parent)
    assert (found.kind, found.datasets) == ("folder", ["lvd2m"])
    assert found.counts == {".csv": 1, ".mp4": 1, "video files": 1}
    assert found.odd_rows == ["ytb_600k_720p.csv row 2: span is not a list of two times"]


def test_built_dataset(table: Path, tmp_path: Path) -> None:
    cl.build("lvd2m", annotations=table, output=tmp_path / "out", max_rejected=0.5, quiet=True)
    found = inspect(tmp_path / "out")
    assert (found.kind, found.num_rows, found.datasets) == ("built dataset", 2, ["lvd2m"])
    assert found.counts["annotations train"] == 2
    assert found.flags == {"duplicated_refined_caption": 2}
    assert found.odd_rows == ["1 rows rejected: span is not a list of two times"]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", b"", "empty"), ("a.mp4", b"x", "not a .csv"), (None, b"", "no such file"), ("folder", None, "empty"),
])  # fmt: skip
def test_what_cannot_be_inspected_is_named(
    tmp_path: Path, name: str | None, content: bytes | None, message: str
) -> None:
    path = tmp_path / (name or "gone")
    if content is None:
        path.mkdir()
    elif name:
        path.write_bytes(content)
    with pytest.raises(AnnotationError, match=message) as error:
        inspect(path)
    assert str(path) in str(error.value)
