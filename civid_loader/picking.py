"""Some frames of each clip of a sample: picked, put at the front, padded.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N806 - tensors carry their shape.

from collections.abc import Sequence
from typing import Any

import torch


def shown_places(sample: dict[str, Any]) -> list[torch.Tensor]:
    """Of each clip the places t where a frame is shown, ascending; long, empty for a clip without any."""
    return [mask_T.nonzero()[:, 0] for mask_T in sample["mask_NT"]]


def pick_frames(
    sample: dict[str, Any], places: Sequence[torch.Tensor], *, num_frames: int | None = None
) -> dict[str, Any]:
    """The sample with frames `places[n]` of clip n, in that order; its other columns unchanged.

    Args:
        sample: as `DecodeClips` makes it; not changed.
        places: N tensors of shown places; a place may come more than once.
        num_frames: T of the result; None: of the clip with most places, at least 1. What a clip lacks is padding at
            its end: frames and times 0, mask False.
    """
    length = max((len(of_clip) for of_clip in places), default=1) if num_frames is None else num_frames
    length = max(1, length)
    picked: dict[str, torch.Tensor] = {}
    for name in ("frames_NTCHW", "mask_NT", "pts_seconds_NT"):
        values_NT = sample[name]
        picked[name] = values_NT.new_zeros((values_NT.shape[0], length, *values_NT.shape[2:]))
        for n, of_clip in enumerate(places):
            picked[name][n, : len(of_clip)] = values_NT[n, of_clip]
    return {**sample, **picked}
