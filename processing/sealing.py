"""The rows of a run as layers of its dataset: scores, and captions where a stage wrote some."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from civid_loader.errors import LayerError
from civid_loader.layers import layer_folder, write_layer
from civid_loader.processing.chunks import Chunks, first_of_each
from civid_loader.processing.stage import CorpusStage, Row, Stage
from civid_loader.processing.stage_rows import features_of, table_of, writes_captions
from civid_loader.schema import CAPTION_LAYER_FEATURES, arrow_schema_of
from civid_loader.storage import read_table


def layers_of(layer: str, stages: Sequence[Stage[Any]]) -> tuple[str, ...]:
    """The layers that a run writes: the one that was named first. Captions have their scores beside them.

    Raises:
        LayerError: captions must go into `captions-<name>`, and scores into `scores-<name>`.
    """
    room = layer_folder(layer).partition("/")[0]
    wanted = "captions" if writes_captions(stages) else "scores"
    if room != wanted:
        what = ", ".join(stage.name for stage in stages)
        raise LayerError(f"layer {layer}: what {what} find goes into a layer {wanted}-<name>")
    return (layer, f"scores-{layer.removeprefix('captions-')}") if wanted == "captions" else (layer,)


def read_rows(root: Path, layers: Sequence[str]) -> list[Row]:
    """The rows of a run's layers, as they were before they were divided."""
    rows: list[Row] = read_table(root, layer_folder(layers[0])).to_pylist()
    for layer in layers[1:]:
        for row, more in zip(rows, read_table(root, layer_folder(layer)).to_pylist(), strict=True):
            assert row["clip_id"] == more["clip_id"]
            row |= more
    return rows


def seal(
    root: Path,
    layer: str,
    work: Path,
    chunks: Chunks,
    stages: Sequence[Stage[Any]],
    provenance: Mapping[str, Any],
) -> None:
    """The chunks' rows as layers, each clip once; what needs all of them is computed now."""
    of_all = _finish(work, chunks, stages)
    scores = features_of(column for stage in stages for column in stage.columns)
    for name in reversed(layers_of(layer, stages)):  # the one that tells that the run is finished comes last
        features = CAPTION_LAYER_FEATURES if name.startswith("captions-") else scores
        splits = dict.fromkeys(chunk.split for chunk in chunks.listed)
        tables = {split: _pieces(work, chunks, split, features, of_all) for split in splits}
        write_layer(root, name, _each_once(tables), features=features, provenance=provenance)


def _each_once(tables: Mapping[str, Iterator[pa.Table]]) -> dict[str, Iterator[pa.Table]]:
    seen: set[int] = set()

    def first(pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for rows in pieces:
            yield rows.filter(first_of_each(rows["clip_id"].combine_chunks(), seen))

    return {split: first(pieces) for split, pieces in tables.items()}


def _pieces(
    work: Path, chunks: Chunks, split: str, features: Features, of_all: Mapping[str, Row]
) -> Iterator[pa.Table]:
    schema = arrow_schema_of(features)
    for chunk in chunks.listed:
        if chunk.split == split:
            rows = pq.read_table(work / f"{chunk.index:06d}.parquet").to_pylist()
            merged = [row | of_all.get(row["clip_id"], {}) for row in rows]
            yield table_of([{name: row[name] for name in schema.names} for row in merged], schema)


def _finish(work: Path, chunks: Chunks, stages: Sequence[Stage[Any]]) -> dict[str, Row]:
    """What stages that compare clips find: clip id -> columns."""
    found: dict[str, Row] = {}
    for stage in stages:
        if isinstance(stage, CorpusStage):
            names = ["clip_id", *(part.name for part in stage.parts)]
            tables = [pq.read_table(work / f"{chunk.index:06d}.parquet", columns=names) for chunk in chunks.listed]
            rows = pa.concat_tables(tables)
            rows = rows.filter(first_of_each(rows["clip_id"].combine_chunks(), set()))
            for clip_id, row in zip(rows["clip_id"].to_pylist(), stage.finish(rows), strict=True):
                found.setdefault(clip_id, {}).update(row)
    return found
