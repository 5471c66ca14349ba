"""What writing the `videos` config came to."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from civid_loader.hub.video_plan import Clips
from civid_loader.storage import read_manifest, shards


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfigReport:
    """What `write_video_config` did."""

    dataset: str
    """Its folder; `datasets.load_dataset(report.dataset, "videos")` gives the files."""
    num_clips: int
    """Of the dataset, each counted once."""
    num_inside: int
    """Clips whose file is in the shards."""
    num_bytes: int
    """Of these files."""
    num_shards: int
    num_written: int
    """Shards that this run wrote; the others were there."""
    num_missing: int
    """Clips without a file, listed in `rejected/videos.jsonl`."""
    examples: tuple[str, ...]
    """The first of them, with what was wrong."""
    is_kept: bool
    """Whether the dataset had videos of its own (pointers `videos:...`), so that nothing was done."""


def report_of_own(root: Path, clips: Clips) -> VideoConfigReport | None:
    """The report of a dataset that must stay as it is: its rows point into its own videos."""
    manifest = read_manifest(root)
    is_own = pc.fill_null(pc.starts_with(clips.pointers, "videos:"), False)
    if "videos" not in manifest["shards"] or not pc.any(is_own).as_py():
        return None
    paths = shards(root, "videos")
    return VideoConfigReport(
        dataset=str(root),
        num_clips=len(clips.ids),
        num_inside=sum(manifest["num_rows"]["videos"].values()),
        num_bytes=sum(path.stat().st_size for path in paths),
        num_shards=len(paths),
        num_written=0,
        num_missing=0,
        examples=(),
        is_kept=True,
    )
