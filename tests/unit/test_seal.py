"""Sealing: final names, one row per id, reasons in one place; cut off at any step, the same bytes after a rerun."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import civid_loader.seal
from civid_loader.schema import arrow_schema, empty_sample
from civid_loader.seal import seal
from civid_loader.storage import write_shard
from civid_loader.upstream.records import Chunk, Rejected
from support.trees import tree_bytes

WORK = ".incomplete"
REPEATED = "its id is already that of another row"
Row = dict[str, Any]
When = Literal["before", "after"]


class Part(NamedTuple):
    """What a finished chunk holds."""

    table: str
    split: str
    ids: Sequence[str]
    rejected: Sequence[str] = ()


PARTS = (
    Part("annotations", "train", ["a", "b", "c"], ["no end", "no end"]),
    Part("annotations", "train", []),
    Part("annotations", "train", ["d", "a", "e", "d"], ["torn"]),
    Part("annotations", "test", ["f", "b"]),
    Part("annotations", "train", ["c", "a"]),
    Part("annotations", "extra", ["f"]),
    Part("annotations", "train", ["g"]),
    Part("annotations", "train", [], ["torn"]),
    Part("characters", "train", ["x", "y", "x"]),
    Part("movies", "train", ["a"]),
)
"""Repeats within a chunk, over chunks and splits; chunks that lose some rows, all rows, or have none."""


def row_of(part: Part, number: int, key: str) -> Row:
    if part.table == "characters":
        return {"movie_id": "1000_Made_Up", "character_id": key, "name": f"{number}"}
    if part.table == "movies":
        return {"movie_id": key, "title": f"{number}"}
    clip = {"clip_id": key, "index": 0, "trimmed": True}
    provenance = {"annotation_file": f"file{number}.jsonl", "row_index": 100 * number}
    sample = {"sample_id": key, "dataset": "civid", "subset": f"{number}", "level": "clip", "clips": [clip]}
    return {**empty_sample(), **sample, "provenance": provenance}


def write_chunks(root: Path, parts: Sequence[Part] = PARTS) -> None:
    """A work folder of finished chunks."""
    for number, part in enumerate(parts):
        rows = [row_of(part, number, key) for key in part.ids]
        table = pa.Table.from_pylist(rows, schema=arrow_schema(part.table))
        write_shard(root / WORK / f"{number:05d}.parquet", [table], table=part.table)
        rejected = [
            Rejected(file=f"file{number}.jsonl", row_index=i, reason=reason, raw="…").to_json()
            for i, reason in enumerate(part.rejected)
        ]
        lines = "".join(json.dumps(line) + "\n" for line in rejected)
        (root / WORK / f"{number:05d}.rejected.jsonl").write_text(lines)


def seal_chunks(root: Path, parts: Sequence[Part] = PARTS) -> Row:
    """Seal them."""
    chunks = [
        Chunk(table=part.table, split=part.split, subset="x", file=f"file{number}.jsonl", num_bytes=1, payload=None)
        for number, part in enumerate(parts)
    ]
    entries = [
        {"num_rows": len(part.ids), "rejected": dict(Counter(part.rejected)), "counts": {"notes": {"odd": 1}}}
        for part in parts
    ]
    return seal(root, root / WORK, chunks, entries)


def sealed(root: Path, parts: Sequence[Part] = PARTS) -> Row:
    """Write and seal."""
    write_chunks(root, parts)
    return seal_chunks(root, parts)


def published(root: Path) -> dict[str, bytes]:
    return tree_bytes(root, without=WORK)


def rejected_rows(root: Path) -> list[Row]:
    path = root / "rejected" / "rows.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Killed(BaseException):
    """Nothing may catch it."""


class Bomb:
    """Kills before or after the k-th of all calls that change the disk; a null k never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, k: int | None, when: When) -> None:
        self.num_calls = 0
        self._k, self._when = k, when
        for name in ("replace", "write_shard", "write_json", "atomic_file"):
            monkeypatch.setattr(civid_loader.seal, name, self._wired(getattr(civid_loader.seal, name)))
        for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync")):
            monkeypatch.setattr(owner, name, self._wired(getattr(owner, name)))

    def _wired(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wired(*args: Any, **kwargs: Any) -> Any:
            number = self.num_calls
            self.num_calls += 1
            if number == self._k and self._when == "before":
                raise Killed
            result = function(*args, **kwargs)
            if number == self._k:
                raise Killed
            return result

        return wired


def seals_through(root: Path, *, k: int | None, when: When) -> bool:
    """Whether sealing ended before the bomb went off."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        Bomb(monkeypatch, k, when)
        try:
            seal_chunks(root)
        except Killed:
            return False
    return True


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        yield


class Undisturbed(NamedTuple):
    """A sealing nobody disturbed."""

    chunks: Path
    """Folder to copy, in the state before."""
    told: Row
    published: dict[str, bytes]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("seal")
    write_chunks(folder / "chunks")
    told = sealed(folder / "sealed")
    return Undisturbed(folder / "chunks", told, published(folder / "sealed"))


def test_shards_are_numbered_without_gaps_and_named_by_split(tmp_path: Path) -> None:
    told = sealed(tmp_path)
    assert told["shards"] == {
        "annotations": [
            "annotations/train-00000-of-00003.parquet",
            "annotations/train-00001-of-00003.parquet",
            "annotations/train-00002-of-00003.parquet",
            "annotations/test-00000-of-00001.parquet",
        ],
        "characters": ["characters/train-00000-of-00001.parquet"],
        "movies": ["movies/train-00000-of-00001.parquet"],
    }
    listed = [name for names in told["shards"].values() for name in names]
    assert sorted(listed) == sorted(name for name in published(tmp_path) if name.endswith(".parquet"))


def test_the_first_row_of_an_id_stays_and_counts_are_of_what_stayed(tmp_path: Path) -> None:
    told = sealed(tmp_path)
    found = {
        name: pq.read_table(tmp_path / name).column(0 if table != "characters" else 1).to_pylist()
        for table, names in told["shards"].items()
        for name in names
    }
    assert list(found.values()) == [["a", "b", "c"], ["d", "e"], ["g"], ["f"], ["x", "y"], ["a"]]
    assert told["num_rows"] == {
        "annotations": {"train": 6, "test": 1},
        "characters": {"train": 2},
        "movies": {"train": 1},
    }
    first = pq.read_table(tmp_path / told["shards"]["characters"][0]).to_pylist()[0]
    assert first["name"] == "8"
    assert told["rejected"] == {REPEATED: 7, "no end": 2, "torn": 2}
    assert told["counts"]["notes"] == {"odd": len(PARTS)}


def test_a_rewritten_shard_still_says_its_types_and_version(tmp_path: Path) -> None:
    told = sealed(tmp_path)
    for name in told["shards"]["annotations"]:
        assert pq.read_schema(tmp_path / name).metadata == arrow_schema("annotations").metadata


def test_every_rejected_row_is_kept_with_its_place_and_reason(tmp_path: Path) -> None:
    sealed(tmp_path)
    lines = rejected_rows(tmp_path)
    places = [(line["file"], line["row_index"], line["reason"]) for line in lines]
    assert [place for place in places if place[2] != REPEATED] == [
        ("file0.jsonl", 0, "no end"),
        ("file0.jsonl", 1, "no end"),
        ("file2.jsonl", 0, "torn"),
        ("file7.jsonl", 0, "torn"),
    ]
    repeated = [line for line in lines if line["reason"] == REPEATED]
    assert [json.loads(line["raw"]).get("sample_id", "x") for line in repeated] == ["a", "d", "b", "c", "a", "f", "x"]
    assert [line["file"] for line in repeated] == [f"file{number}.jsonl" for number in (2, 2, 3, 4, 4, 5, 8)]
    assert repeated[0]["row_index"] == 200


def test_rejected_rows_keep_the_order_of_the_files(tmp_path: Path) -> None:
    parts = [Part("annotations", "train", ["same" if number in (0, 1, 8) else f"{number}"]) for number in range(9)]
    sealed(tmp_path, parts)
    assert [line["file"] for line in rejected_rows(tmp_path)] == ["file1.jsonl", "file8.jsonl"]


def test_without_anything_to_reject_there_is_no_file_of_rejected_rows(tmp_path: Path) -> None:
    told = sealed(tmp_path, [Part("annotations", "train", ["a"]), Part("annotations", "train", ["b"])])
    assert sorted(published(tmp_path)) == [f"annotations/train-0000{i}-of-00002.parquet" for i in (0, 1)]
    assert told["rejected"] == {}


def test_ids_of_other_scripts_are_told_apart(tmp_path: Path) -> None:
    told = sealed(tmp_path, [Part("annotations", "train", ["\u00e9", "e\u0301", "E", "日", "日"])])
    assert told["num_rows"] == {"annotations": {"train": 4}}


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_a_rerun_ends_with_the_same_bytes(
    tmp_path: Path, undisturbed: Undisturbed, when: When
) -> None:
    for k in count():
        root = tmp_path / f"{k}"
        shutil.copytree(undisturbed.chunks, root)
        done = seals_through(root, k=k, when=when)
        assert seal_chunks(root) == undisturbed.told, f"killed {when} call {k}"
        assert published(root) == undisturbed.published, f"killed {when} call {k}"
        if done:
            assert k > 30
            return


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    tmp_path: Path, undisturbed: Undisturbed, when: When
) -> None:
    root = tmp_path / "root"
    shutil.copytree(undisturbed.chunks, root)
    killed = [not seals_through(root, k=k, when=when) for k in range(60)]
    assert any(killed)
    assert not all(killed)
    assert seal_chunks(root) == undisturbed.told
    assert published(root) == undisturbed.published
