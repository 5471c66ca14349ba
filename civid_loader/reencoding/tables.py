"""The tables of a dataset of training copies: which clips there are, rows that point to the copies, shards of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from civid_loader.storage import atomic_file, read_table, shard_name, shards, write_shard
from civid_loader.video_shards import write_video_shard

FAILED_FLAG: Final = "proxy_failed"
"""Of a sample with a clip that has no copy; that clip keeps the pointer it had."""
SHARD_BYTES: Final = 1_000_000_000
_CLIP: Final = "clips.list.element"
_COLUMNS: Final = (
    "sample_id", f"{_CLIP}.clip_id", f"{_CLIP}.video", f"{_CLIP}.trimmed", f"{_CLIP}.source.start_seconds",
    f"{_CLIP}.source.end_seconds",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A clip to copy. Picklable."""

    number: int
    """Its place among all clips of the dataset."""
    clip_id: str
    sample_id: str
    """Of the first sample it occurs in."""
    split: str
    """Of that sample."""
    video: str | None
    """Pointer."""
    span: tuple[float, float | None] | None
    """[start, end) in seconds; None: the whole file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the bytes of a finished copy lie."""

    path: Path
    offset_bytes: int
    num_bytes: int

    def read(self) -> bytes:
        """The copy."""
        with self.path.open("rb") as file:
            file.seek(self.offset_bytes)
            return file.read(self.num_bytes)


def read_clips(dataset: Path) -> list[Clip]:
    """Every clip once, in the order of the rows.

    Raises:
        AnnotationError: no dataset, or a part of it is missing.
        OutputError: it was built by another version.
    """
    read_table(dataset, columns=["sample_id"])  # complete, and of this version of the schema
    clips: dict[str, Clip] = {}
    for path in shards(dataset):
        with pq.ParquetFile(path) as file:
            for rows in file.iter_batches(columns=list(_COLUMNS)):
                for row in rows.to_pylist():
                    for clip in row["clips"]:
                        found = _clip(clip, number=len(clips), sample_id=row["sample_id"], shard=path)
                        clips.setdefault(found.clip_id, found)
    return list(clips.values())


def _clip(clip: Mapping[str, Any], *, number: int, sample_id: str, shard: Path) -> Clip:
    source = clip["source"] or {}
    start_seconds, end_seconds = source.get("start_seconds") or 0.0, source.get("end_seconds")
    is_whole = clip["trimmed"] or (start_seconds, end_seconds) == (0.0, None)
    return Clip(
        number=number,
        clip_id=clip["clip_id"],
        sample_id=sample_id,
        split=shard.name.partition("-")[0],
        video=clip["video"],
        span=None if is_whole else (start_seconds, end_seconds),
    )


def write_tables(dataset: Path, output: Path, *, failed: Sequence[str]) -> tuple[dict[str, list[str]], int]:
    """Copy the sample rows, pointing to the training copies, and the tables about characters and movies as they are.

    Args:
        dataset: the dataset they are copies of.
        output: the folder of the new one.
        failed: clip ids that have no copy.

    Returns:
        Table -> names of its shards; number of rows with a clip that has no copy.
    """
    ids = pa.array(failed, pa.string())
    num_flagged = 0

    def pieces(file: pq.ParquetFile) -> Iterator[pa.Table]:
        nonlocal num_flagged
        for i in range(file.num_row_groups):
            rows, num_in_group = _pointing_to_copies(file.read_row_group(i), failed=ids)
            num_flagged += num_in_group
            yield rows

    names = [f"annotations/{path.name}" for path in shards(dataset)]
    for name in names:
        with pq.ParquetFile(dataset / name) as file:
            write_shard(output / name, pieces(file), table="annotations")
    written = {"annotations": names}
    for table in ("characters", "movies"):
        if any((dataset / table).glob("*.parquet")):
            written[table] = [f"{table}/{path.name}" for path in shards(dataset, table)]
            for name in written[table]:
                with atomic_file(output / name) as file:
                    file.write((dataset / name).read_bytes())
    return written, num_flagged


def _pointing_to_copies(rows: pa.Table, *, failed: pa.Array) -> tuple[pa.Table, int]:
    rows = rows.combine_chunks()
    if not rows.num_rows:
        return rows, 0
    lists = rows["clips"].chunk(0)
    clips = lists.values
    columns = {field.name: clips.field(field.name) for field in clips.type}
    has_failed = pc.is_in(columns["clip_id"], value_set=failed)
    pointers = pc.binary_join_element_wise("videos:", columns["clip_id"], "")
    columns["video"] = pc.if_else(has_failed, columns["video"], pointers)
    columns["trimmed"] = pc.or_(columns["trimmed"], pc.invert(has_failed))
    copies = pa.StructArray.from_arrays(list(columns.values()), fields=list(clips.type))
    flags = rows["flags"].to_pylist()
    flagged = pc.unique(pc.list_parent_indices(lists).filter(has_failed)).to_pylist()
    for row in flagged:
        flags[row] = [*(flags[row] or []), FAILED_FLAG]
    new = {"clips": pa.ListArray.from_arrays(lists.offsets, copies, type=lists.type), "flags": flags}
    for name, values in new.items():
        field = rows.schema.field(name)
        rows = rows.set_column(rows.column_names.index(name), field, pa.array(values, field.type))
    return rows, len(flagged)


def write_videos(output: Path, clips: Sequence[Clip], places: Mapping[int, Place]) -> list[str]:
    """Write the copies as shards of the table `videos`; what was written is deleted where it lay before.

    Called again after a kill, with the same clips, it goes on with the first shard that is not there.

    Returns:
        Names of the shards.
    """
    last_use: dict[Path, int] = {}
    for number, place in sorted(places.items()):
        last_use[place.path] = number
    names = []
    groups = list(_groups([clip for clip in clips if clip.number in places], places))
    for group in groups:
        same = [other for other in groups if other[0].split == group[0].split]
        name = f"videos/{shard_name(group[0].split, same.index(group), len(same))}"
        if not (output / name).is_file():
            write_video_shard(output / name, ((clip.clip_id, places[clip.number].read()) for clip in group))
        names.append(name)
        for path in [path for path, number in last_use.items() if number <= group[-1].number]:
            path.unlink(missing_ok=True)
            del last_use[path]
    return names


def _groups(clips: Sequence[Clip], places: Mapping[int, Place]) -> Iterator[list[Clip]]:
    """Clips of each shard."""
    group: list[Clip] = []
    num_bytes = 0
    for clip in clips:
        size = places[clip.number].num_bytes
        if group and (clip.split != group[0].split or num_bytes + size > SHARD_BYTES):
            yield group
            group, num_bytes = [], 0
        group.append(clip)
        num_bytes += size
    if group:
        yield group
