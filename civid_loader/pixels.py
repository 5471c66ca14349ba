"""Decoded frames as RGB images: converted, turned as displayed, resized, and put where they belong.

Legend: C = 3 channels (RGB), H height, W width; images are uint8.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

import os
from collections.abc import Callable, Collection, Sequence
from math import ceil
from threading import Lock, local
from typing import Any, Final, TypeAlias

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from torch.nn.functional import interpolate

from civid_loader.errors import CorruptVideoError, UnreadableVideoError

# From PyAV 17 on the conversion starts threads of its own unless told not to; before, it knows no such argument.
_ONE_THREAD: Final[dict[str, Any]] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}

CENTRE: Final = (0.5, 0.5)

# The threads of OpenMP do not survive a fork, and torch would wait for them for ever; loader workers do the same.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


Fit: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""An image [C, H, W] as it is wanted; equal ones, as `==` has it, are computed once per frame."""


class ImageWriter:
    """Takes decoded frames, from several threads, and fills tensors of images: one for each set of frames wanted."""

    def __init__(self, sets: Sequence[tuple[Sequence[int], Fit]], *, rotation_degrees: int) -> None:
        """`sets`: the packets whose frames are wanted, in order, and what is done to each."""
        self._rotation_degrees = rotation_degrees
        self._sizes = [len(packets) for packets, _ in sets]
        self._wanted: dict[int, dict[Fit, list[tuple[int, int]]]] = {}
        """Packet -> fit -> places: (set, image)."""
        for number, (packets, fit) in enumerate(sets):
            for place, packet in enumerate(packets):
                self._wanted.setdefault(packet, {}).setdefault(fit, []).append((number, place))
        self._images: list[torch.Tensor | None] = [None] * len(sets)
        self._lock, self._own = Lock(), local()

    @property
    def packets(self) -> list[int]:
        """Whose frames are wanted, each once."""
        return list(self._wanted)

    def put(self, packet: int, frame: VideoFrame) -> None:
        """Convert the frame of a packet and keep it where it is wanted."""
        if not hasattr(self._own, "reformatter"):
            self._own.reformatter = VideoReformatter()
        rgb_CHW = self._rgb(frame, self._own.reformatter)
        for fit, places in self._wanted[packet].items():
            image_CHW = fit(rgb_CHW)
            for number, place in places:
                self._images_of(number, image_CHW)[place] = image_CHW

    def _images_of(self, number: int, image_CHW: torch.Tensor) -> torch.Tensor:
        with self._lock:
            images_TCHW = self._images[number]
            if images_TCHW is None:
                images_TCHW = torch.empty((self._sizes[number], *image_CHW.shape), dtype=torch.uint8)
                self._images[number] = images_TCHW
        if image_CHW.shape != images_TCHW.shape[1:]:
            old, new = (tuple(shape[1:]) for shape in (images_TCHW.shape[1:], image_CHW.shape))
            raise UnreadableVideoError(f"its frames change from {old} to {new} px; pass size=")
        return images_TCHW

    def images(self, lost: Collection[int]) -> list[torch.Tensor]:
        """The images of each set, [T, C, H, W]; black where a packet's frame was lost.

        Raises:
            CorruptVideoError: of a set, all were.
        """
        for packet in lost:
            for number, place in (place for places in self._wanted[packet].values() for place in places):
                if (images_TCHW := self._images[number]) is not None:
                    images_TCHW[place] = 0
        found = [images_TCHW for images_TCHW in self._images if images_TCHW is not None]
        if len(found) < len(self._images):
            raise CorruptVideoError("none of the frames wanted can be decoded; download it again")
        return found

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
