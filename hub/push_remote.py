"""A repository as a push finds it, looked through: people write into repositories by hand."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from huggingface_hub.hf_api import RepoFile

from civid_loader.errors import HubError, OutputError
from civid_loader.hub.access import Snapshot
from civid_loader.hub.card import header_and_body
from civid_loader.storage import MANIFEST

CARD: Final = "README.md"
UNFINISHED: Final = "civid-push-is-not-finished"
"""The only config of a card that stands there until all files of a first push are: `load_dataset` fails, and does not
take what is there for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """A repository as a push finds it."""

    repo_id: str
    snapshot: Snapshot | None
    """None: there is no repository yet."""
    files: Mapping[str, RepoFile]
    """By path."""
    card: str | None
    """Without the config `UNFINISHED`."""
    manifest: Mapping[str, Any] | None
    is_unfinished: bool
    """Whether a first push was cut off."""

    @property
    def configs(self) -> set[str]:
        """Configs that its card names."""
        return {one["config_name"] for one in header_and_body(self.card or "")[0].get("configs") or ()}


def read_remote(snapshot: Snapshot | None, *, repo_id: str) -> Remote:
    """Which files the repository has, its card and its manifest; None: there is no repository yet.

    Raises:
        HubError: manifest or card were broken by hand.
    """
    if snapshot is None:
        return Remote(repo_id=repo_id, snapshot=None, files={}, card=None, manifest=None, is_unfinished=False)
    listed = snapshot.api.list_repo_tree(repo_id, recursive=True, revision=snapshot.sha, repo_type="dataset")
    files = {one.path: one for one in listed if isinstance(one, RepoFile)}
    texts = {name: _read(snapshot, name) if name in files else None for name in (CARD, MANIFEST)}
    try:
        manifest = json.loads(texts[MANIFEST] or "null")
    except ValueError as error:
        raise HubError(f"{repo_id}: its {MANIFEST} is no JSON ({error}); delete that file there") from error
    if wrong := _wrong_manifest(manifest):
        raise HubError(f"{repo_id}: its {MANIFEST} was not written by civid ({wrong}); delete that file there")
    card = texts[CARD]
    if wrong := _wrong_card(card or ""):
        raise HubError(f"{repo_id}: {wrong}; mend its {CARD} there, then push again")
    kept = None if card is None else without_configs(card, {UNFINISHED})
    return Remote(
        repo_id=repo_id,
        snapshot=snapshot,
        files=files,
        card=kept,
        manifest=manifest,
        is_unfinished=kept != card,
    )


def _read(snapshot: Snapshot, name: str) -> str:
    path = snapshot.api.hf_hub_download(snapshot.repo_id, name, repo_type="dataset", revision=snapshot.sha)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HubError(f"{snapshot.repo_id}: its {name} is not UTF-8 ({error}); save it there as UTF-8") from error


def _wrong_manifest(manifest: Any) -> str | None:
    """What is wrong with it, if something is."""
    if manifest is None:
        return None
    if not isinstance(manifest, dict):
        return f"it is a {type(manifest).__name__}, not keys"
    kinds = {"shards": list, "num_rows": dict, "layers": dict}
    for key, kind in kinds.items():
        tables = manifest.get(key, {})
        if not isinstance(tables, dict) or not all(isinstance(one, kind) for one in tables.values()):
            return f"{key!r} is not one {kind.__name__} per table"
    if not all(isinstance(name, str) for names in manifest.get("shards", {}).values() for name in names):
        return "'shards' lists something that is no path"
    return None if isinstance(manifest.get("name"), str) else "it has no 'name'"


def _wrong_card(text: str) -> str | None:
    """What is wrong with the header of a card, if something is: `datasets` would not read it either."""
    try:
        header = header_and_body(text)[0]
    except OutputError as error:
        return str(error)
    configs, infos, tags = (header.get(key) for key in ("configs", "dataset_info", "tags"))
    if not isinstance(configs, list | None) or not all(isinstance(one, dict) for one in configs or ()):
        return f"`configs` of its card is no list of configs, but {configs!r}"
    if unnamed := [one for one in configs or () if not isinstance(one.get("config_name"), str)]:
        return f"a config of its card has no config_name: {unnamed[0]!r}"
    if not all(isinstance(one, dict) for one in (infos if isinstance(infos, list) else [infos or {}])):
        return f"`dataset_info` of its card is not what `datasets` writes, but {infos!r}"
    if not all(isinstance(one, str | int | float) for one in (tags if isinstance(tags, list) else [tags or ""])):
        return f"`tags` of its card is no list of words, but {tags!r}"
    return None


def without_configs(text: str, names: Collection[str]) -> str:
    """A card that does not name some configs; if it does not, the very same text."""
    header, body = header_and_body(text)
    listed = header.get("configs") or []
    kept = [one for one in listed if one["config_name"] not in names]
    if len(kept) == len(listed):
        return text
    header["configs"] = kept
    return _card({key: value for key, value in header.items() if key != "configs" or kept}, body)


def unfinished_card(existing: str | None) -> bytes:
    """The card, with nothing to load but an error; `read_remote` takes that out again."""
    header, body = header_and_body(existing or "")
    nothing = {"config_name": UNFINISHED, "data_files": f"{UNFINISHED}.parquet"}
    return _card({**header, "configs": [nothing]}, body).encode()


def _card(header: Mapping[str, Any], body: str) -> str:
    return f"---\n{yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True)}---\n{body}" if header else body
