"""What a video file really holds: found by opening it, counted from its packets, never believed from its header."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.video.reformatter import ColorRange, Colorspace

from civid_loader.deadlines import Deadline
from civid_loader.errors import NoVideoStreamError, UnreadableVideoError, VideoError
from civid_loader.mp4 import read_mp4_index
from civid_loader.packets import PacketIndex, edge_ranges, edges_hash
from civid_loader.stream import Stream, open_stream
from civid_loader.videos import ByteSource, as_file

_BLOCK_BYTES: Final = 8 << 20
_VFR_SHARE: Final = 0.1
"""Frames whose distance differs from the usual one by more than this share make a variable frame rate. Matroska rounds
times to milliseconds: 16 and 17 ms at 60 fps are a constant rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """One video file. The fields are columns of the media layer, `schema.MEDIA_FEATURES`."""

    num_bytes: int
    fingerprint: str
    """Length and a hash of head and tail: another one is another file."""
    sha256: str | None
    container: str
    codec: str
    width: int
    """px, as displayed: after rotation."""
    height: int
    """px, as displayed."""
    rotation_degrees: int
    pixel_format: str | None
    color_range: str | None
    color_space: str | None
    fps: float
    """Average: frames that are shown, by duration."""
    real_fps: float | None
    """The lowest rate of which all times are multiples, as far as FFmpeg can tell."""
    is_vfr: bool
    num_frames: int
    """Counted: frames that are shown."""
    num_keyframes: int
    start_seconds: float
    """The time the container gives the first frame."""
    duration_seconds: float
    """From the first frame to the end of the last."""
    is_truncated: bool
    has_audio: bool
    audio_codec: str | None
    audio_sample_rate_hz: int | None
    audio_channels: int | None
    index: PacketIndex
    """Of the whole file; says where packets lie, or is of no use but for its times."""


def fingerprint(source: ByteSource, *, timeout_seconds: float | None = None) -> tuple[int, int, str]:
    """(length, hash of head and tail, both as a text): two small reads tell whether a file is still the same."""
    deadline = Deadline(timeout_seconds)
    num_bytes = source.size(timeout_seconds=deadline.left_seconds)
    edges = source.read_ranges(edge_ranges(num_bytes), timeout_seconds=deadline.left_seconds)
    hashed = edges_hash(*edges)
    return num_bytes, hashed, f"{num_bytes}-{hashed & (1 << 64) - 1:016x}"


def probe(source: ByteSource, *, with_sha256: bool = False, timeout_seconds: float | None = None) -> VideoFacts:
    """Open a video, decode its first frame, and count its packets.

    Raises:
        NoVideoStreamError: sound only.
        UnreadableVideoError: not a video, or none that can be indexed.
        VideoTimeoutError: it took longer than `timeout_seconds`.
        VideoError: as reading the source raises.
    """
    deadline = Deadline(timeout_seconds)
    num_bytes, hashed, text = fingerprint(source, timeout_seconds=timeout_seconds)
    try:
        with as_file(source, timeout_seconds=deadline.left_seconds) as file, open_stream(file, deadline) as stream:
            index = read_mp4_index(source, deadline) or stream.index(locate_in=file)
            # The rotation is that of a decoded frame: one at least there must be.
            turned = stream.rotation_degrees
            index = replace(index, num_file_bytes=num_bytes, edges_hash=hashed, rotation_degrees=turned)
            sha256 = _sha256(source, deadline) if with_sha256 else None
            return _facts(stream, index, num_bytes=num_bytes, fingerprint=text, sha256=sha256)
    except VideoError as error:
        raise error.within(source.name) from error
    except av.error.FFmpegError as error:
        raise UnreadableVideoError(f"{source.name}: cannot be opened as a video ({error.strerror})") from error


def _facts(stream: Stream, index: PacketIndex, *, num_bytes: int, fingerprint: str, sha256: str | None) -> VideoFacts:
    context, container = stream.stream.codec_context, stream.container
    if not context.width or not context.height:
        raise NoVideoStreamError("its video stream has no size")
    turned = index.rotation_degrees % 180 != 0
    audio = next((one for one in container.streams if isinstance(one, AudioStream)), None)
    sound = None if audio is None else audio.codec_context
    start = stream.stream.start_time
    return VideoFacts(
        num_bytes=num_bytes,
        fingerprint=fingerprint,
        sha256=sha256,
        container=container.format.name,
        codec=index.codec,
        width=context.height if turned else context.width,
        height=context.width if turned else context.height,
        rotation_degrees=index.rotation_degrees,
        pixel_format=context.pix_fmt,
        color_range=_name(ColorRange, context.color_range),
        color_space=_name(Colorspace, context.colorspace),
        fps=int(index.is_shown.sum()) / index.end_seconds,
        real_fps=float(stream.stream.base_rate) if stream.stream.base_rate else None,
        is_vfr=_is_vfr(index),
        num_frames=int(index.is_shown.sum()),
        num_keyframes=int((index.is_key & index.is_shown).sum()),
        start_seconds=float((index.first_pts if start is None else start) * stream.tick_seconds),
        duration_seconds=index.end_seconds,
        is_truncated=index.is_truncated,
        has_audio=audio is not None,
        audio_codec=None if sound is None else sound.codec.canonical_name,
        audio_sample_rate_hz=None if sound is None else sound.sample_rate or None,
        audio_channels=None if sound is None else sound.channels or None,
        index=index,
    )


def _is_vfr(index: PacketIndex) -> bool:
    steps = np.diff(index.pts[index.shown])
    return bool(len(steps)) and bool((np.abs(steps - np.median(steps)) > _VFR_SHARE * np.median(steps)).any())


def _name(kind: type[Colorspace] | type[ColorRange], number: int) -> str | None:
    """Lower-case name; None where the stream states none."""
    known = {member.value: member.name for member in kind}
    name = known.get(number, "unspecified").lower()
    return None if name == "unspecified" else name


def _sha256(source: ByteSource, deadline: Deadline) -> str:
    digest = hashlib.sha256()
    for block in _blocks(source):
        deadline.check()
        digest.update(block)
    return digest.hexdigest()


def _blocks(source: ByteSource) -> Iterator[bytes]:
    for start in range(0, source.size(), _BLOCK_BYTES):
        yield source.read_ranges([(start, _BLOCK_BYTES)])[0]
