"""What is written of a clip already: captions of the dataset, and of stages that ran before."""

from collections.abc import Mapping
from typing import Any


def captions_of(row: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Captions of a kind in order of time, each once; where several authors wrote some, those of the first.

    Args:
        row: see `ClipInput`; captions of this run come first in it.
        kind: see `schema.CAPTION_KINDS`.
    """
    found = [one for one in row.get("captions") or () if one["kind"] == kind]
    of_first = [one for one in found if one["annotator"] == found[0]["annotator"]]
    each_once = {(one["start_seconds"] or 0.0, one["end_seconds"], one["text"]): one for one in of_first}
    return sorted(each_once.values(), key=lambda one: one["start_seconds"] or 0.0)


def caption_of(row: Mapping[str, Any], kind: str, *, at_seconds: float | None = None) -> str | None:
    """The first text of a kind, or the first that is about a moment of the clip; None: there is none."""
    for one in captions_of(row, kind):
        start, end = one["start_seconds"] or 0.0, one["end_seconds"]
        if at_seconds is None or (start <= at_seconds and (end is None or at_seconds < end)):
            return str(one["text"])
    return None
