"""Decoded frames as RGB images: converted, turned as displayed, resized, and put where they belong.

Legend: C = 3 channels (RGB), H height, W width; images are uint8.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

import os
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from threading import Lock, local
from typing import Any, Final

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from torch.nn.functional import interpolate

from civid_loader.errors import UnreadableVideoError

# From PyAV 17 on the conversion starts threads of its own unless told not to; before, it knows no such argument.
_ONE_THREAD: Final[dict[str, Any]] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}

CENTRE: Final = (0.5, 0.5)

# The threads of OpenMP do not survive a fork, and torch would wait for them for ever; loader workers do the same.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class ImageWriter:
    """Takes decoded frames, from several threads, and fills one tensor of images."""

    def __init__(
        self,
        places: Mapping[int, Sequence[int]],
        *,
        num_images: int,
        rotation_degrees: int,
        fit: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """`places`: packet -> where its frame goes, among `num_images`. `fit`: for each image, see `covering`."""
        self._places, self._num_images = places, num_images
        self._rotation_degrees, self._fit = rotation_degrees, fit
        self._images_TCHW: torch.Tensor | None = None
        self._lock, self._own = Lock(), local()

    def put(self, packet: int, frame: VideoFrame) -> None:
        """Convert the frame of a packet and keep it."""
        if not hasattr(self._own, "reformatter"):
            self._own.reformatter = VideoReformatter()
        image_CHW = self._fit(self._rgb(frame, self._own.reformatter))
        with self._lock:
            if self._images_TCHW is None:
                self._images_TCHW = torch.empty((self._num_images, *image_CHW.shape), dtype=torch.uint8)
        if image_CHW.shape != self._images_TCHW.shape[1:]:
            old, new = (tuple(shape[1:]) for shape in (self._images_TCHW.shape[1:], image_CHW.shape))
            raise UnreadableVideoError(f"its frames change from {old} to {new} px; pass size=")
        for place in self._places[packet]:
            self._images_TCHW[place] = image_CHW

    @property
    def images_TCHW(self) -> torch.Tensor | None:  # noqa: N802
        """All images, undefined where none was put; None before the first."""
        return self._images_TCHW

    def _rgb(self, frame: VideoFrame, reformatter: VideoReformatter) -> torch.Tensor:
        # Full size, then resized: swscale in one step computes colour at half the resolution. Bicubic matters for odd
        # sizes only, where the planes of colour do not fit the picture.
        rgb = reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC", **_ONE_THREAD)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: rgb.height, : 3 * rgb.width]
        image_HWC = rows.reshape(rgb.height, rgb.width, 3) if rows.flags.c_contiguous else _strided(rows, rgb.width)
        if self._rotation_degrees:
            image_HWC = np.ascontiguousarray(np.rot90(image_HWC, self._rotation_degrees // 90))
        return torch.from_numpy(image_HWC).permute(2, 0, 1)


def _strided(rows: np.ndarray[Any, np.dtype[np.uint8]], width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Rows of bytes with padding behind them as an image, without a copy."""
    return np.lib.stride_tricks.as_strided(rows, (rows.shape[0], width, 3), (rows.strides[0], 3, 1))


def covering(
    image_CHW: torch.Tensor, size: tuple[int, int] | None, crop_at: tuple[float, float] = CENTRE
) -> torch.Tensor:
    """Scale to the smallest image that covers `size`, then crop. 1280x720 for (256, 256): 455x256 first.

    `crop_at`: of the rows and columns left over, the shares that lie above and left of the crop.
    """
    if size is None:
        return image_CHW
    height, width = image_CHW.shape[1:]
    scale = max(size[0] / height, size[1] / width)
    scaled = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    if scaled != (height, width):
        image_CHW = interpolate(image_CHW[None], size=scaled, mode="bilinear", antialias=True)[0]
    # Halves are rounded down: the centre of an odd room is its upper left one.
    top, left = (ceil(share * (scaled[i] - size[i]) - 0.5) for i, share in enumerate(crop_at))
    return image_CHW[:, top : top + size[0], left : left + size[1]]
