"""The captions of a dataset as a table with a row per clip, whether they lie in its rows or in a layer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from civid_loader.clip_table import offsets
from civid_loader.errors import LayerError
from civid_loader.layers import layer_folder, layers_in
from civid_loader.schema import CAPTION_LAYER_FEATURES
from civid_loader.storage import read_table, shards

ANNOTATIONS: Final = "annotations"
"""Name of the captions in the rows themselves."""
_COLUMNS: Final = ("clip_id", "captions", "transition_captions", "reason")
_FIELDS: Final = {
    "kind": pa.string(), "text": pa.string(), "start_seconds": pa.float64(), "end_seconds": pa.float64()
}  # fmt: skip
"""Of a caption."""
_LEAVES: Final = (
    "clips.list.element.clip_id", "clips.list.element.index", "transitions.list.element.to_index",
    *(f"{of}.list.element.captions.list.element.{name}" for of in ("clips", "transitions") for name in _FIELDS),
)  # fmt: skip
_ROWS: Final = 16_384


@dataclass(frozen=True, kw_only=True)
class CaptionTexts:
    """Captions of each clip, once."""

    clip_ids: pa.Array
    """In the order of the batches."""
    batches: Callable[[], Iterator[pa.Table]]
    """Tables of clip_id, captions, transition_captions (of the step to the clip) and reason."""
    num_batches: int


def open_texts(dataset: Path, name: str) -> CaptionTexts:
    """The captions of a layer, or of the rows themselves.

    Raises:
        LayerError: there is no such layer of captions.
    """
    if name == ANNOTATIONS:
        num_batches = _num_batches(shards(dataset))
        # A clip may be in several samples; it counts where it comes first.
        ids = pa.concat_arrays(
            [pa.array([], pa.string()), *(one.column("clip_id").chunk(0) for one in _of_rows(dataset, None))]
        )
        is_first = np.zeros(len(ids), dtype=np.bool_)
        is_first[np.unique(ids.dictionary_encode().indices.to_numpy(), return_index=True)[1]] = True
        return CaptionTexts(
            clip_ids=ids.filter(pa.array(is_first)),
            batches=lambda: _of_rows(dataset, is_first),
            num_batches=num_batches,
        )
    there = [one for one in layers_in(dataset) if one.startswith("captions-")]
    if name not in there:
        raise LayerError(f"{dataset} has no captions {name!r}; it has {', '.join([ANNOTATIONS, *there])}")
    folder = layer_folder(name)
    ids = read_table(dataset, folder, columns=["clip_id"]).column("clip_id").combine_chunks()
    if len(pc.unique(ids)) != len(ids):
        raise LayerError(f"layer {name}: a clip has several rows; make the layer again")
    return CaptionTexts(
        clip_ids=ids,
        batches=lambda: _of_layer(shards(dataset, folder)),
        num_batches=_num_batches(shards(dataset, folder)),
    )


def _num_batches(paths: list[Path]) -> int:
    return sum(-(-pq.read_metadata(path).num_rows // _ROWS) for path in paths)


def _of_layer(paths: list[Path]) -> Iterator[pa.Table]:
    schema = _schema()
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=list(_COLUMNS)):
                rows = pa.Table.from_batches([batch])
                lists = {name: _texts_only(rows.column(name).combine_chunks()) for name in _COLUMNS[1:3]}
                yield pa.table({name: lists.get(name, rows.column(name)) for name in _COLUMNS}, schema=schema)


def _schema() -> pa.Schema:
    texts = pa.list_(pa.struct(_FIELDS))
    assert list(CAPTION_LAYER_FEATURES) == list(_COLUMNS)
    return pa.schema(dict(zip(_COLUMNS, (pa.string(), texts, texts, pa.string()), strict=True)))


def _texts_only(lists: pa.ListArray) -> pa.ListArray:
    """Lists of kind, text and the part of the clip it is about; an empty one for none."""
    captions = lists.flatten()
    texts = pa.StructArray.from_arrays([pc.struct_field(captions, name) for name in _FIELDS], names=list(_FIELDS))
    return pa.ListArray.from_arrays(pa.array(offsets(lists), pa.int32()), texts)


def _of_rows(dataset: Path, is_first: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None") -> Iterator[pa.Table]:
    """Captions of the clips that `is_first` marks; None: only ids, of all."""
    columns = list(_LEAVES if is_first is not None else _LEAVES[:1])
    start = 0
    for path in shards(dataset):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=columns):
                rows = pa.Table.from_batches([batch])
                lists = rows.column("clips").combine_chunks()
                clips = lists.flatten()
                ids = pc.struct_field(clips, "clip_id")
                if is_first is None:
                    yield pa.table({"clip_id": ids})
                    continue
                found = {
                    "clip_id": ids,
                    "captions": _texts_only(pc.struct_field(clips, "captions")),
                    "transition_captions": _steps(lists, rows.column("transitions").combine_chunks()),
                    "reason": pa.nulls(len(ids), pa.string()),
                }
                table = pa.table(found, schema=_schema())
                yield table.filter(pa.array(is_first[start : start + len(ids)]))
                start += len(ids)


def _steps(clips: pa.ListArray, transitions: pa.ListArray) -> pa.ListArray:
    """For each clip the captions of the first transition that leads to it."""
    steps = transitions.flatten()
    captions = _texts_only(pc.struct_field(steps, "captions"))
    span = 1 << 32  # a clip's index is an int32: sample and index as one number
    keys = (
        np.repeat(np.arange(len(lists)), np.diff(offsets(lists))) * span
        + pc.struct_field(lists.flatten(), name).to_numpy(zero_copy_only=False).astype(np.int64)
        for lists, name in ((clips, "index"), (transitions, "to_index"))
    )
    of_clips, of_steps = keys
    known, first = np.unique(of_steps, return_index=True)
    if not len(known):
        return pa.ListArray.from_arrays(pa.array(np.zeros(len(of_clips) + 1), pa.int32()), captions.flatten())
    places = np.minimum(np.searchsorted(known, of_clips), len(known) - 1)
    is_there = known[places] == of_clips
    return captions.take(pa.array(first[places], mask=~is_there))
