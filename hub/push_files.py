"""The files of a dataset folder that a push sends, and whether the Hub has them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from huggingface_hub import CommitOperationAdd
from huggingface_hub.hf_api import RepoFile

from civid_loader.errors import AnnotationError
from civid_loader.layers import layer_folder, layer_names
from civid_loader.storage import read_manifest, shards

Videos: TypeAlias = Literal["none", "here", "planned"]


def table_of(path: str) -> str:
    """`scores/lvd2m/train-00000-of-00001.parquet` -> `scores/lvd2m`; "" for card, manifest and what lies beside."""
    return path.rpartition("/")[0] if path.endswith(".parquet") else ""


def config_of(table: str) -> str:
    """`annotations` -> `default`, `scores/lvd2m` -> `scores-lvd2m`."""
    return "default" if table == "annotations" else table.replace("/", "-")


@dataclass(kw_only=True)
class LocalFiles:
    """The files of a dataset folder that are to be pushed, each hashed once."""

    root: Path
    tables: tuple[str, ...]
    """Folders, as `annotations`, `scores/lvd2m`."""
    sends_videos: bool
    """Whether videos go up; in a dry run `videos` may be no table yet."""
    _known: dict[str, CommitOperationAdd] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, *, layers: Sequence[str] | None, videos: Videos) -> "LocalFiles":
        """All tables but `videos`, or the layers named; and `videos`, with where each clip lies in them.

        `videos`: "none", "here", or "planned": they would be written first, so there are none to look at.

        Raises:
            AnnotationError: the folder has no such layer, or no videos.
        """
        there = read_manifest(root)["shards"]
        if layers is None:
            tables = [table for table in there if table != "videos"]
        else:
            tables = [layer_folder(name) for name in layers]
            if missing := [name for name, table in zip(layers, tables, strict=True) if table not in there]:
                known = ", ".join(layer_names(there)) or "none"
                raise AnnotationError(f"{root} has no layer {missing[0]!r}; it has {known}")
        if videos == "here":
            if "videos" not in there:
                raise AnnotationError(f"{root} has no `videos` config to push")
            tables += ["videos", *(table for table in ("media",) if table in there and table not in tables)]
        return cls(root=root, tables=tuple(dict.fromkeys(tables)), sends_videos=videos != "none")

    def paths(self) -> list[str]:
        """Of all shards, in the repository as in the folder."""
        return [path for table in self.tables for path in self.paths_of(table)]

    def paths_of(self, table: str) -> list[str]:
        """Of the shards of a table."""
        return [path.relative_to(self.root).as_posix() for path in shards(self.root, table)]

    def add(self, path: str) -> CommitOperationAdd:
        """The file as the Hub's client takes it, with size and hash; read to its end the first time."""
        if path not in self._known:
            self._known[path] = CommitOperationAdd(path_in_repo=path, path_or_fileobj=self.root / path)
        return self._known[path]


def is_same(local: CommitOperationAdd, remote: RepoFile | None) -> bool:
    """Whether the Hub has this very file."""
    if remote is None or remote.size != local.upload_info.size:
        return False
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == local.upload_info.sha256.hex())
    with local.as_file() as file:
        data = file.read()
    # As git names its blobs; nothing secret is guarded by it.
    return bool(remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())
