"""One clip as a small MP4 that is quick to decode: the frames of a span, scaled, upright, at the times they had.

The frame at time t of the result is the frame that `read_frames` gives at time t of the span.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast, get_args

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from civid_loader.deadlines import Deadline
from civid_loader.errors import CorruptVideoError, MissingDependencyError, TruncatedVideoError, UnreadableVideoError
from civid_loader.packets import TOLERANCE_SECONDS, Longs, PacketIndex
from civid_loader.sound import samples_of
from civid_loader.stream import FAR_SECONDS, Stream, open_stream

Codec = Literal["h264", "hevc", "av1"]

_ENCODERS: Final = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
_CRF: Final = {"h264": 18, "hevc": 20, "av1": 24}
_TICKS_PER_SECOND: Final = 90_000
"""At least: a span may start between two ticks of its file, at 1/25 s or 1/1000 s."""
_MAX_FPS: Final = 240  # SVT-AV1 refuses more; what the rate says steers the encoder, and changes no time
_AUDIO_RATE_HZ: Final = 48_000
# From PyAV 17 on the conversion starts threads of its own unless told not to; before, it knows no such argument.
_ONE_THREAD: Final[dict[str, Any]] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxySettings:
    """How a training copy is encoded."""

    short_side_px: int = 256
    """Of the frame; even. Smaller videos keep their size."""
    gop: int = 16
    """Frames from one keyframe to the next: closed groups, all of this length but the last."""
    codec: Codec = "h264"
    crf: int | None = None
    """Quality as the encoder counts it, lower is better; None: 18 (h264), 20 (hevc), 24 (av1)."""
    audio: bool = False
    """Keep the sound, as AAC."""

    def __post_init__(self) -> None:
        if self.codec not in get_args(Codec):
            raise ValueError(f"codec={self.codec!r}: must be one of {', '.join(get_args(Codec))}")
        if self.short_side_px < 16 or self.short_side_px % 2:
            raise ValueError(f"short_side_px={self.short_side_px!r}: an even number of at least 16, for example 256")
        if self.gop < 1:
            raise ValueError(f"gop={self.gop!r}: a number of frames of at least 1, for example 16")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise ValueError(f"crf={self.crf!r}: between 0 and 51 (h264, hevc) or 63 (av1), for example 18")

    @property
    def encoder(self) -> str:
        """FFmpeg's name of the encoder."""
        return _ENCODERS[self.codec]

    def encoder_options(self) -> dict[str, str]:
        """What the encoder is told: one thread, no keyframe but every `gop` frames, no picture across a keyframe.

        B-frames that nothing refers to are skipped by the loader: 7-17 % less CPU for 8 frames at the same size. Not
        used: `tune=fastdecode`, twice as quick to decode, since x264 then gave other bytes in 1 of 30 runs.
        """
        crf = str(_CRF[self.codec] if self.crf is None else self.crf)
        groups = f"keyint={self.gop}:min-keyint={self.gop}:scenecut=0:open-gop=0"
        x26x = {"preset": "fast", "crf": crf}
        if self.codec == "h264":
            return x26x | {"x264-params": f"{groups}:b-pyramid=none"}
        if self.codec == "hevc":
            return x26x | {"x265-params": f"{groups}:b-pyramid=0:pools=none:frame-threads=1:log-level=none"}
        svt = "scd=0:irefresh-type=2:fast-decode=1:lp=1"
        return {"preset": "8", "crf": crf, "g": str(self.gop), "svtav1-params": svt}


def check_encoder(settings: ProxySettings) -> None:
    """Refuse a codec that this FFmpeg cannot write.

    Raises:
        MissingDependencyError: names the encoder.
    """
    for name in (settings.encoder, *["aac"][: settings.audio]):
        try:
            av.Codec(name, "w")
        except UnknownCodecError as error:
            raise MissingDependencyError(
                f"the FFmpeg of this PyAV ({av.__version__}) has no encoder {name}; the wheels have it: "
                "pip install --force-reinstall --only-binary=av av. Or choose another codec"
            ) from error


def encode_proxy(
    file: BinaryIO, target: Path, *, span: tuple[float, float | None] | None, settings: ProxySettings
) -> None:
    """Write the frames of a video, or of a span [start, end) of it, to the MP4 file `target`; a kill leaves half of it.

    Raises:
        UnreadableVideoError: not a video; cut off; over before the span starts; or a frame of the span is damaged.
    """
    start_seconds, end_seconds = span or (0.0, None)
    with open_stream(file, Deadline(None)) as stream:
        timeline = _Timeline(stream.index(start_seconds=start_seconds, end_seconds=end_seconds or FAR_SECONDS), span)
        frames = _checked(_decoded(stream, timeline, is_whole=span is None), timeline)
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as output:
            _Encoding(output, stream, timeline, settings).run(frames)


class _Timeline:
    """Which frames are wanted, and when each is shown in the result."""

    def __init__(self, index: PacketIndex, span: tuple[float, float | None] | None) -> None:
        start_seconds, end_seconds = span or (0.0, None)
        self.index = index
        end = min(end_seconds or FAR_SECONDS, index.end_seconds)
        if index.is_truncated:
            raise TruncatedVideoError("it is cut off: packets end in the middle; download it again")
        if end <= start_seconds:
            raise UnreadableVideoError(
                f"the span starts at {start_seconds} s, but the video ends at {index.end_seconds} s: it is cut off, or "
                "not the one that was annotated"
            )
        shown = index.shown
        moments = index.seconds(index.pts[shown])
        first, last = (int(np.searchsorted(moments, at - TOLERANCE_SECONDS)) for at in (start_seconds, end))
        self.packets: Longs = shown[first:last] if first < last else shown[max(0, first - 1) : first]
        """Of the wanted frames, in order of display; where none begins within the span, of the one on screen."""
        self.pts = index.pts[self.packets]
        # Ticks of the result: whole parts of the source's, so that its times are kept to the last digit, but no coarser
        # than 1/90000 s. 1001/24000 s: each tick is 4004 of 1/96000 s.
        tick = index.tick_seconds
        finer = -(-_TICKS_PER_SECOND // tick.denominator)
        self.tick_seconds = Fraction(1, tick.denominator * finer)
        offset, over = (round(Fraction(at) / self.tick_seconds) for at in (start_seconds, end))
        ticks = (self.pts - index.first_pts) * (tick.numerator * finer) - offset
        # A span that starts within a frame: its first frame stands for what comes before, as in `read_frames`.
        ticks[0] = 0
        self.ticks: list[int] = ticks.tolist()
        """[frame], when each is shown."""
        self.durations: list[int] = np.diff(ticks, append=max(over - offset, ticks[-1] + 1)).tolist()
        """[frame], for how long."""

        self.begin_seconds = float(index.first_pts * index.tick_seconds) + start_seconds
        """Of the span, as the container counts."""
        self.duration_seconds = float((over - offset) * self.tick_seconds)


def _decoded(stream: Stream, timeline: _Timeline, *, is_whole: bool) -> Iterator[VideoFrame]:
    """Frames in order of display, the wanted ones and some before them."""
    if is_whole:
        yield from stream.decode_all()
        return
    first = max(0, int(timeline.index.starts_of(timeline.packets).min()))
    context = stream.stream.codec_context
    context.flush_buffers()
    for packet in (*stream.packets(timeline.index, first, int(timeline.packets.max())), None):
        yield from context.decode(packet)


def _checked(frames: Iterator[VideoFrame], timeline: _Timeline) -> Iterator[VideoFrame]:
    """The wanted frames, each of them, none damaged or predicted from a damaged one."""
    wanted = timeline.pts.tolist()
    num_found, first = 0, None
    try:
        for frame in frames:
            if frame.is_corrupt:
                raise CorruptVideoError("packets are damaged; download it again")
            if num_found < len(wanted) and frame.pts == wanted[num_found]:
                first = first or frame
                if (frame.width, frame.height) != (first.width, first.height):
                    raise UnreadableVideoError(
                        f"its frames change from {first.width}x{first.height} to {frame.width}x{frame.height} px; "
                        "encode it again in one size"
                    )
                num_found += 1
                yield frame
    except av.error.FFmpegError as error:
        raise CorruptVideoError(f"packets cannot be decoded ({error.strerror}); download it again") from error
    if num_found < len(wanted):
        moment = float((wanted[num_found] - timeline.index.first_pts) * timeline.index.tick_seconds)
        raise CorruptVideoError(f"the frame at {moment:.3f} s cannot be decoded; download it again")


class _Encoding:
    """One MP4 on its way to the disk."""

    def __init__(self, output: OutputContainer, stream: Stream, timeline: _Timeline, settings: ProxySettings) -> None:
        self._output, self._input, self._timeline, self._settings = output, stream, timeline, settings
        self._turns = timeline.index.rotation_degrees // 90
        self._reformatter = VideoReformatter()

    def run(self, frames: Iterator[VideoFrame]) -> None:
        first = next(frames)
        size = self._stored_size(first)
        image = self._upright(first, size)
        video = self._add_video(image)
        sound = self._input.container.streams.best("audio") if self._settings.audio else None
        sound_output = self._add_sound(sound) if isinstance(sound, AudioStream) else None
        packets: list[Packet[VideoStream]] = []
        for number, ticks in enumerate(self._timeline.ticks):
            image = image if number == 0 else self._upright(next(frames), size)
            image.pts, image.time_base, image.pict_type = ticks, self._timeline.tick_seconds, PictureType.NONE
            packets += video.encode(image)
        for _ in frames:  # what the decoder still holds may show that frames already encoded were damaged
            pass
        for packet in self._timed([*packets, *video.encode()]):
            self._output.mux(packet)
        if isinstance(sound, AudioStream) and sound_output is not None:
            for samples in samples_of(
                self._input,
                sound,
                rate_hz=sound_output.rate,
                layout=sound_output.layout.name,
                begin_seconds=self._timeline.begin_seconds,
                duration_seconds=self._timeline.duration_seconds,
            ):
                self._output.mux(sound_output.encode(samples))
            self._output.mux(sound_output.encode())

    def _stored_size(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) before the frame is turned: even, scaled down to the short side. 1280x720: 456x256."""
        scale = min(1.0, self._settings.short_side_px / min(frame.width, frame.height))
        width, height = (
            max(2, min(2 * round(side * scale / 2), side // 2 * 2)) for side in (frame.width, frame.height)
        )
        return width, height

    def _upright(self, frame: VideoFrame, size: tuple[int, int]) -> VideoFrame:
        # Nearest to how `read_frames` scales, and the smallest: bicubic is 0-0.8 dB further off and 5-13 % larger.
        small = self._reformatter.reformat(
            frame, width=size[0], height=size[1], format="yuv420p", interpolation="BILINEAR", **_ONE_THREAD
        )
        if self._turns % 4 == 0:
            return small
        planes = [
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in small.planes
        ]
        turned = np.concatenate([np.rot90(plane, self._turns).ravel() for plane in planes])
        width = size[self._turns % 2]
        upright = VideoFrame.from_ndarray(turned.reshape(-1, width), format="yuv420p")
        upright.colorspace, upright.color_range = small.colorspace, small.color_range
        return upright

    def _add_video(self, image: VideoFrame) -> VideoStream:
        source, settings = self._input.stream, self._settings
        rate = min(Fraction(_MAX_FPS), max(Fraction(1), source.average_rate or Fraction(25))).limit_denominator(1001)
        stream = cast(VideoStream, self._output.add_stream(settings.encoder, rate=rate))
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = image.width, image.height, "yuv420p"
        context.time_base = stream.time_base = self._timeline.tick_seconds
        context.thread_count, context.options = 1, settings.encoder_options()
        context.colorspace, context.color_range = image.colorspace, image.color_range
        context.color_primaries, context.color_trc = image.color_primaries, image.color_trc
        if aspect := source.sample_aspect_ratio:
            context.sample_aspect_ratio = 1 / aspect if self._turns % 2 else aspect
        os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 writes 20 lines to stderr for each video
        if settings.codec == "hevc":
            context.codec_tag = "hvc1"  # what Apple's players ask for
        return stream

    def _add_sound(self, source: AudioStream) -> AudioStream:
        allowed = av.Codec("aac", "w").audio_rates or []
        rate = source.rate if source.rate in allowed else _AUDIO_RATE_HZ
        return self._output.add_stream("aac", rate=rate, layout="mono" if source.channels == 1 else "stereo")

    def _timed(self, packets: list["Packet[VideoStream]"]) -> list["Packet[VideoStream]"]:
        """The packets with decoding times that make every duration true.

        MP4 knows how long a frame is shown only as the step to the next decoding time. So each packet's decoding time
        is that of the one before plus the duration of its frame, all of them early enough for every frame to be decoded
        when it is shown.
        """
        durations = dict(zip(self._timeline.ticks, self._timeline.durations, strict=True))
        ticks, late = 0, 0
        for packet in packets:
            assert packet.pts is not None
            packet.dts, packet.duration = ticks, durations.pop(packet.pts)
            ticks, late = ticks + packet.duration, max(late, ticks - packet.pts)
        assert not durations, "the encoder dropped frames"
        for packet in packets:
            packet.dts = cast(int, packet.dts) - late
        return packets
