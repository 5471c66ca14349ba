"""Datasets whose rows say how large their videos are; there are no videos."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from civid_loader import schema
from civid_loader.schema import arrow_schema
from civid_loader.storage import shard_name, write_shard

LARGE = {"width": 1280, "height": 720, "num_frames": 90}
TIMED = {"width": 640, "height": 480, "fps": 25.0, "duration_seconds": 4.0}


def sample(number: int, *clips: dict[str, Any] | None) -> dict[str, Any]:
    """A row of clips with what upstream states of their files."""
    made: list[dict[str, Any]] = [
        {
            **{"clip_id": f"{number}/{i}", "index": i, "video": None, "trimmed": True, "captions": []},
            "media": media,
        }
        for i, media in enumerate(clips)
    ]
    return {
        **schema.empty_sample(),
        **{"sample_id": f"s{number}", "dataset": "civid", "subset": "full", "level": "sequence", "clips": made},
    }


def write(root: Path, rows: list[dict[str, Any]], table: str = "annotations", split: str = "train") -> None:
    """One shard of a table."""
    data = pa.Table.from_pylist(rows, schema=arrow_schema(table))
    write_shard(root / table / shard_name(split, 0, 1), [data], table=table)
