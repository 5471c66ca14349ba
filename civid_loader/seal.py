"""The last step of a build: finished chunks get their final names. Can be cut off anywhere and run again."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from civid_loader.storage import atomic_file, replace, shard_name, write_json, write_shard
from civid_loader.upstream.records import Chunk

_ID: Final = {"annotations": "sample_id", "characters": "character_id", "movies": "movie_id"}


def seal(root: Path, work: Path, chunks: Sequence[Chunk], entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Move shards to `<table>/<split>-...`, without rows whose id was already used; gather the rejected rows.

    Returns:
        What the manifest says of the data: num_rows, shards, rejected, counts.
    """
    repeated = repeated_rows(work, chunks)
    shards: dict[str, list[str]] = {}
    num_rows: dict[str, dict[str, int]] = {}
    rejected = Counter[str]()
    for table, split in dict.fromkeys((chunk.table, chunk.split) for chunk in chunks):
        members = [
            (number, len(repeated.get(number, ())))
            for number, chunk in enumerate(chunks)
            if (chunk.table, chunk.split) == (table, split) and entries[number]["num_rows"]
        ]
        members = [(number, gone) for number, gone in members if entries[number]["num_rows"] > gone]
        for position, (number, gone) in enumerate(members):
            name = f"{table}/{shard_name(split, position, len(members))}"
            _finish(work / f"{number:05d}.parquet", root / name, repeated.get(number), table)
            shards.setdefault(table, []).append(name)
            rows = num_rows.setdefault(table, {})
            rows[split] = rows.get(split, 0) + entries[number]["num_rows"] - gone
    for entry in entries:
        rejected.update(entry["rejected"])
    num_repeated = sum(map(len, repeated.values()))
    if num_repeated:
        rejected["its id is already that of another row"] += num_repeated
    _gather_rejected(root, work, len(chunks), has_any=bool(rejected))
    counts: dict[str, Counter[str]] = {}
    for entry in entries:
        for name, counter in entry["counts"].items():
            counts.setdefault(name, Counter()).update(counter)
    return {
        "num_rows": num_rows,
        "shards": shards,
        "rejected": dict(rejected.most_common()),
        "counts": {name: dict(counter.most_common()) for name, counter in counts.items()},
    }


def repeated_rows(work: Path, chunks: Sequence[Chunk]) -> dict[int, list[int]]:
    """Chunk number -> rows whose id an earlier row has. Found once, before any shard is moved."""
    path = work / "repeated_ids.json"
    if path.is_file():
        return {int(number): rows for number, rows in json.loads(path.read_bytes()).items()}
    found: dict[int, list[int]] = {}
    lines = []
    for table in dict.fromkeys(chunk.table for chunk in chunks):
        numbers = [number for number, chunk in enumerate(chunks) if chunk.table == table]
        hashes = [_id_hashes(work / f"{number:05d}.parquet", _ID[table]) for number in numbers]
        for number, row in _later_occurrences(numbers, hashes):
            found.setdefault(number, []).append(row)
        for number in sorted(found.keys() & set(numbers)):
            data = pq.read_table(work / f"{number:05d}.parquet").take(found[number]).to_pylist()
            lines += [_rejected_line(chunks[number], row) for row in data]
    with atomic_file(work / "repeated_ids.rejected.jsonl") as file:
        file.writelines(lines)
    write_json(path, found)
    return found


def _id_hashes(path: Path, column: str) -> npt.NDArray[np.uint64]:
    ids = pq.read_table(path, columns=[column]).column(0).cast(pa.binary()).to_numpy()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, ids), dtype=np.uint64, count=len(ids))


def _later_occurrences(numbers: list[int], hashes: list[npt.NDArray[np.uint64]]) -> list[tuple[int, int]]:
    """(chunk number, row) of every value seen before, in order."""
    if not hashes:
        return []
    every = np.concatenate(hashes)
    _, first = np.unique(every, return_index=True)
    is_later = np.ones(len(every), dtype=np.bool_)
    is_later[first] = False
    begins = np.cumsum([0, *map(len, hashes)])
    later = np.flatnonzero(is_later)
    chunk = np.searchsorted(begins, later, side="right") - 1
    return [(numbers[int(c)], int(row - begins[c])) for c, row in zip(chunk, later, strict=True)]


def _rejected_line(chunk: Chunk, row: dict[str, Any]) -> bytes:
    provenance = row.get("provenance") or {}
    value = {
        "file": provenance.get("annotation_file", chunk.file),
        "row_index": provenance.get("row_index"),
        "reason": "its id is already that of another row",
        "raw": json.dumps(row, ensure_ascii=False)[:2000],
    }
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _finish(source: Path, target: Path, without: list[int] | None, table: str) -> None:
    """Move a shard, or rewrite it without some rows. `source` is gone only when `target` is whole."""
    if not source.is_file():
        return
    if without:
        data = pq.read_table(source)
        kept = np.ones(len(data), dtype=np.bool_)
        kept[without] = False
        write_shard(target, [data.filter(pa.array(kept)).replace_schema_metadata(data.schema.metadata)], table=table)
        source.unlink()
    else:
        replace(source, target)


def _gather_rejected(root: Path, work: Path, num_chunks: int, *, has_any: bool) -> None:
    if has_any:
        with atomic_file(root / "rejected" / "rows.jsonl") as file:
            for part in rejected_parts(work, num_chunks):
                file.write(part.read_bytes())


def rejected_parts(work: Path, num_chunks: int) -> list[Path]:
    """Files of rejected rows, in order: one per chunk, then those with repeated ids."""
    return [
        *(work / f"{number:05d}.rejected.jsonl" for number in range(num_chunks)),
        work / "repeated_ids.rejected.jsonl",
    ]
