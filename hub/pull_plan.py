"""Which files of a commit a pull is about, whether a file is the one of the commit, and what an earlier pull left."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub.hf_api import RepoFile

from civid_loader.errors import HubError, LayerError
from civid_loader.hub.access import Snapshot
from civid_loader.hub.card import PICTURES
from civid_loader.layers import layer_folder, layer_names
from civid_loader.storage import MANIFEST, write_json

CARD: Final = "README.md"
RECORD: Final = ".pulled.json"
"""In a pulled folder: from where, and which files."""
_ALWAYS: Final = ("annotations", "characters", "movies")
# Only such names: a repository must not be able to put a file anywhere else.
_SHARD: Final = re.compile(r"(?P<table>[a-z]+(?:/[a-z0-9][a-z0-9._-]*)?)/\w[\w.-]*\.parquet")
_PICTURE: Final = re.compile(rf"{PICTURES}/\w[\w-]*\.png")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a pull left in a folder."""

    repo_id: str
    sha: str
    files: Mapping[str, str]
    """Path -> hash, see `hash_of`."""

    @classmethod
    def of(cls, root: Path) -> "Record | None":
        """That of a folder; None where nothing was pulled."""
        path = root / RECORD
        return cls(**json.loads(path.read_bytes())) if path.is_file() else None

    @classmethod
    def make(cls, snapshot: Snapshot, plan: "PullPlan", *, kept: Collection[str]) -> "Record":
        """That of a finished pull; `kept` are the tables of an earlier one that are still right."""
        files = {file.path: hash_of(file) for file in plan.files}
        files |= {path: hash_of(file) for path, file in plan.others.items() if table_of(path) in kept}
        return cls(repo_id=snapshot.repo_id, sha=snapshot.sha, files=files)

    def write(self, root: Path) -> None:
        """Leave it in a folder."""
        write_json(root / RECORD, {"repo_id": self.repo_id, "sha": self.sha, "files": dict(self.files)})


@dataclass(frozen=True, kw_only=True, slots=True)
class PullPlan:
    """What of a commit is wanted."""

    repo_id: str
    tables: frozenset[str]
    """Folders."""
    files: Sequence[RepoFile]
    """Wanted, by path."""
    others: Mapping[str, RepoFile]
    """Shards of the commit that are not wanted."""

    def check_manifest(self, data: bytes) -> dict[str, Any]:
        """The manifest as published.

        Raises:
            HubError: it is none, or names a shard that the commit has not.
        """
        try:
            manifest = json.loads(data)
            named = {path for table in self.tables for path in manifest["shards"].get(table, [])}
            is_complete = {"shards", "num_rows", "civid_loader"} <= manifest.keys()
        except (ValueError, TypeError, KeyError, AttributeError):
            is_complete, named = False, set()
        if not is_complete:
            raise HubError(f"{self.repo_id}: its {MANIFEST} is not of this package; push the dataset again")
        if lacking := named - {file.path for file in self.files}:
            raise HubError(
                f"{self.repo_id}: {min(lacking)} is missing there, and its {MANIFEST} names it; push the dataset again"
            )
        return dict(manifest)

    def was_pulled(self, record: Record | None, table: str) -> bool:
        """Whether the table came with an earlier pull."""
        return record is not None and any(table_of(path) == table for path in record.files)

    def still_right(self, record: Record | None) -> set[str]:
        """Tables of an earlier pull that are not asked for now and are the same in this commit."""
        before: dict[str, dict[str, str]] = {}
        for path, told in record.files.items() if record is not None else ():
            before.setdefault(table_of(path), {})[path] = told
        now: dict[str, dict[str, str]] = {}
        for path, file in self.others.items():
            now.setdefault(table_of(path), {})[path] = hash_of(file)
        return {table for table, files in before.items() if table and now.get(table) == files}

    def stale(self, root: Path, record: Record | None, kept: Collection[str]) -> list[str]:
        """Files to remove: shards of pulled tables that the commit has not, and what an earlier pull brought."""
        wanted = {file.path for file in self.files}
        found = {path for path in (record.files if record is not None else ()) if table_of(path) not in kept}
        for table in self.tables:
            found |= {path.relative_to(root).as_posix() for path in (root / table).glob("*.parquet")}
        return sorted(path for path in found - wanted if path.endswith(".parquet") and _SHARD.fullmatch(path))


def make_plan(
    repo_id: str, files: Mapping[str, RepoFile], *, layers: Sequence[str] | None, with_videos: bool
) -> PullPlan:
    """Choose files.

    Raises:
        HubError: no dataset of this package, or no videos.
        LayerError: there is no such layer.
    """
    shards = {path: file for path, file in files.items() if _SHARD.fullmatch(path)}
    there = {table_of(path) for path in shards}
    if "annotations" not in there or MANIFEST not in files:
        raise HubError(
            f"{repo_id} was not published by this package: it has no annotations/*.parquet with a {MANIFEST}; read it "
            "with datasets.load_dataset"
        )
    known = layer_names(there)
    for name in layers or ():
        if name not in known:
            raise LayerError(f"{repo_id} has no layer {name!r}; it has {', '.join(known) or 'none'}")
    if with_videos and "videos" not in there:
        raise HubError(f"{repo_id} has no `videos` config: only its annotations were published; pull without videos")
    tables = {layer_folder(name) for name in (known if layers is None else layers)} | {*_ALWAYS} & there
    tables |= {"videos"} if with_videos else set()
    wanted = [path for path in files if path in (CARD, MANIFEST) or _PICTURE.fullmatch(path)]
    wanted += [path for path in shards if table_of(path) in tables]
    return PullPlan(
        repo_id=repo_id,
        tables=frozenset(tables),
        files=tuple(files[path] for path in sorted(wanted)),
        others={path: file for path, file in shards.items() if table_of(path) not in tables},
    )


def table_of(path: str) -> str:
    """`scores/lvd2m/train-00000-of-00001.parquet` -> `scores/lvd2m`; "" for what is no shard."""
    match = _SHARD.fullmatch(path)
    return match["table"] if match else ""


def hash_of(file: RepoFile) -> str:
    """SHA-256 of a file in LFS or Xet, else the SHA-1 that git gives it."""
    return str(file.lfs.sha256 if file.lfs is not None else file.blob_id)


def is_right(path: Path, file: RepoFile) -> bool:
    """Whether a local file has size and hash of one in a commit."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        if file.lfs is not None:
            return hashlib.file_digest(opened, "sha256").hexdigest() == hash_of(file)
        # As git names its blobs; nothing secret is guarded by it.
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        digest.update(opened.read())
        return digest.hexdigest() == hash_of(file)
