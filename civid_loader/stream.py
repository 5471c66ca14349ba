"""The video stream of an open container: where its frames lie in time, and how to decode from a keyframe on."""

from collections.abc import Generator, Iterator
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from itertools import chain
from typing import Final, TypeAlias

from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from civid_loader.errors import NoVideoStreamError, UnreadableVideoError

_VideoPacket: TypeAlias = "Packet[VideoStream]"
TOLERANCE_SECONDS: Final = 1e-6
"""Times closer than this are the same moment."""

FAR_SECONDS: Final = 1e9
# Where to start when the keyframe before the first target does not lead to it (open GOP, intra refresh, containers that
# seek by decoding time): that much earlier, at last from the first packet.
_STEPS_BACK_SECONDS: Final = (0.0, 2.0, 20.0, FAR_SECONDS)


@dataclass(frozen=True, slots=True)
class VideoSource:
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
    def of(cls, container: InputContainer, *, num_threads: int) -> "VideoSource":
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
                return min(self.seconds(max(ends)), limit_seconds or FAR_SECONDS)
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
