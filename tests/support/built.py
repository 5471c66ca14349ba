"""A dataset folder as a build leaves it, made from a few clips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from civid_loader.schema import arrow_schema, caption, empty_sample
from civid_loader.storage import write_json, write_shard


def clip(clip_id: str, video: str | None, *, span: tuple[float, float | None] | None = None) -> dict[str, Any]:
    """A clip of the schema; with a span it is not trimmed."""
    start_seconds, end_seconds = span or (None, None)
    source = {"platform": "youtube", "video_id": clip_id, "start_seconds": start_seconds, "end_seconds": end_seconds}
    return {
        "clip_id": clip_id,
        "index": 0,
        "video": video,
        "trimmed": span is None,
        "source": source,
        "media": None,
        "captions": [caption("refined", f"About {clip_id}.", "upstream:human", start_seconds=0.5, end_seconds=1.0)],
        "characters": [],
        "scores": [],
    }


def write_dataset(root: Path, samples: Mapping[str, Sequence[Sequence[dict[str, Any]]]]) -> Path:
    """A dataset called lvd2m: split -> samples, each a list of clips; two samples to a row group, one shard a split."""
    shards, num_rows = [], {}
    for split, clips_of in samples.items():
        rows = [
            empty_sample()
            | {"sample_id": f"lvd2m/ytb/{split}-{i}", "dataset": "lvd2m", "subset": "ytb", "level": "clip"}
            | {"clips": [one | {"index": n} for n, one in enumerate(clips)], "flags": ["odd"] if i == 0 else []}
            for i, clips in enumerate(clips_of)
        ]
        groups = [rows[i : i + 2] for i in range(0, len(rows), 2)]
        shards.append(f"annotations/{split}-00000-of-00001.parquet")
        tables = [pa.Table.from_pylist(group, schema=arrow_schema("annotations")) for group in groups]
        num_rows[split] = write_shard(root / shards[-1], tables, table="annotations")
    manifest = {
        "name": "lvd2m",
        "license": "Research only.",
        "num_rows": {"annotations": num_rows},
        "shards": {"annotations": shards},
        "counts": {"flags": {"odd": 1}, "captions": {}},
        "rejected": {},
        "civid_loader": "0",
    }
    write_json(root / "manifest.json", manifest)
    return root
