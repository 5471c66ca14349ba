"""Dataset rows to go with the samples of `support.samples`."""

from collections.abc import Mapping, Sequence
from typing import Any

from civid_loader import schema

Caption = dict[str, Any]


def captions(**texts: str) -> list[Caption]:
    """One caption per kind, of one annotator, about the whole clip."""
    return [schema.caption(kind, text, "a") for kind, text in texts.items()]


def with_row(
    sample: dict[str, Any],
    *about_clips: Sequence[Caption],
    steps: Mapping[tuple[int, int], Sequence[Caption]] | None = None,
    about_all: Sequence[Caption] = (),
) -> dict[str, Any]:
    """The sample with its row: captions per clip, per step (from, to), and of the whole. Clips have index 0, 1, ..."""
    given = [*about_clips, *[()] * (len(sample["clip_ids"]) - len(about_clips))]
    clips = [
        {**dict.fromkeys(schema.CLIP), "clip_id": clip_id, "index": n, "captions": list(of_clip)}
        for n, (clip_id, of_clip) in enumerate(zip(sample["clip_ids"], given, strict=True))
    ]
    transitions = [
        {"from_index": start, "to_index": end, "captions": list(of_step)}
        for (start, end), of_step in (steps or {}).items()
    ]
    row = {**schema.empty_sample(), "sample_id": sample["sample_id"], "clips": clips, "transitions": transitions}
    return {**sample, "row": {**row, "captions": list(about_all)}}
