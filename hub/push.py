"""`push_to_hub`: a dataset folder to a repository, so that nobody ever reads a half of it.

plan -> upload the bytes of changed files -> one commit of all of them, with the shards that are no more, the card and
the manifest. Only new tables of many files go up in commits before that, which no config names yet; where there is no
card, one that gives nothing to load comes first. After any error that may pass, and after a kill, it starts with the
plan again: what is on the Hub is not sent twice.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from rich.console import Console

from civid_loader.errors import HubError
from civid_loader.hub.access import MAIN, Snapshot, hub_errors, repository, snapshot_of
from civid_loader.hub.permission import check_permission
from civid_loader.hub.push_checks import check_layers
from civid_loader.hub.push_files import LocalFiles, Videos, config_of, is_same, table_of
from civid_loader.hub.push_plan import PushPlan, make_plan
from civid_loader.hub.push_remote import CARD, read_remote, unfinished_card
from civid_loader.hub.retrying import retrying
from civid_loader.hub.video_config import check_videos, planned_videos, write_video_config
from civid_loader.hub.video_plan import Shard
from civid_loader.progress import track
from civid_loader.storage import shards

MAX_FILES_PER_COMMIT: Final = 100
"""A commit of many more takes longer than the minute that the Hub waits for."""
_UPLOAD_FILES: Final = 50
_UPLOAD_BYTES: Final = 5_000_000_000
"""Handed to the client's uploader at a time: as many files, or those that are as large together."""
_SETTLE_SECONDS: Final = 0.2
_BLOCK_BYTES: Final = 64 << 10
"""Read at a time to see that ids can be read: 5 MB, the default, of each row group would be a third of all videos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushReport:
    """What a push did, or would do."""

    repo_id: str
    branch: str
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
    replace: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    quiet: bool = False,
) -> PushReport:
    """Publish a built dataset, or more of it; private unless said otherwise.

    Killed or cut off anywhere, the same call finishes it. After it every file on the Hub is compared with the local
    one, and stock `datasets` reads the ids of each config.

    Args:
        dataset: folder of a built dataset.
        repo_id: `org/name`, or the address `hf://datasets/org/name`; made if it is not there.
        layers: only these, such as `captions-new`; None: all tables but the videos.
        with_videos: the bytes of all clips too, as config `videos`, which is written into the folder first; and the
            media layer, which tells where in them each clip lies.
        video_root: of the video files, for that: a folder, its URL, a tar or zip; None: their pointers need none.
        branch: made from main if it is not there.
        is_public: let everybody read the repository, once all is there. None of what is public gets private.
        has_permission: the authors of the data allowed what their terms forbid.
        replace: annotations there of other rows may go, and with them all layers and videos that are not pushed.
        dry_run: compare only, change nothing.
        token: None: the one huggingface_hub keeps.
        quiet: no progress bars.

    Raises:
        AnnotationError: no built dataset, or it lacks a layer.
        LayerError: no name of a layer, or one that is of other clips.
        VideoError: as `write_video_config`.
        LicenseError: the terms of the data forbid a public repository, or videos.
        HubError: no permission, no connection, something else lies there, or what lies there afterwards differs.
    """
    root, repo_id = Path(dataset), repository(repo_id)
    may = {"with_videos": with_videos, "has_permission": has_permission}
    check_permission(root, is_public=is_public, **may)
    if with_videos:
        check_videos(root, video_root=video_root)
    tell = (lambda line: None) if quiet else _print
    push = _Push(repo_id=repo_id, branch=branch, token=token, replace=replace, quiet=quiet)
    with hub_errors(repo_id, branch):
        if not dry_run and (token or get_token()) is None:
            raise LocalTokenNotFoundError
        head = retrying(lambda: _find(repo_id, branch, token=token), tell=tell)
        is_private = not is_public if head is None else head.is_private and not is_public
        check_permission(root, is_public=not is_private, **may)
        planned: Sequence[Shard] | None = None
        if with_videos and dry_run:
            planned = planned_videos(root, video_root=video_root, quiet=quiet)
        elif with_videos:
            write_video_config(root, video_root=video_root, quiet=quiet)
        videos: Videos = "none" if not with_videos else "here" if planned is None else "planned"
        local = LocalFiles.of(root, layers=layers, videos=videos)
        check_layers(local)
        paths = local.paths()
        for path in track(paths, label="hashing", total=len(paths), quiet=quiet):
            local.add(path)
        first = retrying(lambda: make_plan(local, read_remote(head, repo_id=repo_id), replace=replace), tell=tell)
        if not dry_run:
            retrying(lambda: push.open(is_public=is_public), tell=tell)
            retrying(lambda: push.finish(local), tell=tell, progress=lambda: push.num_done)
    if not dry_run:
        _check_afterwards(push, local, tell=tell)
        if head is not None and head.is_private and not is_private:
            with hub_errors(repo_id):
                retrying(push.make_public, tell=tell)
    num_bytes = {config: first.num_bytes(table) for table, config in _told(first)}
    num_files = {config: sum(table_of(path) == table for path in first.changed) for table, config in _told(first)}
    if planned is not None:
        num_bytes["videos"], num_files["videos"] = sum(shard.num_bytes for shard in planned), len(planned)
    return PushReport(
        repo_id=repo_id,
        branch=branch,
        sha=push.sha,
        is_private=is_private,
        num_bytes=num_bytes,
        num_files=num_files,
        num_unchanged=len(first.unchanged),
        deleted=first.deleted,
        num_commits=push.num_commits,
    )


def _told(plan: PushPlan) -> Iterator[tuple[str, str]]:
    """(table, config) of what changes; card, pictures and manifest are table ""."""
    for table in ("", *plan.tables):
        if any(table_of(path) == table for path in plan.changed):
            yield table, config_of(table)


def _find(repo_id: str, branch: str, *, token: str | None) -> Snapshot | None:
    """The branch, or main where it is still to be made; None: there is no repository yet."""
    try:
        HfApi(token=token).dataset_info(repo_id)
        return snapshot_of(repo_id, revision=branch, token=token)
    except RepositoryNotFoundError:
        return None
    except RevisionNotFoundError:
        return snapshot_of(repo_id, revision=MAIN, token=token)


def _check_afterwards(push: "_Push", local: LocalFiles, *, tell: Callable[[str], None]) -> None:
    try:
        with hub_errors(push.repo_id, push.branch):
            retrying(lambda: push.verify(local), tell=tell)
    except HubError as error:
        raise HubError(
            f"{error}. All was sent and stands there as commit {push.sha}; this is of the check afterwards, which the "
            "same command does again"
        ) from error


class _Push:
    """One push, over all its tries."""

    def __init__(self, *, repo_id: str, branch: str, token: str | None, replace: bool, quiet: bool) -> None:
        self.repo_id, self.branch = repo_id, branch
        self.sha: str | None = None
        """The last commit seen."""
        self.num_commits = 0
        self._sent: set[bytes] = set()
        self._token, self._replace, self._quiet = token, replace, quiet

    @property
    def num_done(self) -> int:
        """Grows with all that need not be done again."""
        return len(self._sent) + self.num_commits

    def open(self, *, is_public: bool) -> None:
        """Make the repository and the branch where they are not there."""
        api = HfApi(token=self._token)
        try:
            api.dataset_info(self.repo_id)
        except RepositoryNotFoundError:
            api.create_repo(self.repo_id, repo_type="dataset", private=not is_public, exist_ok=True)
        if self.branch != MAIN:
            api.create_branch(self.repo_id, branch=self.branch, repo_type="dataset", exist_ok=True)

    def make_public(self) -> None:
        """Let everybody read it."""
        HfApi(token=self._token).update_repo_settings(self.repo_id, repo_type="dataset", private=False)

    def finish(self, local: LocalFiles) -> None:
        """Plan, upload, commit, until there is nothing to do."""
        while True:
            head = snapshot_of(self.repo_id, revision=self.branch, token=self._token)
            remote = read_remote(head, repo_id=self.repo_id)
            plan = make_plan(local, remote, replace=self._replace)
            self.sha = head.sha
            if not plan.changed and not plan.deleted:
                return
            hidden = [path for path in plan.changed if table_of(path) in plan.new_tables]
            if len(plan.changed) <= MAX_FILES_PER_COMMIT or not hidden:
                what = sorted({config_of(table) for path in plan.changed if (table := table_of(path))})
                title = f"{', '.join(what) or 'card'}: {len(plan.changed)} files"
                self._commit(head, [*plan.changed.values()], title=title, deleted=plan.deleted)
            elif not remote.configs and not remote.is_unfinished:
                card = CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=unfinished_card(remote.card))
                self._commit(head, [card], title="nothing to load before all is there")
            else:
                files = [plan.changed[path] for path in hidden[:MAX_FILES_PER_COMMIT]]
                self._commit(head, files, title=f"{len(files)} files, more to come")

    def _commit(
        self, head: Snapshot, files: Sequence[CommitOperationAdd], *, title: str, deleted: Sequence[str] = ()
    ) -> None:
        where: dict[str, Any] = {"repo_type": "dataset", "revision": self.branch}
        groups = list(_groups(files))
        for group in track(groups, label="uploading", total=len(groups), quiet=self._quiet):
            head.api.preupload_lfs_files(self.repo_id, group, free_memory=False, **where)
            self._sent.update(one.upload_info.sha256 for one in group)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *files,
            *(CommitOperationDelete(path_in_repo=path) for path in deleted),
        ]
        head.api.create_commit(self.repo_id, operations, commit_message=title, parent_commit=head.sha, **where)
        self.num_commits += 1

    def verify(self, local: LocalFiles) -> None:
        """Compare what the Hub has with what was pushed, and read ids of each config as anybody would."""
        after = snapshot_of(self.repo_id, revision=self.branch, token=self._token)
        remote = read_remote(after, repo_id=self.repo_id)
        if wrong := [path for path in local.paths() if not is_same(local.add(path), remote.files.get(path))]:
            raise HubError(f"{self.repo_id}: {wrong[0]} is not there as it was sent; push again")
        for table in local.tables:
            config = config_of(table)
            # As anybody would: no code of this package, and at this very commit. Of the first shard of each split all
            # ids and nothing else: a stream that is not read to its end may crash Python when it exits.
            ids = pq.read_schema(shards(local.root, table)[0]).names[:1]
            rows = datasets.load_dataset(
                self.repo_id, config, streaming=True, revision=after.sha, token=self._token, columns=ids,
                storage_options={"hf": {"block_size": _BLOCK_BYTES}},
            )  # fmt: skip
            for split, of_split in rows.items():
                if not pq.read_metadata(shards(local.root, table, split=str(split))[0]).num_rows:
                    continue  # a filter may have left none
                first = of_split.shard(num_shards=of_split.num_shards, index=0).with_format("arrow")
                if not sum(len(piece) for piece in first.iter(batch_size=10_000)):
                    raise HubError(f"{self.repo_id}: config {config}, split {split}, gives no row; push again")
                del first
        # Arrow's own threads close the files; one that still does while Python exits ends the process by SIGABRT.
        gc.collect()
        time.sleep(_SETTLE_SECONDS)
        self.sha = after.sha


def _groups(files: Sequence[CommitOperationAdd]) -> Iterator[list[CommitOperationAdd]]:
    """What is uploaded at a time: few large files, so that after each some is done for good."""
    group: list[CommitOperationAdd] = []
    for file in files:
        group.append(file)
        if len(group) == _UPLOAD_FILES or sum(one.upload_info.size for one in group) >= _UPLOAD_BYTES:
            yield group
            group = []
    if group:
        yield group


def _print(line: str) -> None:
    Console(stderr=True).print(line, markup=False)
