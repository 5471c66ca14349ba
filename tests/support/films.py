"""Small films of scenes that are known: still patterns with hard cuts between."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

Picture = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Take:
    """A scene."""

    seed: int
    """Of its pattern; equal ones look alike."""
    num_frames: int
    other: int | None = None
    """Seed of a second pattern that is mixed in."""
    share: float = 0.0
    """How much of the second, 0 to 1."""
    brighter: int = 0
    """Added to every pixel."""


def pattern(seed: int, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Soft coloured blots, [H, W, 3], 60 to 200; darker colours would be noise once encoded."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(*(np.linspace(0, 1, n) for n in size), indexing="ij")
    image = np.zeros((*size, 3))
    for channel in range(3):
        for _ in range(4):
            y, x, width = rng.random(), rng.random(), 0.01 + 0.05 * rng.random()
            image[..., channel] += rng.random() * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / width)
    return np.asarray(60 + 140 * image / max(1e-9, image.max()))


def pictures(take: Take, size: tuple[int, int]) -> list[Picture]:
    """The scene's frames, RGB."""
    image = pattern(take.seed, size)
    if take.other is not None:
        image = (1 - take.share) * image + take.share * pattern(take.other, size)
    return [np.asarray((image + take.brighter).clip(0, 255), np.uint8)] * take.num_frames


def write_film(path: Path, takes: Sequence[Take], *, size: tuple[int, int] = (144, 256), fps: int = 24) -> Path:
    """Encode scenes after each other, H.264 of good quality; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "8", "preset": "ultrafast", "g": "24"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for take in takes:
            for picture in pictures(take, size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
