"""The output folder of a build: what may be there, who works in it, and what an unfinished build left."""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from civid_loader.errors import OutputError
from civid_loader.schema import TABLES
from civid_loader.storage import MANIFEST, read_manifest, write_json
from civid_loader.upstream.records import Source

WORK: Final = ".incomplete"
"""Folder of an unfinished build, inside the output folder."""


def check_output(root: Path, source: Source) -> None:
    """Refuse to write where something else lies: this package must never delete a user's files."""
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root} is a file; --output names a folder")
    for folder in filter(os.path.isdir, source.annotations):
        if root.resolve().is_relative_to(Path(folder).resolve()):
            raise OutputError(f"{root} lies inside the annotations {folder}; choose another --output")
    for named in (*source.annotations, *([source.videos] if source.videos else [])):
        if Path(named).resolve().is_relative_to(root.resolve()):
            raise OutputError(f"{root} holds the input {named}; choose another --output")
    if (
        root.is_dir()
        and any(path != root / WORK or any(path.iterdir()) for path in root.iterdir())
        and not _is_ours(root)
    ):
        raise OutputError(f"{root} is not empty and no civid_loader dataset; choose another --output")


def _is_ours(root: Path) -> bool:
    """Whether a build of this package wrote here; a manifest.json alone could be anybody's."""
    if any((root / WORK / name).is_file() for name in ("plan.json", "lock")):
        return True
    try:
        manifest = read_manifest(root)
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(manifest, dict) and "civid_loader" in manifest


@contextmanager
def only_builder(work: Path) -> Iterator[None]:
    """One build per folder: a lock that ends with the process, however it ends."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise OutputError(f"{work.parent}: permission denied; choose another --output") from error
    try:
        with FileLock(work / "lock", timeout=0):
            yield
    except Timeout as error:
        raise OutputError(f"{work.parent}: another process builds there") from error


def open_work(root: Path, plan: dict[str, Any], *, overwrite: bool) -> None:
    """Start, or continue, the unfinished build in the folder."""
    path = root / WORK / "plan.json"
    started = json.loads(path.read_bytes()) if path.is_file() and not overwrite else None
    if started is not None and started != plan:
        changed = ", ".join(key for key, value in plan.items() if started.get(key) != value)
        raise OutputError(
            f"{root} holds an unfinished build that differs in {changed}; choose another --output, or --overwrite"
        )
    if started is None:
        (root / MANIFEST).unlink(missing_ok=True)
        for old in path.parent.iterdir():
            if old.name != "lock":
                old.unlink()
        for table in (*TABLES, "rejected"):
            shutil.rmtree(root / table, ignore_errors=True)
        write_json(path, plan)


def is_continued(work: Path, plan: dict[str, Any], *, kept: Collection[str] = ()) -> bool:
    """Whether the folder holds an unfinished run of this plan; one over other clips is cleared away.

    The caller writes the plan to `<work>/plan.json` once the run can be continued.

    Args:
        work: folder of the run, locked.
        plan: what decides the result; `clips` is a fingerprint of what it is about.
        kept: names in the folder that are not of an earlier run.

    Raises:
        OutputError: an unfinished run over the same clips differs in something else.
    """
    path = work / "plan.json"
    started = json.loads(path.read_bytes()) if path.is_file() else None
    if started == plan:
        return True
    if started is not None and started.get("clips") == plan["clips"]:
        changed = ", ".join(key for key, value in plan.items() if started.get(key) != value)
        raise OutputError(
            f"{work} holds an unfinished run that differs in {changed}; run the command as it was then, or delete that "
            "folder to start over"
        )
    for old in work.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name not in ("lock", *kept):
            old.unlink()
    return False


def finished_manifest(root: Path, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of a dataset that was made just so; None: nothing is finished there.

    Raises:
        OutputError: it was made of other inputs, or with other settings.
    """
    if not (root / MANIFEST).is_file():
        return None
    manifest = read_manifest(root)
    if changed := [key for key, value in fingerprint.items() if manifest.get(key) != value]:
        raise OutputError(
            f"{root} holds a finished dataset that differs in {', '.join(changed)}; choose another --output, or "
            "replace it with --overwrite"
        )
    shutil.rmtree(root / WORK, ignore_errors=True)  # killed when all was done but this
    return manifest
