"""Frames at another size.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torchvision.transforms.v2 import functional

Mode = Literal["cover", "fit", "stretch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResizeFrames:
    """Scale all frames of a sample, bilinear with antialiasing; uint8 stays uint8.

    640x360 px (width x height) for size (256, 256): cover 455x256, fit 256x144, stretch 256x256.
    """

    size: tuple[int, int]
    """(height, width) in px, each >= 1."""
    mode: Mode = "cover"
    """cover: the smallest picture that covers `size`, for `CropFrames` to follow; fit: the largest inside `size`;
    both keep the aspect ratio. stretch: exactly `size`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size("ResizeFrames", self.size))
        if self.mode not in get_args(Mode):
            raise ValueError(f"ResizeFrames(mode={self.mode!r}): must be one of {', '.join(get_args(Mode))}")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample at its new size; nothing is drawn."""
        frames = sample["frames_NTCHW"]
        return {**sample, "frames_NTCHW": functional.resize(frames, self._scaled(*frames.shape[-2:]), antialias=True)}

    def _scaled(self, height: int, width: int) -> list[int]:
        if self.mode == "stretch":
            return list(self.size)
        scales = self.size[0] / height, self.size[1] / width
        scale = max(scales) if self.mode == "cover" else min(scales)
        # The bound holds what rounding may lose: cover is never smaller than `size`, nor fit larger or without pixels.
        if self.mode == "cover":
            return [max(self.size[0], round(height * scale)), max(self.size[1], round(width * scale))]
        return [min(self.size[0], max(1, round(height * scale))), min(self.size[1], max(1, round(width * scale)))]


def checked_size(owner: str, size: tuple[int, int]) -> tuple[int, int]:
    """`size`, if it is (height, width) in px.

    Raises:
        ValueError: it is not two whole numbers of at least 1; `owner` is named.
    """
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(side, int) and side >= 1 for side in size):
        return size[0], size[1]
    raise ValueError(f"{owner}(size={size!r}): size is (height, width) in px, two whole numbers of at least 1")
