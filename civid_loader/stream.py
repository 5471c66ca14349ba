"""A video opened by FFmpeg: for containers without a header to read, and streams that only FFmpeg understands."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import BinaryIO, Final, TypeAlias

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from civid_loader.containers import may_have_projection, open_container, place_of
from civid_loader.deadlines import Deadline
from civid_loader.errors import CorruptVideoError, NoVideoStreamError, UnreadableVideoError
from civid_loader.packets import PacketIndex, has_repeats

VideoPacket: TypeAlias = "Packet[VideoStream]"
FAR_SECONDS: Final = 1e9
KEPT_BYTES: Final = 32 << 20
"""Packets seen in the scan are kept up to this much, and need not be looked for again."""
_MAX_REORDERED: Final = 32
# How much earlier to start where a seek did not lead to the packet wanted: some containers seek by decoding time.
_STEPS_BACK_SECONDS: Final = (0.0, 2.0, 20.0, FAR_SECONDS)


class _NothingError(UnreadableVideoError):
    """No frame in the packets looked at."""


@contextmanager
def open_stream(file: BinaryIO, deadline: Deadline, *, is_thorough: bool = False) -> Iterator["Stream"]:
    """The best video stream of a file, while the `with` statement lasts; for `is_thorough` see `open_container`.

    Raises:
        NoVideoStreamError: sound only.
        UnreadableVideoError: a codec unknown to this FFmpeg.
        av.error.FFmpegError: not a video.
    """
    with open_container(file, deadline, is_thorough=is_thorough) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise NoVideoStreamError("it has no video stream, only sound, a cover picture or data")
        if stream.codec_context is None or stream.time_base is None:
            raise UnreadableVideoError("its codec is unknown to this FFmpeg")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield Stream(container, stream, deadline, file=file, is_thorough=is_thorough)


class Stream:
    """The video stream of an open container. Used by one thread at a time."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        deadline: Deadline,
        *,
        file: BinaryIO,
        is_thorough: bool,
    ) -> None:
        self.container, self.stream, self.is_thorough = container, stream, is_thorough
        self._deadline = deadline
        assert stream.time_base is not None
        self.tick_seconds: Fraction = stream.time_base
        self._file = file
        self._rotation_degrees: int | None = None
        self._kept: list[VideoPacket] | None = None
        self._start_ticks: int | None = None

    @property
    def first_seconds(self) -> float:
        """When the first frame is shown, as the container counts."""
        return float(self._first_pts() * self.tick_seconds)

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

    @property
    def rotation_degrees(self) -> int:
        """By how much frames are to be turned counter-clockwise. Only a decoded frame tells: the first one.

        Raises:
            UnreadableVideoError: not one can be decoded.
        """
        if self._rotation_degrees is None:
            context = self.stream.codec_context
            context.flush_buffers()
            packet = next(self._demux(None), None)
            frames = [] if packet is None else [*context.decode(packet), *context.decode(None)]
            frame = frames[0] if frames else next(self.decode_all(), None)
            context.flush_buffers()
            if frame is None:
                raise UnreadableVideoError("not one frame can be decoded; download it again")
            self._rotation_degrees = frame.rotation
        return self._rotation_degrees

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
            place = -1 if locate_in is None else place_of(packet, locate_in)
            rows.append((moment, packet.size, packet.duration or usual, place, packet.is_keyframe, shown))
            is_corrupt = packet.is_corrupt
            num_kept_bytes += packet.size
            kept.append(packet)
            if num_kept_bytes > KEPT_BYTES:
                is_kept, kept = False, []
            if end_ticks is not None and moment >= end_ticks and shown:  # hidden ones do not say when the video ends
                num_late += 1
                # Not by the time of decoding: Matroska states none, and FFmpeg guesses it wrong for B-frame pyramids.
                if num_late > _MAX_REORDERED:
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
            rotation_degrees=self.rotation_degrees if self._may_be_turned() else 0,
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
                if num_later > _MAX_REORDERED:
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

    def _may_be_turned(self) -> bool:
        """Whether the container can say that frames are to be turned; to decode one only to know takes long."""
        kinds = set(self.container.format.name.split(","))
        return "mov" in kinds or ("matroska" in kinds and may_have_projection(self._file))


def _pts(packet: VideoPacket) -> int:
    if packet.pts is None:
        raise UnreadableVideoError("its frames carry no times; remux it, for example to mp4")
    return packet.pts
