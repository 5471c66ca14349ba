"""Frames of a video at given times: sample, plan, decode, rotate, resize.

Legend: T frames, C = 3 channels (RGB), H height, W width; all frames are uint8.
Times are seconds from the first frame of the video stream, never frame number / fps; ranges are half-open.
"""
# ruff: noqa: N806, N815 - tensors carry their shape.

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, Final, Literal, TypeAlias, get_args

import av.error
import numpy as np
import torch

from civid_loader.deadlines import Deadline
from civid_loader.decode_threads import default_threads
from civid_loader.errors import CorruptVideoError, TruncatedVideoError, UnreadableVideoError, VideoError
from civid_loader.frame_groups import Losses, decode_packets
from civid_loader.packet_readers import InsufficientIndexError, StaleIndexError, open_packets
from civid_loader.packets import TOLERANCE_SECONDS, Longs, PacketIndex
from civid_loader.pixels import CENTRE, Fit, ImageWriter, covering
from civid_loader.sampling import ClipTimes, Sampler
from civid_loader.stream import FAR_SECONDS
from civid_loader.videos import ByteSource, bytes_source, file_source, open_video

Video: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | ByteSource"
"""A pointer or path, the bytes of a file, an open seekable binary file, or a byte source."""

Backend = Literal["auto", "pyav", "torchcodec"]
DEFAULT_TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """Frames of one clip, in the order the sampler asked for."""

    frames_TCHW: torch.Tensor
    """uint8, RGB, T >= 1; contiguous."""
    pts_seconds: torch.Tensor
    """float64 [T]: when each returned frame appears, from the clip's start. Negative only where no frame begins
    within the clip, and the one already on screen at its start stands for all of it."""
    is_corrupt: torch.Tensor
    """bool [T]: True where the picture is damaged or predicted from damage, as far as the decoder can see."""
    is_index_stale: bool = False
    """The index given was of another file, or of this one before it changed, and was not used."""
    num_bytes_read: int = 0
    """Of the file, to get these frames."""
    num_decoded: int = 0
    """Frames that were decoded for it, those in between too; of several sets in one pass, for all of them together. 0
    where the backend does not say."""


def read_frames(
    video: Video,
    at: Sampler,
    *,
    span: tuple[float, float | None] | None = None,
    size: tuple[int, int] | None = None,
    crop_at: tuple[float, float] = CENTRE,
    index: PacketIndex | bytes | None = None,
    backend: Backend = "auto",
    device: str = "cpu",
    threads: int | None = 1,
    timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
) -> Frames:
    """Decode the frames of a video, or of a span of it, at the times a sampler asks for.

    The frame at time t is the last one with pts <= t among the frames that begin within the span, or the first of
    them; it never begins at or after the span's end. Where none begins within the span (a span shorter than a frame),
    it is the frame on screen at its start. A clip with fewer frames than asked for gives some of them again.
    The sampler sees the frames there are, from the packets, not from the header: of a file that is cut off, those
    before the cut.

    Args:
        video: pointer, path, bytes, open binary file or byte source.
        at: sampler; its times count from the clip's start.
        span: [start, end) in seconds from the first frame of the video; end None = to the end; None = the whole file.
        size: (height, width) in px: scaled with antialiasing to cover it, aspect ratio kept, then cropped. None keeps
            the size as displayed.
        crop_at: where the crop lies, down and across: (0, 0) is the upper left corner, (1, 1) the lower right one.
        index: `packet_index` of the media layer. It saves remote files and archives the reading of their header; local
            files need none. One that does not fit the file is not used, and the result says so.
        backend: "pyav", "torchcodec" (an extra; it cannot see damage), or "auto": pyav on the CPU, else torchcodec.
        device: "cpu", or "cuda" for NVDEC through torchcodec; the frames are on that device.
        threads: runs of packets decoded at once. None: one in a worker process, else as many as there are cores.
            `set_max_threads` limits all calls together.
        timeout_seconds: limit for reading and decoding; None = without.

    Raises:
        VideoNotFoundError: there is no such file.
        NoVideoStreamError: sound only.
        TruncatedVideoError: the span starts after the end of a file that is cut off.
        CorruptVideoError: a frame wanted cannot be decoded; its `frames` are those that could, black where not.
        VideoTimeoutError: it took longer than `timeout_seconds`.
        UnreadableVideoError: not a video; without usable times; or over before the span starts.
        MissingDependencyError: the backend is not installed.
        ValueError: a span, size, backend or number of threads that is none; see also `open_video`.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size={size!r}: a size is (height, width) in px, both at least 1")
    if len(crop_at) != 2 or not all(0 <= share <= 1 for share in crop_at):
        raise ValueError(f"crop_at={crop_at!r}: two shares from 0 to 1, down and across")
    sets = (FrameSet(at=at, fit=partial(covering, size=size, crop_at=crop_at)),)
    request = _Request.of(sets, span=span, backend=backend, device=device, threads=threads)
    return _read_with(video, request, index=index, timeout_seconds=timeout_seconds)[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSet:
    """Frames of a clip, and what is done to each."""

    at: Sampler
    """Which."""
    fit: Fit
    """An image [C, H, W] as it is wanted, uint8 and all of one size."""


def read_frame_sets(
    video: Video,
    sets: Sequence[FrameSet],
    *,
    span: tuple[float, float | None] | None = None,
    index: PacketIndex | bytes | None = None,
    threads: int | None = 1,
    timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
) -> list[Frames]:
    """Several sets of frames in one pass: each frame is decoded and converted once, and fitted once for equal fits.

    Args and errors are those of `read_frames`; of a file that is damaged, an error has no `frames`.
    """
    request = _Request.of(tuple(sets), span=span, backend="pyav", device="cpu", threads=threads)
    return _read_with(video, request, index=index, timeout_seconds=timeout_seconds)


def _read_with(
    video: Video, request: "_Request", *, index: PacketIndex | bytes | None, timeout_seconds: float | None
) -> list[Frames]:
    deadline = Deadline(timeout_seconds)
    source = _source(video)
    stored = PacketIndex.from_bytes(index) if isinstance(index, bytes) else index
    try:
        try:
            return _read(source, request, index=stored, deadline=deadline)
        except StaleIndexError:
            found = _read(source, request, index=None, deadline=deadline)
            return [replace(frames, is_index_stale=True) for frames in found]
        except InsufficientIndexError:
            return _read(source, request, index=None, deadline=deadline, by_demuxer=True)
    except VideoError as error:
        raise error.within(source.name) from error
    except av.error.FFmpegError as error:
        raise UnreadableVideoError(
            f"{source.name}: cannot be decoded as a video ({error.strerror}); it may be empty, cut off, damaged, or an "
            "error page under the name of a video: download it again"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What was asked for, checked."""

    sets: tuple[FrameSet, ...]
    start_seconds: float
    end_seconds: float
    """`FAR_SECONDS` for the end of the file."""
    backend: Literal["pyav", "torchcodec"]
    device: str
    threads: int

    @classmethod
    def of(
        cls,
        sets: tuple[FrameSet, ...],
        *,
        span: tuple[float, float | None] | None,
        backend: Backend,
        device: str,
        threads: int | None,
    ) -> "_Request":
        start_seconds, end_seconds = span or (0.0, None)
        end_seconds = FAR_SECONDS if end_seconds is None else end_seconds
        if not 0 <= start_seconds < end_seconds <= FAR_SECONDS:
            raise ValueError(f"span={span!r}: a span is (start_seconds, end_seconds or None) with 0 <= start < end")
        if backend not in get_args(Backend):
            raise ValueError(f"backend={backend!r}: must be one of {', '.join(get_args(Backend))}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads}: at least 1, or None to choose by the process")
        if backend == "auto":
            backend = "pyav" if device == "cpu" else "torchcodec"
        if backend == "pyav" and device != "cpu":
            raise ValueError(f"device={device!r}: pyav decodes on the CPU; use backend='torchcodec'")
        return cls(
            sets=sets,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            backend=backend,
            device=device,
            threads=default_threads() if threads is None else threads,
        )


def _source(video: Video) -> ByteSource:
    if isinstance(video, bytes):
        return bytes_source(video)
    if isinstance(video, str | os.PathLike):
        pointer = os.fspath(video)
        is_path = "://" not in pointer and not pointer.startswith("videos:")
        return open_video(os.path.abspath(pointer) if is_path else pointer, root=None)
    return video if isinstance(video, ByteSource) else file_source(video)


def _read(
    source: ByteSource,
    request: _Request,
    *,
    index: PacketIndex | None,
    deadline: Deadline,
    by_demuxer: bool = False,
) -> list[Frames]:
    span = request.start_seconds, request.end_seconds
    num_bytes_before = source.counters.num_bytes
    with open_packets(source, index=index, span=span, deadline=deadline, by_demuxer=by_demuxer) as reader:
        wanted, clip = _clip(reader.index, request)
        # Of each set the last frame that begins at or before each time, and the first for what is earlier still.
        times = [np.array(one.at.times_seconds(clip)) + TOLERANCE_SECONDS for one in request.sets]
        numbers = [np.maximum(np.searchsorted(clip.pts_seconds, of_set, side="right") - 1, 0) for of_set in times]
        packets = [wanted[of_set].tolist() for of_set in numbers]
        if request.backend == "torchcodec":
            images_TCHW = _by_torchcodec(source, reader.index, wanted[numbers[0]], request)
            losses, images = Losses(lost=set(), corrupt=set()), [images_TCHW]
        else:
            fits = [one.fit for one in request.sets]
            writer = ImageWriter(list(zip(packets, fits, strict=True)), rotation_degrees=reader.index.rotation_degrees)
            losses = decode_packets(reader, writer.packets, writer.put, threads=request.threads, deadline=deadline)
            images = writer.images(losses.lost)
    num_bytes_read = source.counters.num_bytes - num_bytes_before
    found = [
        Frames(
            frames_TCHW=images[i],
            pts_seconds=torch.from_numpy(clip.pts_seconds[numbers[i]]),
            is_corrupt=torch.tensor([packet in losses.corrupt for packet in packets[i]]),
            num_bytes_read=num_bytes_read,
            num_decoded=losses.num_decoded,
        )
        for i in range(len(images))
    ]
    if losses.lost:
        error = CorruptVideoError(f"some of the frames wanted cannot be decoded: {losses.reason}; download it again")
        error.frames = found[0]
        raise error
    return found


def _by_torchcodec(source: ByteSource, index: PacketIndex, packets: Longs, request: _Request) -> torch.Tensor:
    from civid_loader.backends import read_with_torchcodec

    is_whole = index.span_seconds is None
    return read_with_torchcodec(
        source,
        index.seconds(index.pts[packets]),
        np.searchsorted(index.pts[index.shown], index.pts[packets]).tolist() if is_whole else None,
        fit=request.sets[0].fit,
        device=request.device,
        threads=request.threads,
    )


def _clip(index: PacketIndex, request: _Request) -> tuple[Longs, ClipTimes]:
    """The packets of the clip's frames, in order of display, and their times."""
    available_seconds = min(index.end_seconds, request.end_seconds)
    if available_seconds <= request.start_seconds:
        kind = TruncatedVideoError if index.is_truncated else UnreadableVideoError
        raise kind(
            f"the span starts at {request.start_seconds} s, but the video ends at {available_seconds} s: it is cut "
            "off, or not the one that was annotated"
        )
    shown = index.shown
    moments = index.seconds(index.pts[shown])
    edges = np.array([request.start_seconds, request.end_seconds]) - TOLERANCE_SECONDS
    first, end = np.searchsorted(moments, edges).tolist()
    if first >= end:  # no frame begins in it: the one on screen at its start
        first, end = max(0, end - 1), max(1, end)
    clip = ClipTimes(
        pts_seconds=moments[first:end] - request.start_seconds,
        is_key=index.is_key[shown[first:end]],
        duration_seconds=available_seconds - request.start_seconds,
    )
    return shown[first:end], clip
