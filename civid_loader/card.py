"""The README.md of a built folder: what lets stock `datasets` load each table with its own columns."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from civid_loader.schema import TABLES
from civid_loader.storage import atomic_file

if TYPE_CHECKING:
    from civid_loader.upstream.builder import UpstreamBuilder


def write_card(root: Path, builder: "type[UpstreamBuilder]", num_rows: dict[str, dict[str, int]]) -> None:
    """Write the card: a config per table (`default`: the samples), and the terms of the upstream data."""
    configs = [
        {
            "config_name": "default" if table == "annotations" else table,
            **({"default": True} if table == "annotations" else {}),
            "data_files": [{"split": split, "path": f"{table}/{split}-*.parquet"} for split in num_rows[table]],
        }
        for table in TABLES
        if table in num_rows
    ]
    header = {"license": "other", "license_name": builder.TERMS.license, "configs": configs}
    rows = "\n".join(
        f"| {'default' if table == 'annotations' else table} | {split} | {count:,} |"
        for table, splits in num_rows.items()
        for split, count in splits.items()
    )
    text = f"""# {builder.TITLE} in the civid_loader schema

Made from the files of [{builder.TITLE}]({builder.HOMEPAGE}). No videos are inside: `clips[].video` points to them.

```python
from datasets import load_dataset

ds = load_dataset({json.dumps("<this folder>")}, split={json.dumps(next(iter(num_rows["annotations"]), "train"))})
```

| config | split | rows |
|---|---|---|
{rows}

## Terms

{builder.TERMS.text}
"""
    with atomic_file(root / "README.md") as file:
        file.write(f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n{text}".encode())
