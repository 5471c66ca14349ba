"""A video opened by FFmpeg: for containers without a header to read, and streams that only FFmpeg understands."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import BinaryIO, Final, TypeAlias

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from civid_loader.deadlines import Deadline
from civid_loader.errors import CorruptVideoError, NoVideoStreamError, UnreadableVideoError
from civid_loader.packets import PacketIndex, has_repeats

VideoPacket: TypeAlias = "Packet[VideoStream]"
FAR_SECONDS: Final = 1e9
KEPT_BYTES: Final = 32 << 20
"""Packets seen in the scan are kept up to this much, and need not be looked for again."""
# Only containers that hold their own data. FFmpeg also plays text that names other files (concat, HLS, DASH): a "video"
# of 30 bytes would then read any file of this machine.
_OPEN_OPTIONS: Final = {"format_whitelist": "mov,matroska,avi,mpegts,mpeg,asf,ogg,ivf,mp3,wav,flac,aac"}
_MAX_STREAMS: Final = 64
_MAX_REORDERED: Final = 32
_MAX_BLOCK_HEADER_BYTES: Final = 32
"""Of a Matroska block or an AVI chunk, before the packet itself."""
# How much earlier to start where a seek did not lead to the packet wanted: some containers seek by decoding time.
_STEPS_BACK_SECONDS: Final = (0.0, 2.0, 20.0, FAR_SECONDS)


class _NothingError(UnreadableVideoError):
    """No frame in the packets looked at."""


@contextmanager
def open_stream(file: BinaryIO, deadline: Deadline, *, is_thorough: bool = False) -> Iterator["Stream"]:
    """The best video stream of a file, while the `with` statement lasts.

    FFmpeg decodes some frames when it opens a file, which takes longer than all else; only if `is_thorough` may it. It
    learns from them how H.264 that does not say so puts its frames in order.

    Raises:
        NoVideoStreamError: sound only.
        UnreadableVideoError: a codec unknown to this FFmpeg.
        av.error.FFmpegError: not a video.
    """
    guarded = _GuardedFile(file, deadline)
    of_streams = [] if is_thorough else [{"skip_frame": "all"}] * _MAX_STREAMS
    with av.open(
        guarded, mode="r", options=_OPEN_OPTIONS, stream_options=of_streams, metadata_errors="replace"
    ) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise NoVideoStreamError("it has no video stream, only sound, a cover picture or data")
        if stream.codec_context is None or stream.time_base is None:
            raise UnreadableVideoError("its codec is unknown to this FFmpeg")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield Stream(container, stream, deadline, is_thorough=is_thorough)


class Stream:
    """The video stream of an open container. Used by one thread at a time."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, deadline: Deadline, *, is_thorough: bool
    ) -> None:
        self.container, self.stream, self.is_thorough = container, stream, is_thorough
        self._deadline = deadline
        assert stream.time_base is not None
        self.tick_seconds: Fraction = stream.time_base
        self._kept: list[VideoPacket] | None = None
        self._start_ticks: int | None = None

    def index(
        self, *, start_seconds: float = 0.0, end_seconds: float = FAR_SECONDS, locate_in: BinaryIO | None = None
    ) -> PacketIndex:
        """An index of the packets that frames in a span need.

        With `locate_in`, the file, of the whole stream and with the places of the packets, if all lie in one piece.
        """
        if start_seconds == 0.0 and end_seconds == FAR_SECONDS:
            return self._scan(None, start_ticks=None, end_ticks=None, locate_in=locate_in)
        first_pts = self._first_pts()
        low, high = (first_pts + int(seconds / self.tick_seconds) for seconds in (start_seconds, end_seconds))
        for step_seconds in _STEPS_BACK_SECONDS:
            start_ticks = low - int(step_seconds / self.tick_seconds)
            is_all = start_ticks <= first_pts
            try:
                found = self._scan(first_pts, start_ticks=None if is_all else start_ticks, end_ticks=high + 1)
            except _NothingError:
                if is_all:
                    raise
                continue
            shown = found.shown
            on_screen = shown[found.pts[shown] <= low]
            if is_all or (len(on_screen) and found.starts_of(on_screen[-1:])[0] >= 0):
                break
        return replace(found, span_seconds=(start_seconds, end_seconds))

    def packets(self, index: PacketIndex, first: int, last: int) -> list[VideoPacket]:
        """Packets `first` to `last` of the index that `index` gave last."""
        if self._kept is not None:
            return self._kept[first : last + 1]
        for step_seconds in _STEPS_BACK_SECONDS:
            found: list[VideoPacket] = []
            for packet in self._demux(int(index.pts[first]) - int(step_seconds / self.tick_seconds)):
                if packet.pts == index.pts[first + len(found)]:
                    found.append(packet)
                    if len(found) > last - first:
                        return found
                elif found:
                    break
        raise CorruptVideoError("its packets are not where they were a moment ago; remux it, for example to mp4")

    def decode_all(self) -> Iterator[VideoFrame]:
        """Every frame from the first on, by FFmpeg's own bookkeeping: slow, and right where nothing else is."""
        context = self.stream.codec_context
        context.flush_buffers()
        for packet in chain(self._demux(None), [None]):
            yield from context.decode(packet)

    def check_first_frame(self) -> None:
        """Raise UnreadableVideoError unless a frame can be decoded."""
        frame = next(self.decode_all(), None)
        self.stream.codec_context.flush_buffers()
        if frame is None:
            raise UnreadableVideoError("not one frame can be decoded; download it again")

    def _scan(
        self,
        first_pts: int | None,
        *,
        start_ticks: int | None,
        end_ticks: int | None,
        locate_in: BinaryIO | None = None,
    ) -> PacketIndex:
        rate = float(self.stream.average_rate or 0)
        usual = max(1, round(1 / (rate * self.tick_seconds))) if rate else 1
        rows, kept, is_kept, num_kept_bytes, num_late = [], [], True, 0, 0
        is_corrupt = False
        for packet in self._demux(start_ticks):
            moment = _pts(packet)
            shown = not packet.is_discard and not self._is_invisible(packet)
            place = -1 if locate_in is None else _place(packet, locate_in)
            rows.append((moment, packet.size, packet.duration or usual, place, packet.is_keyframe, shown))
            is_corrupt = packet.is_corrupt
            num_kept_bytes += packet.size
            kept.append(packet)
            if num_kept_bytes > KEPT_BYTES:
                is_kept, kept = False, []
            if end_ticks is not None and moment >= end_ticks and shown:  # hidden ones do not say when the video ends
                num_late += 1
                # A packet is not shown before it is decoded: nothing that is needed comes later.
                if num_late > _MAX_REORDERED or (packet.dts is not None and packet.dts >= end_ticks):
                    break
        self._kept = kept if is_kept else None
        rows = rows[:-1] if is_corrupt else rows  # the last packet only: the file is cut off in it
        if not rows:
            raise _NothingError("not one frame can be decoded; download it again")
        pts, sizes, durations, places = (np.array([row[i] for row in rows], np.int64) for i in range(4))
        is_key, is_shown = (np.array([row[i] for row in rows], bool) for i in (4, 5))
        is_shown &= (
            pts >= pts[0]
        )  # what comes after the first keyframe and is shown before it refers to what is not here
        if not is_shown.any():
            raise _NothingError("none of its frames is shown")
        if has_repeats(pts[is_shown]):
            raise UnreadableVideoError("several of its frames have one time; remux it, for example to mp4")
        context = self.stream.codec_context
        return PacketIndex(
            codec=context.codec.canonical_name,
            extradata=context.extradata or b"",
            rotation_degrees=self._rotation(),
            color_space=int(context.colorspace),
            color_range=int(context.color_range),
            tick_seconds=self.tick_seconds,
            first_pts=int(pts[is_shown].min()) if first_pts is None else first_pts,
            end_pts=int((pts + durations)[is_shown].max()),
            pts=pts,
            is_key=is_key,
            is_shown=is_shown,
            sizes=sizes,
            offsets=places if (places >= 0).all() else None,
            is_truncated=is_corrupt,
        )

    def _first_pts(self) -> int:
        """Of the first frame that is shown."""
        key_pts = first = None
        num_later = 0
        for packet in self._demux(None):
            key_pts = _pts(packet) if key_pts is None else key_pts
            if first is not None:
                num_later += 1
                if num_later > _MAX_REORDERED or (packet.dts is not None and packet.dts >= first):
                    break
            if not packet.is_discard and _pts(packet) >= key_pts:
                first = min(_pts(packet), _pts(packet) if first is None else first)
        if first is None:
            raise UnreadableVideoError("not one frame can be decoded; download it again")
        return first

    def _demux(self, ticks: int | None) -> Iterator[VideoPacket]:
        """Packets in decoding order, from the keyframe before a time or from the first keyframe on."""
        if self._start_ticks is not None:
            self.container.seek(self._start_ticks if ticks is None else ticks, stream=self.stream)
        elif ticks is not None:
            next(self._demux(None), None)
            self.container.seek(ticks, stream=self.stream)
        has_begun = False
        for packet in self.container.demux(self.stream):
            self._deadline.check()
            has_begun = has_begun or packet.is_keyframe
            if has_begun and packet.size:
                if self._start_ticks is None:
                    self._start_ticks = _pts(packet) if packet.dts is None else packet.dts
                yield packet

    def _is_invisible(self, packet: VideoPacket) -> bool:
        """VP8 keeps pictures that are only referred to in packets of their own (RFC 6386, section 9.1)."""
        return self.stream.codec_context.codec.canonical_name == "vp8" and not bytes(packet)[0] >> 4 & 1

    def _rotation(self) -> int:
        """As a decoded frame states it: only containers of this kind can."""
        if not {"mov", "matroska"} & set(self.container.format.name.split(",")):
            return 0
        frame = next(self.decode_all(), None)
        self.stream.codec_context.flush_buffers()
        return 0 if frame is None else frame.rotation


class _GuardedFile:
    """A file as FFmpeg expects it: a place before the first byte is refused by a number, not by an exception.

    Empty files and damaged headers lead to such places. A place past the end is fine, there is nothing to read there.
    """

    def __init__(self, file: BinaryIO, deadline: Deadline) -> None:
        self._file, self._seek, self.tell = file, file.seek, file.tell
        self._deadline = deadline
        self._num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, num_bytes: int) -> bytes:
        self._deadline.check()
        return self._file.read(num_bytes)

    def seek(self, offset: int, whence: int) -> int:
        position = offset + (0, self.tell(), self._num_bytes)[whence]
        if position < 0:
            return -errno.EINVAL
        self._seek(min(position, self._num_bytes))
        return position


def _place(packet: VideoPacket, file: BinaryIO) -> int:
    """Where the packet's bytes stand in the file in one piece; -1 if they do not.

    A container may put a header of its own before them, or, as MPEG-TS does, cut them into pieces.
    """
    # Parameter sets that come beside a packet are lost when only its bytes are read.
    if packet.pos is None or packet.pos < 0 or packet.has_sidedata("new_extradata"):
        return -1
    at = file.tell()
    file.seek(packet.pos)
    found = file.read(packet.size + _MAX_BLOCK_HEADER_BYTES).find(bytes(packet))
    file.seek(at)
    return -1 if found < 0 else packet.pos + found


def _pts(packet: VideoPacket) -> int:
    if packet.pts is None:
        raise UnreadableVideoError("its frames carry no times; remux it, for example to mp4")
    return packet.pts
