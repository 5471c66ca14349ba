"""The tables of a filtered dataset: the rows kept, their layers, and the small tables as they are."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Features

from civid_loader.layers import LAYER_KEY, SHARD_BYTES, layer_folder, write_layer
from civid_loader.storage import atomic_file, replace, shard_name, shards, write_shard
from civid_loader.upstream.summary import count_rows

COPIED: Final = ("characters", "movies")
"""Tables that are copied whole."""
_ROW_GROUP_BYTES: Final = 32 << 20
"""In memory: what is left of several row groups becomes one of this size."""
_LOCATION: Final = ("shard", "byte_offset")
"""Columns of the layer `media` that say where bytes lie as seen from the dataset that was probed."""

Mask = npt.NDArray[np.bool_]


def splits_of(dataset: Path, table: str) -> list[str]:
    """Splits of a table, in order."""
    return list(dict.fromkeys(path.name.partition("-")[0] for path in shards(dataset, table)))


class RowWriter:
    """Writes the kept rows of each split, and notes what is in them."""

    def __init__(self, dataset: Path, output: Path) -> None:
        self._dataset, self._output = dataset, output
        self.shards: list[str] = []
        self.num_rows: dict[str, int] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.clip_ids: dict[str, pa.Array] = {}
        """Split -> ids of the clips kept."""
        self.num_clips = 0
        self.num_of_parent = 0
        """Clips that point into the config `videos` of the dataset this one is made of."""

    def write(self, split: str, kept: Mask) -> None:
        """Write the rows of a split that `kept` marks, in their order."""
        ids: list[pa.Array] = []
        names = _write_parts(
            self._output,
            "annotations",
            split,
            (self._noted(piece, ids) for piece in _kept_rows(shards(self._dataset, split=split), kept)),
        )
        self.shards += names
        self.num_rows[split] = int(kept.sum())
        self.clip_ids[split] = pa.concat_arrays(ids) if ids else pa.array([], pa.string())

    def _noted(self, rows: pa.Table, ids: list[pa.Array]) -> pa.Table:
        count_rows(rows, self.counts)
        clips = rows.column("clips").combine_chunks().flatten()
        ids.append(pc.struct_field(clips, "clip_id"))
        is_of_parent = pc.starts_with(pc.struct_field(clips, "video"), "videos:")
        self.num_clips += len(clips)
        self.num_of_parent += int(pc.sum(is_of_parent).as_py() or 0)
        return rows


def _kept_rows(paths: Sequence[Path], kept: Mask) -> Iterator[pa.Table]:
    """Pieces of about one row group each."""
    start = 0
    gathered: list[pa.Table] = []
    num_bytes = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for i in range(file.num_row_groups):
                num_rows = file.metadata.row_group(i).num_rows
                mask = kept[start : start + num_rows]
                start += num_rows
                if not mask.any():
                    continue
                rows = file.read_row_group(i)
                gathered.append(rows if mask.all() else rows.filter(pa.array(mask)))
                num_bytes += gathered[-1].nbytes
                if num_bytes >= _ROW_GROUP_BYTES:
                    yield pa.concat_tables(gathered).combine_chunks()
                    gathered, num_bytes = [], 0
    if gathered:
        yield pa.concat_tables(gathered).combine_chunks()
    assert start == len(kept)


def _write_parts(output: Path, table: str, split: str, pieces: Iterable[pa.Table]) -> list[str]:
    """Shards of `SHARD_BYTES`; their names, which say how many there are, are given at the end."""
    parts: list[Path] = []
    pending = iter(pieces)
    piece = next(pending, None)
    while piece is not None:
        group = [piece]
        num_bytes = piece.nbytes
        while (piece := next(pending, None)) is not None and num_bytes + piece.nbytes <= SHARD_BYTES:
            group.append(piece)
            num_bytes += piece.nbytes
        parts.append(output / table / f"{split}-{len(parts):05d}.parquet.part")
        write_shard(parts[-1], group, table=table)
    names = [f"{table}/{shard_name(split, i, len(parts))}" for i in range(len(parts))]
    for part, name in zip(parts, names, strict=True):
        replace(part, output / name)
    return names


def copy_tables(dataset: Path, output: Path, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """Copy characters and movies; returns table -> shards."""
    copied = {table: manifest["shards"][table] for table in COPIED if table in manifest["shards"]}
    for name in (name for names in copied.values() for name in names):
        with atomic_file(output / name) as file:
            file.write((dataset / name).read_bytes())
    return copied


def copy_layer(dataset: Path, output: Path, name: str, clip_ids: Mapping[str, pa.Array]) -> int:
    """Write the rows of a layer that are of these clips, in their order, with what made them; returns how many."""
    folder = layer_folder(name)
    schema = pq.read_schema(shards(dataset, folder)[0])
    made_by = json.loads((schema.metadata or {}).get(LAYER_KEY, b"{}"))
    made_by.pop("name", None)
    rows = {
        split: _layer_rows(shards(dataset, folder, split=split), clip_ids[split], has_locations=name == "media")
        for split in splits_of(dataset, folder)
        if len(clip_ids.get(split, ()))
    }
    features = Features.from_arrow_schema(schema)
    return sum(write_layer(output, name, rows, features=features, provenance=made_by).values())


def _layer_rows(paths: Sequence[Path], clip_ids: pa.Array, *, has_locations: bool) -> Iterator[pa.Table]:
    # All ids at once: `is_in` makes an index of the value set in every call.
    ids = pa.concat_tables([pq.read_table(path, columns=["clip_id"]) for path in paths]).column("clip_id")
    kept = pc.is_in(ids, value_set=clip_ids).to_numpy()
    for rows in _kept_rows(paths, kept):
        for name in _LOCATION if has_locations else ():
            place = rows.column_names.index(name)
            rows = rows.set_column(place, rows.schema.field(name), pa.nulls(len(rows), rows.schema.field(name).type))
        yield rows
