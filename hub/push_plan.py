"""What a push has to do: the files of a dataset folder against those of a repository."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from huggingface_hub import CommitOperationAdd
from huggingface_hub.hf_api import RepoFile

from civid_loader.errors import AnnotationError, HubError, OutputError
from civid_loader.hub.access import Snapshot
from civid_loader.hub.card import header_and_body, render_card
from civid_loader.layers import layer_folder, layer_names
from civid_loader.storage import MANIFEST, read_manifest, shards

CARD: Final = "README.md"
_DATA_FILE: Final = re.compile(r".*\.(parquet|arrow|csv|tsv|jsonl?|tar|zip|gz)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """A repository as a push finds it."""

    repo_id: str
    files: Mapping[str, RepoFile]
    """By path."""
    card: str | None
    manifest: Mapping[str, Any] | None

    @property
    def configs(self) -> set[str]:
        """Configs that its card names.

        Raises:
            OutputError: its header is broken.
        """
        configs = header_and_body(self.card or "")[0].get("configs")
        return {str(one.get("config_name")) for one in configs or () if isinstance(one, dict)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PushPlan:
    """What is left to do."""

    changed: Mapping[str, CommitOperationAdd]
    """By path: files that the repository has not, or has otherwise; card and manifest too."""
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]
    """Shards of pushed tables that are no more."""
    tables: tuple[str, ...]
    """All that are pushed."""
    new_tables: frozenset[str]
    """Those of which the card on the Hub knows nothing, so that nobody reads them before it does."""

    def num_bytes(self, table: str | None = None) -> int:
        """Of changed files: all, or those of a table."""
        return sum(one.upload_info.size for path, one in self.changed.items() if table in (None, table_of(path)))


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
    _known: dict[str, CommitOperationAdd] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, *, layers: Sequence[str] | None, with_videos: bool) -> "LocalFiles":
        """All tables but `videos`, or the layers named; and `videos` where asked for.

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
        if with_videos:
            if "videos" not in there:
                raise AnnotationError(f"{root} has no `videos` config to push")
            tables.append("videos")
        return cls(root=root, tables=tuple(tables))

    def without_videos(self) -> "LocalFiles":
        """The same, but for the bytes of the clips."""
        return replace(self, tables=tuple(table for table in self.tables if table != "videos"))

    def paths(self) -> list[str]:
        """Of all shards, in the repository as in the folder."""
        return [path.relative_to(self.root).as_posix() for table in self.tables for path in shards(self.root, table)]

    def add(self, path: str) -> CommitOperationAdd:
        """The file as the Hub's client takes it, with size and hash; read to its end the first time."""
        if path not in self._known:
            self._known[path] = CommitOperationAdd(path_in_repo=path, path_or_fileobj=self.root / path)
        return self._known[path]


def read_remote(snapshot: Snapshot | None, *, repo_id: str) -> Remote:
    """Which files the repository has, its card and its manifest; None: there is no repository yet.

    Raises:
        HubError: its manifest is none.
    """
    if snapshot is None:
        return Remote(repo_id=repo_id, files={}, card=None, manifest=None)
    listed = snapshot.api.list_repo_tree(repo_id, recursive=True, revision=snapshot.sha, repo_type="dataset")
    files = {one.path: one for one in listed if isinstance(one, RepoFile)}
    texts = {name: _read(snapshot, name) if name in files else None for name in (CARD, MANIFEST)}
    try:
        manifest = json.loads(texts[MANIFEST] or "null")
    except ValueError as error:
        raise HubError(f"{repo_id}: its {MANIFEST} is no JSON ({error}); delete that file there") from error
    return Remote(repo_id=repo_id, files=files, card=texts[CARD], manifest=manifest)


def _read(snapshot: Snapshot, name: str) -> str:
    path = snapshot.api.hf_hub_download(snapshot.repo_id, name, repo_type="dataset", revision=snapshot.sha)
    return Path(path).read_text(encoding="utf-8")


def make_plan(local: LocalFiles, remote: Remote) -> PushPlan:
    """Compare by size and hash.

    Raises:
        HubError: the repository holds something else, or its card was broken by hand.
    """
    _check_same(local, remote)
    own = {path: local.add(path) for path in local.paths()}
    folders = {f"{table}/" for table in local.tables}
    deleted = [
        path
        for path in remote.files
        if path.endswith(".parquet") and f"{table_of(path)}/" in folders and path not in own
    ]
    try:
        configs = remote.configs
        on_hub = {table_of(path) for path in remote.files if config_of(table_of(path)) in configs}
        tables = sorted({*local.tables, *on_hub} - {""})
        card = render_card(local.root, repo_id=remote.repo_id, existing=remote.card, tables=tables)
    except OutputError as error:
        raise HubError(f"{remote.repo_id}: {error}") from error
    told = {CARD: card.text.encode(), MANIFEST: _manifest(local, remote), **card.pictures}
    own |= {path: CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in told.items()}
    changed = {path: one for path, one in own.items() if not is_same(one, remote.files.get(path))}
    return PushPlan(
        changed=changed,
        unchanged=tuple(path for path in own if path not in changed),
        deleted=tuple(deleted),
        tables=local.tables,
        new_tables=frozenset(table for table in local.tables if config_of(table) not in configs),
    )


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


def _check_same(local: LocalFiles, remote: Remote) -> None:
    name, repo_id = read_manifest(local.root)["name"], remote.repo_id
    if remote.manifest is None:
        strange = [path for path in remote.files if _DATA_FILE.fullmatch(path) and table_of(path) not in local.tables]
        if strange:
            raise HubError(
                f"{repo_id} holds other data ({strange[0]}), and a repository has one format; push to a new name"
            )
        if "annotations" not in local.tables:
            raise HubError(f"{repo_id} has no annotations yet, and layers are about them; push the dataset first")
    elif (there := remote.manifest.get("name")) != name:
        raise HubError(f"{repo_id} holds the dataset {there!r}, this folder {name!r}; push to another name")


def _manifest(local: LocalFiles, remote: Remote) -> bytes:
    """That of the folder, of what is on the Hub when the push is done."""
    own, there = read_manifest(local.root), remote.manifest or {}
    merged = dict(own)
    for key in ("shards", "num_rows"):
        kept = {table: value for table, value in there.get(key, {}).items() if table not in local.tables}
        merged[key] = kept | {table: value for table, value in own[key].items() if table in local.tables}
    pushed = set(layer_names(local.tables))
    kept_layers = {name: value for name, value in there.get("layers", {}).items() if name not in pushed}
    layers = kept_layers | {name: value for name, value in own.get("layers", {}).items() if name in pushed}
    if layers or "layers" in merged:
        merged["layers"] = layers
    return json.dumps(merged, indent=2, ensure_ascii=False).encode() + b"\n"
