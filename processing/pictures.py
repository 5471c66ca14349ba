"""Pictures for questions: frames of a clip side by side, and portraits from files.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import io
import os
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from civid_loader.errors import UnsafePathError, VideoError
from civid_loader.processing.captioner import Film, Picture
from civid_loader.processing.stage import FrameRequest, Mode
from civid_loader.transforms.image_grid import tile
from civid_loader.videos import open_video

Frames = npt.NDArray[np.uint8]
_MAX_BYTES: Final = 32 << 20
_TIMEOUT_SECONDS: Final = 60.0


def frames_of(
    mode: Mode,
    value: float,
    *,
    long_side_px: int,
    piece_seconds: float | None = None,
    min_tail_seconds: float | None = None,
) -> dict[str, FrameRequest]:
    """The request `frames` of stages that show pictures, larger ones made smaller; see `FrameRequest`."""
    request = FrameRequest(
        mode=mode,
        value=value,
        size=(long_side_px, long_side_px),
        resize="long_side_at_most",
        piece_seconds=piece_seconds,
        min_tail_seconds=min_tail_seconds,
    )
    return {"frames": request}


def grid_of(frames_THWC: Frames, *, rows: int, columns: int, has_outer_border: bool = True) -> Picture:
    """Frames in rows, 10 px of white between; one that comes more than once fills its cell each time."""
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
    grid_CHW = tile(frames_TCHW, rows=rows, columns=columns, has_outer_border=has_outer_border)
    return Picture(pixels_HWC=np.ascontiguousarray(grid_CHW.permute(1, 2, 0).numpy()))


def film_of(frames_THWC: Frames, times_seconds: npt.NDArray[np.float64]) -> Film:
    """Frames in order of time, each once: a clip with fewer frames than asked for repeats some."""
    times, first = np.unique(times_seconds, return_index=True)
    return Film(frames_THWC=np.ascontiguousarray(frames_THWC[first]), times_seconds=times)


def pictures_of(frames_THWC: Frames, times_seconds: npt.NDArray[np.float64]) -> list[Picture]:
    """Frames one by one, as `film_of` has them."""
    return [Picture(pixels_HWC=frame) for frame in film_of(frames_THWC, times_seconds).frames_THWC]


def portrait(pointer: str, *, root: str | None, short_side_px: int) -> Picture | None:
    """A picture below the root of the video files, RGB; None: there is none that can be read.

    Pointers come from annotations, and a picture may be sent to a server: none outside the root is opened.
    """
    if root is None:
        return None
    try:
        return _portrait(pointer, root, short_side_px)
    except (VideoError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # Pillow says of some broken files that their syntax is


@lru_cache(maxsize=1024)
def _portrait(pointer: str, root: str, short_side_px: int) -> Picture:
    """Kept, as the shots of a movie have the same ones."""
    if os.path.isabs(pointer) or "://" in pointer or pointer.startswith("videos:"):
        raise UnsafePathError(f"pointer {pointer!r} is not relative to the video root; correct the annotation")
    source = open_video(pointer, root=root)
    num_bytes = source.size(timeout_seconds=_TIMEOUT_SECONDS)
    if num_bytes > _MAX_BYTES:
        raise ValueError(f"{pointer}: {num_bytes} bytes are no portrait; at most {_MAX_BYTES} are read")
    (data,) = source.read_ranges([(0, num_bytes)], timeout_seconds=_TIMEOUT_SECONDS)
    with Image.open(io.BytesIO(data)) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    scale = short_side_px / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return Picture(pixels_HWC=np.array(image.resize(size, Image.Resampling.LANCZOS)))
