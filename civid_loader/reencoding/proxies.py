"""`proxies`: a training copy of a dataset, small videos that are quick to decode, as a dataset of its own.

plan -> encode, in chunks that are journaled in `<output>/.incomplete` -> seal: rows, shards of videos, card, manifest.
Killed at any moment and started again, it ends with the same bytes.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import av
import xxhash

import civid_loader
from civid_loader import builders
from civid_loader.card import write_card
from civid_loader.errors import AnnotationError, TooManyFailedError, VideoNotFoundError
from civid_loader.output import WORK, check_output, finished_manifest, only_builder, open_work
from civid_loader.reencoding.chunks import Job, encode_missing, outcomes
from civid_loader.reencoding.encoding import Codec, ProxySettings, check_encoder
from civid_loader.reencoding.tables import FAILED_FLAG, Clip, Place, read_clips, write_tables, write_videos
from civid_loader.storage import MANIFEST, Journal, atomic_file, read_manifest, write_json
from civid_loader.upstream.records import Source

MAX_EXAMPLES: Final = 10
REJECTED: Final = "rejected/proxies.jsonl"
"""Clips without a copy, one JSON line each."""
_SEALING: Final = "sealing"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyReport:
    """What `proxies` made."""

    output: str
    """The dataset folder: `datasets.load_dataset(report.output)`, and with "videos" as second argument the copies."""
    num_clips: int
    """Of the dataset, each counted once."""
    num_encoded: int
    """Clips that have a copy."""
    num_bytes: int
    """Of all copies."""
    failed: Mapping[str, int]
    """missing, unreadable or no_video -> clips without a copy, listed in `rejected/proxies.jsonl`."""
    examples: tuple[str, ...]
    """The first of them, with what was wrong."""


def proxies(
    dataset: str | os.PathLike[str],
    *,
    videos: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    short_side_px: int = 256,
    gop: int = 16,
    codec: Codec = "h264",
    crf: int | None = None,
    audio: bool = False,
    num_proc: int = 1,
    max_failed: float = 0.05,
    overwrite: bool = False,
    quiet: bool = False,
) -> ProxyReport:
    """Encode every clip of a built dataset small and quick to decode, into another dataset with the same rows.

    The frame at time t of a copy is the frame at time t of the clip. Clips that are spans of longer videos become files
    of their own; rotated ones are stored upright.

    Args:
        dataset: folder of a built dataset.
        videos: root of its video files. None: its pointers need none.
        output: the dataset folder to make; one that was cut off there is continued.
        short_side_px: of the copies, even; smaller videos keep their size.
        gop: frames from keyframe to keyframe.
        codec: h264, hevc or av1.
        crf: quality as the encoder counts it; None: 18, 20 or 24 by codec.
        audio: keep the sound, as AAC.
        num_proc: worker processes of one thread each. The result does not depend on it.
        max_failed: share of clips that may be missing or unreadable, 0..1. They keep their pointers, and their samples
            are flagged `proxy_failed`.
        overwrite: replace what `output` holds.
        quiet: no progress bar.

    Raises:
        AnnotationError: `dataset` is no built dataset.
        TooManyFailedError: more clips failed than `max_failed`; the finished ones are kept for a rerun.
        OutputError: `output` holds something else, another process works there, or the disk is full.
        MissingDependencyError: this FFmpeg has no encoder for `codec`.
        ValueError: a setting that is none.
    """
    settings = ProxySettings(short_side_px=short_side_px, gop=gop, codec=codec, crf=crf, audio=audio)
    if num_proc < 1 or not 0 <= max_failed <= 1:
        raise ValueError(f"num_proc must be >= 1 and max_failed in [0, 1], not {num_proc} and {max_failed}")
    check_encoder(settings)
    source, root = Path(os.path.abspath(dataset)), Path(output)
    videos_root = None if videos is None else os.path.abspath(videos)
    fingerprint = _fingerprint(source, videos_root, settings)
    check_output(root, Source(annotations=(str(source),), videos=videos_root))
    if not overwrite and (finished := finished_manifest(root, fingerprint)):
        return _report(root, finished)
    clips = read_clips(source)
    _check_pointers(clips, videos_root)
    work = root / WORK
    with only_builder(work):
        open_work(root, fingerprint, overwrite=overwrite)
        journal = Journal(work / "journal.jsonl")
        if not (work / _SEALING).is_file():
            places, _ = outcomes(journal, work)
            job = Job(index=0, clips=(), dataset=str(source), videos=videos_root, work=str(work), settings=settings)
            encode_missing([clip for clip in clips if clip.number not in places], job, journal, num_proc, quiet)
        _check_failed(clips, outcomes(journal, work)[1], max_failed)
        # From here on the copies are moved: a rerun must not try the failed ones again, or shards would not fit.
        (work / _SEALING).touch()
        manifest = fingerprint | _seal(source, root, clips, *outcomes(journal, work), settings)
        write_json(root / MANIFEST, manifest)
        shutil.rmtree(work)
    return _report(root, manifest)


def _fingerprint(dataset: Path, videos: str | None, settings: ProxySettings) -> dict[str, Any]:
    """What the copies are made from and how: another value is another dataset. No path stands in it."""
    if not (dataset / MANIFEST).is_file():
        raise AnnotationError(f"{dataset}: no {MANIFEST}, so no built dataset; make one with `civid build`")
    parent = read_manifest(dataset)
    # Layers, and videos packed later, do not change what is copied.
    for key in ("media", "layers", "video_config"):
        parent.pop(key, None)
    for of_tables in (parent["num_rows"], parent["shards"]):
        for table in [name for name in of_tables if name not in ("annotations", "characters", "movies")]:
            del of_tables[table]
    return {
        "name": parent["name"],
        "parent": {
            "folder": dataset.name,
            "manifest_xxh3": xxhash.xxh3_64_hexdigest(json.dumps(parent, sort_keys=True).encode()),
            "num_rows": parent["num_rows"],
        },
        "proxies": asdict(settings) | {"encoder": settings.encoder, "encoder_options": settings.encoder_options()},
        "videos": None if videos is None else xxhash.xxh3_64_hexdigest(videos.encode()),
        "civid_loader": civid_loader.__version__,
        "av": av.__version__,
    }


def _check_pointers(clips: Sequence[Clip], videos: str | None) -> None:
    """What is wrong with all pointers at once is an error now, not a reason at each of them."""
    if videos is not None and not os.path.isdir(videos):
        raise VideoNotFoundError(f"the video root {videos!r} is not a folder; pass the folder that holds the videos")
    rooted = re.compile(r"/|videos:|[a-z0-9+.-]+://", re.IGNORECASE)
    for clip in clips if videos is None else ():
        if clip.video is not None and not rooted.match(clip.video):
            raise VideoNotFoundError(
                f"clip {clip.clip_id}: pointer {clip.video!r} is relative: pass the folder it starts from (videos=, "
                "or --videos)"
            )


def _check_failed(clips: Sequence[Clip], failed: Mapping[int, tuple[str, str]], max_failed: float) -> None:
    if len(failed) > max_failed * len(clips):
        counts = Counter(reason for reason, _ in failed.values())
        first = [f"{clips[number].clip_id}: {failed[number][1]}" for number in sorted(failed)[:MAX_EXAMPLES]]
        by_reason = ", ".join(f"{number:,} {reason}" for reason, number in counts.items())
        raise TooManyFailedError(
            f"{len(failed):,} of {len(clips):,} clips failed ({by_reason}), more than max_failed={max_failed:g}. The "
            "other copies are kept: download or repair these and run the same command again, or allow more "
            "(--max-failed):\n" + "\n".join(first)
        )


def _seal(
    dataset: Path,
    root: Path,
    clips: Sequence[Clip],
    places: Mapping[int, Place],
    failed: Mapping[int, tuple[str, str]],
    settings: ProxySettings,
) -> dict[str, Any]:
    """Write all tables and the card; returns what the manifest says of them. Can be cut off anywhere and run again."""
    parent = read_manifest(dataset)
    shards, num_flagged = write_tables(dataset, root, failed=[clips[number].clip_id for number in failed])
    num_rows = {table: parent["num_rows"][table] for table in shards}
    if places:
        shards["videos"] = write_videos(root, clips, places)
        num_rows["videos"] = dict(Counter(clips[number].split for number in sorted(places)))
    if failed:
        with atomic_file(root / REJECTED) as file:
            for number, (reason, error) in sorted(failed.items()):
                clip = clips[number]
                line = {"clip_id": clip.clip_id, "sample_id": clip.sample_id, "video": clip.video}
                line |= {"reason": reason, "error": error}
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    about = (
        f"The videos inside (config `videos`) are training copies: {settings.codec}, short side at most "
        f"{settings.short_side_px} px, a keyframe every {settings.gop} frames, at the times of the originals. "
        f"`clips[].video` names them by clip id; a sample with the flag `{FAILED_FLAG}` has a clip without one."
    )
    write_card(root, builders.find(parent["name"]), num_rows, about=about)
    return {
        "license": parent["license"],
        "num_rows": num_rows,
        "shards": shards,
        "rejected": {},
        "counts": parent["counts"] | {"flags": parent["counts"].get("flags", {}) | {FAILED_FLAG: num_flagged}},
        "num_clips": len(clips),
        "num_encoded": len(places),
        "num_bytes": sum(place.num_bytes for place in places.values()),
        "failed": dict(Counter(reason for _, (reason, _) in sorted(failed.items()))),
    }


def _report(root: Path, manifest: dict[str, Any]) -> ProxyReport:
    examples = []
    if manifest["failed"]:
        with (root / REJECTED).open(encoding="utf-8") as lines:
            examples = [f"{line['clip_id']}: {line['error']}" for line in map(json.loads, islice(lines, MAX_EXAMPLES))]
    return ProxyReport(
        output=str(root),
        num_clips=manifest["num_clips"],
        num_encoded=manifest["num_encoded"],
        num_bytes=manifest["num_bytes"],
        failed=manifest["failed"],
        examples=tuple(examples),
    )
