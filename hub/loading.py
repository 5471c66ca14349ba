"""`load`: rows of a dataset with layers joined to them, map-style and memory-mapped, from a folder or from the Hub."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from datasets import Dataset, Features
from filelock import FileLock

from civid_loader.errors import AnnotationError, OutputError
from civid_loader.hub.access import hub_errors
from civid_loader.hub.dataset_files import DatasetFiles, open_files
from civid_loader.layers import Layer, check_known, incomplete, join_layers, layer_folder
from civid_loader.progress import track
from civid_loader.schema import SCHEMA_VERSION
from civid_loader.storage import atomic_file, leaf_paths, write_json


def load(
    dataset: str | os.PathLike[str],
    split: str = "train",
    *,
    layers: str | Sequence[str] = (),
    columns: str | Sequence[str] | None = None,
    revision: str | None = None,
    token: str | None = None,
    quiet: bool = False,
) -> Dataset:
    """Rows of a dataset with their layers.

    Captions of a `captions-` layer stand in front of the captions that are there, so they are chosen first; any other
    layer is a column of its name: for each sample a list with one entry per clip, null where the layer has none. A
    layer that knows only some of the clips is joined with a warning that says how many are left out.

    With HF_HUB_OFFLINE=1 what was loaded before on this machine is loaded again, at the commit of that time.

        ds = load("org/civid", layers=["media", "scores-lvd2m"])
        ds[0]["scores-lvd2m"][0]["flow_mean_px"]

    Args:
        dataset: folder of a built dataset, or `org/name` on the Hub, which is read at one commit.
        split: train, test ...
        layers: see `civid_loader.layers`.
        columns: only these, `["sample_id", "clips.captions", "media.fps"]`; of a remote dataset not much more than
            their bytes are fetched. What joining the layers needs of the clips is added. Of a layer of which no column
            is named all come, and of captions too: of `media` also the packet index, by which a loader decodes less.
        revision: branch, tag or commit; the newest of main.
        token: None: the one huggingface_hub keeps.
        quiet: no progress bar.

    Raises:
        AnnotationError: no built dataset, split, layer or column; or the card names other files for them.
        LayerError: a layer is of another dataset, or has a clip twice.
        HubError: no such repository or revision, no permission, no connection.
        OutputError: written with another version of the schema.
    """
    layers, columns = _listed(layers), None if columns is None else _listed(columns)
    files = open_files(os.fspath(dataset), revision=revision, token=token)
    with hub_errors(files.name, revision):
        names = files.shards("annotations", split)
        layer_shards = {name: files.shards(layer_folder(name), split) for name in layers}
        stamps = [files.stamp(name) for name in (*names, *(one for shards in layer_shards.values() for one in shards))]
        told = repr((SCHEMA_VERSION, files.name, split, columns, layer_shards, stamps))
        key = xxhash.xxh3_128_hexdigest(told.encode())
        cache = Path(datasets.config.HF_DATASETS_CACHE, "civid_loader", f"{key}.arrow")
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):  # ranks on one machine come here at the same time
            if not (cache.is_file() and _notes(cache).is_file()):
                own, chosen = _split(columns or (), layers)
                leaves = None if columns is None else _leaves(files.open(names[0]), own, layers)
                ready = [
                    Layer(name=name, rows=_table(files, paths, chosen.get(name)))
                    for name, paths in layer_shards.items()
                ]
                _write(cache, _pieces(files, names, leaves, quiet=quiet), ready, where=files.name)
    for message in json.loads(_notes(cache).read_bytes()):
        warnings.warn(message, stacklevel=2)
    return Dataset.from_file(str(cache), split=datasets.Split(split))


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _notes(cache: Path) -> Path:
    """What there is to warn of, beside the rows: they are joined once and loaded often."""
    return cache.with_suffix(".warnings.json")


def _write(cache: Path, pieces: Iterator[pa.Table], layers: Sequence[Layer], *, where: str) -> None:
    """Joined rows as one Arrow file, whole or not there."""
    num_clips, writer = 0, None
    with atomic_file(cache) as file:
        for rows in pieces:
            joined = join_layers(rows, layers)
            if layers:
                num_clips += pc.sum(pc.list_value_length(rows["clips"])).as_py() or 0
            if writer is None:
                # Its metadata tells the features: those of a layer are added, those of columns left out are gone.
                schema = Features.from_arrow_schema(joined.schema.remove_metadata()).arrow_schema
                writer = pa.ipc.new_stream(file, schema)
            writer.write_table(joined.cast(schema))
        assert writer is not None, "a shard has a row group, if an empty one"
        writer.close()
        check_known(layers, num_clips=num_clips, where=where)
        # Before the rows, which tell that all is there.
        write_json(_notes(cache), incomplete(layers, num_clips=num_clips, where=where))


def _pieces(files: DatasetFiles, names: Sequence[str], leaves: list[str] | None, *, quiet: bool) -> Iterator[pa.Table]:
    for name in track(names, label="reading", total=len(names), quiet=quiet):
        with files.open(name, is_partial=leaves is not None) as shard:
            _check_version(shard, where=f"{files.name}/{name}")
            for i in range(max(1, shard.num_row_groups)):
                yield shard.read_row_group(i, columns=leaves) if shard.num_row_groups else shard.read(columns=leaves)


def _table(files: DatasetFiles, names: Sequence[str], columns: Sequence[str] | None) -> pa.Table:
    """A layer: whole, then memory-mapped from one Arrow file of the cache of `datasets`, or some columns in memory."""
    if columns is None:
        return Dataset.from_parquet([str(files.local(name)) for name in names]).data.table
    found = []
    for name in names:
        with files.open(name) as shard:
            there = shard.schema_arrow.names
            if wrong := [one for one in columns if one not in there]:
                raise AnnotationError(f"{files.name}/{name}: no column {wrong[0]!r}; there are {', '.join(there)}")
            found.append(shard.read(columns=["clip_id", *columns]))
    return pa.concat_tables(found)


def _split(columns: Sequence[str], layers: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Columns of the rows, and of each layer of which some are named: `media.fps` is `fps` of `media`.

    Raises:
        AnnotationError: a column of a layer of captions, which goes where captions are.
    """
    own, of_layer = [], dict[str, list[str]]()
    for column in columns:
        name = next((one for one in layers if column.startswith(f"{one}.")), None)
        if name is None:
            own += [] if column in layers else [column]
        elif name.startswith("captions-"):
            raise AnnotationError(f"column {column!r}: of captions no columns are chosen; they go to clips.captions")
        elif column not in layers:
            of_layer.setdefault(name, []).append(column.removeprefix(f"{name}."))
    return own, {name: chosen for name, chosen in of_layer.items() if name not in columns}


def _check_version(shard: pq.ParquetFile, *, where: str) -> None:
    version = (shard.schema_arrow.metadata or {}).get(b"civid_loader.schema_version", b"unknown").decode()
    if version != SCHEMA_VERSION:
        raise OutputError(f"{where}: schema version {version}, this package reads {SCHEMA_VERSION}")


def _leaves(shard: pq.ParquetFile, columns: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Parquet's names of what is wanted: `clips.captions` -> `clips.list.element.captions.list.element.kind` ...

    Raises:
        AnnotationError: there is no such column.
    """
    with shard:
        plain = {leaf.replace(".list.element", ""): leaf for leaf in leaf_paths(shard.schema_arrow)}
    needed = ["clips.clip_id"] if layers else []
    if any(name.startswith("captions-") for name in layers):
        needed += ["clips.index", "clips.captions"]
    chosen: list[str] = []
    for column in [*columns, *needed]:
        found = [leaf for name, leaf in plain.items() if name == column or name.startswith(f"{column}.")]
        if not found:
            known = ", ".join(sorted({name.partition(".")[0] for name in plain}))
            raise AnnotationError(
                f"there is no column {column!r}; there are {known}, and parts of them such as clips.captions"
            )
        chosen += found
    return list(dict.fromkeys(chosen))
