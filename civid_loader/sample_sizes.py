"""How long and how large the samples of a dataset are: what buckets are made for, before a video is opened."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from civid_loader.buckets import Longs, unique_sizes
from civid_loader.errors import AnnotationError
from civid_loader.storage import read_table, shards

_CLIP = "clips.list.element"
_UPSTREAM = ("num_frames", "height", "width", "fps", "duration_seconds")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleSizes:
    """Sizes of all rows of a dataset or split, in row order."""

    sizes: Longs
    """[N, 3], (frames, height in px, width in px): the shortest clip of each sample, and the first one's picture."""
    num_measured: int
    """Rows whose size the `media` layer tells."""
    num_unknown: int
    """Rows of which neither the layer nor upstream knows a size; they have the size that most rows have."""


def read_sizes(dataset: str | os.PathLike[str], *, split: str | None = None) -> SampleSizes:
    """The size of every sample: from the `media` layer where there is one (`civid probe`), else as upstream states it.

    Raises:
        AnnotationError: no built dataset or split, or no row's size is known.
    """
    root = Path(dataset)
    names = [f"{_CLIP}.clip_id", *(f"{_CLIP}.media.{name}" for name in _UPSTREAM)]
    # Leaf by leaf: whole clips would bring their captions along.
    tables = [pq.ParquetFile(path).read(columns=names) for path in shards(root, split=split)]
    lists = pa.concat_tables(tables).column("clips").combine_chunks()
    starts = lists.offsets.to_numpy()[:-1] - lists.offsets[0].as_py()
    clips = lists.flatten()
    values = _stated(clips)
    is_measured: npt.NDArray[np.bool_] = np.zeros(len(clips), bool)
    if (measured := _measured(root, clips.field("clip_id"))) is not None:
        is_measured = ~np.isnan(measured.sum(axis=1))
        values = np.where(is_measured[:, None], measured, values)
    is_known = np.nan_to_num(values).min(axis=1) >= 1
    rows = np.repeat(np.arange(len(lists)), np.diff(np.append(starts, len(clips))))
    sizes, has_size = _by_row(values, rows, is_known, count=len(lists))
    if not has_size.any():
        raise AnnotationError(f"{root}: no sample's size is known; run `civid probe {root}` first")
    kinds, inverse = unique_sizes(sizes[has_size])
    sizes[~has_size] = kinds[np.bincount(inverse).argmax()]
    num_measured = len(np.unique(rows[is_measured & is_known]))
    return SampleSizes(sizes=sizes, num_measured=num_measured, num_unknown=int((~has_size).sum()))


def _stated(clips: pa.StructArray) -> npt.NDArray[np.float64]:
    """[clips, 3] as upstream states it; not a number where it does not."""
    columns = {name: _floats(pc.struct_field(clips, ["media", name])) for name in _UPSTREAM}
    frames = columns["num_frames"]
    frames = np.where(np.isnan(frames), np.round(columns["fps"] * columns["duration_seconds"]), frames)
    return np.column_stack([frames, columns["height"], columns["width"]])


def _measured(root: Path, ids: pa.Array) -> npt.NDArray[np.float64] | None:
    """[clips, 3] as probing found it; None where nobody has probed."""
    try:
        shards(root, "media")
    except AnnotationError:
        return None
    media = read_table(root, "media", columns=["clip_id", "clip_num_frames", "height", "width"])
    places = pc.index_in(ids, value_set=media.column("clip_id").combine_chunks())
    return np.column_stack([_floats(media.column(name).take(places)) for name in media.column_names[1:]])


def _by_row(
    values: npt.NDArray[np.float64], rows: Longs, is_known: npt.NDArray[np.bool_], *, count: int
) -> tuple[Longs, npt.NDArray[np.bool_]]:
    """(size of each row, whether it has one)."""
    known_rows, first = np.unique(rows[is_known], return_index=True)
    sizes = np.ones((count, 3), np.int64)
    sizes[known_rows] = values[is_known][first]
    shortest = np.full(count, np.inf)
    np.minimum.at(shortest, rows[is_known], values[is_known][:, 0])
    sizes[known_rows, 0] = shortest[known_rows]
    return sizes, np.isin(np.arange(count), known_rows)


def _floats(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
