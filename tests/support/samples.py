"""Samples as `DecodeClips` makes them, without a video.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N806 - tensors carry their shape.

from typing import Any

import torch


def a_sample(
    *lengths: int, size: tuple[int, int] = (4, 6), num_frames: int | None = None, fps: float = 25.0, seed: int = 0
) -> dict[str, Any]:
    """One clip per length, of random frames that all differ; frame t of a clip has the time t/fps."""
    longest = max(lengths) if num_frames is None else num_frames
    mask_NT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    frames_NTCHW = torch.randint(1, 256, (len(lengths), longest, 3, *size), dtype=torch.uint8, generator=generator)
    return {
        "sample_id": "s0",
        "clip_ids": [f"c{n}" for n in range(len(lengths))],
        "frames_NTCHW": frames_NTCHW * mask_NT[..., None, None, None],
        "mask_NT": mask_NT,
        "pts_seconds_NT": torch.arange(longest, dtype=torch.float64) / fps * mask_NT,
        "texts": [f"text {n}" for n in range(len(lengths))],
    }


def hide(sample: dict[str, Any], clip: int, *places: int) -> dict[str, Any]:
    """The sample without some frames of a clip, as where they are damaged."""
    hidden = {name: sample[name].clone() for name in ("frames_NTCHW", "mask_NT", "pts_seconds_NT")}
    for values in hidden.values():
        values[clip, list(places)] = 0
    return {**sample, **hidden}


def frame_numbers(sample: dict[str, Any], clip: int, *, of: dict[str, Any]) -> list[int | None]:
    """Which frame of clip `clip` of another sample each frame is, by its pixels; None where nothing is shown."""
    known = {frame.numpy().tobytes(): t for t, frame in enumerate(of["frames_NTCHW"][clip]) if of["mask_NT"][clip, t]}
    numbers: list[int | None] = []
    for frame, is_shown in zip(sample["frames_NTCHW"][clip], sample["mask_NT"][clip].tolist(), strict=True):
        assert is_shown or not frame.any()
        numbers.append(known[frame.numpy().tobytes()] if is_shown else None)
    return numbers
