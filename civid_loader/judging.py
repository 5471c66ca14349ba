"""Which samples of a dataset fulfil a condition on their clips: reads only the columns that it needs."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from civid_loader.clip_table import ClipColumns, clip_table, fields_of, leaves, offsets
from civid_loader.errors import AnnotationError, LayerError
from civid_loader.filter_outcomes import Outcomes, Scope, Tally, Truth, judge
from civid_loader.layers import Layer, check_known, layer_folder, layer_names, layers_in
from civid_loader.progress import track
from civid_loader.repo_names import pull_hint
from civid_loader.storage import read_table, shards
from civid_loader.where import Evaluator, Where

if TYPE_CHECKING:
    import datasets

BATCH: Final = 16_384
"""Samples judged at once."""

Note = Callable[[str, pa.Array, Outcomes], None]
"""Called with the split, the sample ids and the outcomes of each batch."""


def columns_of(
    dataset: "str | os.PathLike[str] | datasets.Dataset", *, layers: list[str] | None = None
) -> dict[str, str]:
    """Names that a condition on this dataset may use, as they are written, with their types.

    Args:
        dataset: folder of a built dataset, or samples with layers joined to them.
        layers: of a folder, those that may be used; None: all.
    """
    if isinstance(dataset, (str, os.PathLike)):
        if not os.path.isdir(dataset):
            raise AnnotationError(f"{dataset}: no such folder; it is that of a built dataset{pull_hint(dataset)}")
        return columns_in(Path(dataset), chosen_layers(Path(dataset), layers)).types()
    return columns_joined(dataset).types()


def chosen_layers(dataset: Path, layers: list[str] | None) -> list[str]:
    """The layers of a folder, or those named.

    Raises:
        LayerError: one of them is not there.
    """
    there = layers_in(dataset)
    if wrong := [name for name in layers or () if name not in there]:
        raise LayerError(f"{dataset} has no layer {', '.join(wrong)}; it has {', '.join(there) or 'none'}")
    return there if layers is None else sorted(set(layers))


def columns_in(dataset: Path, layers: list[str]) -> ClipColumns:
    """Columns of a folder, with those of the layers named."""
    schemas = {name: pq.read_schema(shards(dataset, layer_folder(name))[0]) for name in layers}
    return ClipColumns(
        layers={name: pa.struct([one for one in schema if one.name != "clip_id"]) for name, schema in schemas.items()}
    )


def columns_joined(ds: "datasets.Dataset") -> ClipColumns:
    """Columns of samples and of the layers joined to them."""
    schema: pa.Schema = ds.features.arrow_schema
    types = {name: schema.field(name).type for name in layer_names(schema.names)}
    lists = {name: kind.value_type for name, kind in types.items() if pa.types.is_list(kind)}
    return ClipColumns(layers={name: kind for name, kind in lists.items() if pa.types.is_struct(kind)})


class Judge:
    """Judges every sample of a dataset folder."""

    def __init__(self, dataset: Path, where: Where, known: ClipColumns, *, scope: Scope, quiet: bool) -> None:
        self.dataset = dataset
        self.tally = Tally(conditions=where.conditions)
        self._where, self._scope, self._quiet = where, scope, quiet
        self._columns = known.find(where.names)
        self._fields = {
            name: ["clip_id", *fields_of(self._columns, name, struct)]
            for name, struct in known.layers.items()
            if any(column.layer == name for column in self._columns)
        }
        self._layers_by_condition = {
            i: list(dict.fromkeys(column.layer for column in known.find(one.names) if column.layer is not None))
            for i, one in enumerate(where.conditions)
        }

    def judge_all(self, note: Note | None = None) -> dict[str, Truth]:
        """Split -> truth about each of its samples; the tally counts them."""
        found: dict[str, list[Truth]] = {}
        layers = [
            Layer(name=name, rows=read_table(self.dataset, layer_folder(name), columns=fields))
            for name, fields in self._fields.items()
        ]
        num_clips = 0
        num_batches = sum(-(-pq.read_metadata(path).num_rows // BATCH) for path in shards(self.dataset))
        with Evaluator(self._where) as evaluate:
            for split, rows in track(self._batches(), label="judging", total=num_batches, quiet=self._quiet):
                lists = rows.column("clips").combine_chunks()
                bounds = offsets(lists)
                clip_ids = pc.struct_field(lists.flatten(), "clip_id")
                structs = {layer.name: _as_structs(layer.of(clip_ids)) for layer in layers}
                outcomes = judge(evaluate(clip_table(rows, self._columns, structs)), bounds, scope=self._scope)
                used = {i: {n: structs[n] for n in names} for i, names in self._layers_by_condition.items()}
                self.tally.add(outcomes, split, used)
                found.setdefault(split, []).append(outcomes.samples)
                num_clips += len(clip_ids)
                if note is not None:
                    note(split, rows.column("sample_id"), outcomes)
        check_known(layers, num_clips=num_clips, where=str(self.dataset))
        return {split: np.concatenate(parts) for split, parts in found.items()}

    def _batches(self) -> Iterator[tuple[str, pa.Table]]:
        columns = leaves(self._columns)
        for path in shards(self.dataset):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, columns=columns):
                    yield path.name.partition("-")[0], pa.Table.from_batches([batch])


def _as_structs(found: pa.Table) -> pa.StructArray:
    """The rows of a layer, null where it has none."""
    found = found.combine_chunks()
    columns = [found.column(name).combine_chunks() for name in found.column_names]
    is_missing = columns[found.column_names.index("clip_id")].is_null()
    return pa.StructArray.from_arrays(columns, names=found.column_names, mask=is_missing)
