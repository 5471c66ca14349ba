"""The packets of a video, by number: cut from byte ranges where an index says where they lie, else from a demuxer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from av.packet import Packet
from av.video.frame import VideoFrame

from civid_loader.deadlines import Deadline
from civid_loader.errors import CorruptVideoError, TruncatedVideoError, UnreadableVideoError
from civid_loader.mp4 import read_mp4_index
from civid_loader.packets import EDGE_BYTES, PacketIndex, edge_ranges, edges_hash
from civid_loader.stream import Stream, VideoPacket, open_stream
from civid_loader.videos import ByteSource, as_file

SENDABLE_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mjpeg"})
"""Codecs whose packets a bare decoder takes as they lie in the file."""


class StaleIndexError(Exception):
    """The index is of another file, or of this one before it changed."""


class InsufficientIndexError(Exception):
    """Frames do not come out of the packets that the index leads to, though nothing is damaged."""


class PacketReader(Protocol):
    """Packets of one video."""

    @property
    def index(self) -> PacketIndex:
        """Of the packets that can be read."""

    def read(self, runs: Sequence[tuple[int, int]]) -> list[Iterable[VideoPacket]]:
        """The packets of several runs (first, last), all fetched when this returns.

        Raises:
            StaleIndexError: the bytes are not those that were indexed.
        """

    def decode_all(self, wanted: set[int], take: Callable[[int, VideoFrame], None]) -> None:
        """The frames of some packets, found by decoding from the very first.

        Raises:
            InsufficientIndexError: this reader cannot.
        """


@contextmanager
def open_packets(
    source: ByteSource,
    *,
    index: PacketIndex | None,
    span: tuple[float, float],
    deadline: Deadline,
    by_demuxer: bool = False,
) -> Iterator[PacketReader]:
    """A reader of the packets that a span needs, while the `with` statement lasts; span ends may be `FAR_SECONDS`.

    Uses `index` if it says where packets lie and covers the span; else the header of an MP4; else a demuxer.

    Raises:
        UnreadableVideoError: no video, or one whose frames carry no times; see `open_stream`.
    """
    if index is not None and _covers(index, span) and index.offsets is not None and index.codec in SENDABLE_CODECS:
        yield RangeReader(source, index, deadline, is_stored=True)
    elif not by_demuxer and (found := read_mp4_index(source, deadline)) is not None:
        yield RangeReader(source, found, deadline, is_stored=False)
    else:
        with (
            as_file(source, timeout_seconds=deadline.left_seconds) as file,
            open_stream(file, deadline, is_thorough=by_demuxer) as stream,
        ):
            yield StreamReader(stream, stream.index(start_seconds=span[0], end_seconds=span[1]))


def _covers(index: PacketIndex, span: tuple[float, float]) -> bool:
    own = index.span_seconds
    return own is None or (own[0] <= span[0] + 1e-6 and span[1] <= own[1] + 1e-6)


@dataclass(slots=True)
class RangeReader:
    """Cuts packets from byte ranges. A stored index is checked against the file's edges, in the first round trip."""

    source: ByteSource
    index: PacketIndex
    deadline: Deadline
    is_stored: bool

    def read(self, runs: Sequence[tuple[int, int]]) -> list[Iterable[VideoPacket]]:
        """See `PacketReader`."""
        ranges = [self.index.byte_range(first, last) for first, last in runs]
        edges = edge_ranges(self.index.num_file_bytes) if self.is_stored else []
        found = self.source.read_ranges([*edges, *ranges], timeout_seconds=self.deadline.left_seconds)
        if self.is_stored:
            self._check(found[: len(edges)])
            self.is_stored = False
        found = found[len(edges) :]
        if any(len(data) != length for data, (_, length) in zip(found, ranges, strict=True)):
            raise TruncatedVideoError("the file ends before its last frame; it may still be written, or was cut off")
        places = zip(runs, ranges, found, strict=True)
        return [self._cut(data, offset, first, last) for (first, last), (offset, _), data in places]

    def decode_all(self, wanted: set[int], take: Callable[[int, VideoFrame], None]) -> None:
        """See `PacketReader`."""
        raise InsufficientIndexError

    def _check(self, edges: list[bytes]) -> None:
        size = self.index.num_file_bytes
        if len(edges[1]) != min(EDGE_BYTES, size) or edges_hash(*edges) != self.index.edges_hash:
            raise StaleIndexError

    def _cut(self, data: bytes, offset: int, first: int, last: int) -> Iterator[VideoPacket]:
        assert self.index.offsets is not None
        starts = (self.index.offsets[first : last + 1] - offset).tolist()
        sizes, view = self.index.sizes[first : last + 1].tolist(), memoryview(data)
        for start, size, pts in zip(starts, sizes, self.index.pts[first : last + 1].tolist(), strict=True):
            # Made by its size: then PyAV puts zeros behind the packet, which decoders read beyond; bytes given it takes
            # as they are.
            packet: Any = Packet(size)
            packet.update(view[start : start + size])
            packet.pts, packet.time_base = pts, self.index.tick_seconds
            yield packet


@dataclass(frozen=True, slots=True)
class StreamReader:
    """Takes packets from a demuxer."""

    stream: Stream
    index: PacketIndex

    def read(self, runs: Sequence[tuple[int, int]]) -> list[Iterable[VideoPacket]]:
        """See `PacketReader`."""
        return [self.stream.packets(self.index, first, last) for first, last in runs]

    def decode_all(self, wanted: set[int], take: Callable[[int, VideoFrame], None]) -> None:
        """See `PacketReader`."""
        if not self.stream.is_thorough:
            raise InsufficientIndexError
        packets = {int(self.index.pts[packet]): packet for packet in wanted}
        previous_pts = None
        for frame in self.stream.decode_all():
            if frame.pts is None or (previous_pts is not None and frame.pts < previous_pts):
                raise UnreadableVideoError("the times of its frames go backwards; remux it, for example to mp4")
            previous_pts = frame.pts
            if frame.pts in packets:
                take(packets.pop(frame.pts), frame)
            if not packets:
                return
        seconds = float((min(packets) - self.index.first_pts) * self.index.tick_seconds)
        raise CorruptVideoError(f"the frame at {seconds:.3f} s of the file does not come out of the decoder")
