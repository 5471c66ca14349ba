"""What is refused before a run begins, and what ends one whose input is wrong."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from civid_loader.errors import OutputError, StageError, TooManyFailedError
from civid_loader.layers import layer_folder
from civid_loader.processing.planner import NO_VIDEO
from civid_loader.processing.stage import Row
from civid_loader.processing.stage_rows import is_error
from civid_loader.storage import MANIFEST, read_manifest

MAX_FAILED_FIRST: Final = 50
"""Clips from the beginning of a run on that come to nothing, before it ends."""
_NUM_REASONS: Final = 3
"""Told, of the first clips."""


def check_device(device: str) -> None:
    """Refuse a GPU that is not there.

    Raises:
        StageError: torch sees none on this machine.
    """
    if device == "cuda" and not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f"torch {torch.__version__} sees no GPU here"
        why += "" if visible is None else f", with CUDA_VISIBLE_DEVICES={visible!r}"
        raise StageError(f"device cuda: {why}; choose --device cpu, or a torch that is built for its CUDA")


def check_limited(root: Path, layers: Sequence[str], *, num_clips: int) -> None:
    """Refuse to put a few clips in the place of a finished layer of more.

    Raises:
        OutputError: a layer has more rows than the run would have.
    """
    if not (root / MANIFEST).is_file():
        return
    num_rows = read_manifest(root)["num_rows"]
    for layer in layers:
        before = sum(num_rows.get(layer_folder(layer), {}).values())
        if before > num_clips:
            raise OutputError(
                f"layer {layer} has {before:,} clips, and a run with --limit would leave {num_clips:,} in their place; "
                f"give the few a layer of their own, --layer {layers[0]}-few, or replace it with --overwrite"
            )


@dataclass(kw_only=True)
class FailureCap:
    """Ends a run of which nothing comes: the root of the videos is wrong, or a package is broken."""

    is_over: bool
    """Some clip of the run has values: from there on a bad clip is a row."""
    num_failed: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, rows: Sequence[Row]) -> None:
        """Look at the rows of a chunk. Clips that upstream has no video of count neither way.

        Raises:
            TooManyFailedError: no clip so far has a value.
        """
        for row in rows if not self.is_over else ():
            found = (value for name, value in row.items() if name not in ("clip_id", "reason"))
            if not is_error(row["reason"]) or any(value not in (None, []) for value in found):
                self.is_over = True
                return
            if NO_VIDEO not in row["reason"]:
                self.num_failed += 1
                self.reasons.append(row["reason"])
        if self.num_failed >= MAX_FAILED_FIRST:
            told = "; ".join(dict.fromkeys(self.reasons[:_NUM_REASONS]))
            raise TooManyFailedError(
                f"the first {self.num_failed:,} clips all failed, so the run ends and keeps nothing: {told}. Is the "
                "root of the videos right (--videos)? Where only some of the videos are here, make a dataset of those "
                "first: `civid probe`, then `civid filter --where \"media.status = 'ok'\"`"
            )
