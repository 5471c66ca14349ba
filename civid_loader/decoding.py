"""Frames of a video at given times: sample, decode, rotate, resize.

Legend: T frames, C = 3 channels (RGB), H height, W width; all frames are uint8.
Times are seconds from the first frame of the video stream, never frame number / fps; ranges are half-open.
"""
# ruff: noqa: N803, N806, N815 - tensors carry their shape.

import errno
import io
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from itertools import chain
from typing import BinaryIO, Final, TypeAlias

import av
import av.error
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch.nn.functional import interpolate

from civid_loader.errors import NoVideoStreamError, UnreadableVideoError, VideoNotFoundError
from civid_loader.sampling import Sampler

_VideoPacket: TypeAlias = "Packet[VideoStream]"
TOLERANCE_SECONDS: Final = 1e-6
"""Times closer than this are the same moment."""

Video: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, or an open seekable binary file."""

# Only containers that hold their own data. FFmpeg also plays text that names other files (concat, HLS, DASH): a "video"
# of 30 bytes would then read any file of this machine.
_OPEN_OPTIONS: Final = {"format_whitelist": "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,ivf,mp3,wav,flac,aac"}

_FAR_SECONDS: Final = 1e9
# Where to start when the keyframe before the first target does not lead to it (open GOP, intra refresh, containers that
# seek by decoding time): that much earlier, at last from the first packet.
_STEPS_BACK_SECONDS: Final = (0.0, 2.0, 20.0, _FAR_SECONDS)


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
            source = _Source.of(container, num_threads=num_threads)
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
            frames = source.frames_at(targets, start_seconds=start_seconds, end_seconds=end_seconds or _FAR_SECONDS)
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
    if not 0 <= start_seconds < (_FAR_SECONDS if end_seconds is None else end_seconds) <= _FAR_SECONDS:
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


@dataclass(frozen=True, slots=True)
class _Source:
    """The video stream of an open container. Ticks are units of the stream's time base."""

    container: InputContainer
    stream: VideoStream
    _: KW_ONLY
    tick_seconds: Fraction
    start_ticks: int
    """Where a seek finds the first packet: some containers seek by decoding time, which is before any pts."""
    first_pts: int
    """Of the first frame: second 0."""

    @classmethod
    def of(cls, container: InputContainer, *, num_threads: int) -> "_Source":
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise NoVideoStreamError("it has no video stream, only sound, a cover picture or data")
        if stream.codec_context is None:
            raise UnreadableVideoError("its codec is unknown to this FFmpeg")
        stream.thread_type = "NONE" if num_threads == 1 else "AUTO"
        stream.codec_context.thread_count = num_threads
        packets = _packets(container, stream)
        packet = next(packets, None)
        frame = packet and next(_decoded(stream, chain([packet], packets)), None)
        if packet is None or frame is None or stream.time_base is None:
            raise UnreadableVideoError("not one frame can be decoded; download it again")
        start_ticks, first_pts = _pts(packet) if packet.dts is None else packet.dts, _pts(frame)
        return cls(container, stream, tick_seconds=stream.time_base, start_ticks=start_ticks, first_pts=first_pts)

    @property
    def fps(self) -> float:
        """Average rate; 0 where unknown."""
        return float(self.stream.average_rate or 0)

    def seconds(self, pts: int) -> float:
        return float((pts - self.first_pts) * self.tick_seconds)

    def packets_before(self, seconds: float) -> Generator[_VideoPacket]:
        """Packets from the keyframe at or before a time, or from the first one."""
        ticks = self.first_pts + int(seconds / self.tick_seconds) if seconds > 0 else self.start_ticks
        self.container.seek(ticks, stream=self.stream)
        return _packets(self.container, self.stream)

    def end_seconds(self, *, limit_seconds: float | None) -> float:
        """When the last frame ends, or the limit if that is earlier; from the packets, as a header may promise more.

        One pass over all packets where there is no limit, else only over those after the keyframe before it.
        """
        frame_ticks = max(1, round(1 / (self.fps * self.tick_seconds))) if self.fps else 1
        for seconds in (0.0,) if limit_seconds is None else (limit_seconds, 0.0):
            ends = []
            for packet in self.packets_before(seconds):
                if packet.pts is None or packet.is_discard:
                    continue
                if limit_seconds is not None and self.seconds(packet.pts) >= limit_seconds:
                    return limit_seconds
                ends.append(packet.pts + (packet.duration or frame_ticks))
            if ends:
                return min(self.seconds(max(ends)), limit_seconds or _FAR_SECONDS)
        raise UnreadableVideoError("its frames carry no times; remux it, for example to mp4")

    def frames_at(
        self, targets_seconds: list[float], *, start_seconds: float, end_seconds: float
    ) -> Iterator[tuple[float, VideoFrame]]:
        """For each target, in ascending order, the frame that `read_frames` promises, with its time."""
        packets, frames = self._decode_before(targets_seconds[0])
        num_done, held = 0, None
        for frame in frames:
            moment = self.seconds(_pts(frame))
            if moment >= end_seconds - TOLERANCE_SECONDS:
                break
            if held is not None and held[0] >= start_seconds - TOLERANCE_SECONDS:
                while num_done < len(targets_seconds) and targets_seconds[num_done] < moment - TOLERANCE_SECONDS:
                    yield held
                    num_done += 1
                if num_done == len(targets_seconds):
                    break
            held = moment, frame
        if held is None:
            raise UnreadableVideoError(f"no frame can be decoded between {start_seconds} and {end_seconds} s")
        for _ in targets_seconds[num_done:]:
            yield held
        # What the decoder still holds is shown later but was decoded before: if it is damaged, frames already
        # given may have been predicted from it.
        packets.close()
        for _ in frames:
            pass

    def _decode_before(self, seconds: float) -> tuple[Generator[_VideoPacket], Iterator[VideoFrame]]:
        """Packets and, decoded from them, frames of which the first is at or before a time."""
        for step_seconds in _STEPS_BACK_SECONDS:
            packets = self.packets_before(seconds - step_seconds)
            frames = _decoded(self.stream, packets)
            first = next(frames, None)
            if first is not None and self.seconds(_pts(first)) <= seconds + TOLERANCE_SECONDS:
                break
        return packets, frames if first is None else chain([first], frames)


def _packets(container: InputContainer, stream: VideoStream) -> Generator[_VideoPacket]:
    """Packets in decoding order from the first keyframe on, without a last one that is cut off."""
    started = cut_off = False
    for packet in container.demux(stream):
        started = started or packet.is_keyframe
        if not (started and packet.size):
            continue
        if cut_off:
            raise UnreadableVideoError("packets are damaged; download it again")
        cut_off = packet.is_corrupt
        if not cut_off:
            yield packet


def _decoded(stream: VideoStream, packets: Iterator[_VideoPacket]) -> Iterator[VideoFrame]:
    """Frames in order of display, decoded from packets of which the first is a keyframe.

    Decoders leave out the pictures shown before it: they need the keyframe before (open GOP).
    A damaged frame is an error, wanted or not: what is predicted from it looks whole and is not.
    """
    key = next(packets, None)
    if key is None:
        return
    previous_pts = _pts(key)
    for packet in chain([key], packets, [None]):
        for frame in stream.codec_context.decode(packet):
            if frame.is_corrupt:
                raise UnreadableVideoError("frames are damaged; download it again")
            if _pts(frame) < previous_pts:
                raise UnreadableVideoError("the times of its frames go backwards; remux it, for example to mp4")
            previous_pts = _pts(frame)
            yield frame


def _pts(timed: "_VideoPacket | VideoFrame") -> int:
    if timed.pts is None:
        raise UnreadableVideoError("its frames carry no times; remux it, for example to mp4")
    return timed.pts


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
    image_HWC = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
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
