"""The `videos` config: Parquet that stock `datasets` reads, and of which one ranged read gives one clip.

Every value of a PLAIN, uncompressed column stands in the file in one piece, behind its length in 4 bytes. Shards
written here tell in their footer where; others are searched once.
"""

import base64
import binascii
import json
import os
import posixpath
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from civid_loader.errors import RemoteVideoError, UnreadableVideoError, VideoNotFoundError
from civid_loader.schema import arrow_schema, check_table
from civid_loader.storage import atomic_file
from civid_loader.transport import TransientError, is_http, own_errors, remote_file, without_credentials

ROW_GROUP_BYTES: Final = 16 << 20
"""A row group is closed once it holds this much."""
MAX_ROW_GROUP_BYTES: Final = 32 << 20
"""A clip that would lead beyond it begins the next row group; a longer one has its own."""
MAX_CLIP_BYTES: Final = (2 << 30) - (1 << 20)
"""What one Arrow array can hold."""
OFFSETS_KEY: Final = b"civid_loader.video_offsets"

_COLUMN: Final = "video.bytes"
_MAX_OFFSETS_BYTES: Final = 256 << 20
_CDC: Final = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024}  # as `storage` has it, and why

Offsets: TypeAlias = dict[str, tuple[int, int]]
"""clip_id -> (byte_offset, num_bytes) in one shard."""
OpenFile: TypeAlias = Callable[[str], BinaryIO]
"""Opens a path or URL for random reading."""


@dataclass(frozen=True, slots=True)
class ClipBytes:
    """Where the bytes of one clip lie."""

    shard: str
    """Path or URL of the shard."""
    byte_offset: int
    """First byte in it."""
    num_bytes: int
    """Length."""


def write_video_shard(path: Path, items: Iterable[tuple[str, bytes]]) -> Offsets:
    """Write one shard of the `videos` config from (clip_id, bytes of the clip's file).

    Returns where each clip lies in it: clip_id -> (byte_offset, num_bytes). Memory: one or two row groups.

    Raises:
        ValueError: a clip comes twice, is empty, or is larger than 2 GB; no shard is left behind.
        SchemaError: a clip id is missing or empty.
    """
    schema = arrow_schema("videos")
    offsets: Offsets = {}
    with (
        atomic_file(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=["clip_id"],
            use_content_defined_chunking=_CDC,
        ) as writer,
        open(file.name, "rb") as written,
    ):
        for rows in _row_groups(items):
            ids = [clip_id for clip_id, _ in rows]
            if repeated := [clip_id for clip_id, count in Counter([*ids, *offsets]).items() if count > 1]:
                raise ValueError(f"{path}: clip {repeated[0]} comes twice; give each clip once")
            table = pa.table({"clip_id": ids, "video": [{"bytes": data, "path": None} for _, data in rows]}, schema)
            check_table(table, "videos")
            start = file.tell()
            writer.write_table(table, row_group_size=len(rows))
            file.flush()
            written.seek(start)
            places = _locate([data for _, data in rows], written.read(), start=start, name=str(path))
            offsets |= dict(zip(ids, places, strict=True))
        writer.add_key_value_metadata({OFFSETS_KEY: _packed(offsets)})
    return offsets


def find_in_shards(dataset: str, clip_id: str, *, open_file: OpenFile) -> ClipBytes:
    """Where a clip of a built dataset lies.

    Args:
        dataset: root of the dataset, a folder or a URL that fsspec can list.
        clip_id: the clip.
        open_file: opens a shard.

    Raises:
        VideoNotFoundError: no such clip, or no `videos` config.
        UnreadableVideoError: a shard that is damaged, or does not hold its videos in one piece.
    """
    stamps = _stamps(dataset)
    if not stamps:
        raise VideoNotFoundError(
            f"videos:{clip_id}: {without_credentials(dataset)} ships no `videos` config, so there are no bytes; "
            "build it with pointers to files (`civid build --videos FOLDER`)"
        )
    found = _clips(stamps, open_file).get(clip_id)
    if found is None:
        raise VideoNotFoundError(
            f"videos:{clip_id}: no such clip in the {len(stamps)} shards of {without_credentials(dataset)}"
        )
    return found


def has_videos(dataset: str) -> bool:
    """Whether a dataset has a `videos` config; of a URL it is asked once in a process."""
    if is_http(dataset):  # which cannot be listed
        return False
    if "://" in dataset:
        return bool(_remote_stamps(dataset))
    return any(Path(dataset, "videos").glob("*.parquet"))


def clips_in_shard(shard: Path) -> Offsets:
    """Where each clip lies in a local shard.

    Raises:
        UnreadableVideoError: it is damaged, or does not hold its videos in one piece.
    """
    with shard.open("rb") as file:
        return _offsets(file, name=str(shard))


def _stamps(dataset: str) -> tuple[tuple[str, int, int], ...]:
    """The shards of a dataset in order, each with length and time; a local shard that changed is another key."""
    if "://" in dataset:
        return _remote_stamps(dataset)
    folder = Path(dataset, "videos")
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        shards = [(entry.path, entry.stat()) for entry in entries if entry.name.endswith(".parquet")]
    return tuple(sorted((path, status.st_size, status.st_mtime_ns) for path, status in shards))


@lru_cache(maxsize=16)
def _remote_stamps(dataset: str) -> tuple[tuple[str, int, int], ...]:
    name = without_credentials(dataset)
    try:
        with own_errors(name):
            file = remote_file(dataset)
            names = file.files.glob(posixpath.join(file.path, "videos", "*.parquet"))
    except VideoNotFoundError:
        names = []
    except (TransientError, TimeoutError) as error:
        raise RemoteVideoError(f"{name}: its shards cannot be listed ({error}); try again") from None
    return tuple((file.files.unstrip_protocol(path), 0, 0) for path in sorted(names))


@lru_cache(maxsize=4)
def _clips(stamps: tuple[tuple[str, int, int], ...], open_file: OpenFile) -> Mapping[str, ClipBytes]:
    """Every clip of a dataset; the first shard that has it wins."""

    def read(shard: str) -> Offsets:
        with open_file(shard) as file:
            return _offsets(file, name=shard)

    clips: dict[str, ClipBytes] = {}
    shards = [shard for shard, _, _ in stamps]
    with ThreadPoolExecutor(min(8, len(shards))) as pool:
        for shard, offsets in zip(shards, pool.map(read, shards), strict=True):
            for clip_id, place in offsets.items():
                clips.setdefault(clip_id, ClipBytes(shard, *place))
    return clips


def _offsets(file: BinaryIO, *, name: str) -> Offsets:
    try:
        shard = pq.ParquetFile(file)
        told = _unpacked((shard.metadata.metadata or {}).get(OFFSETS_KEY, b""))
        return told if told is not None and _fits(told, shard.metadata) else _searched(shard, file, name=name)
    except pa.ArrowException as error:
        raise UnreadableVideoError(f"{name}: not a whole Parquet file ({error}); download or write it again") from error


def _packed(offsets: Offsets) -> bytes:
    """Text, since readers of other languages take the values of a footer for text."""
    columns = [list(offsets), [offset for offset, _ in offsets.values()], [length for _, length in offsets.values()]]
    return base64.b85encode(zlib.compress(json.dumps(columns, separators=(",", ":")).encode()))


def _unpacked(data: bytes) -> Offsets | None:
    try:
        text = zlib.decompressobj().decompress(base64.b85decode(data), _MAX_OFFSETS_BYTES)
        ids, starts, lengths = json.loads(text)
        return {str(clip): (int(at), int(n)) for clip, at, n in zip(ids, starts, lengths, strict=True)}
    except (ValueError, TypeError, binascii.Error, zlib.error, RecursionError):
        return None


def _fits(offsets: Offsets, metadata: Any) -> bool:
    """Whether these are the offsets of this very file: whoever writes it again may copy the footer's metadata."""
    ends = sorted((offset, offset + num_bytes) for offset, num_bytes in offsets.values())
    first = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        start, stop = _span(_chunk(group))
        own = ends[first : first + group.num_rows]
        first += group.num_rows
        if len(own) < max(1, group.num_rows) or own[0][0] < start or own[-1][1] > stop:
            return False
        # All the rest of a column chunk is page headers and lengths.
        room = stop - start - sum(end - begin for begin, end in own)
        if _chunk(group).compression != "UNCOMPRESSED" or not 0 < room <= 256 * len(own):
            return False
    return first == len(ends)


def _chunk(row_group: Any) -> Any:
    for i in range(row_group.num_columns):
        if row_group.column(i).path_in_schema == _COLUMN:
            return row_group.column(i)
    raise pa.ArrowInvalid(f"no column {_COLUMN}")


def _span(chunk: Any) -> tuple[int, int]:
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return start, start + chunk.total_compressed_size


def _searched(shard: pq.ParquetFile, file: BinaryIO, *, name: str) -> Offsets:
    """The offsets of a shard that does not tell them, one row group in memory at a time."""
    if "clip_id" not in shard.schema_arrow.names:
        raise pa.ArrowInvalid("no column clip_id")
    offsets: Offsets = {}
    for i in range(shard.metadata.num_row_groups):
        rows = shard.read_row_group(i, columns=["clip_id", "video"])
        start, stop = _span(_chunk(shard.metadata.row_group(i)))
        file.seek(start)
        raw = file.read(stop - start)
        values = [video["bytes"] if (video := cell.as_py()) else None for cell in rows.column("video")]
        kept = [(clip, data) for clip, data in zip(rows.column("clip_id").to_pylist(), values, strict=True) if data]
        places = _locate([data for _, data in kept], raw, start=start, name=name)
        for (clip_id, _), place in zip(kept, places, strict=True):
            offsets.setdefault(clip_id, place)
    return offsets


def _locate(values: list[bytes], raw: bytes, *, start: int, name: str) -> Iterator[tuple[int, int]]:
    """(offset, length) of each value in bytes of a file that begin at `start`: every byte is compared."""
    after = 0
    for value in values:
        # Values come in order, but where a dictionary holds them.
        at = _find(value, raw, after)
        at = _find(value, raw, 0) if at < 0 else at
        if at < 0:
            raise UnreadableVideoError(
                f"{name}: its videos do not lie in one piece each, as in compressed Parquet; write the column "
                "uncompressed (compression='none', use_dictionary=False), as Dataset.to_parquet does"
            )
        after = at + len(value)
        yield start + at, len(value)


def _find(value: bytes, raw: bytes, after: int) -> int:
    """Where a value with its length before it first stands at or after a byte, or -1."""
    head = len(value).to_bytes(4, "little") + value[:64]
    at = raw.find(head, after)
    # Searching for all of it would take seconds per megabyte where it repeats itself.
    while at >= 0 and not raw.startswith(value, at + 4):
        at = raw.find(head, at + 1)
    return at + 4 if at >= 0 else -1


def _row_groups(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    rows: list[tuple[str, bytes]] = []
    num_bytes = 0
    for clip_id, data in items:
        if not 0 < len(data) <= MAX_CLIP_BYTES:
            raise ValueError(f"clip {clip_id}: {len(data)} bytes; a clip has 1 to {MAX_CLIP_BYTES}")
        if rows and num_bytes + len(data) > MAX_ROW_GROUP_BYTES:
            yield rows
            rows, num_bytes = [], 0
        rows.append((clip_id, data))
        num_bytes += len(data)
        if num_bytes >= ROW_GROUP_BYTES:
            yield rows
            rows, num_bytes = [], 0
    if rows:
        yield rows
