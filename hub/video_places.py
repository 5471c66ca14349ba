"""Where each clip lies in the shards of the `videos` config, told by the media layer."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from civid_loader.card import add_table
from civid_loader.hub.video_plan import Clips, Longs
from civid_loader.layers import Layer
from civid_loader.schema import arrow_schema
from civid_loader.storage import MANIFEST, read_manifest, replace, shard_name, shards, write_json, write_shard
from civid_loader.video_shards import clips_in_shard

NOT_CHECKED: Final = "civid probe has not looked at it yet"
ROWS_PER_GROUP: Final = 2048
ROWS_PER_SHARD: Final = 16 * ROWS_PER_GROUP
_COLUMNS: Final = ("shard", "byte_offset", "num_bytes")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Places:
    """Where the file of each clip lies."""

    rows: pa.Table
    """clip_id, shard, byte_offset, num_bytes, in the order of the annotations; null where a clip has no file."""

    @classmethod
    def read(cls, root: Path, clips: Clips, names: Sequence[str], sizes: Longs) -> "Places":
        """As the footers of the shards tell.

        Raises:
            UnreadableVideoError: a shard is damaged.
        """
        numbers = {clip_id: number for number, clip_id in enumerate(clips.ids.to_pylist())}
        offsets = np.zeros(len(numbers), np.int64)
        shard_of = np.full(len(numbers), -1)
        for i, name in enumerate(names):
            for clip_id, (offset, _) in clips_in_shard(root / name).items():
                offsets[numbers[clip_id]], shard_of[numbers[clip_id]] = offset, i
        is_missing = shard_of < 0
        places = pa.array(shard_of, mask=is_missing)
        return cls(
            rows=pa.table(
                {
                    "clip_id": clips.ids,
                    "shard": pa.array(list(names), pa.string()).take(places),
                    "byte_offset": pa.array(offsets, mask=is_missing),
                    "num_bytes": pa.array(sizes, mask=is_missing),
                }
            )
        )


def write_places(root: Path, work: Path, clips: Clips, places: Places) -> None:
    """Write them into the media layer, or a media layer of nothing else. Can be cut off anywhere and run again."""
    shutil.rmtree(work / "media", ignore_errors=True)
    if "media" in read_manifest(root)["shards"]:
        names = [f"media/{path.name}" for path in shards(root, "media")]
        layer = Layer(name="media", rows=places.rows)
        for name in names:
            with pq.ParquetFile(root / name) as file:
                schema = file.schema_arrow
                write_shard(work / name, _filled(file, layer), table="media", schema=schema)
        for name in names:
            replace(work / name, root / name)
    else:
        _write_layer(root, work, clips, places)


def _filled(file: pq.ParquetFile, layer: Layer) -> Iterator[pa.Table]:
    for i in range(file.num_row_groups):
        rows = file.read_row_group(i)
        found = layer.of(rows.column("clip_id").combine_chunks())
        for column in _COLUMNS:
            # Of a file that is not inside, what is known of its size stays.
            values = found[column] if column != "num_bytes" else pc.coalesce(found[column], rows[column])
            rows = rows.set_column(rows.column_names.index(column), rows.schema.field(column), values)
        yield rows


def _write_layer(root: Path, work: Path, clips: Clips, places: Places) -> None:
    names: list[str] = []
    num_rows: dict[str, int] = {}
    for split in clips.splits:
        inside = clips.in_split(split)
        starts = range(inside.start, inside.stop, ROWS_PER_SHARD)
        for i, start in enumerate(starts):
            names.append(f"media/{shard_name(split, i, len(starts))}")
            stop = min(start + ROWS_PER_SHARD, inside.stop)
            num_rows[split] = num_rows.get(split, 0) + stop - start
            write_shard(work / names[-1], _rows(clips, places, start, stop), table="media")
    for name in names:
        replace(work / name, root / name)
    for path in (root / "media").glob("*.parquet"):
        if f"media/{path.name}" not in names:
            path.unlink()
    # The card first: once the manifest names the layer, a rerun takes it for one that it found.
    add_table(root, "media", num_rows)
    manifest = read_manifest(root)
    manifest["num_rows"]["media"], manifest["shards"]["media"] = num_rows, names
    write_json(root / MANIFEST, manifest)


def _rows(clips: Clips, places: Places, start: int, stop: int) -> Iterator[pa.Table]:
    schema = arrow_schema("media")
    for first in range(start, stop, ROWS_PER_GROUP):
        count = min(ROWS_PER_GROUP, stop - first)
        known = {name: places.rows[name].slice(first, count) for name in places.rows.column_names}
        known["video"] = clips.pointers.slice(first, count)
        known |= {name: pa.array([text] * count) for name, text in (("status", "not_checked"), ("reason", NOT_CHECKED))}
        columns = [known.get(field.name, pa.nulls(count, field.type)) for field in schema]
        yield pa.Table.from_arrays(columns, schema=schema)
