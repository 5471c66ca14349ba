"""Files are whole or not there; shards are found, complete and of this schema version; the journal survives a kill."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from civid_loader.errors import AnnotationError, OutputError, SchemaError
from civid_loader.schema import SAMPLE_FEATURES, SCHEMA_VERSION, arrow_schema, caption, empty_sample
from civid_loader.storage import (
    MANIFEST,
    Journal,
    atomic_file,
    read_manifest,
    read_table,
    shard_name,
    shards,
    write_json,
    write_shard,
)


def rows(*ids: str, **changes: Any) -> pa.Table:
    """One clip per sample, with texts that differ."""

    def one(key: str) -> dict[str, Any]:
        clip = {
            "clip_id": key, "index": 0, "video": f"{key}.mp4", "trimmed": True,
            "source": {"platform": "here", "url": f"https://example.org/{key}"},
            "captions": [caption("dense", f"the text of {key}", "upstream:x")],
        }  # fmt: skip
        return {
            **empty_sample(),
            "sample_id": key, "dataset": "civid", "subset": "full", "level": "clip", "clips": [clip],
            **changes,
        }  # fmt: skip

    return pa.Table.from_pylist([one(key) for key in ids], schema=arrow_schema("annotations"))


def dataset(root: Path, **splits: list[list[str]]) -> list[str]:
    """Shards of annotations without a manifest; returns their names below the root."""
    names = []
    for split, parts in splits.items():
        for index, ids in enumerate(parts):
            names.append(f"annotations/{shard_name(split, index, len(parts))}")
            write_shard(root / names[-1], [rows(*ids)], table="annotations")
    return names


def ids_of(table: pa.Table) -> list[str]:
    ids: list[str] = table.column("sample_id").to_pylist()
    return ids


class Interrupted(BaseException):
    """Stands for a kill."""


def write_half(path: Path, error: type[BaseException]) -> None:
    """Be interrupted in the middle of a file."""
    with atomic_file(path) as file:
        file.write(b"half")
        raise error


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    with atomic_file(path) as file:
        file.write(b"half ")
        assert not path.exists()
        file.write(b"whole")
    assert path.read_bytes() == b"half whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interrupted])
def test_an_interrupted_write_leaves_nothing_under_the_name(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.bin"
    with pytest.raises(error):
        write_half(path, error)
    assert not path.exists()
    with atomic_file(path) as file:
        file.write(b"again")
    assert path.read_bytes() == b"again"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_overwrite_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old and whole")
    with pytest.raises(Interrupted):
        write_half(path, Interrupted)
    assert path.read_bytes() == b"old and whole"


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_we_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    events = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        events.append(("folder" if is_folder else "file", path.exists()))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_file(path) as file:
        file.write(b"x")
    assert events == [("file", False), ("folder", True)]


def test_json_is_the_same_bytes_for_the_same_value_and_keeps_other_scripts(tmp_path: Path) -> None:
    value = {"b": [1, None], "a": "日本 ü"}
    for name in ("one", "two"):
        write_json(tmp_path / name, value)
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    assert "日本 ü".encode() in data
    assert json.loads(data) == value


def test_a_shard_carries_types_version_zstd_and_page_index(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    assert write_shard(path, [rows("a", "b"), rows(), rows("c")], table="annotations") == 3
    file = pq.ParquetFile(path)
    metadata = file.schema_arrow.metadata
    assert json.loads(metadata[b"huggingface"])["info"]["features"] == SAMPLE_FEATURES.to_dict()
    assert metadata[b"civid_loader.schema_version"] == SCHEMA_VERSION.encode()
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [2, 1], "one row group per piece, none for an empty one"
    for column in (group.column(i) for group in groups for i in range(group.num_columns)):
        assert column.compression == "ZSTD"
        assert column.has_offset_index
        assert column.has_column_index


def test_texts_that_hardly_repeat_get_no_dictionary_and_words_that_do_get_one(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    write_shard(path, [rows(*map(str, range(50)))], table="annotations")
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {(column := group.column(i)).path_in_schema: column for i in range(group.num_columns)}
    dictionaries = {
        name.replace(".list.element", "[]"): column.has_dictionary_page
        for name, column in columns.items()
        if column.statistics and column.statistics.num_values
    }
    unique = ["sample_id", "clips[].clip_id", "clips[].video", "clips[].source.url", "clips[].captions[].text"]
    words = ["dataset", "level", "clips[].source.platform", "clips[].captions[].kind", "clips[].captions[].annotator"]
    assert [name for name in unique if dictionaries[name]] == []
    assert [name for name in words if not dictionaries[name]] == []


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shard(tmp_path / name, [rows("a", "b"), rows("c")], table="annotations")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_bad_piece_leaves_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    with pytest.raises(SchemaError, match="level: must be one of"):
        write_shard(path, [rows("a"), rows("b", level="reel")], table="annotations")
    assert not path.exists()


def test_a_source_of_rows_that_breaks_leaves_no_shard(tmp_path: Path) -> None:
    def pieces() -> Iterator[pa.Table]:
        yield rows("a")
        raise Interrupted

    with pytest.raises(Interrupted):
        write_shard(tmp_path / "shard.parquet", pieces(), table="annotations")
    assert not (tmp_path / "shard.parquet").exists()


def test_a_shard_without_rows_can_be_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "annotations" / "train-00000-of-00001.parquet", [], table="annotations")
    assert read_table(tmp_path).num_rows == 0


def test_rows_come_in_order_of_shards_with_and_without_a_manifest(tmp_path: Path) -> None:
    names = dataset(tmp_path, train=[["a", "b"], ["c"]], test=[["d"]])
    assert sorted(ids_of(read_table(tmp_path))) == ["a", "b", "c", "d"]
    assert ids_of(read_table(tmp_path, split="train")) == ["a", "b", "c"]
    write_json(tmp_path / MANIFEST, {"shards": {"annotations": names}})
    assert [path.relative_to(tmp_path).as_posix() for path in shards(tmp_path)] == names
    assert ids_of(read_table(tmp_path)) == ["a", "b", "c", "d"]
    assert ids_of(read_table(tmp_path, split="test")) == ["d"]
    only = read_table(tmp_path, split="train", columns=["sample_id"])
    assert only.column_names == ["sample_id"]
    assert read_manifest(tmp_path)["shards"]["annotations"] == names


def test_shards_the_manifest_does_not_name_are_none_of_its_rows(tmp_path: Path) -> None:
    names = dataset(tmp_path, train=[["a"], ["b"]])
    write_json(tmp_path / MANIFEST, {"shards": {"annotations": names}})
    write_shard(tmp_path / "annotations/train-00007-of-00009.parquet", [rows("stale")], table="annotations")
    assert ids_of(read_table(tmp_path)) == ["a", "b"]


def test_a_shard_the_manifest_names_and_the_folder_lacks_is_named(tmp_path: Path) -> None:
    names = dataset(tmp_path, train=[["a"], ["b"]])
    write_json(tmp_path / MANIFEST, {"shards": {"annotations": names}})
    (tmp_path / names[1]).unlink()
    with pytest.raises(AnnotationError, match=r"train-00001-of-00002\.parquet"):
        read_table(tmp_path)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_without_a_manifest_a_gap_in_the_shards_is_seen(tmp_path: Path, gone: int) -> None:
    names = dataset(tmp_path, train=[["a"], ["b"], ["c"]], test=[["d"]])
    (tmp_path / names[gone]).unlink()
    with pytest.raises(AnnotationError, match="split train has 2 of its 3 shards"):
        read_table(tmp_path)
    assert ids_of(read_table(tmp_path, split="test")) == ["d"]


@pytest.mark.parametrize("stray", ["train-00000-of-00001.parquet", "train-00005-of-00002.parquet"])
def test_shards_of_two_builds_in_one_folder_are_not_read_as_one(tmp_path: Path, stray: str) -> None:
    dataset(tmp_path, train=[["a"], ["b"]])
    write_shard(tmp_path / "annotations" / stray, [rows("from another build")], table="annotations")
    with pytest.raises(AnnotationError, match="train"):
        read_table(tmp_path)


def test_a_parquet_file_with_another_kind_of_name_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "annotations" / "part.parquet", [rows("a")], table="annotations")
    with pytest.raises(AnnotationError, match=r"part\.parquet.*named like train-00000-of-00004"):
        read_table(tmp_path)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_split_that_is_not_there_lists_those_that_are(tmp_path: Path, with_manifest: bool) -> None:
    names = dataset(tmp_path, train=[["a"]], test=[["b"]])
    if with_manifest:
        write_json(tmp_path / MANIFEST, {"shards": {"annotations": names}})
    with pytest.raises(AnnotationError, match=r"'validation'.*test, train"):
        shards(tmp_path, split="validation")
    with pytest.raises(AnnotationError, match="characters"):
        shards(tmp_path, "characters")


@pytest.mark.parametrize("version", [b"0.9", b"2.0", None])
def test_rows_of_another_schema_version_are_refused(tmp_path: Path, version: bytes | None) -> None:
    (path,) = (tmp_path / name for name in dataset(tmp_path, train=[["a"]]))
    data = pq.read_table(path)
    key = b"civid_loader.schema_version"
    metadata = {name: value for name, value in data.schema.metadata.items() if name != key}
    pq.write_table(data.replace_schema_metadata(metadata | ({key: version} if version else {})), path)
    with pytest.raises(OutputError, match=f"schema version {(version or b'unknown').decode()}.*build it again"):
        read_table(tmp_path)


def entry(number: int) -> dict[str, Any]:
    return {"num_rows": number * 10, "rejected": {"why – so": number}}


def test_a_journal_remembers_what_was_added(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert Journal(path).entries == {}
    for number in (3, 0, 7):
        Journal(path).add(number, entry(number))
    assert Journal(path).entries == {number: {"chunk": number, **entry(number)} for number in (3, 0, 7)}


def test_a_journal_cut_off_at_any_byte_keeps_its_whole_lines_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    path = tmp_path / "journal.jsonl"
    for number in range(3):
        Journal(path).add(number, entry(number))
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        journal = Journal(path)
        finished = whole[:size].count(b"\n")
        assert sorted(journal.entries) == list(range(finished))
        assert path.stat().st_size == sum(map(len, whole.splitlines(keepends=True)[:finished]))
        for number in range(finished, 3):
            journal.add(number, entry(number))
        assert path.read_bytes() == whole
