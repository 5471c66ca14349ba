"""Pointer -> bytes: where the bytes of `clips[].video` lie, and nothing about what they mean.

A pointer is a path relative to the video root, an absolute path, a URL that fsspec understands, a member of an
uncompressed tar or of a zip, `videos/chunk_0_40.tar!a/b.mp4`, or `videos:<clip_id>` for bytes in the dataset's own
shards. Pointers come from annotations and are not trusted: a relative one never leaves the root, neither by `..` nor
by a link.
"""

import io
import os
import re
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO, Final, Protocol, cast, runtime_checkable

from civid_loader.archives import find_member, inflate
from civid_loader.deadlines import Deadline
from civid_loader.errors import UnreadableVideoError, UnsafePathError, VideoNotFoundError, VideoRootError
from civid_loader.remote import RemoteSource
from civid_loader.repo_names import url_hint
from civid_loader.transport import Counters, without_credentials
from civid_loader.video_shards import find_in_shards

READ_AHEAD_BYTES: Final = 1 << 20
"""A remote file read as a stream is fetched in blocks of this size."""

_ARCHIVE_MEMBER: Final = re.compile(r"(?P<archive>.+?\.(?:zip|tgz|tar(?:\.\w+)?))!(?P<member>.+)", re.IGNORECASE)
_ARCHIVE: Final = re.compile(r".+\.(?:zip|tar)", re.IGNORECASE)
_LOCAL_READ_BYTES: Final = 64 << 10


@runtime_checkable
class ByteSource(Protocol):
    """The bytes of one video. Several threads may read at once; nothing stays open between calls."""

    @property
    def name(self) -> str:
        """For messages; without credentials."""

    @property
    def is_remote(self) -> bool:
        """Whether reading costs round trips."""

    @property
    def counters(self) -> Counters:
        """What was read so far."""

    def size(self, *, timeout_seconds: float | None = None) -> int:
        """Length in bytes."""

    def read_ranges(self, ranges: Sequence[tuple[int, int]], *, timeout_seconds: float | None = None) -> list[bytes]:
        """The bytes of each (offset, length), in the order given; short or b"" where it reaches past the end."""


def open_video(pointer: str, *, root: str | None, dataset: str | None = None) -> ByteSource:
    """The bytes of the video at `pointer`. Opens no remote file: that it is missing shows when it is read.

    Args:
        pointer: as in the schema.
        root: the folder that relative pointers start from, its URL, or a tar or zip that holds them; None: not needed.
        dataset: folder or URL of the built dataset, for pointers into its `videos` config.

    Raises:
        VideoNotFoundError: there is no such local file, archive member or clip.
        UnsafePathError: a relative pointer that leaves `root`.
        UnreadableVideoError: an archive or shard that cannot be read at random.
        MissingDependencyError: fsspec lacks the package for this kind of URL.
        VideoRootError: a relative pointer without a usable `root`, or `videos:` without `dataset`.
    """
    if pointer.startswith("videos:"):
        if dataset is None:
            raise VideoRootError(f"pointer {pointer!r} is into the dataset's own videos: pass its folder (dataset=...)")
        clip = find_in_shards(dataset, pointer.removeprefix("videos:"), open_file=_open_shard)
        return open_range(clip.shard, offset=clip.byte_offset, num_bytes=clip.num_bytes)
    if member := _ARCHIVE_MEMBER.fullmatch(pointer):
        return _member_source(pointer, archive=member["archive"], name=member["member"], root=root)
    if "://" in pointer:
        return _url_source(pointer)
    if root is not None and not os.path.isabs(pointer):
        if "://" in root:
            if ".." in pointer.split("/"):
                raise UnsafePathError(f"pointer {pointer!r} leaves the video root {root!r}; correct the annotation")
            return _url_source(f"{root.rstrip('/')}/{pointer}")
        if _ARCHIVE.fullmatch(root):
            return _member_source(pointer, archive=os.path.abspath(root), name=pointer, root=None)
    path = _local_path(pointer, root=root)
    _refuse_empty(path)
    return LocalSource(path)


def open_range(shard: str, *, offset: int, num_bytes: int) -> ByteSource:
    """`num_bytes` of a local file or a URL from byte `offset` on: a clip whose place the `media` layer tells."""
    if "://" in shard:
        return RemoteSource(shard, offset=offset, num_bytes=num_bytes)
    return LocalSource(shard, offset=offset, num_bytes=num_bytes)


def bytes_source(data: bytes, *, name: str = "bytes in memory") -> ByteSource:
    """Bytes that are in memory already."""
    return _BytesSource(data, name=name)


def file_source(file: BinaryIO) -> ByteSource:
    """An open file that can seek, and stays the caller's: reading moves its position, and it must not be closed."""
    return _FileSource(file)


def as_file(source: ByteSource, *, timeout_seconds: float | None = None) -> BinaryIO:
    """A source as a file for random reading; use it in a `with` statement. A remote one is read ahead in blocks.

    Args:
        source: where the bytes are.
        timeout_seconds: from now on; a read that has to wait longer raises VideoTimeoutError.
    """
    file = _SourceFile(source, deadline=Deadline(timeout_seconds))
    return cast(BinaryIO, io.BufferedReader(file, buffer_size=_LOCAL_READ_BYTES))


class LocalSource:
    """A local file, or `num_bytes` of it from byte `offset` on."""

    is_remote: Final = False

    def __init__(self, path: str, *, offset: int = 0, num_bytes: int | None = None, name: str | None = None) -> None:
        self.name = name or path
        self.counters = Counters()
        self._path, self._offset, self._num_bytes = path, offset, num_bytes

    def size(self, *, timeout_seconds: float | None = None) -> int:
        """Length in bytes."""
        return max(0, os.path.getsize(self._path) - self._offset) if self._num_bytes is None else self._num_bytes

    def read_ranges(self, ranges: Sequence[tuple[int, int]], *, timeout_seconds: float | None = None) -> list[bytes]:
        """See `ByteSource`; the time limit is for sources that may stall."""
        wanted = [_clipped(self.name, offset, length, last=self._num_bytes) for offset, length in ranges]
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise VideoNotFoundError(f"{self._path}: the file is gone since it was opened; put it back") from error
        try:
            found = [_pread(descriptor, length, self._offset + offset) for offset, length in wanted]
        finally:
            os.close(descriptor)
        self.counters.add(num_requests=len(found), num_bytes=sum(map(len, found)))
        return found


class _BytesSource:
    is_remote: Final = False

    def __init__(self, data: bytes, *, name: str) -> None:
        self.name = name
        self.counters = Counters()
        self._data = data

    def size(self, *, timeout_seconds: float | None = None) -> int:
        return len(self._data)

    def read_ranges(self, ranges: Sequence[tuple[int, int]], *, timeout_seconds: float | None = None) -> list[bytes]:
        wanted = [_clipped(self.name, offset, length, last=len(self._data)) for offset, length in ranges]
        found = [self._data[offset : offset + length] for offset, length in wanted]
        self.counters.add(num_requests=len(found), num_bytes=sum(map(len, found)))
        return found


class _FileSource:
    is_remote: Final = False

    def __init__(self, file: BinaryIO) -> None:
        self.name = str(getattr(file, "name", "an open file"))
        self.counters = Counters()
        self._file = file
        self._lock = threading.Lock()

    def size(self, *, timeout_seconds: float | None = None) -> int:
        with self._lock:
            return self._file.seek(0, io.SEEK_END)

    def read_ranges(self, ranges: Sequence[tuple[int, int]], *, timeout_seconds: float | None = None) -> list[bytes]:
        wanted = [_clipped(self.name, offset, length, last=None) for offset, length in ranges]
        with self._lock:
            found = [self._read(offset, length) for offset, length in wanted]
        self.counters.add(num_requests=len(found), num_bytes=sum(map(len, found)))
        return found

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data = b""
        # Files without a buffer may give less at a time.
        while len(data) < length and (piece := self._file.read(length - len(data))):
            data += piece
        return data


def _clipped(name: str, offset: int, length: int, *, last: int | None) -> tuple[int, int]:
    """A range as (offset, length) that does not reach past `last`."""
    if offset < 0 or length < 0:
        raise ValueError(f"{name}: no range has offset {offset} and length {length}; both must be >= 0")
    return (offset, length) if last is None else (offset, max(0, min(length, last - offset)))


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    # One call gives at most 2 GB.
    while len(data) < length and (piece := os.pread(descriptor, length - len(data), offset + len(data))):
        data += piece
    return data


def _open_shard(shard: str) -> BinaryIO:
    return as_file(RemoteSource(shard) if "://" in shard else LocalSource(shard))


def _url_source(url: str) -> ByteSource:
    if not url.startswith(("file://", "local://")):
        return RemoteSource(url)
    if not os.path.isfile(path := url.partition("://")[2]):
        raise VideoNotFoundError(f"no file at {url}; check the address and that it may be read")
    _refuse_empty(path)
    return LocalSource(path)


def _member_source(pointer: str, *, archive: str, name: str, root: str | None) -> ByteSource:
    if "://" in archive:
        raise UnreadableVideoError(
            f"{without_credentials(pointer)}: archives are read from local disk only; download the archive"
        )
    path = _local_path(archive, root=root)
    member = find_member(path, name, pointer=pointer)
    stored = LocalSource(path, offset=member.offset_bytes, num_bytes=member.stored_bytes, name=pointer)
    if member.inflated_bytes is None:
        return stored
    data = stored.read_ranges([(0, member.stored_bytes)])[0]
    return bytes_source(inflate(data, num_bytes=member.inflated_bytes, pointer=pointer), name=pointer)


def _local_path(pointer: str, *, root: str | None) -> str:
    """The file a path pointer names: it exists and, for a relative pointer, lies below `root`."""
    if "\0" in pointer:
        raise UnsafePathError(f"pointer {pointer!r} contains a NUL character; correct the annotation")
    if os.path.isabs(pointer):
        path = pointer
    elif root is None:
        raise VideoRootError(
            f"pointer {pointer!r} is relative: pass the folder it starts from (--videos, root=, videos=)"
        )
    else:
        path = os.path.realpath(os.path.join(root, pointer))
        top = os.path.join(os.path.realpath(root), "")
        if ".." in pointer.split("/") or not path.startswith(top):
            raise UnsafePathError(
                f"pointer {pointer!r} leaves the video root {root!r}; correct the annotation or, if the file is "
                "behind a link, name the folder the link points to as the root"
            )
    if os.path.isfile(path):
        return path
    if root is not None and not os.path.isdir(root):
        raise VideoRootError(f"the video root {root!r} is not a folder; pass that of the videos{url_hint(root)}")
    where = f"in the video root {root!r}" if path != pointer else "(an absolute path)"
    raise VideoNotFoundError(
        f"no file {pointer!r} {where}; download it, name another video root, or let the loader skip missing clips"
    )


def _refuse_empty(path: str) -> None:
    if not os.path.getsize(path):
        raise VideoNotFoundError(f"{path}: the file is empty, as failed downloads are; download it again")


class _SourceFile(io.RawIOBase):
    """A source as an unbuffered file."""

    def __init__(self, source: ByteSource, *, deadline: Deadline) -> None:
        self._source, self._deadline, self._position = source, deadline, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        start = self._source.size(timeout_seconds=self._deadline.left_seconds) if start is None else start
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        length, left = len(buffer), self._deadline.left_seconds
        if not self._source.is_remote:
            data = self._source.read_ranges([(self._position, length)], timeout_seconds=left)[0]
        else:
            # Whole blocks, which the source remembers: the next bytes and those just behind cost nothing.
            start = self._position // READ_AHEAD_BYTES * READ_AHEAD_BYTES
            stop = -(-(self._position + length) // READ_AHEAD_BYTES) * READ_AHEAD_BYTES
            block = self._source.read_ranges([(start, stop - start)], timeout_seconds=left)[0]
            data = block[self._position - start :][:length]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
