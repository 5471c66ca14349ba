"""Reading tiny made-up annotation files through a builder, in this process, without writing a dataset."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from civid_loader import builders
from civid_loader.schema import check_table
from civid_loader.upstream.builder import repeats
from civid_loader.upstream.records import Context, Rejected, Source
from civid_loader.upstream.video_index import VideoIndex

Row = dict[str, Any]


class Reading(NamedTuple):
    """What a builder made of some files."""

    rows: list[Row]
    """Of one table, in order."""
    rejected: list[Rejected]
    notes: Counter[str]


def rows_of(
    name: str,
    paths: Path | Sequence[Path],
    *,
    videos: Path | None = None,
    subset: str | None = None,
    field_map: Mapping[str, str] | None = None,
    table: str = "annotations",
    split: str | None = None,
) -> Reading:
    """Plan, survey and read, as `build` does; every piece must pass the schema. `split`: rows of that one only."""
    builder = builders.find(name)
    named = (paths,) if isinstance(paths, Path) else tuple(paths)
    source = Source(
        annotations=tuple(map(str, named)),
        videos=str(videos) if videos else None,
        subset=subset,
        field_map=tuple(sorted((field_map or {}).items())),
    )
    chunks = [chunk for chunk in builder.plan(source) if chunk.table == table]
    context = Context(
        videos=VideoIndex.scan(str(videos)) if videos else None,
        repeated=repeats([builder.survey(chunk, source) for chunk in chunks] if builder.SURVEYS else []),
    )
    found = Reading([], [], Counter())
    for chunk in chunks:
        for piece in builder.read(chunk, source, context):
            check_table(piece.rows, table)
            found.rejected.extend(piece.rejected)
            found.notes.update(piece.notes)
            if split in (None, chunk.split):
                found.rows.extend(piece.rows.to_pylist())
    return found


def only_row(reading: Reading) -> Row:
    """The one row there is; nothing was rejected."""
    assert not reading.rejected, reading.rejected
    (row,) = reading.rows
    return row


def only_reason(reading: Reading) -> str:
    """Why the one record was rejected."""
    assert not reading.rows
    (rejected,) = reading.rejected
    return rejected.reason


def texts(captions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Kind -> text; the last one where a kind occurs several times."""
    return {caption["kind"]: caption["text"] for caption in captions}


def write_json(path: Path, value: Any, **options: Any) -> Path:
    """One JSON document, folders made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, **{"ensure_ascii": False} | options), encoding="utf-8")
    return path


def write_lines(path: Path, values: Iterable[Any]) -> Path:
    """True JSONL."""
    path.write_text("".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values), encoding="utf-8")
    return path


def write_table(
    path: Path,
    rows: Iterable[Mapping[str, str]],
    columns: Sequence[str],
    *,
    line_end: str = "\n",
    encoding: str = "utf-8",
) -> Path:
    """A CSV table as Python's csv module writes it; cells not given are empty."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(columns)
        writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return path


def write_files(root: Path, names: Iterable[str], *, content: bytes = b"video") -> Path:
    """A folder of files that only have to be there."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
