"""One chunk of files, looked into: rows of the media layer, and what changed since the last run."""

import errno
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from civid_loader.errors import (
    NoVideoStreamError,
    RemoteVideoError,
    VideoError,
    VideoNotFoundError,
    VideoTimeoutError,
)
from civid_loader.media import VideoFacts, fingerprint, probe
from civid_loader.packets import TOLERANCE_SECONDS
from civid_loader.probing.clip_files import Clip, gather, read_clips
from civid_loader.schema import arrow_schema
from civid_loader.storage import write_shard
from civid_loader.stream import FAR_SECONDS
from civid_loader.video_shards import find_in_shards, has_videos
from civid_loader.videos import open_video

Row: TypeAlias = dict[str, Any]
MAX_NAMED: Final = 10
"""Files that are named for each kind of change."""
_UNSTEADY: Final = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN)
"""What a network drive says on a bad day. Any other error of the system is not about one file, and stops the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A chunk and how to look at it; what a worker process gets."""

    index: int
    start: int
    """Its first clip in the order of `ClipFiles`."""
    stop: int
    """One past its last."""
    work: str
    dataset: str
    videos: str | None
    with_sha256: bool
    timeout_seconds: float | None
    has_last: bool
    """Whether there are rows of the last run, in `<work>/last`."""
    may_keep: bool
    """Whether those of unchanged files still hold: they were made by the same versions."""


def probe_chunk(job: Job) -> dict[str, Any]:
    """Write the rows of a chunk in the order of `ClipFiles`; returns what the journal says of it."""
    clips = read_clips(Path(job.work), job.start, job.stop)
    last: Sequence[Row | None] = [None] * len(clips)
    if job.has_last:
        last = gather(Path(job.work) / "last", job.index).to_pylist()
    rows: list[Row] = []
    changes: dict[str, dict[str, Any]] = {}
    num_files = num_missing = num_unchanged = 0
    for _, pairs in groupby(zip(clips, last, strict=True), key=_file_key):
        of_file = list(pairs)
        before = [row for _, row in of_file if row is not None]
        found, is_unchanged = _look([clip for clip, _ in of_file], before, job)
        rows += found
        if found[0]["video"] is None:
            continue
        num_files += 1
        num_missing += found[0]["status"] == "missing"
        num_unchanged += is_unchanged
        if kind := _change(before, found):
            change = changes.setdefault(kind, {"num_files": 0, "first": []})
            change["num_files"] += 1
            change["first"] += [found[0]["video"]][: MAX_NAMED - len(change["first"])]
    table = pa.Table.from_pylist(rows, schema=arrow_schema("media"))
    write_shard(chunk_path(Path(job.work), job.index), [table], table="media")
    return {"num_files": num_files, "num_missing": num_missing, "num_unchanged": num_unchanged, "changes": changes}


def chunk_path(work: Path, index: int) -> Path:
    """Where the rows of a finished chunk lie."""
    return work / f"{index:06d}.parquet"


def _file_key(pair: tuple[Clip, Row | None]) -> tuple[bool, str]:
    """Clips without a pointer have no file in common."""
    clip = pair[0]
    return (True, clip["clip_id"]) if clip["video"] is None else (False, clip["video"])


def _look(clips: Sequence[Clip], last: Sequence[Row], job: Job) -> tuple[list[Row], bool]:
    """The rows of the clips of one file; whether they are those of the last run."""
    about: Row = {"checked_at": datetime.now(UTC)}
    pointer = clips[0]["video"]
    try:
        if pointer is None:
            raise VideoNotFoundError("upstream names no video")
        source = open_video(pointer, root=job.videos, dataset=job.dataset)
        about["num_bytes"], _, about["fingerprint"] = fingerprint(source, timeout_seconds=job.timeout_seconds)
        if job.may_keep and _still_hold(last, about["fingerprint"], with_sha256=job.with_sha256):
            return [row | about | _place(row["clip_id"], job) for row in last], True
        facts = probe(source, with_sha256=job.with_sha256, timeout_seconds=job.timeout_seconds)
    except (VideoError, OSError) as error:
        about |= {"status": _status(error), "reason": _reason(error, pointer, job)}
        return [{"clip_id": clip["clip_id"], "video": clip["video"]} | about for clip in clips], False
    names = [field.name for field in fields(VideoFacts) if field.name != "index"]
    about |= {"status": "ok"} | {name: _or_null(getattr(facts, name)) for name in names}
    times = facts.index.seconds(facts.index.pts[facts.index.shown])
    return [about | _of_span(clip, facts, times) | _place(clip["clip_id"], job) for clip in clips], False


def _place(clip_id: str, job: Job) -> Row:
    """Where a clip lies in the dataset's own videos, whatever its pointer says; nothing where it does not."""
    if not has_videos(job.dataset):
        return {}
    try:
        found = find_in_shards(job.dataset, clip_id, open_file=_open_local)
    except VideoNotFoundError:
        return {}
    return {"shard": os.path.relpath(found.shard, job.dataset), "byte_offset": found.byte_offset}


def _open_local(path: str) -> Any:
    return open(path, "rb")


def _still_hold(last: Sequence[Row], text: str, *, with_sha256: bool) -> bool:
    return all(
        row["fingerprint"] == text
        and row["status"] != "not_checked"
        and not (with_sha256 and row["codec"] and not row["sha256"])
        for row in last
    )


def _of_span(clip: Clip, facts: VideoFacts, times: Any) -> Row:
    """What is there of a clip: ids, frames, duration and packet index."""
    row: Row = {"clip_id": clip["clip_id"], "video": clip["video"]}
    start_seconds, end_seconds = clip["start_seconds"] or 0.0, clip["end_seconds"] or FAR_SECONDS
    index = facts.index
    if (start_seconds, end_seconds) == (0.0, FAR_SECONDS):
        whole = {"clip_num_frames": facts.num_frames, "clip_duration_seconds": facts.duration_seconds}
        return row | whole | {"packet_index": index.to_bytes()}
    if start_seconds >= index.end_seconds - TOLERANCE_SECONDS:
        cut_off = ", cut off" if facts.is_truncated else ""
        reason = f"the clip starts at {start_seconds:.3f} s, but the video ends at {index.end_seconds:.3f} s{cut_off}"
        return row | {"status": "unreadable", "reason": reason}
    first, stop = np.searchsorted(times, np.array([start_seconds, end_seconds]) - TOLERANCE_SECONDS)
    return row | {
        "clip_num_frames": int(stop - first),
        "clip_duration_seconds": min(end_seconds, index.end_seconds) - start_seconds,
        "packet_index": index.clip(start_seconds, end_seconds).to_bytes(),
    }


def _or_null(value: Any) -> Any:
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value


def _status(error: VideoError | OSError) -> str:
    """Raises errors that are not about this one file."""
    if isinstance(error, (RemoteVideoError, VideoTimeoutError)):
        return "not_checked"
    if isinstance(error, VideoNotFoundError):
        return "missing"
    if isinstance(error, NoVideoStreamError):
        return "no_video"
    if isinstance(error, (VideoError, PermissionError)):
        return "unreadable"
    if error.errno in _UNSTEADY:
        return "not_checked"
    raise error


def _reason(error: Exception, pointer: str | None, job: Job) -> str:
    """Without the folders of this machine."""
    text = str(error).encode("utf-8", "backslashreplace").decode()
    for folder in filter(None, (job.videos, job.videos and os.path.realpath(job.videos), job.dataset)):
        text = text.replace(f"{folder}/", "").replace(f" {folder!r}", "")
    return text.removeprefix(f"{pointer}: ") or type(error).__name__


def _change(last: Sequence[Row], now: Sequence[Row]) -> str | None:
    """What happened to a file since the last run."""
    if not last:
        return None
    before, after = _file_status(last), _file_status(now)
    if before != after:
        if "missing" in (before, after):
            return "newly missing" if after == "missing" else "newly found"
        return f"{before} → {after}"
    texts = {row.get("fingerprint") for row in (last[0], now[0])}
    return "changed content" if len(texts) > 1 and None not in texts else None


def _file_status(rows: Sequence[Row]) -> str:
    """Of the file, whatever may be wrong with spans in it."""
    return "ok" if rows[0].get("codec") else str(rows[0]["status"])
