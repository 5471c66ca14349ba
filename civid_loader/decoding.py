"""Frames of a video at given times: sample, decode, rotate, resize.

Legend: T frames, C = 3 channels (RGB), H height, W width; all frames are uint8.
Times are seconds from the first frame of the video stream, never frame number / fps; ranges are half-open.
"""
# ruff: noqa: N803, N806, N815 - tensors carry their shape.

import errno
import io
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

import av
import av.error
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from torch.nn.functional import interpolate

from civid_loader.errors import UnreadableVideoError, VideoNotFoundError
from civid_loader.sampling import Sampler
from civid_loader.stream import FAR_SECONDS, TOLERANCE_SECONDS, VideoSource

Video: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, or an open seekable binary file."""

# Only containers that hold their own data. FFmpeg also plays text that names other files (concat, HLS, DASH): a "video"
# of 30 bytes would then read any file of this machine.
_OPEN_OPTIONS: Final = {"format_whitelist": "mov,matroska,avi,mpegts,mpeg,asf,ogg,ivf,mp3,wav,flac,aac"}
# From PyAV 17 on the conversion starts threads of its own unless told not to; before, it knows no such argument.
_ONE_THREAD: Final[dict[str, Any]] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """Frames of one clip, in the order the sampler asked for."""

    frames_TCHW: torch.Tensor
    """uint8, RGB, T >= 1; contiguous."""
    pts_seconds: torch.Tensor
    """float64 [T]: when each returned frame appears, from the clip's start. Negative only where no frame begins
    within the clip, and the one already on screen at its start stands for all of it."""


def read_frames(
    video: Video,
    at: Sampler,
    *,
    span: tuple[float, float | None] | None = None,
    size: tuple[int, int] | None = None,
    num_threads: int = 1,
) -> Frames:
    """Decode the frames of a video, or of a span of it, at the times a sampler asks for.

    The frame at time t is the last one with pts <= t among the frames that begin within the span, or the first of
    them; it never begins at or after the span's end. Where none begins within the span (a span shorter than a frame),
    it is the frame on screen at its start. A clip with fewer frames than asked for gives some of them again.
    The sampler sees the duration there is: min(end, end of the last frame) - start, measured, not from the header.

    Args:
        video: path, bytes or open binary file.
        at: sampler; its times count from the clip's start.
        span: [start, end) in seconds from the first frame of the video; end None = to the end; None = the whole file.
        size: (height, width) in px: scaled with antialiasing to cover it, aspect ratio kept, then centre-cropped.
            None keeps the size as displayed.
        num_threads: threads of the decoder. More than one helps with a single large video, not in a DataLoader.

    Raises:
        VideoNotFoundError: `video` is a path and there is no such file.
        NoVideoStreamError: sound only.
        UnreadableVideoError: not a video; damaged anywhere from the keyframe before the first to the last frame
            wanted; without usable times; or over before the span starts.
        ValueError: a span or size that is none.
    """
    start_seconds, end_seconds = _checked(span=span, size=size)
    try:
        with (
            _opened(video) as file,
            av.open(_SafeSeek(file), mode="r", options=_OPEN_OPTIONS, metadata_errors="replace") as container,
        ):
            source = VideoSource.of(container, num_threads=num_threads)
            available_seconds = source.end_seconds(limit_seconds=end_seconds)
            if available_seconds <= start_seconds:
                raise UnreadableVideoError(
                    f"the span starts at {start_seconds} s, but the video ends at {available_seconds} s: "
                    "it is cut off, or not the one that was annotated"
                )
            times = at.times_seconds(duration_seconds=available_seconds - start_seconds, fps=source.fps)
            order = sorted(range(len(times)), key=times.__getitem__)
            last_seconds = available_seconds - 2 * TOLERANCE_SECONDS  # a time past the end means the last frame
            targets = [min(start_seconds + times[place], last_seconds) for place in order]
            frames = source.frames_at(targets, start_seconds=start_seconds, end_seconds=end_seconds or FAR_SECONDS)
            return _collect(frames, places=order, start_seconds=start_seconds, size=size)
    except (av.error.FFmpegError, UnreadableVideoError) as error:
        name = video if isinstance(video, str | os.PathLike) else getattr(video, "name", "the video given")
        if isinstance(error, UnreadableVideoError):
            raise type(error)(f"{name}: {error}") from error
        raise UnreadableVideoError(
            f"{name}: cannot be decoded as a video ({error.strerror}); it may be empty, cut off, damaged, or an error "
            "page under the name of a video: download it again"
        ) from error


def _checked(*, span: tuple[float, float | None] | None, size: tuple[int, int] | None) -> tuple[float, float | None]:
    """The span, with None for the whole file spelt out."""
    start_seconds, end_seconds = span or (0.0, None)
    if not 0 <= start_seconds < (FAR_SECONDS if end_seconds is None else end_seconds) <= FAR_SECONDS:
        raise ValueError(f"span={span!r}: a span is (start_seconds, end_seconds or None) with 0 <= start < end")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size={size!r}: a size is (height, width) in px, both at least 1")
    return start_seconds, end_seconds


def _opened(video: Video) -> AbstractContextManager[BinaryIO]:
    if isinstance(video, bytes):
        return io.BytesIO(video)
    if not isinstance(video, str | os.PathLike):
        return nullcontext(video)
    try:
        return open(video, "rb")
    except FileNotFoundError as error:
        raise VideoNotFoundError(f"no file {os.fspath(video)!r}") from error


class _SafeSeek:
    """A file as FFmpeg expects it: a place before the first byte is refused by a number, not by an exception.

    Empty files and damaged headers lead to such places. A place past the end is fine, there is nothing to read there.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._seek, self.read, self.tell = file.seek, file.read, file.tell
        self._num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)

    def seek(self, offset: int, whence: int) -> int:
        position = offset + (0, self.tell(), self._num_bytes)[whence]
        if position < 0:
            return -errno.EINVAL
        self._seek(min(position, self._num_bytes))
        return position


def _collect(
    chosen: Iterable[tuple[float, VideoFrame]], *, places: list[int], start_seconds: float, size: tuple[int, int] | None
) -> Frames:
    """Convert each distinct frame once and put it in its places."""
    reformatter, converted = VideoReformatter(), None
    pts_seconds = torch.empty(len(places), dtype=torch.float64)
    frames_TCHW = image_CHW = torch.empty(0)
    for place, (moment, frame) in zip(places, chosen, strict=True):
        if frame is not converted:
            image_CHW = _rgb(frame, reformatter) if size is None else _covering(_rgb(frame, reformatter), size)
        if converted is None:
            frames_TCHW = torch.empty((len(places), *image_CHW.shape), dtype=torch.uint8)
        elif image_CHW.shape != frames_TCHW.shape[1:]:
            raise UnreadableVideoError(
                f"its frames change from {tuple(frames_TCHW.shape[2:])} to {tuple(image_CHW.shape[1:])} px; pass size="
            )
        converted = frame
        frames_TCHW[place] = image_CHW
        pts_seconds[place] = moment - start_seconds
    return Frames(frames_TCHW=frames_TCHW, pts_seconds=pts_seconds)


def _rgb(frame: VideoFrame, reformatter: VideoReformatter) -> torch.Tensor:
    """The frame as displayed, CHW: PyAV states the rotation and leaves it to us."""
    image_HWC = reformatter.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()
    turned_HWC = np.rot90(image_HWC, frame.rotation // 90)
    return torch.from_numpy(np.ascontiguousarray(turned_HWC)).permute(2, 0, 1)


def _covering(image_CHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Scale to the smallest image that covers `size`, then crop its centre. 1280x720 for (256, 256): 455x256 first."""
    height, width = image_CHW.shape[1:]
    scale = max(size[0] / height, size[1] / width)
    scaled = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    covering_CHW = interpolate(image_CHW[None], size=scaled, mode="bilinear", antialias=True)[0]
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return covering_CHW[:, top : top + size[0], left : left + size[1]]
