"""`civid probe`: the media layer of a dataset, one row per clip: what its file really holds, and whether it is there.

plan -> probe, in chunks of files that are journaled in `<dataset>/.incomplete-media` -> seal. Killed at any moment and
started again, it ends with the same rows.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

import civid_loader
from civid_loader.card import add_table
from civid_loader.output import is_continued, only_builder
from civid_loader.pool import map_jobs
from civid_loader.probing.clip_files import ClipFiles, check_root, check_rooted, gather, read_clip_files, scatter
from civid_loader.probing.histograms import draw
from civid_loader.probing.jobs import MAX_NAMED, Job, chunk_path, probe_chunk
from civid_loader.probing.media_report import Change, ProbeReport, Tally
from civid_loader.progress import track_units
from civid_loader.storage import MANIFEST, Journal, read_manifest, replace, shard_name, shards, write_json, write_shard

WORK: Final = ".incomplete-media"
"""Folder of an unfinished run, inside the dataset."""
PICTURE: Final = "media.png"
TIMEOUT_SECONDS: Final = 300.0
ROWS_PER_GROUP: Final = 2048
GROUPS_PER_SHARD: Final = 16
"""32,768 clips per shard: 30-100 MB, as packet indexes go."""
_NUM_FIRST_FILES: Final = 1000


def probe_dataset(
    dataset: str | os.PathLike[str],
    *,
    videos: str | os.PathLike[str] | None = None,
    num_proc: int = 1,
    with_sha256: bool = False,
    timeout_seconds: float | None = TIMEOUT_SECONDS,
    quiet: bool = False,
) -> ProbeReport:
    """Look into every video file of a built dataset and write what was found as its `media` layer.

    Run again, it looks only at files that changed, are new, or could not be checked, and says what changed.

    Args:
        dataset: folder of a built dataset.
        videos: root of its video files. None: its pointers need none.
        num_proc: worker processes. The rows do not depend on it.
        with_sha256: read every file to its end for its SHA-256; rows that lack it are completed.
        timeout_seconds: for each file; one that takes longer is `not_checked`. None: no limit.
        quiet: no progress bar.

    Raises:
        AnnotationError: `dataset` is no built dataset.
        VideoNotFoundError: the video root is no folder, or pointers need one.
        OutputError: another process works there, or an unfinished run had other options.
    """
    if num_proc < 1 or (timeout_seconds is not None and not timeout_seconds > 0):
        raise ValueError(f"num_proc must be >= 1 and timeout_seconds > 0, not {num_proc} and {timeout_seconds}")
    root = Path(os.path.abspath(dataset))
    videos_root = None if videos is None else os.path.abspath(videos)
    # Before anything is made in a folder that may be none of ours.
    shards(root)
    check_root(videos_root)
    work = root / WORK
    with only_builder(work):
        files = read_clip_files(root, work)
        if videos_root is None:
            check_rooted(work)
        made_with = {"civid_loader": civid_loader.__version__, "av": av.__version__}
        plan = {"clips": files.fingerprint, "videos": _hash(videos_root), "hash": with_sha256} | made_with
        if not is_continued(work, plan, kept=("clips.arrow", "rows.npy")):
            write_json(work / "plan.json", plan)
        last = _last_run(root, files)
        if last is not None:
            _sort_last_rows(root, work, files)
        new_job = partial(
            Job,
            work=str(work),
            dataset=str(root),
            videos=videos_root,
            with_sha256=with_sha256,
            timeout_seconds=timeout_seconds,
            has_last=last is not None,
            may_keep=last is not None and last["made_with"] == made_with,
        )
        entries = _probe_missing(new_job, work, files, num_proc=num_proc, quiet=quiet)
        names, tally = _write_shards(work, files)
        report = _report(root, files, entries, tally, had_last=last is not None)
        draw(report, work / PICTURE, title=root.name)
        _seal(root, work, files, names, {"clips": files.fingerprint, "made_with": made_with})
        shutil.rmtree(work)
    return report


def _hash(text: str | None) -> str | None:
    return None if text is None else xxhash.xxh3_64_hexdigest(text.encode())


def _last_run(root: Path, files: ClipFiles) -> dict[str, Any] | None:
    """What the manifest says of a finished run over the same clips."""
    if not (root / MANIFEST).is_file():
        return None
    manifest = read_manifest(root)
    last: dict[str, Any] | None = manifest.get("media")
    return last if last and last["clips"] == files.fingerprint and "media" in manifest["shards"] else None


def _sort_last_rows(root: Path, work: Path, files: ClipFiles) -> None:
    """Put the rows of the last run where the jobs find them, `last/<chunk>`."""
    target, unfinished = work / "last", work / "last.incomplete"
    if target.is_dir():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    places = np.empty_like(files.order)
    places[files.order] = np.arange(len(files.order))
    buckets = np.searchsorted(files.bounds, places, side="right") - 1
    scatter(_row_groups(shards(root, "media")), places=places, buckets=buckets, folder=unfinished)
    replace(unfinished, target)


def _row_groups(paths: Iterable[Path]) -> Iterator[pa.Table]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for i in range(file.num_row_groups):
                yield file.read_row_group(i)


def _probe_missing(
    new_job: Callable[..., Job], work: Path, files: ClipFiles, *, num_proc: int, quiet: bool
) -> list[dict[str, Any]]:
    """The journal entries of all chunks, after looking at those that are not in it yet."""
    journal = Journal(work / "journal.jsonl")
    jobs = [new_job(index=i, start=start, stop=stop) for i, (start, stop) in enumerate(pairwise(files.bounds.tolist()))]
    pending = [job for job in jobs if job.index not in journal.entries]
    num_done = sum(entry["num_files"] for entry in journal.entries.values())
    with track_units(label="probing", unit="files", total=files.num_files, num_done=num_done, quiet=quiet) as advance:
        # Its own bar would count chunks.
        for number, entry in map_jobs(probe_chunk, pending, num_proc=num_proc, label="probing", quiet=True):
            journal.add(number, entry)
            advance(entry["num_files"])
    return [journal.entries[job.index] for job in jobs]


def _write_shards(work: Path, files: ClipFiles) -> tuple[list[str], Tally]:
    """Bring the rows into the order of the annotations, `<work>/media/<shard>`; the same rows give the same bytes."""
    for folder in ("rows", "media"):
        shutil.rmtree(work / folder, ignore_errors=True)
    # Rows that are written as one group; none holds rows of two splits.
    groups = [(split, i, count) for split, count in files.num_clips.items() for i in range(0, count, ROWS_PER_GROUP)]
    sizes = [min(ROWS_PER_GROUP, count - i) for _, i, count in groups]
    buckets = np.searchsorted(np.cumsum(sizes), files.order, side="right")
    chunks = _row_groups(chunk_path(work, i) for i in range(len(files.bounds) - 1))
    scatter(chunks, places=files.order, buckets=buckets, folder=work / "rows")
    tally = Tally()

    def rows_of(numbers: Sequence[int]) -> Iterator[pa.Table]:
        for number in numbers:
            rows = gather(work / "rows", number)
            tally.add(rows)
            yield rows

    names: list[str] = []
    for split in files.num_clips:
        numbers = [number for number, group in enumerate(groups) if group[0] == split]
        shards_of_split = [numbers[i : i + GROUPS_PER_SHARD] for i in range(0, len(numbers), GROUPS_PER_SHARD)]
        for i, part in enumerate(shards_of_split):
            names.append(f"media/{shard_name(split, i, len(shards_of_split))}")
            write_shard(work / names[-1], rows_of(part), table="media")
    return names, tally


def _seal(root: Path, work: Path, files: ClipFiles, names: list[str], media: dict[str, Any]) -> None:
    """Give the shards their final names; manifest and card tell of them. Can be cut off anywhere and run again."""
    for name in names:
        replace(work / name, root / name)
    replace(work / PICTURE, root / PICTURE)
    if (root / MANIFEST).is_file():
        manifest = read_manifest(root)
        manifest["num_rows"]["media"], manifest["shards"]["media"] = files.num_clips, names
        write_json(root / MANIFEST, manifest | {"media": media})
    add_table(root, "media", files.num_clips)
    for path in (root / "media").glob("*.parquet"):
        if f"media/{path.name}" not in names:
            path.unlink()
    (work / "plan.json").unlink()  # from here on the folder is nothing to continue


def _report(
    root: Path, files: ClipFiles, entries: list[dict[str, Any]], tally: Tally, *, had_last: bool
) -> ProbeReport:
    changes: dict[str, Change] = {}
    for entry in entries:
        for kind, change in entry["changes"].items():
            known = changes.get(kind, Change(num_files=0, first=()))
            first = (*known.first, *change["first"])[:MAX_NAMED]
            changes[kind] = Change(num_files=known.num_files + change["num_files"], first=first)
    return ProbeReport(
        dataset=str(root),
        num_files=files.num_files,
        num_unchanged=sum(entry["num_unchanged"] for entry in entries),
        first_are_missing=_first_are_missing(entries),
        changes=dict(sorted(changes.items())) if had_last else None,
        picture=str(root / PICTURE),
        **tally.results(),
    )


def _first_are_missing(entries: list[dict[str, Any]]) -> int:
    """How many files were looked at first, if all of them are missing; else 0."""
    num_files = 0
    for entry in entries:
        if entry["num_missing"] < entry["num_files"]:
            return 0
        num_files += entry["num_files"]
        if num_files >= _NUM_FIRST_FILES:
            break
    return num_files
