"""The packet index of a video: where each frame's bytes lie, when it is shown, and what must be decoded to see it.

One entry per packet in decoding order. Times are ticks of the stream's time base, counted as the container counts;
second 0 of everything the package says is `first_pts`, the first frame that is shown.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from civid_loader.errors import SchemaError

Longs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TOLERANCE_SECONDS: Final = 1e-6
"""Times closer than this are the same moment."""
EDGE_BYTES: Final = 4096
"""What is hashed of a file's head and tail: enough to notice another file, little enough to read along."""
_VERSION: Final = 1
_MAX_INFLATED_BYTES: Final = 1 << 30
_SCALARS: Final = ("codec", "rotation_degrees", "color_space", "color_range", "first_pts", "end_pts")
_STAMP: Final = ("num_file_bytes", "edges_hash", "is_truncated")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PacketIndex:
    """Packets of one video stream, or of the part of it that a span needs."""

    codec: str
    """FFmpeg's name of the codec: h264, hevc, av1, vp9 ..."""
    extradata: bytes
    """Parameter sets the decoder needs before the first packet."""
    rotation_degrees: int
    """To be applied to decoded frames, counter-clockwise, a multiple of 90; a bare decoder does not know it."""
    color_space: int
    """As the container states it, in FFmpeg's numbers; 2 = unspecified. What the stream itself states wins."""
    color_range: int
    """As `color_space`; 0 = unspecified."""
    tick_seconds: Fraction
    """The time base."""
    first_pts: int
    """Of the first frame of the video that is shown: second 0."""
    end_pts: int
    """When the last frame ends."""
    pts: Longs
    """[N], of each packet."""
    is_key: Flags
    """[N], decoding can start here."""
    is_shown: Flags
    """[N], False where an edit list hides the frame, or it cannot be decoded."""
    sizes: Longs
    """[N], bytes of each packet."""
    offsets: Longs | None
    """[N], where each packet starts in the file; None where packets do not lie in one piece."""
    span_seconds: tuple[float, float] | None = None
    """The span these packets are enough for; None: the whole video."""
    is_truncated: bool = False
    """The header promises packets beyond the end of the file; they are left out."""
    num_file_bytes: int = 0
    """Length of the file this is the index of."""
    edges_hash: int = 0
    """`edges_hash` of its first and last `EDGE_BYTES`."""

    @property
    def shown(self) -> Longs:
        """Packets whose frames are shown, in the order of display."""
        places = np.flatnonzero(self.is_shown)
        return places[np.argsort(self.pts[places], kind="stable")]

    def seconds(self, pts: Longs) -> npt.NDArray[np.float64]:
        """Ticks as seconds from the first frame."""
        tick = self.tick_seconds
        return (pts - self.first_pts) * tick.numerator / tick.denominator

    @property
    def end_seconds(self) -> float:
        """When the last frame ends, in seconds from the first."""
        return float((self.end_pts - self.first_pts) * self.tick_seconds)

    def starts_of(self, packets: Longs) -> Longs:
        """The keyframe where decoding starts for each packet's frame; -1 where there is none."""
        keys = np.flatnonzero(self.is_key)
        places = np.searchsorted(keys, packets, side="right") - 1
        keys = np.append(keys, -1)  # place -1: before the first keyframe
        # A picture shown before its keyframe refers to the group before, too (open GOP).
        is_leading = (places >= 0) & (self.pts[packets] < self.pts[keys[places]])
        return keys[np.where(is_leading, np.maximum(places - 1, -1), places)]

    def groups(self, targets: Sequence[int]) -> list[tuple[int, list[int]]]:
        """(first packet, targets) of each run of packets to decode, by first packet."""
        packets = np.sort(np.array(list(set(targets)), np.int64))
        found: dict[int, list[int]] = {}
        for first, packet in zip(self.starts_of(packets).tolist(), packets.tolist(), strict=True):
            found.setdefault(first, []).append(packet)
        return sorted(found.items())

    def byte_range(self, first: int, last: int) -> tuple[int, int]:
        """(offset, length) that holds the packets `first` to `last`."""
        assert self.offsets is not None
        starts, sizes = self.offsets[first : last + 1], self.sizes[first : last + 1]
        start = int(starts.min())
        return start, int((starts + sizes).max()) - start

    def clip(self, start_seconds: float, end_seconds: float) -> "PacketIndex":
        """The part that is needed for frames in a span: from the keyframe that leads to its first frame on."""
        shown = self.shown
        moments = self.seconds(self.pts[shown])
        # From the frame that is on screen at the start.
        first = max(0, int(np.searchsorted(moments, start_seconds + TOLERANCE_SECONDS, side="right")) - 1)
        last = max(first + 1, int(np.searchsorted(moments, end_seconds - TOLERANCE_SECONDS)))
        wanted = shown[first:last]
        if not len(wanted):
            return self
        low, high = max(0, int(self.starts_of(wanted).min())), int(wanted.max()) + 1
        part = slice(low, high)
        covers_all = self.span_seconds is None and low == 0 and high == len(self.pts)
        return replace(
            self,
            pts=self.pts[part],
            is_key=self.is_key[part],
            is_shown=self.is_shown[part],
            sizes=self.sizes[part],
            offsets=None if self.offsets is None else self.offsets[part],
            span_seconds=None if covers_all else (start_seconds, end_seconds),
        )

    def to_bytes(self) -> bytes:
        """A compact form: differences, in columns of bytes, deflated."""
        head = {name: getattr(self, name) for name in (*_SCALARS, *_STAMP)}
        head |= {"tick": self.tick_seconds.as_integer_ratio(), "num_packets": len(self.pts)}
        head |= {"span": self.span_seconds, "num_extra": len(self.extradata), "has_offsets": self.offsets is not None}
        text = json.dumps(head).encode()
        columns = [np.diff(self.pts, prepend=self.first_pts), self.sizes]
        if self.offsets is not None:
            # The gap to the packet before: sound between them, mostly nothing.
            columns.append(self.offsets - np.concatenate(([0], (self.offsets + self.sizes)[:-1])))
        bits = [np.packbits(flags).tobytes() for flags in (self.is_key, self.is_shown)]
        parts = [struct.pack("<BI", _VERSION, len(text)), text, self.extradata, *bits, *map(_pack, columns)]
        return zlib.compress(b"".join(parts), 9)

    @classmethod
    def from_bytes(cls, data: bytes) -> "PacketIndex":
        """The index that `to_bytes` was made from.

        Raises:
            SchemaError: not an index, damaged, or of another version.
        """
        try:
            return cls._parsed(data)
        except (zlib.error, struct.error, ValueError, KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
            raise SchemaError(f"the packet index cannot be read ({error}); run `civid probe` again") from error

    @classmethod
    def _parsed(cls, data: bytes) -> "PacketIndex":
        inflater = zlib.decompressobj()
        inflated = memoryview(inflater.decompress(data, _MAX_INFLATED_BYTES))
        version, num_text = struct.unpack_from("<BI", inflated)
        if version != _VERSION or not inflater.eof:
            raise ValueError(f"version {version}, this package reads {_VERSION}, or it is cut off")
        at = 5 + num_text
        head: dict[str, Any] = json.loads(bytes(inflated[5:at]))
        count = int(head["num_packets"])
        extradata = bytes(inflated[at : at + head["num_extra"]])
        at += head["num_extra"]
        flags = []
        for _ in range(2):
            num_bits_bytes = -(-count // 8)
            packed = np.frombuffer(inflated[at : at + num_bits_bytes], np.uint8)
            flags.append(np.unpackbits(packed, count=count).astype(bool))
            at += num_bits_bytes
        columns = []
        for _ in range(2 + bool(head["has_offsets"])):
            column, at = _unpack(inflated, at, count)
            columns.append(column)
        index = cls(
            **{name: head[name] for name in (*_SCALARS, *_STAMP)},
            extradata=extradata,
            span_seconds=None if head["span"] is None else (float(head["span"][0]), float(head["span"][1])),
            tick_seconds=Fraction(*head["tick"]),
            pts=np.cumsum(columns[0]) + head["first_pts"],
            sizes=columns[1],
            offsets=np.cumsum(columns[2] + np.concatenate(([0], columns[1][:-1]))) if head["has_offsets"] else None,
            is_key=flags[0],
            is_shown=flags[1],
        )
        if at != len(inflated) or (index.sizes < 0).any() or index.tick_seconds <= 0:
            raise ValueError("its parts do not fit together")
        if index.offsets is not None and ((index.offsets < 0) | (index.offsets > 1 << 60)).any():
            raise ValueError("packets outside any file")
        return index


def has_repeats(numbers: Longs) -> bool:
    """Whether a number comes twice. (`np.unique` takes a second for the times of two hours: they all hash alike.)"""
    ordered = np.sort(numbers)
    return bool((ordered[1:] == ordered[:-1]).any())


def edges_hash(head: bytes, tail: bytes) -> int:
    """A hash of the first and last `EDGE_BYTES` of a file, as a signed 64-bit number."""
    return int(np.uint64(xxhash.xxh3_64_intdigest(head + tail)).astype(np.int64))


def edge_ranges(num_bytes: int) -> list[tuple[int, int]]:
    """What to read of a file for `edges_hash`; the tail asks for a byte too many, to see that the file ends there."""
    tail = max(0, num_bytes - EDGE_BYTES)
    return [(0, min(EDGE_BYTES, num_bytes)), (tail, num_bytes - tail + 1)]


def _pack(column: Longs) -> bytes:
    """Width in bytes, then the lowest byte of every number, then the next ...: bytes that are alike lie together."""
    zigzag = ((column << 1) ^ (column >> 63)).view(np.uint64)
    width = next((width for width in (1, 2, 4) if not len(zigzag) or int(zigzag.max()) < 1 << 8 * width), 8)
    planes = zigzag.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T
    return bytes([width]) + planes.tobytes()


def _unpack(data: memoryview, at: int, count: int) -> tuple[Longs, int]:
    width = data[at]
    if width not in (1, 2, 4, 8):
        raise ValueError(f"numbers of {width} bytes")
    planes = np.frombuffer(data[at + 1 : at + 1 + width * count], np.uint8).reshape(width, count)
    zigzag = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(count).astype(np.uint64)
    column = (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64)
    return column, at + 1 + width * count
