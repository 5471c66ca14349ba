"""Finished layers copied to where others find them: a folder, or what fsspec reaches."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from civid_loader.layers import layer_folder
from civid_loader.storage import MANIFEST, read_manifest


def deliver(root: Path, layers: Sequence[str], output: str | os.PathLike[str]) -> list[str]:
    """Copy layers of a dataset to `<output>/<folder>/<shard>`, each file whole or not at all; returns what was copied.

    Shards that are there of an earlier run are removed once the new ones are there. Where the output is a copy of the
    dataset, its manifest tells of the layers afterwards.

    Args:
        root: the dataset.
        layers: finished ones of it.
        output: folder, or URL that fsspec knows; what it needs to write there is taken from the environment.
    """
    target, base = url_to_fs(os.fspath(output))
    manifest, copied = read_manifest(root), []
    for layer in layers:
        folder = f"{base}/{layer_folder(layer)}"
        before = set(target.glob(f"{folder}/*.parquet"))
        target.makedirs(folder, exist_ok=True)
        for name in manifest["shards"][layer_folder(layer)]:
            _copy(root / name, target, f"{base}/{name}")
            copied.append(f"{base}/{name}")
        for old in before - set(copied):
            target.rm_file(old)
    if target.isfile(f"{base}/{MANIFEST}"):
        _tell(target, f"{base}/{MANIFEST}", manifest, layers)
    return copied


def _copy(path: Path, target: Any, name: str) -> None:
    with path.open("rb") as source, target.transaction, target.open(name, "wb") as file:
        shutil.copyfileobj(source, file)


def _tell(target: Any, name: str, manifest: dict[str, Any], layers: Sequence[str]) -> None:
    there = json.loads(target.cat_file(name))
    for layer in layers:
        folder = layer_folder(layer)
        for key, part in (("num_rows", folder), ("shards", folder), ("layers", layer)):
            there.setdefault(key, {})[part] = manifest[key][part]
    with target.transaction, target.open(name, "wb") as file:
        file.write(json.dumps(there, indent=2, ensure_ascii=False).encode() + b"\n")
