"""The README.md of a built folder: what lets stock `datasets` load each table with its own columns."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from civid_loader.schema import TABLES
from civid_loader.storage import atomic_file, shards

if TYPE_CHECKING:
    from civid_loader.upstream.builder import UpstreamBuilder


def write_card(
    root: Path,
    builder: "type[UpstreamBuilder]",
    num_rows: dict[str, dict[str, int]],
    *,
    about: str = "No videos are inside: `clips[].video` points to them.",
) -> None:
    """Write the card: a config per table (`default`: the samples), and the terms of the upstream data.

    `about` says, in a sentence or two, what the videos are and where.
    """
    configs = [_config(table, num_rows[table]) for table in TABLES if table in num_rows]
    header = {"license": "other", "license_name": builder.TERMS.license, "configs": configs}
    rows = "\n".join(
        f"| {'default' if table == 'annotations' else table} | {split} | {count:,} |"
        for table, splits in num_rows.items()
        for split, count in splits.items()
    )
    text = f"""# {builder.TITLE} in the civid_loader schema

Made from the files of [{builder.TITLE}]({builder.HOMEPAGE}). {about}

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


def add_table(root: Path, table: str, num_rows: dict[str, int]) -> None:
    """Tell of one more table in the card, or of how many rows it has now; what else stands there stays as it is."""
    path = root / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    match = re.match(r"---\n(.*?)^---\n", text, re.DOTALL | re.MULTILINE)
    header: dict[str, Any] = yaml.safe_load(match[1]) if match else {}
    body = text[match.end() :] if match else text
    # Without a config of their own the samples would be loaded together with the new table.
    samples = _config("annotations", dict.fromkeys(path.name.partition("-")[0] for path in shards(root)))
    configs = header.get("configs") or [samples]
    config = _config(table, num_rows)
    name = config["config_name"]
    header["configs"] = [*(one for one in configs if one["config_name"] != name), config]
    body = re.sub(rf"^\| {name} \|.*\n", "", body, flags=re.MULTILINE)
    rows = "".join(f"| {name} | {split} | {count:,} |\n" for split, count in num_rows.items())
    body = re.sub(
        r"(^\| config \| split \| rows \|\n(?:\|.*\n)+)", lambda found: found[1] + rows, body, flags=re.MULTILINE
    )
    with atomic_file(path) as file:
        file.write(f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{body}".encode())


def _config(table: str, splits: Iterable[str]) -> dict[str, Any]:
    is_default = table == "annotations"
    return {
        "config_name": "default" if is_default else table.replace("/", "-"),
        **({"default": True} if is_default else {}),
        "data_files": [{"split": split, "path": f"{table}/{split}-*.parquet"} for split in splits],
    }
