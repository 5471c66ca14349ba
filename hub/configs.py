"""The configs of a built folder: one per table and one per layer, as `load_dataset(folder, name)` takes them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from civid_loader.layers import layer_folder, layer_names, layers_in
from civid_loader.schema import TABLES
from civid_loader.storage import MANIFEST, read_manifest, shards

DEFAULT: Final = "default"
"""The config of the samples, in the folder `annotations`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One table of a built folder."""

    name: str
    """`default`, `media`, `scores-lvd2m`."""
    folder: str
    """Where its shards lie, relative to the dataset root: `annotations`, `scores/lvd2m`."""
    files: Mapping[str, Sequence[Path]]
    """Split -> shards in row order."""
    num_rows: Mapping[str, int]
    """Split -> rows."""
    features: Features
    """What its columns hold."""

    @property
    def shards(self) -> list[Path]:
        """The shards of all splits."""
        return [path for paths in self.files.values() for path in paths]

    def read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Row group after row group of some Parquet columns (`clips.list.element.clip_id`)."""
        for path in self.shards:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=list(columns))


def list_configs(root: Path, *, tables: Collection[str] | None = None) -> list[Config]:
    """The configs of a built folder: the samples, the other tables, then layers by name.

    Args:
        root: the dataset.
        tables: leave out folders that are not among these; the samples always count.

    Raises:
        AnnotationError: no samples, or a shard is missing.
    """
    if (root / MANIFEST).is_file():
        there = set(read_manifest(root)["shards"])
    else:
        there = {table for table in TABLES if any((root / table).glob("*.parquet"))}
        there |= {layer_folder(name) for name in layers_in(root)}
    folders = ["annotations", *(table for table in TABLES if table in there and table != "annotations")]
    folders += map(layer_folder, layer_names(there - {*TABLES}))
    return [
        _config(DEFAULT if folder == "annotations" else folder.replace("/", "-"), folder, shards(root, folder))
        for folder in folders
        if tables is None or folder in tables or folder == "annotations"
    ]


def _config(name: str, folder: str, paths: Sequence[Path]) -> Config:
    files: dict[str, list[Path]] = {}
    num_rows: dict[str, int] = {}
    for path in paths:
        files.setdefault(_split(path), []).append(path)
        num_rows[_split(path)] = num_rows.get(_split(path), 0) + pq.read_metadata(path).num_rows
    features = Features.from_arrow_schema(pq.read_schema(paths[0]))
    return Config(name=name, folder=folder, files=files, num_rows=num_rows, features=features)


def _split(path: Path) -> str:
    return path.name.partition("-")[0]
