"""The frames of a clip as one picture, for models that look at images only.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGrid:
    """Set `grids_NCHW`, uint8: per clip its frames in rows, from left to right and from top to bottom.

    With an outer border, H is rows * frame height + (rows + 1) * border_px, and W likewise: eight frames of 27x48 px
    in 2x4 with 10 px give 84x242 px. Cells without a frame stay blank, and so does the whole picture of a missing clip.

    Raises, when called:
        ValueError: frames are not uint8, so they are pixels no longer.
    """

    rows: int = 2
    """>= 1. LVD-2M describes 30 s by 2x3 frames, MiraData a clip by 2x4."""
    columns: int = 3
    """>= 1. Of more frames than cells, the middle one of as many equal parts is shown: 1 4 7 10 13 16 of 18 in 6."""
    border_px: int = 10
    """Between cells, >= 0."""
    has_outer_border: bool = True
    """The border goes around the picture too."""
    color: tuple[int, int, int] = (255, 255, 255)
    """RGB of borders and blank cells, 0 to 255 each."""

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("columns", 1), ("border_px", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: must be a whole number of at least {least}")
        if len(self.color) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in self.color):
            raise ValueError(f"color={self.color!r}: must be red, green and blue, each a whole number from 0 to 255")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its `grids_NCHW`."""
        if sample["frames_NTCHW"].dtype != torch.uint8:
            raise ValueError(
                f"sample {sample['sample_id']}: its frames are {sample['frames_NTCHW'].dtype}, not torch.uint8; put "
                "ImageGrid in front of NormalizeFrames"
            )
        clips = zip(sample["frames_NTCHW"], sample["mask_NT"], strict=True)
        return {**sample, "grids_NCHW": torch.stack([self._tile(frames[mask_T]) for frames, mask_T in clips])}

    def _tile(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        return tile(
            frames_TCHW[self._chosen(len(frames_TCHW))],
            rows=self.rows,
            columns=self.columns,
            border_px=self.border_px,
            has_outer_border=self.has_outer_border,
            color=self.color,
        )

    def _chosen(self, num_frames: int) -> list[int]:
        cells = self.rows * self.columns
        if num_frames <= cells:
            return list(range(num_frames))
        # (i + 1/2) * T / cells, in whole numbers: floats would show another frame now and then.
        return [(2 * i + 1) * num_frames // (2 * cells) for i in range(cells)]


def tile(
    frames_TCHW: torch.Tensor,
    *,
    rows: int,
    columns: int,
    border_px: int = 10,
    has_outer_border: bool = True,
    color: tuple[int, int, int] = (255, 255, 255),
) -> torch.Tensor:
    """Up to rows * columns frames, uint8, as one picture [C, H, W]; see `ImageGrid`."""
    height, width = frames_TCHW.shape[2:]
    edge = border_px if has_outer_border else 0
    step_y, step_x = height + border_px, width + border_px
    size = (rows * step_y - border_px + 2 * edge, columns * step_x - border_px + 2 * edge)
    grid_CHW = torch.tensor(color, dtype=torch.uint8)[:, None, None].repeat(1, *size)
    for cell, frame_CHW in enumerate(frames_TCHW):
        row, column = divmod(cell, columns)
        top, left = edge + row * step_y, edge + column * step_x
        grid_CHW[:, top : top + height, left : left + width] = frame_CHW
    return grid_CHW
