"""`build`: upstream's files to a dataset folder. Killed at any moment and started again, it ends with the same bytes.

plan -> scan videos -> survey (where a dataset needs a first pass) -> chunks -> seal. Each chunk is read, written and
journaled on its own in `<output>/.incomplete`; sealing gives shards their final names, the manifest comes last.
"""

import gc
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

import civid_loader
from civid_loader import builders
from civid_loader.card import write_card
from civid_loader.errors import AnnotationError, OutputError, UnknownKeysError
from civid_loader.output import WORK, check_output, only_builder, open_work
from civid_loader.pool import map_jobs
from civid_loader.seal import rejected_parts, repeated_rows, seal
from civid_loader.storage import MANIFEST, Journal, atomic_file, read_manifest, write_json, write_shard
from civid_loader.upstream.builder import check_tolerance, repeats
from civid_loader.upstream.inputs import stamp
from civid_loader.upstream.records import Chunk, Context, Rejected, Source
from civid_loader.upstream.summary import count_rows
from civid_loader.upstream.video_index import VideoIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What a build made."""

    output: str
    """The dataset folder: `datasets.load_dataset(report.output)`."""
    name: str
    num_rows: dict[str, dict[str, int]]
    """Table -> split -> rows."""
    counts: dict[str, dict[str, int]]
    """clips, captions by kind, flags, notes."""
    rejected: dict[str, int]
    """Reason -> rows, in `rejected/*.jsonl`."""
    license: str
    """Terms of the upstream data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A chunk and where its result goes; what a worker process gets."""

    dataset: str
    source: Source
    index: int
    chunk: Chunk
    work: str


def build(
    name: str,
    *,
    annotations: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    output: str | os.PathLike[str],
    videos: str | os.PathLike[str] | None = None,
    subset: str | None = None,
    num_proc: int = 1,
    field_map: dict[str, str] | None = None,
    max_rejected: float = 0.01,
    overwrite: bool = False,
    quiet: bool = False,
) -> BuildReport:
    """Build one dataset from the files upstream ships.

    Args:
        name: civid, miradata, moviebench or lvd2m.
        annotations: annotation files or folders.
        output: the dataset folder to make; a build that was cut off there is continued.
        videos: root of the video files; pointers are resolved below it, relative to it. None: upstream's names.
        subset: overrides the subset read off file names (MovieBench: scenes or shots).
        num_proc: worker processes. The result does not depend on it.
        field_map: name this package knows -> name the files use, for keys and columns under other names.
        max_rejected: share of rows that may be unreadable, 0..1.
        overwrite: replace what `output` holds.
        quiet: no progress bars.

    Raises:
        AnnotationError: files are missing, unreadable, or of another dataset.
        TooManyRejectedError: more rows than `max_rejected` cannot be read; what was read is kept for a rerun.
        OutputError: `output` holds something else, or another process builds there.
    """
    builder = builders.find(name)
    named = [annotations] if isinstance(annotations, (str, os.PathLike)) else annotations
    source = Source(
        annotations=tuple(os.path.abspath(path) for path in named),
        videos=os.path.abspath(videos) if videos is not None else None,
        subset=subset,
        field_map=tuple(sorted((field_map or {}).items())),
    )
    if num_proc < 1 or not 0 <= max_rejected <= 1:
        raise ValueError(f"num_proc must be >= 1 and max_rejected in [0, 1], not {num_proc} and {max_rejected}")
    root = Path(output)
    fingerprint = _fingerprint(name, source)
    check_output(root, source)
    if not overwrite and (finished := _finished(root, fingerprint)):
        if (root / WORK).is_dir():  # killed when all was done but this
            with only_builder(root / WORK):
                shutil.rmtree(root / WORK)
        return finished
    chunks = _plan(name, source)
    work = root / WORK
    with only_builder(work):
        open_work(root, fingerprint, overwrite=overwrite)
        index = _scan_once(source, work)
        jobs = [_Job(dataset=name, source=source, index=i, chunk=c, work=str(work)) for i, c in enumerate(chunks)]
        entries = _read_all(jobs, work, surveys=builder.SURVEYS, num_proc=num_proc, quiet=quiet)
        _check_rejected(work, entries, repeated_rows(work, chunks), max_rejected)
        if not any(
            entry["num_rows"] for entry, chunk in zip(entries, chunks, strict=True) if chunk.table == "annotations"
        ):
            raise AnnotationError(f"no rows in {', '.join(source.annotations)}; see `civid inspect`")
        sealed = seal(root, work, chunks, entries)
        manifest = fingerprint | {
            "license": builder.TERMS.text,
            "skipped_videos": index.skipped if index else {},
            **sealed,
        }
        write_card(root, builder, sealed["num_rows"])
        write_json(root / MANIFEST, manifest)
        shutil.rmtree(work)
    return _report(root, manifest)


def _fingerprint(name: str, source: Source) -> dict[str, Any]:
    """What a build is made of: another value is another build. No path stands in it, as the manifest is published."""
    return {
        "name": name,
        "inputs": stamp(source.annotations),
        "videos": xxhash.xxh3_64_hexdigest(source.videos.encode()) if source.videos else None,
        "subset": source.subset,
        "field_map": dict(source.field_map),
        "civid_loader": civid_loader.__version__,
        "pyarrow": pa.__version__,
    }


def _read_all(jobs: list[_Job], work: Path, *, surveys: str | None, num_proc: int, quiet: bool) -> list[dict[str, Any]]:
    """The journal entries of all chunks, after reading those that are not in it yet."""
    if surveys and not (work / "repeated.npy").is_file():
        label = f"first pass: {surveys}"
        surveyed = [values for _, values in map_jobs(_survey, jobs, num_proc=num_proc, label=label, quiet=quiet)]
        with atomic_file(work / "repeated.npy") as file:
            np.save(file, repeats(surveyed), allow_pickle=False)
    journal = Journal(work / "journal.jsonl")
    pending = [job for job in jobs if job.index not in journal.entries]
    for number, counts in map_jobs(_run, pending, num_proc=num_proc, label="building", quiet=quiet):
        journal.add(number, counts)
    return [journal.entries[job.index] for job in jobs]


def _plan(name: str, source: Source) -> list[Chunk]:
    """The builder's chunks; if the files are another dataset's, the error says which."""
    try:
        return builders.find(name).plan(source)
    except UnknownKeysError as error:
        others = [f"`civid build {other}`" for other in builders.recognize(error.keys) if other != name]
        if others:
            raise AnnotationError(f"{error} These keys are those of another dataset: {' or '.join(others)}.") from error
        raise


def _finished(root: Path, fingerprint: dict[str, Any]) -> BuildReport | None:
    """The report of a build that is already done; refuses one of other inputs."""
    if not (root / MANIFEST).is_file():
        return None
    manifest = read_manifest(root)
    changed = [key for key, value in fingerprint.items() if manifest.get(key) != value]
    if changed:
        raise OutputError(
            f"{root} holds a finished build that differs in {', '.join(changed)}; "
            "choose another --output, or replace it with --overwrite"
        )
    return _report(root, manifest)


def _report(root: Path, manifest: dict[str, Any]) -> BuildReport:
    return BuildReport(
        output=str(root),
        name=manifest["name"],
        num_rows=manifest["num_rows"],
        counts=manifest["counts"] | {"skipped videos": manifest["skipped_videos"]},
        rejected=manifest["rejected"],
        license=manifest["license"],
    )


def _scan_once(source: Source, work: Path) -> VideoIndex | None:
    """What the video root held when the build began; a continued build sees the same."""
    if source.videos is None:
        return None
    path = work / "videos.arrow"
    if not path.is_file():
        temporary = work / "videos.arrow.incomplete"
        VideoIndex.scan(source.videos).save(temporary)
        temporary.replace(path)
    return VideoIndex.load(path)


def _survey(job: _Job) -> Any:
    return builders.find(job.dataset).survey(job.chunk, job.source)


def _run(job: _Job) -> dict[str, Any]:
    """Read one chunk and write its shard and its rejected rows; the same chunk gives the same bytes."""
    work = Path(job.work)
    videos, repeated = work / "videos.arrow", work / "repeated.npy"
    context = Context(
        videos=VideoIndex.load(videos) if videos.is_file() else None,
        repeated=np.load(repeated, allow_pickle=False) if repeated.is_file() else np.array([], dtype=np.uint64),
    )
    rejected: list[Rejected] = []
    notes: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {}

    def rows() -> Iterator[pa.Table]:
        for piece in builders.find(job.dataset).read(job.chunk, job.source, context):
            rejected.extend(piece.rejected)
            notes.update(piece.notes)
            if job.chunk.table == "annotations":
                count_rows(piece.rows, counts)
            yield piece.rows

    # Rows are trees: there is nothing for the cycle collector to find, and looking took a third of the time.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        num_rows = write_shard(work / f"{job.index:05d}.parquet", rows(), table=job.chunk.table)
    finally:
        if was_collecting:
            gc.enable()
    with atomic_file(work / f"{job.index:05d}.rejected.jsonl") as file:
        file.writelines(json.dumps(row.to_json(), ensure_ascii=False).encode() + b"\n" for row in rejected)
    return {
        "num_rows": num_rows,
        "rejected": dict(Counter(row.reason for row in rejected)),
        "counts": {name: dict(sorted(counter.items())) for name, counter in (counts | {"notes": notes}).items()},
    }


def _check_rejected(
    work: Path, entries: list[dict[str, Any]], repeated: dict[int, list[int]], max_rejected: float
) -> None:
    num_repeated = sum(map(len, repeated.values()))
    num_rejected = num_repeated + sum(sum(entry["rejected"].values()) for entry in entries)
    first: list[Rejected] = []
    for part in rejected_parts(work, len(entries)):
        with part.open(encoding="utf-8") as lines:
            first += [Rejected(**json.loads(line)) for line in islice(lines, 10 - len(first))]
    num_rows = sum(entry["num_rows"] for entry in entries) - num_repeated
    check_tolerance(first, num_rejected, num_rows, max_rejected)
