"""Steps on sample rows that are Python objects, shared by the datasets that are not tables."""

from typing import Any

import pyarrow as pa

from civid_loader.upstream.records import Context
from civid_loader.upstream.video_index import locate


def point_to_files(rows: list[dict[str, Any]], context: Context) -> None:
    """Point every clip at its file below the root; a clip that is not there stays, under upstream's name."""
    clips = [(row, clip) for row in rows for clip in row["clips"] if clip["video"]]
    if context.videos is None or not clips:
        return
    located = locate(context.videos, pa.array([clip["video"] for _, clip in clips], pa.string()))
    columns = (located.video.to_pylist(), located.not_found.tolist(), located.ambiguous.tolist())
    for (row, clip), video, not_found, ambiguous in zip(clips, *columns, strict=True):
        clip["video"] = video
        for name, odd in (("video_not_found", not_found), ("ambiguous_video", ambiguous)):
            if odd and name not in row["flags"]:
                row["flags"].append(name)
