"""Small videos made on the spot, whose pixels say which frame they are."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.stream import Disposition

NUM_BITS = 8
TICKS_PER_SECOND = 90_000
SAMPLE_RATE_HZ = 16_000


def number_image(number: int, *, size: tuple[int, int] = (48, 64)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A grey picture with the bits of `number`, lowest first, as light and dark squares all along its top."""
    image = np.full((*size, 3), 128, np.uint8)
    block_px = size[1] // NUM_BITS
    for bit in range(NUM_BITS):
        image[:block_px, bit * block_px : (bit + 1) * block_px] = 235 if number >> bit & 1 else 16
    return image


def colourful_image(number: int, *, size: tuple[int, int] = (48, 64)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A number above colours that move from frame to frame, with hard edges and a little grain."""
    rows, columns = np.indices(size)
    grain = np.random.default_rng(number).integers(0, 24, size)
    planes = (rows * 5 + number * 7, columns * 3 + number * 11, (rows + columns) * 2 - number * 5 + grain)
    image = np.stack([plane % 256 for plane in planes], axis=-1).astype(np.uint8)
    block_px = size[1] // NUM_BITS
    image[:block_px] = number_image(number, size=size)[:block_px]
    return image


def read_number(frame: torch.Tensor) -> int:
    """The number in a frame CHW, scaled or not."""
    block_px = frame.shape[2] / NUM_BITS
    centres = [int((bit + 0.5) * block_px) for bit in range(NUM_BITS)]
    return sum(int(frame[1, int(block_px / 2), x]) >> 7 << bit for bit, x in enumerate(centres))


def read_numbers(frames: torch.Tensor) -> list[int]:
    """`read_number` of frames TCHW."""
    return [read_number(frame) for frame in frames]


def write_video(
    path: Path,
    *,
    num_frames: int = 30,
    fps: int = 25,
    size: tuple[int, int] = (48, 64),
    gop: int = 12,
    num_b_frames: int = 0,
    open_gop: bool = False,
    start_seconds: float = 0.0,
    pts_seconds: Sequence[float] | None = None,
    rotation_degrees: int = 0,
    codec: str = "libx264",
    image: Callable[[int], np.ndarray[Any, np.dtype[np.uint8]]] | None = None,
    container_options: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    encoder: Mapping[str, str] | None = None,
    pixel_format: str = "yuv420p",
    container_color: tuple[int, int] | None = None,
    sound: bool = False,
) -> Path:
    """A video in the container that the suffix of `path` names; frame i shows the number i.

    `pts_seconds` gives a variable frame rate. `image` paints other pictures. `encoder` holds options of the encoder,
    in place of those that `gop`, `num_b_frames` and `open_gop` stand for. `container_color` is (space, range) in
    FFmpeg's numbers, stated by the container alone. `sound` puts a second of noise after each second of pictures.
    """
    times = pts_seconds if pts_seconds is not None else [i / fps for i in range(num_frames)]
    x264 = f"keyint={gop}:min-keyint={gop}:scenecut=0:b-adapt=0:bframes={num_b_frames}:open-gop={int(open_gop)}"
    usual = {"preset": "ultrafast", "x264-params": x264} if codec == "libx264" else {}
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        # AVI and MPEG-4 count frames, others take fine ticks.
        tick = Fraction(1, fps) if path.suffix == ".avi" or codec == "mpeg4" else Fraction(1, TICKS_PER_SECOND)
        stream.codec_context.time_base = tick
        stream.codec_context.options = usual if encoder is None else dict(encoder)
        if rotation_degrees:
            stream.set_display_rotation(rotation_degrees)
        if container_color is not None:
            stream.codec_context.open()  # what is stated from here on, the encoder does not hear
            stream.codec_context.colorspace, stream.codec_context.color_range = container_color
        noise = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono") if sound else None
        for i, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(image(i) if image else number_image(i, size=size), format="rgb24")
            frame.pts, frame.time_base = round((start_seconds + seconds) / tick), tick
            container.mux(stream.encode(frame))
            if noise is not None and i % fps == 0:
                container.mux(noise.encode(_second_of_noise(i // fps)))
        container.mux(stream.encode())
        if noise is not None:
            container.mux(noise.encode())
    return path


def _second_of_noise(number: int) -> av.AudioFrame:
    samples = np.random.default_rng(number).normal(0, 0.1, (1, SAMPLE_RATE_HZ)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, number * SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
    return frame


def write_sound(path: Path, *, cover: bool = False) -> Path:
    """One second of silence; `cover` adds a cover picture, which FFmpeg shows as a video stream."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = 48, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(number_image(0), format="rgb24")))
            container.mux(picture.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    return path
