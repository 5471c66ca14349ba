"""`load`: rows of a dataset with layers joined to them, map-style and memory-mapped, from a folder or from the Hub."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from datasets import Dataset, Features
from filelock import FileLock
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import EntryNotFoundError

from civid_loader.errors import AnnotationError, OutputError
from civid_loader.hub.access import Snapshot, hub_errors, resolve
from civid_loader.layers import Layer, check_known, join_layers, layer_folder, layer_names
from civid_loader.progress import track
from civid_loader.schema import SCHEMA_VERSION
from civid_loader.storage import MANIFEST, atomic_file, leaf_paths, of_split, shards

_REPO: Final = re.compile(r"(?:hf://datasets/)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^@]+))?/?")


def load(
    dataset: str | os.PathLike[str],
    split: str = "train",
    *,
    layers: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    revision: str | None = None,
    token: str | None = None,
    quiet: bool = False,
) -> Dataset:
    """Rows of a dataset with their layers.

    Captions of a `captions-` layer stand in front of the captions that are there, so they are chosen first; any other
    layer is a column of its name: for each sample a list with one entry per clip, null where the layer has none.

        ds = load("org/civid", layers=["media", "scores-lvd2m"])
        ds[0]["scores-lvd2m"][0]["flow_mean_px"]

    Args:
        dataset: folder of a built dataset, or `org/name` on the Hub, which is read at one commit.
        split: train, test ...
        layers: see `civid_loader.layers`.
        columns: only these, `["sample_id", "clips.captions"]`; of a remote dataset not much more than their bytes are
            fetched. What joining the layers needs of the clips is added.
        revision: branch, tag or commit; the newest of main.
        token: None: the one huggingface_hub keeps.
        quiet: no progress bar.

    Raises:
        AnnotationError: no built dataset, split, layer or column.
        LayerError: a layer is of another dataset, or has a clip twice.
        HubError: no such repository or revision, no permission, no connection.
        OutputError: written with another version of the schema.
    """
    files = _files(os.fspath(dataset), revision=revision, token=token)
    with hub_errors(files.name, revision):
        names = files.shards("annotations", split)
        layer_shards = {name: files.shards(layer_folder(name), split) for name in layers}
        stamps = [files.stamp(name) for name in (*names, *(one for shards in layer_shards.values() for one in shards))]
        told = repr((SCHEMA_VERSION, files.name, split, columns, layer_shards, stamps))
        key = xxhash.xxh3_128_hexdigest(told.encode())
        cache = Path(datasets.config.HF_DATASETS_CACHE, "civid_loader", f"{key}.arrow")
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):  # ranks on one machine come here at the same time
            if not cache.is_file():
                leaves = None if columns is None else _leaves(files.open(names[0]), columns, layers)
                ready = [Layer(name=name, rows=_table(files, paths)) for name, paths in layer_shards.items()]
                _write(cache, _pieces(files, names, leaves, quiet=quiet), ready, where=files.name)
    return Dataset.from_file(str(cache), split=datasets.Split(split))


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


def _pieces(files: "_Files", names: Sequence[str], leaves: list[str] | None, *, quiet: bool) -> Iterator[pa.Table]:
    for name in track(names, label="reading", total=len(names), quiet=quiet):
        with files.open(name, is_partial=leaves is not None) as shard:
            _check_version(shard, where=f"{files.name}/{name}")
            for i in range(max(1, shard.num_row_groups)):
                yield shard.read_row_group(i, columns=leaves) if shard.num_row_groups else shard.read(columns=leaves)


def _table(files: "_Files", names: Sequence[str]) -> pa.Table:
    """A layer, memory-mapped: all of its shards in one Arrow file of the cache that `datasets` keeps."""
    paths = [str(files.local(name)) for name in names]
    return Dataset.from_parquet(paths).data.table


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


class _Files(Protocol):
    """Where the shards of a dataset are."""

    @property
    def name(self) -> str: ...

    def shards(self, table: str, split: str) -> list[str]:
        """Of a table and split, in row order."""
        ...

    def stamp(self, name: str) -> str:
        """Another one where the file is another one."""
        ...

    def open(self, name: str, *, is_partial: bool = True) -> pq.ParquetFile:
        """A shard; `is_partial`: only some columns will be read."""
        ...

    def local(self, name: str) -> Path:
        """A shard on this machine's disk."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """A dataset on this machine."""

    root: Path

    @property
    def name(self) -> str:
        return str(self.root)

    def shards(self, table: str, split: str) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in shards(self.root, table, split=split)]

    def stamp(self, name: str) -> str:
        status = (self.root / name).stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def open(self, name: str, *, is_partial: bool = True) -> pq.ParquetFile:
        return pq.ParquetFile(self.root / name)

    def local(self, name: str) -> Path:
        return self.root / name


@dataclass(frozen=True, kw_only=True)
class _HubFiles:
    """A dataset on the Hub, at one commit."""

    snapshot: Snapshot

    @property
    def name(self) -> str:
        return self.snapshot.repo_id

    @cached_property
    def _manifest(self) -> Mapping[str, Any]:
        try:
            manifest = json.loads(self.local(MANIFEST).read_bytes())
        except EntryNotFoundError as error:
            raise AnnotationError(
                f"{self.name} has no {MANIFEST}, so no dataset that `civid push` published; "
                f"datasets.load_dataset({self.name!r}) may read it"
            ) from error
        except ValueError as error:
            raise AnnotationError(
                f"{self.name}: its {MANIFEST} is no JSON ({error}); push the dataset again"
            ) from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), dict):
            raise AnnotationError(f"{self.name}: its {MANIFEST} is not of this package; push the dataset again")
        return manifest

    @cached_property
    def _footers(self) -> dict[str, Any]:
        """Of shards opened before: one of many columns has hundreds of kilobytes."""
        return {}

    def shards(self, table: str, split: str) -> list[str]:
        listed = [Path(self.name, name) for name in self._manifest["shards"].get(table, [])]
        if not listed:
            known = ", ".join(layer_names(self._manifest["shards"])) or "no layers"
            raise AnnotationError(f"{self.name} has no table {table!r}; it has {known}")
        return [path.relative_to(self.name).as_posix() for path in of_split(listed, split)]

    def stamp(self, name: str) -> str:
        return self.snapshot.sha

    def open(self, name: str, *, is_partial: bool = True) -> pq.ParquetFile:
        if not is_partial:
            return pq.ParquetFile(self.local(name))
        files = HfFileSystem(token=self.snapshot.token)
        # Nothing is read ahead: Parquet asks for whole pieces, and 5 MB more with each would be all of the file.
        file = files.open(self.snapshot.url(name).removeprefix("hf://"), "rb", cache_type="none")
        shard = pq.ParquetFile(file, pre_buffer=True, metadata=self._footers.get(name))
        self._footers[name] = shard.metadata
        return shard

    def local(self, name: str) -> Path:
        sha = self.snapshot.sha
        return Path(self.snapshot.api.hf_hub_download(self.name, name, repo_type="dataset", revision=sha))


def _files(dataset: str, *, revision: str | None, token: str | None) -> _Files:
    match = _REPO.fullmatch(dataset)
    if os.path.isdir(dataset):
        if revision is not None:
            raise ValueError(f"revision={revision!r}: a folder has none; {dataset} is a folder here")
        return _Folder(root=Path(os.path.abspath(dataset)))
    if match is None:
        raise AnnotationError(f"{dataset}: no such folder, and no name of a dataset on the Hub (org/name)")
    return _HubFiles(snapshot=resolve(match["repo"], revision=revision or match["revision"], token=token))
