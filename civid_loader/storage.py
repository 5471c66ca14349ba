"""Files on disk: sharded Parquet, whole or not there at all; the journal of what is finished; the manifest.

Layout of a dataset root: `<table>/<split>-00000-of-000NN.parquet`, `rejected/*.jsonl`, `manifest.json`, `README.md`.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from civid_loader.errors import AnnotationError, OutputError
from civid_loader.schema import SCHEMA_VERSION, arrow_schema, check_rows

MANIFEST: Final = "manifest.json"
_CDC: Final = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024}
"""Content-defined chunking as `datasets` does it, so that the Hub stores only the pages that changed."""
_FREE_TEXT: Final = re.compile(
    r"(sample_id|clip_id|video|url|text|description|value|synopsis|(start|end)_(seconds|frame)|row_index)$"
)
"""Columns whose values hardly repeat: a dictionary would be built and thrown away."""
_TABLES: Final = ("*/*.parquet", "scores/*/*.parquet", "captions/*/*.parquet")
_SHARD: Final = re.compile(r"^(?P<split>\w+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet$")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write to `<path>.incomplete`; on success fsync it and rename it to `path`, so `path` is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.incomplete")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    replace(temporary, path)


def replace(source: Path, target: Path) -> None:
    """Rename within a file system, and make the rename itself survive a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """One JSON document, whole or not at all; the same value gives the same bytes."""
    with atomic_file(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def write_shard(path: Path, tables: Iterable[pa.Table], *, table: str, schema: pa.Schema | None = None) -> int:
    """Write one Parquet shard, one row group per given piece; returns the number of rows.

    Args:
        path: the shard.
        tables: the pieces.
        table: of `schema.TABLES`, or a layer.
        schema: of a layer.

    Raises:
        SchemaError: a piece breaks the schema; no shard is left behind.
    """
    schema = arrow_schema(table) if schema is None else schema
    dictionary = [leaf for leaf in leaf_paths(schema) if not _FREE_TEXT.search(leaf)]
    num_rows = 0
    with (
        atomic_file(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=dictionary,
            write_page_index=True,
            use_content_defined_chunking=_CDC,
            store_schema=True,
        ) as writer,
    ):
        for piece in tables:
            if piece.num_rows:
                check_rows(piece, schema, name=table)
                writer.write_table(piece, row_group_size=piece.num_rows)
                num_rows += piece.num_rows
    return num_rows


def leaf_paths(schema: pa.Schema) -> list[str]:
    """Parquet's names of the leaf columns: `clips.list.element.source.url`."""

    def walk(name: str, kind: pa.DataType) -> Iterator[str]:
        if pa.types.is_list(kind):
            yield from walk(f"{name}.list.element", kind.value_type)
        elif pa.types.is_struct(kind):
            for field in kind:
                yield from walk(f"{name}.{field.name}", field.type)
        else:
            yield name

    return [leaf for field in schema for leaf in walk(field.name, field.type)]


def shard_name(split: str, index: int, count: int) -> str:
    """`train-00003-of-00010.parquet`"""
    return f"{split}-{index:05d}-of-{count:05d}.parquet"


def shards(root: Path, table: str = "annotations", *, split: str | None = None) -> list[Path]:
    """Shards of a table in row order: those of the manifest, or, where there is none, those the folder holds.

    Raises:
        AnnotationError: no such table or split, or a shard is missing.
    """
    manifest = root / MANIFEST
    if manifest.is_file():
        listed = [root / name for name in read_manifest(root)["shards"].get(table, [])]
        missing = [path for path in listed if not path.is_file()]
        if missing:
            name = missing[0].relative_to(root)
            raise AnnotationError(f"{root}: {name} is missing, the manifest names it; copy it back or build again")
    else:
        listed = sorted((root / table).glob("*.parquet"))
    if not listed:
        found = {path.parent.relative_to(root).as_posix() for pattern in _TABLES for path in root.glob(pattern)}
        raise AnnotationError(f"{root} has no table {table!r}; it has {', '.join(sorted(found)) or 'no table'}")
    chosen = of_split(listed, split)
    if not manifest.is_file():
        _check_complete(chosen)
    return chosen


def of_split(listed: Sequence[Path], split: str | None) -> list[Path]:
    """Those shards of a table that are of a split; None: all.

    Raises:
        AnnotationError: no such split, or a file that is no shard.
    """
    chosen = [path for path in listed if split in (None, _split_of(path))]
    if not chosen:
        splits = ", ".join(sorted({_split_of(path) for path in listed})) or "nothing"
        raise AnnotationError(f"{listed[0].parent}: no shards of split {split!r}; there is {splits}")
    return chosen


def _split_of(path: Path) -> str:
    match = _SHARD.match(path.name)
    if not match:
        raise AnnotationError(f"{path}: a shard is named like train-00000-of-00004.parquet")
    return match["split"]


def _check_complete(paths: Sequence[Path]) -> None:
    found: dict[str, list[tuple[int, int]]] = {}
    for path in paths:
        match = _SHARD.match(path.name)
        assert match
        found.setdefault(match["split"], []).append((int(match["index"]), int(match["count"])))
    for split, numbers in found.items():
        counts = {count for _, count in numbers}
        if len(counts) > 1:
            raise AnnotationError(f"{paths[0].parent}: shards of several builds lie together in split {split}")
        if {index for index, _ in numbers} != set(range(counts.pop())):
            raise AnnotationError(f"{paths[0].parent}: split {split} has {len(numbers)} of its {numbers[0][1]} shards")


def read_table(
    root: Path, table: str = "annotations", *, split: str | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of a table as Arrow, in row order, checked to be of this schema version.

    Raises:
        AnnotationError: no such table or split.
        OutputError: written with another schema version.
    """
    paths = shards(root, table, split=split)
    for path in paths:
        metadata = pq.read_schema(path).metadata or {}
        version = metadata.get(b"civid_loader.schema_version", b"unknown").decode()
        if version != SCHEMA_VERSION:
            raise OutputError(f"{path}: schema version {version}, this package reads {SCHEMA_VERSION}; build it again")
    return pa.concat_tables([pq.read_table(path, columns=columns) for path in paths])


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a finished build."""
    value: dict[str, Any] = json.loads((root / MANIFEST).read_bytes())
    return value


class Journal:
    """Finished pieces of work, one JSON line each, fsynced. A line torn by a kill is not a finished piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[int, dict[str, Any]] = {}
        if path.is_file():
            whole = path.read_bytes().rpartition(b"\n")[0]
            os.truncate(path, len(whole) + bool(whole))
            self.entries = {entry["chunk"]: entry for entry in map(json.loads, whole.splitlines())}

    def add(self, chunk: int, entry: dict[str, Any]) -> None:
        """Record chunk number `chunk` as finished."""
        self.entries[chunk] = {"chunk": chunk, **entry}
        with self.path.open("ab") as file:
            file.write(json.dumps(self.entries[chunk]).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
