"""Where the shards of a dataset are: in a folder, or on the Hub at one commit."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem, constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from civid_loader.errors import AnnotationError, HubError, OutputError
from civid_loader.hub.access import Snapshot
from civid_loader.hub.card import header_and_body
from civid_loader.hub.offline import snapshot_here
from civid_loader.hub.pull_plan import CARD
from civid_loader.layers import layer_names
from civid_loader.repo_names import parse_repo
from civid_loader.storage import MANIFEST, of_split, shards


class DatasetFiles(Protocol):
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
        self._check_card(table, split)
        return [path.relative_to(self.name).as_posix() for path in of_split(listed, split)]

    @cached_property
    def _configs(self) -> list[Any]:
        """As the card has them; a card that is not there or cannot be read tells nothing."""
        try:
            header, _ = header_and_body(self.local(CARD).read_text(encoding="utf-8"))
        except (EntryNotFoundError, OutputError):
            return []
        except HubError:
            if constants.HF_HUB_OFFLINE:  # where it is not known whether there is one
                return []
            raise
        configs = header.get("configs")
        return [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []

    def _check_card(self, table: str, split: str) -> None:
        """Refuse a table where the card has been turned to other files: stock `push_to_hub` does, and leaves ours."""
        config = "default" if table == "annotations" else table.replace("/", "-")
        listed = [one.get("data_files") for one in self._configs if one.get("config_name") == config]
        for entry in (entry for entries in listed if isinstance(entries, list) for entry in entries):
            paths: Any = (entry.get("path") if isinstance(entry, dict) and entry.get("split") == split else None) or []
            others = [one for one in ([paths] if isinstance(paths, str) else paths) if not one.startswith(f"{table}/")]
            if others:
                raise AnnotationError(
                    f"{self.name}: its card turns config {config!r}, split {split}, to {others[0]}, as push_to_hub of "
                    f"datasets does, while the rows that `civid push` published still lie in {table}/; read the new "
                    f"ones with datasets.load_dataset({self.name!r}, {config!r}), give an older revision=, or run "
                    "`civid push` again, which turns the card back"
                )

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
        try:
            return Path(self.snapshot.api.hf_hub_download(self.name, name, repo_type="dataset", revision=sha))
        except LocalEntryNotFoundError as error:
            why = "is not asked, as HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "cannot be reached"
            raise HubError(
                f"{self.name}: {name} of commit {sha[:12]} is not on this machine, and the Hub {why}; load it "
                "once with the network"
            ) from error


def open_files(dataset: str, *, revision: str | None, token: str | None) -> DatasetFiles:
    """The files of a folder, or of `org/name` on the Hub.

    Raises:
        AnnotationError: neither.
        ValueError: a revision of a folder.
        HubError: see `snapshot_here`.
    """
    if os.path.isdir(dataset):
        if revision is not None:
            raise ValueError(f"revision={revision!r}: a folder has none; {dataset} is a folder here")
        return _Folder(root=Path(os.path.abspath(dataset)))
    named = parse_repo(dataset)
    if named is None:
        raise AnnotationError(f"{dataset}: no such folder, and no name of a dataset on the Hub (org/name)")
    return _HubFiles(snapshot=snapshot_here(named.repo_id, revision=revision or named.revision, token=token))
