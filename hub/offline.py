"""The commit a name stood for when it was last asked, for work without the network (HF_HUB_OFFLINE=1)."""

import json
import re
from pathlib import Path
from typing import Final

import datasets
from filelock import FileLock
from huggingface_hub import constants

from civid_loader.errors import HubError
from civid_loader.hub.access import MAIN, Snapshot, resolve
from civid_loader.storage import atomic_file

_SHA: Final = re.compile(r"[0-9a-f]{40}")


def snapshot_here(repo_id: str, *, revision: str | None, token: str | None) -> Snapshot:
    """The commit that a branch, a tag or a hash names now; offline, the one it named last on this machine.

    Raises:
        HubError: no such repository or revision, no permission, no connection; or offline, and never asked before.
    """
    asked = revision or MAIN
    if not constants.HF_HUB_OFFLINE:
        snapshot = resolve(repo_id, revision=revision, token=token)
        _remember(repo_id, asked, snapshot.sha)
        return snapshot
    sha = asked if _SHA.fullmatch(asked) else _remembered(repo_id).get(asked)
    if sha is None:
        raise HubError(
            f"{repo_id}: HF_HUB_OFFLINE is set, so the Hub is not asked, and revision {asked!r} was never loaded "
            "on this machine; load it once with the network, or name a commit that was"
        )
    return Snapshot(repo_id=repo_id, sha=sha, is_private=True, token=token)


def _path(repo_id: str) -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE, "civid_loader", "revisions", f"{repo_id.replace('/', '--')}.json")


def _remembered(repo_id: str) -> dict[str, str]:
    path = _path(repo_id)
    told: dict[str, str] = json.loads(path.read_bytes()) if path.is_file() else {}
    return told


def _remember(repo_id: str, revision: str, sha: str) -> None:
    if revision == sha or _remembered(repo_id).get(revision) == sha:
        return
    path = _path(repo_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), atomic_file(path) as file:  # many workers may load at once
        file.write(json.dumps(_remembered(repo_id) | {revision: sha}).encode())
