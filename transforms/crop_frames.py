"""A part of the picture, the same in all frames of a sample.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from civid_loader.transforms.resize_frames import checked_size

Place = Literal["centre", "random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CropFrames:
    """Cut `size` out of all frames of a sample, at one place for all its clips: what moves is the camera, not the crop.

    Raises, when called:
        ValueError: frames are smaller than `size`.
    """

    size: tuple[int, int]
    """(height, width) in px, each >= 1."""
    place: Place = "centre"
    """centre, rounded to the upper left as `read_frames(size=)` does; or random, every place equally likely."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size("CropFrames", self.size))
        if self.place not in get_args(Place):
            raise ValueError(f"CropFrames(place={self.place!r}): must be one of {', '.join(get_args(Place))}")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its frames cropped; random draws two numbers, whatever the size."""
        frames = sample["frames_NTCHW"]
        height, width = frames.shape[-2:]
        room_rows, room_columns = height - self.size[0], width - self.size[1]
        if min(room_rows, room_columns) < 0:
            raise ValueError(
                f"sample {sample['sample_id']}: its frames are {height}x{width} px (height x width), smaller than "
                f"CropFrames(size={self.size}); put ResizeFrames(size={self.size}, mode='cover') before it"
            )
        top, left = room_rows // 2, room_columns // 2
        if self.place == "random":
            # Not rng.integers: it draws nothing where there is no room, and later draws would depend on the size.
            share_rows, share_columns = rng.random(2).tolist()
            top, left = int(share_rows * (room_rows + 1)), int(share_columns * (room_columns + 1))
        # Contiguous, as a view would keep the whole picture alive, and be sent whole from worker to trainer.
        cropped = frames[..., top : top + self.size[0], left : left + self.size[1]].contiguous()
        return {**sample, "frames_NTCHW": cropped}
