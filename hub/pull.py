"""`pull`: a published dataset as a folder that works like a built one, every file checked against its commit.

list -> compare what is there -> fetch and verify, in `<output>/.incomplete-pull` -> seal. A pull of before stays whole
until all is there. Nothing that is there and right is fetched again, so a pull that was cut off is just run again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from huggingface_hub import hf_hub_download
from huggingface_hub.hf_api import RepoFile
from tqdm import tqdm

from civid_loader.card import add_table
from civid_loader.errors import HubError, OutputError
from civid_loader.hub.access import Snapshot, hub_errors, resolve
from civid_loader.hub.disk_space import check_space
from civid_loader.hub.pull_plan import PullPlan, Record, is_right, make_plan
from civid_loader.layers import layer_folder
from civid_loader.output import only_builder
from civid_loader.progress import track_bytes
from civid_loader.repo_names import parse_repo
from civid_loader.storage import MANIFEST, replace, write_json

T = TypeVar("T")

WORK: Final = ".incomplete-pull"
"""Folder of an unfinished pull, inside the output folder."""
_STARTED: Final = f"{WORK}/pull.json"
_PREVIOUS: Final = f"{WORK}/previous.json"
_THREADS: Final = 8
_TRIES: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class PullReport:
    """What a pull did."""

    output: str
    """The dataset folder: `datasets.load_dataset(report.output)`."""
    repo_id: str
    sha: str
    """Commit that the folder now holds."""
    tables: tuple[str, ...]
    """Folders of it that are here."""
    num_files: int
    """Of the commit that are here, all of them checked."""
    num_fetched: int
    """Files that were not here, or were others."""
    num_bytes_fetched: int
    """In these files."""
    removed: tuple[str, ...]
    """Files of an earlier pull that are not in the commit."""


def pull(
    repo_id: str,
    output: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    with_videos: bool = False,
    revision: str | None = None,
    token: str | None = None,
    quiet: bool = False,
) -> PullReport:
    """Download a published dataset, or bring a folder that was pulled before up to date.

    Args:
        repo_id: `org/name`, also `org/name@revision` or `hf://datasets/org/name`.
        output: the folder to make.
        layers: `media`, `scores-<name>`, `captions-<name>`; None: all there are.
        with_videos: the files of the clips too, if they were published.
        revision: branch, tag or commit; the newest of main.
        token: None: the one huggingface_hub keeps.
        quiet: no progress bar.

    Raises:
        HubError: no such repository or revision, no permission, no connection; it is no dataset of this package, or
            has no videos; or bytes arrive that are not those of the commit.
        LayerError: it has no such layer.
        OutputError: `output` holds something else, another process works there, or the disk is too full.
    """
    root = Path(os.path.abspath(output))
    named = parse_repo(repo_id)
    if named is None:
        raise HubError(
            f"{repo_id}: no name of a dataset on the Hub; it is org/name, as in `civid pull org/name FOLDER`"
        )
    repo_id, revision = named.repo_id, revision or named.revision
    _check_output(root, repo_id)
    snapshot = resolve(repo_id, revision=revision, token=token)
    with hub_errors(repo_id, revision):
        listed = snapshot.api.list_repo_tree(repo_id, recursive=True, revision=snapshot.sha, repo_type="dataset")
        files = {one.path: one for one in listed if isinstance(one, RepoFile)}
    plan = make_plan(repo_id, files, layers=layers, with_videos=with_videos)
    with only_builder(root / WORK):
        write_json(root / _STARTED, {"repo_id": repo_id, "sha": snapshot.sha})
        missing = _missing(root, plan, quiet=quiet)
        check_space(root, sum(one.size for one in missing), what="the files to download")
        with hub_errors(repo_id, revision):
            _fetch_all(root, snapshot, missing, quiet=quiet)
        removed, tables = _seal(root, snapshot, plan)
    return PullReport(
        output=str(root),
        repo_id=repo_id,
        sha=snapshot.sha,
        tables=tables,
        num_files=len(plan.files),
        num_fetched=len(missing),
        num_bytes_fetched=sum(one.size for one in missing),
        removed=removed,
    )


def _check_output(root: Path, repo_id: str) -> None:
    """Refuse to write where something else lies: this package must never delete a user's files."""
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root} is a file; the output is a folder")
    record, work = Record.of(root), root / WORK
    there = None if record is None else record.repo_id
    if (root / _STARTED).is_file():
        there = json.loads((root / _STARTED).read_bytes())["repo_id"]
    if there is not None and there != repo_id:
        raise OutputError(f"{root} was pulled from {there}, not from {repo_id}; choose another folder")
    others = [path for path in (*root.glob("*"), *work.glob("*")) if path not in (work, work / "lock")]
    if there is None and others:
        raise OutputError(f"{root} is not empty and was not pulled from the Hub; choose another folder")


def _missing(root: Path, plan: PullPlan, *, quiet: bool) -> list[RepoFile]:
    """The files of the commit that are not in the folder as they should be."""

    def is_there(file: RepoFile) -> bool:
        # The manifest in the folder tells of what is here, not of all that was published.
        paths = [root / WORK / file.path, *([] if file.path == MANIFEST else [root / file.path])]
        return any(is_right(path, file) for path in paths)

    found = _in_threads(is_there, plan.files, label="checking what is there", quiet=quiet)
    return [file for file, is_ready in zip(plan.files, found, strict=True) if not is_ready]


def _fetch_all(root: Path, snapshot: Snapshot, files: Sequence[RepoFile], *, quiet: bool) -> None:
    _in_threads(lambda file: _fetch(root / WORK, snapshot, file), files, label="downloading", quiet=quiet)


def _in_threads(work: Callable[[RepoFile], T], files: Sequence[RepoFile], *, label: str, quiet: bool) -> list[T]:
    total, done = sum(one.size for one in files), 0
    results = []
    with (
        ThreadPoolExecutor(_THREADS, "civid-pull") as pool,
        track_bytes(label=label, total_bytes=total, quiet=quiet) as tell,
    ):
        for file, result in zip(files, pool.map(work, files), strict=True):
            results.append(result)
            done += file.size
            tell(done)
    return results


class _Silent(tqdm):  # type: ignore[type-arg] # tqdm itself takes no arguments at run time
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"disable": True})


def _fetch(folder: Path, snapshot: Snapshot, file: RepoFile) -> None:
    """Download a file into a folder, and once more if it is not what the commit says."""
    for _ in range(_TRIES):
        hf_hub_download(
            snapshot.repo_id,
            file.path,
            repo_type="dataset",
            revision=snapshot.sha,
            local_dir=folder,
            token=snapshot.token,
            # Without this a file that is there counts as right.
            force_download=(folder / file.path).is_file(),
            tqdm_class=_Silent,
        )
        if is_right(folder / file.path, file):
            return
    raise HubError(
        f"{snapshot.repo_id}: {file.path} comes with other bytes than commit {snapshot.sha[:12]} has, {_TRIES} times; "
        "a proxy on the way or a broken disk changes them: check both, then run the same command again"
    )


def _seal(root: Path, snapshot: Snapshot, plan: PullPlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the files their places; returns those removed, and the tables. Can be cut off anywhere and run again."""
    published = plan.check_manifest((root / WORK / MANIFEST).read_bytes())
    if (root / MANIFEST).is_file():
        replace(root / MANIFEST, root / _PREVIOUS)  # until all is done, the folder is no dataset
    previous = json.loads((root / _PREVIOUS).read_bytes()) if (root / _PREVIOUS).is_file() else {}
    for file in plan.files:
        if file.path != MANIFEST and (root / WORK / file.path).is_file():
            replace(root / WORK / file.path, root / file.path)
    record = Record.of(root)
    kept = plan.still_right(record)
    removed = list(_remove(root, plan.stale(root, record, kept)))
    tables = sorted({*plan.tables, *kept})
    own = [table for table in previous.get("shards", {}) if table not in tables and not plan.was_pulled(record, table)]
    manifest = _only(published, tables)
    for key in ("shards", "num_rows"):
        manifest[key] |= {table: previous[key][table] for table in own}
    if layers := {n: told for n, told in previous.get("layers", {}).items() if layer_folder(n) in own}:
        manifest["layers"] = manifest.get("layers", {}) | layers
    for table in own:
        add_table(root, table, manifest["num_rows"][table])
    Record.make(snapshot, plan, kept=kept).write(root)
    write_json(root / MANIFEST, manifest)
    (root / _PREVIOUS).unlink(missing_ok=True)
    shutil.rmtree(root / WORK)
    return tuple(removed), tuple(tables)


def _only(manifest: dict[str, Any], tables: Sequence[str]) -> dict[str, Any]:
    """A manifest of these tables alone."""
    chosen = dict(manifest)
    for key in ("shards", "num_rows"):
        chosen[key] = {table: told for table, told in manifest[key].items() if table in tables}
    if "layers" in chosen:
        chosen["layers"] = {n: told for n, told in manifest["layers"].items() if layer_folder(n) in tables}
    return chosen


def _remove(root: Path, paths: Iterable[str]) -> Iterable[str]:
    for path in paths:
        if (root / path).is_file():
            (root / path).unlink()
            yield path
