"""`civid demo`: make a release, build it, load it with stock `datasets`, decode an epoch, draw what came out."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import torch
from rich.console import Console
from rich.table import Table

from civid_loader.collation import Batch, collate
from civid_loader.contact_sheets import SheetRow, contact_sheet
from civid_loader.demo.release import Release, make_release
from civid_loader.errors import OutputError
from civid_loader.materialize import BuildReport, build
from civid_loader.sampling import Uniform
from civid_loader.schema import SAMPLE_FEATURES
from civid_loader.transforms.decode_clips import DecodeClips

NUM_FRAMES: Final = 6
SIZE: Final = (144, 256)
BATCH_SIZE: Final = 4
MAX_SHEET_CLIPS: Final = 10
_MARKER: Final = "civid-demo.json"
"""Marks a folder as one this command may replace."""
_STOCK: Final = """
import json, sys
sys.modules["civid_loader"] = None  # importing it now raises ImportError
import datasets
datasets.disable_progress_bars()
for folder in sys.argv[2:]:
    loaded = datasets.load_dataset(folder, cache_dir=sys.argv[1])
    split = next(iter(loaded))
    rows = {name: part.num_rows for name, part in loaded.items()}
    print(json.dumps({"rows": rows, "features": loaded[split].features.to_dict()}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Epoch:
    """What one pass over a dataset gave."""

    num_clips: int
    num_decoded: int
    """Clips with frames; the others have no file, as in life."""
    num_frames: int
    rows: list[SheetRow]


def run_demo(output: Path) -> None:
    """Everything a user does, on a made-up release of all four datasets. Needs no network.

    Writes `<output>/release` (what upstream would ship), `<output>/datasets/<name>` (built) and `<output>/<name>.png`.

    Raises:
        OutputError: the folder holds something that is not a demo.
    """
    console = Console()
    datasets.disable_progress_bars()
    start = time.perf_counter()
    _make_room(output)
    with console.status("Rendering a release of all four datasets ..."):
        releases = make_release(output / "release")
    console.print(f"1. Release, in upstream's file formats, with videos: {output / 'release'}")
    reports = {name: _build(release, output) for name, release in releases.items()}
    console.print(f"2. Built into one schema: {output / 'datasets'}")
    _load_with_stock_datasets(reports, output)
    console.print("3. Loaded with stock `datasets`, civid_loader not importable: same features, all rows.")
    epochs = {name: _epoch(reports[name], releases[name].videos, output) for name in releases}
    for name, epoch in epochs.items():
        contact_sheet(epoch.rows[:MAX_SHEET_CLIPS], output / f"{name}.png", title=reports[name].name)
    console.print("4. Decoded one epoch through a PyTorch DataLoader:")
    console.print(_summary(reports, epochs))
    console.print("5. Look at what came out: " + ", ".join(str(output / f"{name}.png") for name in releases))
    console.print(f"Done in {time.perf_counter() - start:.0f} s. Now your own files: civid build --help")


def _make_room(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / _MARKER).is_file():
        raise OutputError(f"{output} is not empty and no earlier demo; name another folder with --output")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / _MARKER).write_text("{}\n")


def _build(release: Release, output: Path) -> BuildReport:
    return build(
        release.name,
        annotations=release.annotations,
        videos=release.videos,
        output=output / "datasets" / release.name,
        max_rejected=0.2,  # a release this small has more broken rows than a real one
        quiet=True,
    )


def _load_with_stock_datasets(reports: Mapping[str, BuildReport], output: Path) -> None:
    """Another process loads the folders; what it saw is compared here."""
    command = [sys.executable, "-c", _STOCK, str(output / "cache"), *(report.output for report in reports.values())]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    for report, line in zip(reports.values(), result.stdout.splitlines(), strict=True):
        seen = json.loads(line)
        assert seen["rows"] == report.num_rows["annotations"], (report.name, seen["rows"])
        assert datasets.Features.from_dict(seen["features"]) == SAMPLE_FEATURES, report.name


def _epoch(report: BuildReport, videos: Path, output: Path) -> _Epoch:
    """One pass over all splits; the loop any training script has."""
    loaded = datasets.load_dataset(report.output, cache_dir=str(output / "cache"))
    samples = datasets.concatenate_datasets(list(loaded.values()))
    decode = DecodeClips(videos=str(videos), frames=Uniform(NUM_FRAMES), size=SIZE, missing="mask")
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        samples.with_transform(decode), batch_size=BATCH_SIZE, collate_fn=collate
    )
    rows: list[SheetRow] = []
    num_clips = num_decoded = num_frames = 0
    for batch in loader:
        rows += _sheet_rows(batch)
        num_frames += int(batch.mask_BNT.sum())
        num_decoded += int(batch.mask_BNT.any(dim=2).sum())
        num_clips += sum(clip is not None for clips in batch.clip_ids for clip in clips)
    return _Epoch(num_clips=num_clips, num_decoded=num_decoded, num_frames=num_frames, rows=rows)


def _sheet_rows(batch: Batch) -> list[SheetRow]:
    rows = []
    for b, clips in enumerate(batch.clip_ids):
        for n, clip in enumerate(clips):
            if clip is not None:
                found = bool(batch.mask_BNT[b, n].any())
                rows.append(
                    SheetRow(
                        sample_id=batch.sample_ids[b],
                        title=clip,
                        text=batch.texts[b][n] or "(no caption)",
                        frames_TCHW=batch.frames_BNTCHW[b, n].numpy() if found else None,
                    )
                )
    return rows


def _summary(reports: Mapping[str, BuildReport], epochs: Mapping[str, _Epoch]) -> Table:
    table = Table()
    headings: Sequence[str] = (
        "dataset",
        "splits",
        "samples",
        "clips",
        "decoded",
        "frames",
        "captions",
        "flags",
        "rejected",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("dataset", "splits") else "right")
    for name, report in reports.items():
        epoch, splits = epochs[name], report.num_rows["annotations"]
        counted = [report.counts["captions"], report.counts["flags"], report.rejected]
        numbers = [sum(splits.values()), epoch.num_clips, epoch.num_decoded, epoch.num_frames]
        numbers += [sum(counter.values()) for counter in counted]
        table.add_row(name, " ".join(splits), *(f"{number:,}" for number in numbers))
    return table
