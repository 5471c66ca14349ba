"""Clips of noise, for stages on image encoders."""

from typing import Any

import numpy as np
import numpy.typing as npt

from civid_loader import schema
from civid_loader.processing.stage import ClipInput, Stage
from support.stages import clip_of


def noise_clips(*, seed: int = 0, num_frames: tuple[int, ...] = (40, 1, 20)) -> list[npt.NDArray[np.uint8]]:
    """Images [N, H, W, C] of a few clips of different sizes, in blocks of one colour."""
    rng = np.random.default_rng(seed)
    sizes = ((64, 96), (96, 64), (64, 64))
    return [
        np.kron(rng.integers(0, 255, (count, height // 16, width // 16, 3)), np.ones((1, 16, 16, 1))).astype(np.uint8)
        for count, (height, width) in zip(num_frames, sizes, strict=False)
    ]


def clips_for(stage: Stage[Any], images: list[npt.NDArray[np.uint8]], *, text: str = "a cat") -> list[ClipInput]:
    """Clips of images with what the stage asks for, and a short caption."""
    row = {"captions": [schema.caption("short", text, "nobody")]}
    return [clip_of(one, stage.requests(), clip_id=f"clip{i}", row=row) for i, one in enumerate(images)]
