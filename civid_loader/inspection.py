"""`civid inspect`: what an annotation file, a folder of them, or a built dataset holds, and what a build would read."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from civid_loader import builders
from civid_loader.errors import AnnotationError
from civid_loader.schema import TABLES
from civid_loader.storage import MANIFEST, read_manifest, read_table
from civid_loader.upstream.builder import CHUNK_BYTES
from civid_loader.upstream.documents import plan_json, read_json
from civid_loader.upstream.inputs import check_readable, walk
from civid_loader.upstream.records import Context, Source
from civid_loader.upstream.summary import count_rows
from civid_loader.upstream.tables import plan_ranges, read_header, read_range
from civid_loader.upstream.video_index import VIDEO_SUFFIXES

_EXAMPLE_CHARS: Final = 60
_LARGE: Final = ("media", "videos")
"""Tables that are counted, not read: they hold packet indexes and whole videos."""
_LIST: Final = re.compile(r"^\s*[\[(].*[\])]\s*$", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a table, or one key of records (`single_captions:[].video_content`)."""

    name: str
    kinds: dict[str, int]
    """Type -> values of it."""
    num_null: int
    """Missing, empty, NaN or none; for keys: also absent."""
    num_distinct: int
    example: str | None
    is_read: bool | None
    """Whether the dataset's builder reads it; null where no dataset was recognized."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What was found."""

    path: str
    kind: str
    """CSV table, JSON records, folder, or built dataset."""
    num_rows: int
    is_complete: bool
    """False: only the first `num_rows` rows were looked at."""
    datasets: list[str] = field(default_factory=list)
    """Datasets whose builder reads this."""
    columns: list[Column] = field(default_factory=list)
    flags: dict[str, int] = field(default_factory=dict)
    """What a build would flag, or has flagged -> rows."""
    odd_rows: list[str] = field(default_factory=list)
    """Rows a build would reject, with reasons; at most 20."""
    counts: dict[str, int] = field(default_factory=dict)
    """Files by suffix (folder), or rows by table and split (built dataset)."""
    first_rows: list[Any] = field(default_factory=list)


class _Tally:
    """Counts of one column, fed value by value or column by column."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.num_values = 0
        self.hashes: set[int] = set()
        self.example: str | None = None

    def add(self, value: Any) -> None:
        """Count one JSON value."""
        if value is None or value == "":
            return
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        self.kinds[_kind_of(value)] += 1
        self.num_values += 1
        self.hashes.add(xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace")))
        self.example = self.example or text

    def add_texts(self, values: pa.Array) -> None:
        """Count text cells."""
        texts = values.drop_null()
        if not len(texts):
            return
        self.kinds[_kind_of_texts(texts)] += len(texts)
        self.num_values += len(texts)
        self.hashes.update(xxhash.xxh3_64_intdigest(text) for text in pc.unique(texts).cast(pa.binary()).to_pylist())
        self.example = self.example or texts[0].as_py()

    def column(self, name: str, num_rows: int, is_read: bool | None) -> Column:
        """What was counted."""
        shown = None if self.example is None else " ".join(self.example.split())
        if shown and len(shown) > _EXAMPLE_CHARS:
            shown = f"{shown[:_EXAMPLE_CHARS]}…"
        return Column(
            name=name,
            kinds=dict(self.kinds.most_common()),
            num_null=max(num_rows - self.num_values, 0),
            num_distinct=len(self.hashes),
            example=shown,
            is_read=is_read,
        )


def inspect(path: str | Path, *, max_rows: int = 100_000) -> Inspection:
    """Look at a file, a folder or a built dataset.

    Args:
        path: what to look at.
        max_rows: rows after which a big file is not read further.

    Raises:
        AnnotationError: it cannot be read as anything this package knows.
    """
    target = Path(path)
    check_readable(target)
    if target.is_dir():
        return _built(target, max_rows) if (target / MANIFEST).is_file() else _folder(target)
    if target.suffix.lower() == ".csv":
        return _csv(target, max_rows)
    if target.suffix.lower() in (".json", ".jsonl"):
        return _json(target, max_rows)
    raise AnnotationError(f"{target}: not a .csv, .json or .jsonl file, nor a folder")


def _csv(path: Path, max_rows: int) -> Inspection:
    names, _ = read_header(path)
    found = builders.recognize(frozenset(names))
    tallies = {name: _Tally() for name in names}
    num_rows, first, odd = 0, list[Any](), list[str]()
    blocks = (block for part in plan_ranges(path, range_bytes=CHUNK_BYTES) for block in read_range(part))
    for block in blocks:
        for name in names:
            tallies[name].add_texts(block.cells.column(name).combine_chunks())
        first = first or block.cells.slice(0, 3).to_pylist()
        num_rows += block.cells.num_rows
        odd += [f"row {row}: {reason}" for row, reason, _ in block.rejected]
        if num_rows >= max_rows:
            break
    is_complete = next(blocks, None) is None
    flags, rejected = _dry_run(found, path) if found else ({}, odd)
    reads = builders.find(found[0]).reads if found else None
    columns = [tallies[name].column(name, num_rows, reads(name) if reads else None) for name in names]
    return Inspection(
        path=str(path), kind="CSV table", num_rows=num_rows, is_complete=is_complete, datasets=found, columns=columns,
        flags=flags, odd_rows=rejected[:20], first_rows=first,
    )  # fmt: skip


def _json(path: Path, max_rows: int) -> Inspection:
    records = (record for part in plan_json(path, path.name, range_bytes=CHUNK_BYTES) for record in read_json(part))
    tallies: dict[str, _Tally] = {}
    num_rows, first, odd = 0, list[Any](), list[str]()
    for record in islice(records, max_rows):
        if record.reason:
            odd.append(f"row {record.row_index}: {record.reason}")
            continue
        num_rows += 1
        if len(first) < 3:
            first.append(record.value)
        for name, value in _flatten(record.value):
            tallies.setdefault(name, _Tally()).add(value)
    is_complete = next(records, None) is None
    top = frozenset(name for name in tallies if "[]" not in name and "." not in name)
    found = builders.recognize(top)
    flags, rejected = _dry_run(found, path) if found == ["civid"] else ({}, odd)
    reads = builders.find(found[0]).reads if found else None
    columns = [
        tally.column(name, num_rows, reads(name.rpartition(".")[2].removesuffix("[]")) if reads else None)
        for name, tally in tallies.items()
    ]
    return Inspection(
        path=str(path), kind="JSON records", num_rows=num_rows, is_complete=is_complete, datasets=found,
        columns=columns, flags=flags, odd_rows=rejected[:20], first_rows=first,
    )  # fmt: skip


def _folder(path: Path) -> Inspection:
    counts = Counter(file.suffix.lower() or "(no suffix)" for file in walk(path))
    if not counts:
        raise AnnotationError(f"{path}: the folder is empty")
    found, flags, odd, num_rows = list[str](), dict[str, int](), list[str](), 0
    for name in builders.names():
        builder = builders.find(name)
        try:
            chunks = builder.plan(Source(annotations=(str(path),)))
        except AnnotationError as error:
            odd.append(f"not {name}: {error}")
            continue
        found.append(name)
        counted: dict[str, Counter[str]] = {}
        for chunk in chunks[:1]:
            for piece in builder.read(chunk, Source(annotations=(str(path),)), Context()):
                num_rows += piece.rows.num_rows
                count_rows(piece.rows, counted)
                odd += [f"{row.file} row {row.row_index}: {row.reason}" for row in piece.rejected]
        flags |= counted.get("flags", {})
    num_videos = sum(counts[suffix] for suffix in VIDEO_SUFFIXES)
    notes = {"video files": num_videos} if num_videos else {}
    return Inspection(
        path=str(path), kind="folder", num_rows=num_rows, is_complete=False, datasets=found, flags=flags,
        odd_rows=[line for line in odd if not (found and line.startswith("not "))][:20],
        counts=dict(counts.most_common()) | notes,
    )  # fmt: skip


def _built(path: Path, max_rows: int) -> Inspection:
    manifest = read_manifest(path)
    whole = {table: read_table(path, table) for table in TABLES if table in manifest["shards"] and table not in _LARGE}
    tables = {table: data.slice(0, max_rows) for table, data in whole.items()}
    samples = tables["annotations"]
    columns = []
    for table, data in tables.items():
        for name in data.column_names:
            tally = _Tally()
            values = data.column(name).combine_chunks()
            if pa.types.is_string(values.type):
                tally.add_texts(values)
            else:
                for value in values.to_pylist():
                    tally.add(value if value != [] else None)
            columns.append(tally.column(name if table == "annotations" else f"{table}.{name}", len(data), True))
    counts = {f"{table} {split}": n for table, splits in manifest["num_rows"].items() for split, n in splits.items()}
    counts |= {f"captions {kind}": n for kind, n in manifest["counts"].get("captions", {}).items()}
    return Inspection(
        path=str(path), kind="built dataset", num_rows=len(samples),
        is_complete=len(samples) == len(whole["annotations"]), datasets=[manifest["name"]],
        columns=columns, flags=manifest["counts"].get("flags", {}), counts=counts,
        odd_rows=[f"{count} rows rejected: {reason}" for reason, count in manifest["rejected"].items()],
        first_rows=samples.slice(0, 1).to_pylist(),
    )  # fmt: skip


def _dry_run(found: list[str], path: Path) -> tuple[dict[str, int], list[str]]:
    """(flags, rejected rows) a build of the first chunk would give."""
    builder, source = builders.find(found[0]), Source(annotations=(str(path),))
    counts: dict[str, Counter[str]] = {}
    rejected = []
    for chunk in builder.plan(source)[:1]:
        for piece in builder.read(chunk, source, Context()):
            count_rows(piece.rows, counts)
            rejected += [f"row {row.row_index}: {row.reason}" for row in piece.rejected]
    return dict(counts.get("flags", {})), rejected


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a record with its values: `single_captions:[].video_content`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        yield prefix, value
        for inner in value:
            if isinstance(inner, (dict, list)):
                yield from _flatten(inner, f"{prefix}[]")
    else:
        yield prefix or "(value)", value


def _kind_of(value: Any) -> str:
    if isinstance(value, str):
        return "JSON text" if value.lstrip().startswith(("{", "```")) else "text"
    return {bool: "yes/no", int: "whole number", float: "number", list: "list", dict: "object"}[type(value)]


def _kind_of_texts(texts: pa.Array) -> str:
    for kind, name in ((pa.int64(), "whole number"), (pa.float64(), "number")):
        try:
            texts.cast(kind)
        except pa.ArrowInvalid:
            continue
        return name
    sample: Iterable[str] = texts.slice(0, 100).to_pylist()
    return "list" if np.all([_LIST.match(text) is not None for text in sample]) else "text"
