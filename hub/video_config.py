"""The `videos` config of a local dataset: every clip's file inside Parquet shards, and where in them it lies.

plan -> shards, in `<dataset>/.incomplete-videos` -> seal: shards to their places, the media layer tells where each clip
lies, manifest and card tell of it all. Killed at any moment and started again, it ends with the same bytes.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import xxhash

import civid_loader
from civid_loader.card import add_table
from civid_loader.errors import AnnotationError, OutputError, VideoNotFoundError
from civid_loader.hub.disk_space import check_space
from civid_loader.hub.video_places import Places, write_places
from civid_loader.hub.video_plan import (
    MISSING,
    Clips,
    Longs,
    Shard,
    absolute_root,
    check_root,
    first_lines,
    open_clip,
    plan_shards,
    read_clips,
    read_sizes,
)
from civid_loader.hub.video_report import VideoConfigReport, report_of_own
from civid_loader.output import is_continued, only_builder
from civid_loader.progress import track_bytes, track_units
from civid_loader.storage import MANIFEST, atomic_file, read_manifest, replace, write_json
from civid_loader.video_shards import write_video_shard

WORK: Final = ".incomplete-videos"
"""Folder of an unfinished run, inside the dataset."""
REJECTED: Final = "rejected/videos.jsonl"
"""Clips that were left out, one JSON line each."""
RECORD: Final = "video_config"
"""Of the manifest: what the shards were made from."""
MAX_EXAMPLES: Final = 10
SHARD_BYTES: Final = 1_000_000_000
_SEALING: Final = "sealing"


def write_video_config(
    root: Path,
    *,
    video_root: str | os.PathLike[str] | None,
    shard_bytes: int | None = None,
    quiet: bool = False,
) -> VideoConfigReport:
    """Put the file of every clip of a dataset into its `videos` config. Memory does not grow with the videos.

    Samples are shuffled once, the same way every time; the clips of one lie side by side. Run again when all is done,
    it writes no shard, but tells the media layer once more where each clip lies.

    Args:
        root: folder of a built dataset.
        video_root: what relative pointers start from: a folder, its URL, or a tar or zip. None: its pointers need none.
        shard_bytes: about how much goes into one shard; None: as the last time, 1 GB the first time.
        quiet: no progress bar.

    Raises:
        AnnotationError: no built dataset; clips are spans of longer files; or a file is larger than 2 GB.
        VideoNotFoundError: the video root is no folder, pointers need one, or not one file is there.
        VideoError: a file is there and cannot be read.
        OutputError: the disk is too full, another process works there, a file changed, or an unfinished run had other
            options.
    """
    if shard_bytes is not None and shard_bytes < 1:
        raise ValueError(f"shard_bytes must be >= 1, not {shard_bytes}")
    root = Path(os.path.abspath(root))
    if not (root / MANIFEST).is_file():
        raise AnnotationError(f"{root}: no {MANIFEST}, so no built dataset; make one with `civid build`")
    clips = read_clips(root)
    if kept := report_of_own(root, clips):
        return kept
    videos = absolute_root(video_root)
    check_root(clips, videos)
    shard_bytes = _shard_bytes(root) if shard_bytes is None else shard_bytes
    with only_builder(root / WORK):
        run = _open_run(root, clips, videos, shard_bytes=shard_bytes, quiet=quiet)
        num_written = run.write_shards(quiet=quiet)
        run.seal()
    return run.report(num_written=num_written)


def check_videos(root: Path, *, video_root: str | os.PathLike[str] | None) -> None:
    """What `write_video_config` can tell at once of a built dataset and a video root, without looking at files.

    Raises:
        AnnotationError, VideoNotFoundError: as `write_video_config`.
    """
    clips = read_clips(root)
    if not report_of_own(root, clips):
        check_root(clips, absolute_root(video_root))


def planned_videos(
    root: Path, *, video_root: str | os.PathLike[str] | None, quiet: bool = False
) -> Sequence[Shard] | None:
    """The shards that `write_video_config` would write; None where they are there. Changes nothing.

    Raises:
        AnnotationError, VideoNotFoundError, VideoError: as `write_video_config`.
    """
    root, clips = Path(os.path.abspath(root)), read_clips(root)
    if report_of_own(root, clips):
        return None
    videos = absolute_root(video_root)
    check_root(clips, videos)
    with (
        tempfile.TemporaryDirectory() as work,
        track_units(label="reading sizes", unit="clips", total=len(clips.ids), quiet=quiet) as advance,
    ):
        rejected = Path(work, "missing.jsonl")
        sizes = read_sizes(clips, root=root, video_root=videos, rejected=rejected, advance=advance)
        _check_any(sizes, Path(work))
    shard_bytes = _shard_bytes(root)
    run = _Run(
        root=root,
        video_root=videos,
        clips=clips,
        sizes=sizes,
        shards=plan_shards(clips, sizes, shard_bytes=shard_bytes),
        record=_plan(clips, shard_bytes) | {"sizes": xxhash.xxh3_64_hexdigest(sizes.data)},
    )
    return None if run.is_done() else run.shards


def _shard_bytes(root: Path) -> int:
    """As the last time, so that a push does not pack all anew."""
    recorded = read_manifest(root).get(RECORD, {}).get("shard_bytes")
    return recorded if isinstance(recorded, int) else SHARD_BYTES


def _plan(clips: Clips, shard_bytes: int) -> dict[str, Any]:
    made_with = {"civid_loader": civid_loader.__version__, "pyarrow": pa.__version__}
    return {"clips": clips.fingerprint, "shard_bytes": shard_bytes, **made_with}


def _open_run(root: Path, clips: Clips, videos: str | None, *, shard_bytes: int, quiet: bool) -> "_Run":
    """Continue an unfinished run, or plan one; shards of other clips are of no use."""
    work = root / WORK
    plan = _plan(clips, shard_bytes)
    inputs = plan | {"videos": None if videos is None else xxhash.xxh3_64_hexdigest(videos.encode())}
    if not is_continued(work, inputs):
        with track_units(label="reading sizes", unit="clips", total=len(clips.ids), quiet=quiet) as advance:
            sizes = read_sizes(clips, root=root, video_root=videos, rejected=work / "missing.jsonl", advance=advance)
        _check_any(sizes, work)
        with atomic_file(work / "sizes.npy") as file:
            np.save(file, sizes, allow_pickle=False)
        write_json(work / "plan.json", inputs)
    sizes = np.load(work / "sizes.npy", allow_pickle=False)
    record = plan | {"sizes": xxhash.xxh3_64_hexdigest(sizes.data)}
    return _Run(
        root=root,
        video_root=videos,
        clips=clips,
        sizes=sizes,
        shards=plan_shards(clips, sizes, shard_bytes=shard_bytes),
        record=record,
    )


def _check_any(sizes: Longs, work: Path) -> None:
    if (sizes == MISSING).all():
        first = next(iter(first_lines(work / "missing.jsonl", 1)))
        shutil.rmtree(work, ignore_errors=True)
        raise VideoNotFoundError(
            f"not one of the {len(sizes):,} clips has a file, so there is nothing to put into shards; check the video "
            f"root. The first, {first['clip_id']}: {first['error']}"
        )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run over a dataset, planned."""

    root: Path
    video_root: str | None
    clips: Clips
    sizes: Longs
    shards: Sequence[Shard]
    record: dict[str, Any]

    def write_shards(self, *, quiet: bool) -> int:
        """Write the shards that are not there yet; returns how many."""
        work = self.root / WORK
        if self.is_done():
            (work / _SEALING).touch()
        if (work / _SEALING).is_file():
            return 0
        missing = [shard for shard in self.shards if not (work / shard.name).is_file()]
        check_space(self.root, sum(shard.num_bytes for shard in missing), what="the shards of its videos")
        total, left = (sum(shard.num_bytes for shard in part) for part in (self.shards, missing))
        done_bytes = total - left
        with track_bytes(label="packing videos", total_bytes=total, quiet=quiet) as tell:
            for shard in missing:
                write_video_shard(work / shard.name, self._files(shard, done_bytes=done_bytes, tell=tell))
                done_bytes += shard.num_bytes
        # From here on shards leave the folder: that one is not in it no longer means that it has to be written.
        (work / _SEALING).touch()
        return len(missing)

    def is_done(self) -> bool:
        """Whether its shards are in their places already."""
        if read_manifest(self.root).get(RECORD) != self.record:
            return False
        named = read_manifest(self.root)["shards"].get("videos", [])
        return named == [shard.name for shard in self.shards] and all((self.root / name).is_file() for name in named)

    def _files(self, shard: Shard, *, done_bytes: int, tell: Callable[[int], None]) -> Iterator[tuple[str, bytes]]:
        for number in shard.clips.tolist():
            yield self.clips.ids[number].as_py(), self._file(number)
            done_bytes += int(self.sizes[number])
            tell(done_bytes)

    def _file(self, number: int) -> bytes:
        clip_id, size = self.clips.ids[number].as_py(), int(self.sizes[number])
        try:
            source = open_clip(self.clips.pointers[number].as_py(), root=self.root, video_root=self.video_root)
            data = source.read_ranges([(0, size + 1)])[0]  # one more byte, to see that it did not grow
        except VideoNotFoundError as error:
            raise self._changed(clip_id, "is gone") from error
        if len(data) != size:
            raise self._changed(clip_id, f"no longer has {size:,} bytes")
        return data

    def _changed(self, clip_id: str, what: str) -> OutputError:
        return OutputError(
            f"clip {clip_id}: its file {what}, as it had when the shards were planned; put it back, or delete "
            f"{self.root / WORK} to plan and write them anew"
        )

    def seal(self) -> None:
        """Give the shards their final names; media layer, manifest and card tell of them. Can be cut off anywhere."""
        root, work = self.root, self.root / WORK
        for shard in self.shards:
            if (work / shard.name).is_file():
                replace(work / shard.name, root / shard.name)
        names = [shard.name for shard in self.shards]
        for path in (root / "videos").glob("*.parquet"):
            if f"videos/{path.name}" not in names:
                path.unlink()
        (root / REJECTED).unlink(missing_ok=True)
        if (self.sizes == MISSING).any():
            with atomic_file(root / REJECTED) as file:
                file.write((work / "missing.jsonl").read_bytes())
        num_rows: Counter[str] = Counter()
        for shard in self.shards:
            num_rows[shard.split] += len(shard.clips)
        write_places(root, work, self.clips, Places.read(root, self.clips, names, self.sizes))
        manifest = read_manifest(root)
        manifest["num_rows"]["videos"], manifest["shards"]["videos"] = dict(num_rows), names
        write_json(root / MANIFEST, manifest | {RECORD: self.record})
        add_table(root, "videos", dict(num_rows))
        (work / "plan.json").unlink()  # from here on the folder is nothing to continue
        shutil.rmtree(work)

    def report(self, *, num_written: int) -> VideoConfigReport:
        """What was done."""
        is_inside = self.sizes != MISSING
        lines = [] if is_inside.all() else first_lines(self.root / REJECTED, MAX_EXAMPLES)
        return VideoConfigReport(
            dataset=str(self.root),
            num_clips=len(self.sizes),
            num_inside=int(is_inside.sum()),
            num_bytes=int(self.sizes[is_inside].sum()),
            num_shards=len(self.shards),
            num_written=num_written,
            num_missing=int((~is_inside).sum()),
            examples=tuple(f"{line['clip_id']}: {line['error']}" for line in lines),
            is_kept=False,
        )
