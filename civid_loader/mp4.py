"""The packet index of an MP4 or MOV file from its header alone (ISO/IEC 14496-12), without opening a demuxer.

Reads what the ordinary file holds: one video track, one sample description, at most one edit after empty ones. For
anything else `read_mp4_index` says None, and the demuxer is asked.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from civid_loader.deadlines import Deadline
from civid_loader.packets import Longs, PacketIndex, has_repeats
from civid_loader.videos import ByteSource

_CODECS: Final = {
    b"avc1": ("h264", b"avcC"), b"avc3": ("h264", b"avcC"), b"hvc1": ("hevc", b"hvcC"), b"hev1": ("hevc", b"hvcC"),
    b"av01": ("av1", b"av1C"), b"vp09": ("vp9", None),
}  # fmt: skip
_BLOCK_BYTES: Final = 1 << 16
_MAX_HEADER_BYTES: Final = 1 << 28
_MAX_PACKETS: Final = 1 << 26
_SAMPLE_ENTRY_BYTES: Final = 78
_ONE: Final = 1 << 16
# The first four numbers of a display matrix in 16.16, and the turn that it asks of the picture, counter-clockwise.
_ROTATIONS: Final = {
    (_ONE, 0, 0, _ONE): 0,
    (0, _ONE, -_ONE, 0): -90,
    (-_ONE, 0, 0, -_ONE): -180,
    (0, -_ONE, _ONE, 0): 90,
}


class _UnusualError(Exception):
    """Something this reader leaves to the demuxer."""


def read_mp4_index(source: ByteSource, deadline: Deadline) -> PacketIndex | None:
    """The index of the video track; None where the file is no MP4, or not an ordinary one.

    Packets that the file is too short for are left out, and the index says that it is truncated.
    """
    num_file_bytes = source.size(timeout_seconds=deadline.left_seconds)
    try:
        header = _find_header(source, num_file_bytes, deadline)
        return None if header is None else _index(memoryview(header), num_file_bytes)
    except (_UnusualError, struct.error, IndexError, KeyError, ValueError, OverflowError):
        return None  # Damaged or unusual: the demuxer decides, and words the error.


def _find_header(source: ByteSource, num_file_bytes: int, deadline: Deadline) -> bytes | None:
    """The content of the `moov` box."""

    def read(start: int, num_bytes: int) -> bytes:
        return source.read_ranges([(start, num_bytes)], timeout_seconds=deadline.left_seconds)[0]

    block, block_start, at = b"", 0, 0
    while at + 16 <= num_file_bytes:
        if not block_start <= at <= block_start + len(block) - 16:
            block_start = at
            block = read(at, min(_BLOCK_BYTES, num_file_bytes - at))
        size, kind, long_size = struct.unpack_from(">I4sQ", block, at - block_start)
        head = 16 if size == 1 else 8
        size = long_size if size == 1 else size or num_file_bytes - at
        if size < head or not (kind.isalnum() or kind.strip().isalnum()):
            return None
        if kind == b"moov":
            if at + size > num_file_bytes or size > _MAX_HEADER_BYTES:
                return None
            inside = at - block_start
            if inside + size <= len(block):
                return block[inside + head : inside + size]
            return read(at + head, size - head)
        at += size
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """(type, content) of the boxes that follow each other in `data`."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        size = size or len(data) - at
        if size < head or at + size > len(data):
            raise _UnusualError(f"box {kind!r}")
        yield kind, data[at + head : at + size]
        at += size


def _tree(data: memoryview) -> dict[bytes, memoryview]:
    return dict(_boxes(data))


def _index(moov: memoryview, num_file_bytes: int) -> PacketIndex:
    boxes = list(_boxes(moov))
    if any(kind in (b"mvex", b"cmov") for kind, _ in boxes):
        raise _UnusualError("fragmented or compressed")
    tracks = [_tree(content) for kind, content in boxes if kind == b"trak"]
    videos = [track for track in tracks if b"mdia" in track and _handler(track) == b"vide"]
    if len(videos) != 1:
        raise _UnusualError(f"{len(videos)} video tracks")
    track, movie = videos[0], _tree(moov)[b"mvhd"]
    media = _tree(track[b"mdia"])
    tables = _tree(_tree(media[b"minf"])[b"stbl"])
    tick_rate = _time_scale(media[b"mdhd"])
    timing = _timing(tables)
    start, end = _edit(track, movie_scale=_time_scale(movie), tick_rate=tick_rate)
    sizes, offsets = _places(tables)
    if not len(sizes) == len(timing.pts) == len(offsets):
        raise _UnusualError("tables of unlike length")
    is_key = np.zeros(len(sizes), bool) if b"stss" in tables else np.ones(len(sizes), bool)
    if b"stss" in tables:
        is_key[_table(tables[b"stss"], 1)[:, 0] - 1] = True
    whole = offsets + sizes <= num_file_bytes
    present = len(sizes) if whole.all() else int(np.argmin(whole))  # what comes after a lost packet refers to it
    is_shown = timing.pts >= start
    if end is not None and bool((timing.pts >= end).any()):
        raise _UnusualError("an edit that cuts off the end")
    is_shown, is_key, pts = is_shown[:present], is_key[:present], timing.pts[:present]
    if not is_shown.any() or not is_key[0] or bool((pts[is_shown] < pts[0]).any()):
        raise _UnusualError("begins with pictures that cannot be decoded")
    if has_repeats(pts) or not sizes.all():
        raise _UnusualError("two frames at one time, or an empty one")
    first_pts = int(pts[is_shown].min())
    usual = max(1, int(np.median(timing.durations)))
    lengths = np.where(timing.durations > 0, timing.durations, usual)[:present]  # some writers give the last one 0
    end_pts = int((pts + lengths)[is_shown].max())
    return PacketIndex(
        **_description(tables[b"stsd"]),
        rotation_degrees=_rotation(track[b"tkhd"], movie),
        tick_seconds=Fraction(1, tick_rate),
        first_pts=first_pts,
        end_pts=end_pts,
        pts=pts,
        is_key=is_key,
        is_shown=is_shown,
        sizes=sizes[:present],
        offsets=offsets[:present],
        is_truncated=present < len(whole),
        num_file_bytes=num_file_bytes,
    )


def _handler(track: Mapping[bytes, memoryview]) -> bytes:
    return bytes(_tree(track[b"mdia"])[b"hdlr"][8:12])


def _time_scale(box: memoryview) -> int:
    """Ticks per second, of `mvhd` or `mdhd`."""
    scale = int(struct.unpack_from(">I", box, 20 if box[0] == 1 else 12)[0])
    if not scale:
        raise _UnusualError("no time scale")
    return scale


def _table(box: memoryview, width: int, *, kind: str = ">u4") -> npt.NDArray[Any]:
    """The rows of a full box that holds their number, then rows of `width` numbers."""
    (count,) = struct.unpack_from(">I", box, 4)
    item = np.dtype(kind)
    rows = np.frombuffer(box, item, count * width, 8).reshape(count, width)
    return rows.astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timing:
    pts: Longs
    """[N], when each packet's frame is shown, before the edit list."""
    durations: Longs
    """[N], ticks."""


def _repeated(values: Longs, counts: Longs) -> Longs:
    if counts.sum() > _MAX_PACKETS:
        raise _UnusualError("too many packets")
    return np.repeat(values, counts)


def _timing(tables: Mapping[bytes, memoryview]) -> _Timing:
    steps = _table(tables[b"stts"], 2)
    durations = _repeated(steps[:, 1], steps[:, 0])
    if (durations >= 1 << 31).any():
        raise _UnusualError("time goes backwards")
    pts = np.cumsum(durations) - durations
    if b"ctts" in tables:
        # Signed whatever the version says: that is what encoders write, and players read.
        shifts = _table(tables[b"ctts"], 2)
        pts = pts + _repeated(shifts[:, 1].astype(np.uint32).view(np.int32).astype(np.int64), shifts[:, 0])[: len(pts)]
    return _Timing(pts=pts, durations=durations)


def _edit(track: Mapping[bytes, memoryview], *, movie_scale: int, tick_rate: int) -> tuple[int, int | None]:
    """(first, end) of the times that are shown, in media ticks; end None: to the last."""
    if b"edts" not in track or b"elst" not in (edits := _tree(track[b"edts"])):
        return -(1 << 62), None
    box = edits[b"elst"]
    (count,) = struct.unpack_from(">I", box, 4)
    form, width = (">Qqi", 20) if box[0] == 1 else (">Iii", 12)
    rows = [struct.unpack_from(form, box, 8 + width * i) for i in range(min(count, 64))]
    real = [row for row in rows if row[1] != -1]  # an empty edit only delays
    if len(real) != 1 or rows[-1] is not real[0] or real[0][1] < 0 or real[0][2] != _ONE or not real[0][0]:
        raise _UnusualError("more than one edit, or an odd one")
    duration, start, _ = real[0]
    return start, start + round(Fraction(duration * tick_rate, movie_scale)) + 1


def _places(tables: Mapping[bytes, memoryview]) -> tuple[Longs, Longs]:
    """(sizes, offsets) of packets."""
    uniform, count = struct.unpack_from(">II", tables[b"stsz"], 4)
    if count > _MAX_PACKETS:
        raise _UnusualError("too many packets")
    sizes = np.full(count, uniform, np.int64) if uniform else _table(tables[b"stsz"][4:], 1)[:, 0]
    is_long = b"co64" in tables
    chunks = _table(tables[b"co64" if is_long else b"stco"], 1, kind=">u8" if is_long else ">u4")[:, 0]
    runs = _table(tables[b"stsc"], 3)
    if (runs[:, 2] != 1).any():
        raise _UnusualError("several sample descriptions")
    # Runs say: from this chunk on, so many packets per chunk. [[1, 3, 1], [4, 2, 1]] of 5 chunks: 3 3 3 2 2.
    per_chunk = _repeated(runs[:, 1], np.diff(runs[:, 0], append=len(chunks) + 1))
    chunk_of = _repeated(np.arange(len(chunks)), per_chunk)
    before = np.cumsum(sizes) - sizes
    first_of_chunk = np.cumsum(per_chunk) - per_chunk
    return sizes, chunks[chunk_of] + before - before[first_of_chunk[chunk_of]]


def _description(stsd: memoryview) -> dict[str, Any]:
    """Codec, its parameter sets and the colours, from the one sample entry."""
    entries = list(_boxes(stsd[8:]))
    if len(entries) != 1 or entries[0][0] not in _CODECS:
        raise _UnusualError("an unusual codec")
    codec, parameters = _CODECS[entries[0][0]]
    inner = _tree(entries[0][1][_SAMPLE_ENTRY_BYTES:])
    space = color_range = None
    if b"colr" in inner and bytes(inner[b"colr"][:4]) in (b"nclx", b"nclc"):
        (space,) = struct.unpack_from(">H", inner[b"colr"], 8)
        if bytes(inner[b"colr"][:4]) == b"nclx":
            color_range = 2 if inner[b"colr"][10] >> 7 else 1
    return {
        "codec": codec,
        "extradata": bytes(inner[parameters]) if parameters else b"",
        "color_space": 2 if space is None else space,
        "color_range": color_range or 0,
    }


def _rotation(track_header: memoryview, movie_header: memoryview) -> int:
    rotation = _ROTATIONS.get(_matrix(track_header, 52 if track_header[0] == 1 else 40))
    if rotation is None or _matrix(movie_header, 48 if movie_header[0] == 1 else 36) != (_ONE, 0, 0, _ONE):
        raise _UnusualError("a picture that is mirrored or scaled")
    return rotation


def _matrix(box: memoryview, at: int) -> tuple[int, int, int, int]:
    a, b, _, c, d = struct.unpack_from(">5i", box, at)
    return a, b, c, d
