"""What a push has to do: the files of a dataset folder against those of a repository."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd

from civid_loader.errors import HubError, OutputError
from civid_loader.hub.card import render_card
from civid_loader.hub.push_checks import check_places, dropped_tables
from civid_loader.hub.push_files import LocalFiles, config_of, is_same, table_of
from civid_loader.hub.push_remote import CARD, Remote, without_configs
from civid_loader.layers import layer_names
from civid_loader.storage import MANIFEST, read_manifest


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


def make_plan(local: LocalFiles, remote: Remote, *, replace: bool = False) -> PushPlan:
    """Compare by size and hash.

    Args:
        local: what is to be there.
        remote: what is there.
        replace: annotations of other rows may go, and the layers that are about them.

    Raises:
        HubError: the repository holds something else, or the markers of its card were broken by hand.
    """
    dropped = dropped_tables(local, remote, replace=replace)
    if "videos" not in dropped:
        check_places(local, remote)
    own = {path: local.add(path) for path in local.paths()}
    folders = {*local.tables, *dropped}
    deleted = [
        path for path in remote.files if path.endswith(".parquet") and table_of(path) in folders and path not in own
    ]
    existing = without_configs(remote.card or "", {config_of(table) for table in dropped})
    configs = remote.configs
    on_hub = {table_of(path) for path in remote.files if config_of(table_of(path)) in configs}
    tables = sorted({*local.tables, *(on_hub - dropped)} - {""})
    try:
        card = render_card(local.root, repo_id=remote.repo_id, existing=existing, tables=tables)
    except OutputError as error:
        raise HubError(f"{remote.repo_id}: {error}") from error
    told = {CARD: card.text.encode(), MANIFEST: _manifest(local, remote, dropped), **card.pictures}
    own |= {path: CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in told.items()}
    changed = {path: one for path, one in own.items() if not is_same(one, remote.files.get(path))}
    return PushPlan(
        changed=changed,
        unchanged=tuple(path for path in own if path not in changed),
        deleted=tuple(deleted),
        tables=local.tables,
        new_tables=frozenset(table for table in local.tables if config_of(table) not in configs),
    )


def _manifest(local: LocalFiles, remote: Remote, dropped: Collection[str]) -> bytes:
    """That of the folder, of what is on the Hub when the push is done."""
    own, there = read_manifest(local.root), remote.manifest or {}
    merged = dict(own)
    for key in ("shards", "num_rows"):
        gone = {*local.tables, *dropped}
        kept = {table: value for table, value in there.get(key, {}).items() if table not in gone}
        merged[key] = kept | {table: value for table, value in own[key].items() if table in local.tables}
    pushed, gone_layers = set(layer_names(local.tables)), set(layer_names([*local.tables, *dropped]))
    kept_layers = {name: value for name, value in there.get("layers", {}).items() if name not in gone_layers}
    layers = kept_layers | {name: value for name, value in own.get("layers", {}).items() if name in pushed}
    if layers or "layers" in merged:
        merged["layers"] = layers
    return json.dumps(merged, indent=2, ensure_ascii=False).encode() + b"\n"
