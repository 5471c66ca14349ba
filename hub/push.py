"""`push_to_hub`: a dataset folder to a repository, so that nobody ever reads a half of it.

plan -> upload the bytes of changed files -> one commit of all of them, with the shards that are no more, the card and
the manifest. Only a new table of very many files goes up in commits before that, which no config names yet. After any
error that may pass, and after a kill, it starts with the plan again: what is on the Hub is not sent twice.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from rich.console import Console

from civid_loader.errors import HubError
from civid_loader.hub.access import MAIN, Snapshot, hub_errors, snapshot_of
from civid_loader.hub.permission import check_permission
from civid_loader.hub.push_plan import LocalFiles, PushPlan, config_of, is_same, make_plan, read_remote, table_of
from civid_loader.hub.retrying import retrying
from civid_loader.hub.video_config import write_video_config
from civid_loader.progress import track
from civid_loader.storage import shards

MAX_FILES_PER_COMMIT: Final = 500
"""A commit of more takes longer than the Hub waits for."""
_UPLOAD_FILES: Final = 50
"""Handed to the client's uploader at a time."""
_BLOCK_BYTES: Final = 64 << 10
"""Read at a time to see that ids can be read: 5 MB, the default, of each row group would be a third of all videos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushReport:
    """What a push did, or would do."""

    repo_id: str
    sha: str | None
    """Commit at which all is there; None for a dry run."""
    is_private: bool
    num_bytes: Mapping[str, int]
    """Config -> bytes of files that the Hub had not; "" for card, pictures and manifest."""
    num_files: Mapping[str, int]
    """Config -> number of them."""
    num_unchanged: int
    """Files the Hub had already."""
    deleted: tuple[str, ...]
    """Shards that are no more."""
    num_commits: int


def push_to_hub(
    dataset: str | os.PathLike[str],
    repo_id: str,
    *,
    layers: Sequence[str] | None = None,
    with_videos: bool = False,
    video_root: str | os.PathLike[str] | None = None,
    branch: str = "main",
    is_public: bool = False,
    has_permission: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    quiet: bool = False,
) -> PushReport:
    """Publish a built dataset, or more of it; private unless said otherwise.

    Killed or cut off anywhere, the same call finishes it. After it every file on the Hub is compared with the local
    one, and stock `datasets` reads the ids of each config.

    Args:
        dataset: folder of a built dataset.
        repo_id: `org/name`; made if it is not there.
        layers: only these, such as `captions-new`; None: all tables but the videos.
        with_videos: the bytes of all clips too, as config `videos`, which is written into the folder first.
        video_root: of the video files, for that; None: their pointers need none.
        branch: made from main if it is not there.
        is_public: if the repository is made, let everybody read it.
        has_permission: the authors of the data allowed what their terms forbid.
        dry_run: compare only, change nothing.
        token: None: the one huggingface_hub keeps.
        quiet: no progress bars.

    Raises:
        AnnotationError: no built dataset, or it lacks a layer.
        LicenseError: the terms of the data forbid a public repository, or videos.
        HubError: no permission, no connection, something else lies there, or what lies there afterwards differs.
    """
    root = Path(dataset)
    check_permission(root, is_public=is_public, with_videos=with_videos, has_permission=has_permission)
    tell = (lambda line: None) if quiet else _print
    with hub_errors(repo_id, branch):
        head = retrying(lambda: _open(repo_id, branch, is_public=is_public, dry_run=dry_run, token=token), tell=tell)
        is_private = not is_public if head is None else head.is_private
        check_permission(root, is_public=not is_private, with_videos=with_videos, has_permission=has_permission)
        if with_videos and not dry_run:
            write_video_config(root, video_root=None if video_root is None else os.fspath(video_root), quiet=quiet)
        local = LocalFiles.of(root, layers=layers, with_videos=with_videos)
        paths = local.paths()
        for path in track(paths, label="hashing", total=len(paths), quiet=quiet):
            local.add(path)
        first = retrying(lambda: make_plan(local, read_remote(head, repo_id=repo_id)), tell=tell)
        push = _Push(repo_id=repo_id, branch=branch, token=token, quiet=quiet)
        if not dry_run:
            # So many that they go up bit by bit: first what makes a dataset, so that there is a card to hide the rest.
            parts = [local] if len(paths) <= MAX_FILES_PER_COMMIT else [local.without_videos(), local]
            for part in parts:
                retrying(partial(push.finish, part), tell=tell)
            retrying(lambda: push.verify(local), tell=tell)
    return PushReport(
        repo_id=repo_id,
        sha=push.sha,
        is_private=is_private,
        num_bytes={config: first.num_bytes(table) for table, config in _told(first)},
        num_files={config: sum(table_of(path) == table for path in first.changed) for table, config in _told(first)},
        num_unchanged=len(first.unchanged),
        deleted=first.deleted,
        num_commits=push.num_commits,
    )


def _told(plan: PushPlan) -> Iterator[tuple[str, str]]:
    """(table, config) of what changes; card, pictures and manifest are table ""."""
    for table in ("", *plan.tables):
        if any(table_of(path) == table for path in plan.changed):
            yield table, config_of(table)


def _open(repo_id: str, branch: str, *, is_public: bool, dry_run: bool, token: str | None) -> Snapshot | None:
    """The repository and the branch, made where they are not there; None for a dry run without them."""
    api = HfApi(token=token)
    try:
        api.dataset_info(repo_id)
    except RepositoryNotFoundError:
        if dry_run:
            return None
        api.create_repo(repo_id, repo_type="dataset", private=not is_public, exist_ok=True)
    if branch != MAIN and not dry_run:
        api.create_branch(repo_id, branch=branch, repo_type="dataset", exist_ok=True)
    try:
        return snapshot_of(repo_id, revision=branch, token=token)
    except RevisionNotFoundError:
        if not dry_run:
            raise
        return snapshot_of(repo_id, revision=MAIN, token=token)


class _Push:
    """One push, over all its tries."""

    def __init__(self, *, repo_id: str, branch: str, token: str | None, quiet: bool) -> None:
        self.sha: str | None = None
        """The last commit seen."""
        self.num_commits = 0
        self._repo_id, self._branch, self._token, self._quiet = repo_id, branch, token, quiet

    def finish(self, local: LocalFiles) -> None:
        """Plan, upload, commit, until there is nothing to do."""
        while True:
            head = snapshot_of(self._repo_id, revision=self._branch, token=self._token)
            remote = read_remote(head, repo_id=self._repo_id)
            plan = make_plan(local, remote)
            self.sha = head.sha
            if not plan.changed and not plan.deleted:
                return
            paths = list(plan.changed)
            hidden = [path for path in paths if table_of(path) in plan.new_tables and remote.configs]
            is_last = len(paths) <= MAX_FILES_PER_COMMIT or not hidden
            self._commit(head, plan, paths if is_last else hidden[:MAX_FILES_PER_COMMIT], is_last=is_last)

    def _commit(self, head: Snapshot, plan: PushPlan, paths: Sequence[str], *, is_last: bool) -> None:
        files = [plan.changed[path] for path in paths]
        groups = [files[i : i + _UPLOAD_FILES] for i in range(0, len(files), _UPLOAD_FILES)]
        where: dict[str, Any] = {"repo_type": "dataset", "revision": self._branch}
        for group in track(groups, label="uploading", total=len(groups), quiet=self._quiet):
            head.api.preupload_lfs_files(self._repo_id, group, free_memory=False, **where)
        removals = [CommitOperationDelete(path_in_repo=path) for path in plan.deleted if is_last]
        changed = ", ".join(sorted({config_of(table) for path in paths if (table := table_of(path))})) or "card"
        head.api.create_commit(
            self._repo_id,
            [*files, *removals],
            commit_message=f"{changed}: {len(paths)} files" + ("" if is_last else ", more to come"),
            parent_commit=head.sha,
            **where,
        )
        self.num_commits += 1

    def verify(self, local: LocalFiles) -> None:
        """Compare what the Hub has with what was pushed, and read ids of each config as anybody would."""
        after = snapshot_of(self._repo_id, revision=self._branch, token=self._token)
        remote = read_remote(after, repo_id=self._repo_id)
        if wrong := [path for path in local.paths() if not is_same(local.add(path), remote.files.get(path))]:
            raise HubError(f"{self._repo_id}: {wrong[0]} is not there as it was sent; push again")
        for table in local.tables:
            config = config_of(table)
            # As anybody would: no code of this package, and at this very commit. Of the first shard of each split all
            # ids and nothing else: a stream that is not read to its end may crash Python when it exits.
            ids = pq.read_schema(shards(local.root, table)[0]).names[:1]
            rows = datasets.load_dataset(
                self._repo_id, config, streaming=True, revision=after.sha, token=self._token, columns=ids,
                storage_options={"hf": {"block_size": _BLOCK_BYTES}},
            )  # fmt: skip
            for split, of_split in rows.items():
                first = of_split.shard(num_shards=of_split.num_shards, index=0).with_format("arrow")
                if not sum(len(piece) for piece in first.iter(batch_size=10_000)):
                    raise HubError(f"{self._repo_id}: config {config}, split {split}, gives no row; push again")
        self.sha = after.sha


def _print(line: str) -> None:
    Console(stderr=True).print(line, markup=False)
