"""Layers: side tables with one row per clip, made after the dataset was built, and how they meet its rows.

A layer is named as its config on the Hub: `media`, `scores-<name>` (flat columns per clip) or `captions-<name>`
(`schema.CAPTION_LAYER_FEATURES`), and lies in the folder `media`, `scores/<name>` or `captions/<name>`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from civid_loader.card import add_table
from civid_loader.errors import LayerError
from civid_loader.schema import CAPTION_LAYER_FEATURES, arrow_schema_of
from civid_loader.storage import MANIFEST, read_manifest, replace, shard_name, write_json, write_shard

LAYER_KEY: Final = b"civid_loader.layer"
"""Of a shard's metadata: what made the layer, as JSON."""
SHARD_BYTES: Final = 256 << 20
"""In memory; about 32 to 128 MB on disk."""

_NAME: Final = re.compile(r"media|(?P<room>scores|captions)-(?P<own>[a-z0-9][a-z0-9._-]*)")


def layer_folder(name: str) -> str:
    """`scores-lvd2m` -> `scores/lvd2m`.

    Raises:
        LayerError: no name of a layer.
    """
    match = _NAME.fullmatch(name)
    if not match:
        meant = name.strip("/").replace("/", "-")
        hint = f"; did you mean {meant}?" if _NAME.fullmatch(meant) else ""
        raise LayerError(
            f"layer {name!r}: a layer is media, scores-<name> or captions-<name>, its own name of small letters, "
            f"digits, dots, dashes and underscores{hint}"
        )
    return name if name == "media" else f"{match['room']}/{match['own']}"


def layer_names(folders: Iterable[str]) -> list[str]:
    """The layers among folders of a dataset: `scores/lvd2m` -> `scores-lvd2m`; others are left out."""
    return sorted(name for folder in folders if _NAME.fullmatch(name := folder.replace("/", "-")))


def layers_in(root: Path) -> list[str]:
    """The layers that a dataset folder holds."""
    patterns = ("media/*.parquet", "scores/*/*.parquet", "captions/*/*.parquet")
    return layer_names(
        {path.parent.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)}
    )


def write_layer(
    root: Path,
    name: str,
    rows: Mapping[str, Iterable[pa.Table]],
    *,
    features: Features = CAPTION_LAYER_FEATURES,
    provenance: Mapping[str, Any],
) -> dict[str, int]:
    """Write a layer into a dataset folder, or replace it; manifest and card tell of it. Returns split -> rows.

    Args:
        root: the dataset.
        name: see `layer_folder`.
        rows: split -> tables, with a row for each clip in the order of the annotations.
        features: of the rows; the first is `clip_id`.
        provenance: what made it: `fingerprint`, `columns`, `stages` with their `models`, `made_with`; plain JSON.

    Raises:
        LayerError: no name of a layer.
        SchemaError: rows that break the schema.
    """
    folder = layer_folder(name)
    told = {"name": name, **provenance}
    schema = arrow_schema_of(features)
    schema = schema.with_metadata({**schema.metadata, LAYER_KEY: json.dumps(told, sort_keys=True).encode()})
    num_rows: dict[str, int] = {}
    names: list[str] = []
    for split, tables in rows.items():
        parts: list[Path] = []
        for part in _shards_of(tables):
            parts.append(root / folder / f"{split}-{len(parts):05d}.parquet.incomplete")
            pieces = (piece.cast(schema) for piece in part)
            num_rows[split] = num_rows.get(split, 0) + write_shard(parts[-1], pieces, table=folder, schema=schema)
        for i, part_path in enumerate(parts):
            names.append(f"{folder}/{shard_name(split, i, len(parts))}")
            replace(part_path, root / names[-1])
    if (root / MANIFEST).is_file():
        manifest = read_manifest(root)
        manifest["num_rows"][folder], manifest["shards"][folder] = num_rows, names
        manifest["layers"] = manifest.get("layers", {}) | {name: told}
        write_json(root / MANIFEST, manifest)
    add_table(root, folder, num_rows)
    for path in (root / folder).glob("*.parquet*"):
        if f"{folder}/{path.name}" not in names:
            path.unlink()
    return num_rows


def _shards_of(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    part: list[pa.Table] = []
    num_bytes = 0
    for table in tables:
        if part and num_bytes + table.nbytes > SHARD_BYTES:
            yield part
            part, num_bytes = [], 0
        part.append(table)
        num_bytes += table.nbytes
    yield part


@dataclass(kw_only=True)
class Layer:
    """A layer, ready to be joined to rows."""

    name: str
    rows: pa.Table
    """One row per clip, with `clip_id`."""
    num_missing: int = 0
    """Clips joined so far that the layer knows nothing of."""
    _next: int = 0

    def __post_init__(self) -> None:
        ids = self.rows.column("clip_id").combine_chunks()
        if isinstance(ids, pa.ChunkedArray):
            ids = pa.array([], pa.string())
        if len(pc.unique(ids)) != len(ids):
            counts = pc.value_counts(ids)
            twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
            raise LayerError(f"layer {self.name}: clip {twice} has several rows; make the layer again")
        self._ids = ids

    def of(self, clip_ids: pa.Array) -> pa.Table:
        """The rows of these clips, in their order; null where the layer has none."""
        stop = self._next + len(clip_ids)
        if self._ids.slice(self._next, len(clip_ids)).equals(clip_ids):  # the usual case: the same order
            found = self.rows.slice(self._next, len(clip_ids))
            self._next = stop
            return found
        places = pc.index_in(clip_ids, value_set=self._ids)
        self.num_missing += places.null_count
        last = places[-1].as_py() if len(places) else None
        self._next = self._next if last is None else last + 1
        return self.rows.take(places)


def join_layers(rows: pa.Table, layers: Sequence[Layer]) -> pa.Table:
    """Annotation rows with their layers.

    Captions of a `captions-` layer go where captions are, in front of those that are there, so that they are chosen
    first. Any other layer becomes a column of its name: for each sample a list, one entry per clip, in the order of
    `clips`; null for a clip that the layer knows nothing of.
    """
    rows = rows.combine_chunks()
    for layer in layers:
        if not rows.num_rows:
            continue
        lists = rows["clips"].chunk(0)
        found = layer.of(pc.struct_field(lists.flatten(), "clip_id")).combine_chunks()
        if layer.name.startswith("captions-"):
            rows = _with_captions(rows, found)
        else:
            rows = rows.append_column(layer.name, _as_lists(lists, found))
    return rows


def _as_lists(lists: pa.ListArray, found: pa.Table) -> pa.ListArray:
    own = found.drop_columns("clip_id")
    columns = [own.column(i).combine_chunks() for i in range(own.num_columns)]
    is_missing = found.column("clip_id").combine_chunks().is_null()
    structs = pa.StructArray.from_arrays(columns, fields=list(own.schema), mask=is_missing)
    return pa.ListArray.from_arrays(pa.array(_offsets(lists), pa.int32()), structs)


def _offsets(lists: pa.ListArray) -> npt.NDArray[np.int64]:
    """Where the list of each row begins in `lists.flatten()`, and the end."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths)])


def _with_captions(rows: pa.Table, found: pa.Table) -> pa.Table:
    lists = rows["clips"].chunk(0)
    clips = lists.flatten()
    columns = {field.name: clips.field(field.name) for field in clips.type}
    columns["captions"] = _one_after_the_other(found.column("captions").combine_chunks(), columns["captions"])
    structs = pa.StructArray.from_arrays(list(columns.values()), fields=list(clips.type))
    new = pa.ListArray.from_arrays(pa.array(_offsets(lists), pa.int32()), structs, type=lists.type)
    rows = rows.set_column(rows.column_names.index("clips"), rows.schema.field("clips"), new)
    steps = found.column("transition_captions").combine_chunks()
    if "transitions" in rows.column_names and pc.any(pc.greater(pc.list_value_length(steps), 0)).as_py():
        field = rows.schema.field("transitions")
        indices = clips.field("index").to_pylist()
        merged = _transitions(rows["transitions"].to_pylist(), indices, steps.to_pylist(), _offsets(lists).tolist())
        rows = rows.set_column(rows.column_names.index("transitions"), field, pa.array(merged, field.type))
    return rows


def _one_after_the_other(first: pa.ListArray, second: pa.ListArray) -> pa.ListArray:
    """Of each row the values of its first list, then of its second."""
    lengths = [np.diff(_offsets(lists)) for lists in (first, second)]
    rows = np.concatenate([np.repeat(np.arange(len(first)), lengths[i]) for i in range(2)])
    values = pa.concat_arrays([first.flatten().cast(second.type.value_type), second.flatten()])
    offsets = np.concatenate([[0], np.cumsum(lengths[0] + lengths[1])])
    order = pa.array(np.argsort(rows, kind="stable"))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(order), type=second.type)


def _transitions(
    known: list[list[dict[str, Any]] | None], indices: list[int], steps: list[list[Any] | None], offsets: list[int]
) -> list[list[dict[str, Any]]]:
    """The transitions of each row with the captions of the step to each clip in front of those there are."""
    merged = []
    for of_row, (start, stop) in zip(known, pairwise(offsets), strict=True):
        by_step = {(one["from_index"], one["to_index"]): list(one["captions"] or []) for one in of_row or []}
        for place in range(start + 1, stop):
            step = (indices[place - 1], indices[place])
            if texts := steps[place]:
                by_step[step] = [*texts, *by_step.get(step, [])]
        merged.append([{"from_index": a, "to_index": b, "captions": texts} for (a, b), texts in by_step.items()])
    return merged


def check_known(layers: Sequence[Layer], *, num_clips: int, where: str) -> None:
    """Refuse layers that were made for other clips, once all rows are joined."""
    for layer in layers:
        if num_clips and layer.num_missing == num_clips:
            raise LayerError(
                f"layer {layer.name} knows none of the {num_clips:,} clips of {where}: it is of another dataset, or of "
                "another split"
            )


def incomplete(layers: Sequence[Layer], *, num_clips: int, where: str) -> list[str]:
    """Once all rows are joined, a sentence for each layer that knows only some of the clips."""
    return [
        f"layer {layer.name} knows nothing of {layer.num_missing:,} of the {num_clips:,} clips of {where}: they have "
        f"{'no captions of it' if layer.name.startswith('captions-') else 'null there'}; make the layer for all, or "
        "filter them out"
        for layer in layers
        if layer.num_missing
    ]
