"""Copies made in chunks, by several processes: what is finished is journaled, and is not made again."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import av.error

from civid_loader.errors import NoVideoStreamError, OutputError, UnreadableVideoError, VideoError, VideoNotFoundError
from civid_loader.pool import map_jobs
from civid_loader.reencoding.encoding import ProxySettings, encode_proxy
from civid_loader.reencoding.tables import Clip, Place
from civid_loader.storage import Journal, atomic_file
from civid_loader.video_shards import MAX_CLIP_BYTES
from civid_loader.videos import as_file, open_video

_CLIPS_PER_CHUNK: Final = 16  # a kill costs the chunks in work; each takes 10 s to a minute
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Clips and where their copies go; what a worker process gets."""

    index: int
    clips: tuple[Clip, ...]
    dataset: str
    videos: str | None
    work: str
    settings: ProxySettings


def encode_missing(clips: Sequence[Clip], job: Job, journal: Journal, num_proc: int, quiet: bool) -> None:
    """Encode in chunks, small enough that all processes have work to the end."""
    size = max(1, min(_CLIPS_PER_CHUNK, len(clips) // 64))
    first = max(journal.entries, default=-1) + 1
    jobs = [
        replace(job, index=first + i, clips=tuple(clips[start : start + size]))
        for i, start in enumerate(range(0, len(clips), size))
    ]
    for number, entry in map_jobs(_run, jobs, num_proc=num_proc, label="encoding", quiet=quiet):
        journal.add(number, entry)


def _run(job: Job) -> dict[str, Any]:
    """Encode the clips of one chunk into one file; the journal entry says which lies where, and which failed."""
    work = Path(job.work)
    num_bytes: list[int | None] = []
    reasons: list[tuple[str, str] | None] = []
    try:
        with atomic_file(work / _chunk_name(job.index)) as file:
            for clip in job.clips:
                scratch = work / f"{job.index:06d}.mp4"
                failure = _encode(clip, job, scratch)
                copy = b"" if failure else scratch.read_bytes()
                file.write(copy)
                num_bytes.append(None if failure else len(copy))
                reasons.append(failure)
            (work / f"{job.index:06d}.mp4").unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise OutputError(
            f"{work.parent}: the disk is full; the finished copies are kept: make room and run the same command again"
        ) from error
    return {"clips": [clip.number for clip in job.clips], "num_bytes": num_bytes, "reasons": reasons}


def _encode(clip: Clip, job: Job, target: Path) -> tuple[str, str] | None:
    """Write the copy of one clip; returns (reason, what is wrong) where there is none."""
    try:
        if clip.video is None:
            raise VideoNotFoundError("upstream names no video")
        with as_file(open_video(clip.video, root=job.videos, dataset=job.dataset)) as file:
            encode_proxy(file, target, span=clip.span, settings=job.settings)
        if target.stat().st_size > MAX_CLIP_BYTES:
            raise UnreadableVideoError(f"its copy is larger than the {MAX_CLIP_BYTES:,} bytes one can be; cut it")
    except (VideoError, OSError, av.error.FFmpegError) as error:
        if getattr(error, "errno", None) in _DISK_FULL:
            raise OSError(errno.ENOSPC, "the disk is full") from error
        return _reason(error), str(_explained(error))
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, NoVideoStreamError):
        return "no_video"
    return "missing" if isinstance(error, VideoNotFoundError) else "unreadable"


def _explained(error: Exception) -> Exception:
    if not isinstance(error, av.error.FFmpegError):
        return error
    return UnreadableVideoError(
        f"cannot be decoded as a video or encoded again ({error.strerror}); it may be empty, cut off, damaged, or an "
        "error page under the name of a video: download it again"
    )


def _chunk_name(index: int) -> str:
    return f"{index:06d}.clips"


def outcomes(journal: Journal, work: Path) -> tuple[dict[int, Place], dict[int, tuple[str, str]]]:
    """By clip number: where its copy lies, or else why there is none."""
    places: dict[int, Place] = {}
    failed: dict[int, tuple[str, str]] = {}
    for index, entry in sorted(journal.entries.items()):
        offset = 0
        for number, num_bytes, reason in zip(entry["clips"], entry["num_bytes"], entry["reasons"], strict=True):
            if num_bytes is None:
                failed[number] = reason[0], reason[1]
            else:
                places[number] = Place(path=work / _chunk_name(index), offset_bytes=offset, num_bytes=num_bytes)
                offset += num_bytes
    return places, {number: failure for number, failure in failed.items() if number not in places}
