"""How long and how large the samples of a dataset are: what buckets are made for, before a video is opened."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from civid_loader.buckets import Longs, unique_sizes
from civid_loader.errors import AnnotationError
from civid_loader.storage import read_table, shards

if TYPE_CHECKING:
    from datasets import Dataset

_CLIP = "clips.list.element"
_MEASURED = ("clip_num_frames", "height", "width")
_ROWS_AT_ONCE = 10_000
_UPSTREAM = ("num_frames", "height", "width", "fps", "duration_seconds")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleSizes:
    """Sizes of all rows of a dataset or split, in row order. Stands for its array `sizes` where one is asked for."""

    sizes: Longs
    """[N, 3], (frames, height in px, width in px): the shortest clip of each sample, and the first one's picture."""
    num_clips: Longs
    """[N], clips of each sample, those of unknown size too; at least 1."""
    num_measured: int
    """Rows whose size the `media` layer tells."""
    num_unknown: int
    """Rows of which neither the layer nor upstream knows a size; they have the size that most rows have."""

    def __len__(self) -> int:
        return len(self.sizes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Longs:
        return np.array(self.sizes, dtype, copy=copy)


def read_sizes(dataset: "str | os.PathLike[str] | Dataset", *, split: str | None = None) -> SampleSizes:
    """The size of every sample: from the `media` layer where there is one (`civid probe`), else as upstream states it.

    Args:
        dataset: folder of a built dataset; or its rows, also filtered or shuffled, which tell what was probed where
            they were loaded with the layer: `civid_loader.load(folder, layers=["media"])`.
        split: of a folder, of this split only.

    Raises:
        AnnotationError: no built dataset or split, or no row's size is known.
    """
    if isinstance(dataset, str | os.PathLike):
        where = str(dataset)
        parts = list(_of_folder(Path(dataset), split))
    else:
        where = "the dataset"
        parts = list(_of_rows(dataset))
    num_clips = np.concatenate([one.num_clips for one in parts])
    values, is_measured = (np.concatenate([getattr(one, name) for one in parts]) for name in ("values", "is_measured"))
    is_known = np.nan_to_num(values).min(axis=1) >= 1
    rows = np.repeat(np.arange(len(num_clips)), num_clips)
    sizes, has_size = _by_row(values, rows, is_known, count=len(num_clips))
    if not has_size.any():
        raise AnnotationError(f"{where}: no sample's size is known; run `civid probe` on its folder first")
    kinds, inverse = unique_sizes(sizes[has_size])
    sizes[~has_size] = kinds[np.bincount(inverse).argmax()]
    return SampleSizes(
        sizes=sizes,
        num_clips=np.maximum(1, num_clips),
        num_measured=len(np.unique(rows[is_measured & is_known])),
        num_unknown=int((~has_size).sum()),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Part:
    """What is told of some rows."""

    num_clips: Longs
    """[rows]"""
    values: npt.NDArray[np.float64]
    """[clips, 3], frames, height and width; not a number where nobody tells."""
    is_measured: npt.NDArray[np.bool_]
    """[clips]"""

    @classmethod
    def of(cls, lists: pa.ListArray, measured: npt.NDArray[np.float64] | None) -> "_Part":
        values = _stated(lists.flatten())
        is_measured: npt.NDArray[np.bool_] = np.zeros(len(values), bool)
        if measured is not None:
            is_measured = ~np.isnan(measured.sum(axis=1))
            values = np.where(is_measured[:, None], measured, values)
        counts: Longs = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(num_clips=counts, values=values, is_measured=is_measured)


def _of_folder(root: Path, split: str | None) -> Iterator[_Part]:
    names = [f"{_CLIP}.clip_id", *(f"{_CLIP}.media.{name}" for name in _UPSTREAM)]
    media = _media(root)
    for path in shards(root, split=split):
        # Leaf by leaf: whole clips would bring their captions along.
        lists = pq.ParquetFile(path).read(columns=names).column("clips").combine_chunks()
        measured = None
        if media is not None:
            ids = lists.flatten().field("clip_id")
            places = pc.index_in(ids, value_set=media.column("clip_id").combine_chunks())
            measured = np.column_stack([_floats(media.column(name).take(places)) for name in _MEASURED])
        yield _Part.of(lists, measured)


def _of_rows(rows: "Dataset") -> Iterator[_Part]:
    columns = [name for name in ("clips", "media") if name in rows.column_names]
    for piece in rows.select_columns(columns).with_format("arrow").iter(_ROWS_AT_ONCE):
        measured = None
        if "media" in columns:
            probed = pa.chunked_array(piece.column("media").chunks).combine_chunks().flatten()
            measured = np.column_stack([_floats(pc.struct_field(probed, name)) for name in _MEASURED])
        yield _Part.of(piece.column("clips").combine_chunks(), measured)


def _stated(clips: pa.StructArray) -> npt.NDArray[np.float64]:
    """[clips, 3] as upstream states it; not a number where it does not."""
    columns = {name: _floats(pc.struct_field(clips, ["media", name])) for name in _UPSTREAM}
    frames = columns["num_frames"]
    frames = np.where(np.isnan(frames), np.round(columns["fps"] * columns["duration_seconds"]), frames)
    return np.column_stack([frames, columns["height"], columns["width"]])


def _media(root: Path) -> pa.Table | None:
    """What probing found; None where nobody has probed."""
    try:
        shards(root, "media")
    except AnnotationError:
        return None
    return read_table(root, "media", columns=["clip_id", *_MEASURED])


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
