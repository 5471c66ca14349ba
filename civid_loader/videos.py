"""Pointer -> bytes: where the bytes of `clips[].video` lie, and nothing about what they mean.

A pointer is a path relative to the video root, an absolute path, a URL that fsspec understands, or a member of an
uncompressed tar or of a zip, `videos/chunk_0_40.tar!a/b.mp4`. Pointers come from annotations and are not trusted:
a relative one never leaves the root, neither by `..` nor by a link.
"""

import io
import os
import posixpath
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Final, cast

from civid_loader.errors import MissingDependencyError, UnreadableVideoError, UnsafePathError, VideoNotFoundError

MAX_INFLATED_BYTES: Final = 2 << 30
"""A deflated zip member is unpacked in memory; one that claims to be larger is refused."""

_ARCHIVE_MEMBER: Final = re.compile(r"(?P<archive>.+?\.(?:zip|tgz|tar(?:\.\w+)?))!(?P<member>.+)", re.IGNORECASE)
_ZIP_LOCAL_HEADER_BYTES: Final = 30
# Measured on damaged archives: tarfile and zipfile raise more than errors of their own.
_DAMAGED_ARCHIVE: Final = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError, IndexError, ValueError, OverflowError,
)  # fmt: skip


def open_video(pointer: str, *, root: str | None) -> BinaryIO:
    """Open the video at `pointer` for random reading; use it in a `with` statement.

    Args:
        pointer: as in the schema.
        root: the folder that relative pointers start from; None when there are only absolute ones and URLs.

    Raises:
        VideoNotFoundError: there is no such file or archive member.
        UnsafePathError: a relative pointer that leaves `root`.
        UnreadableVideoError: an archive that cannot be read at random.
        MissingDependencyError: fsspec lacks the package for this kind of URL.
        ValueError: a relative pointer without a usable `root`.
    """
    if pointer.startswith("videos:"):
        raise VideoNotFoundError(
            f"{pointer}: this dataset ships no `videos` config yet, so there are no bytes to read; "
            "build it with pointers to files (`civid build --videos FOLDER`)"
        )
    if member := _ARCHIVE_MEMBER.fullmatch(pointer):
        return _open_member(pointer, archive=member["archive"], name=member["member"], root=root)
    if "://" in pointer:
        return _open_url(pointer)
    path = _local_path(pointer, root=root)
    if not os.path.getsize(path):
        raise VideoNotFoundError(f"{path}: the file is empty, as failed downloads are; download it again")
    return open(path, "rb")


def _local_path(pointer: str, *, root: str | None) -> str:
    """The file a path pointer names: it exists and, for a relative pointer, lies below `root`."""
    if "\0" in pointer:
        raise UnsafePathError(f"pointer {pointer!r} contains a NUL character; correct the annotation")
    if os.path.isabs(pointer):
        path = pointer
    elif root is None:
        raise ValueError(f"pointer {pointer!r} is relative: pass the folder it starts from (root=..., videos=...)")
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
        raise ValueError(f"the video root {root!r} is not a folder; pass the folder that holds the videos")
    where = f"in the video root {root!r}" if path != pointer else "(an absolute path)"
    raise VideoNotFoundError(
        f"no file {pointer!r} {where}; download it, name another video root, or let the loader skip missing clips"
    )


def _open_url(url: str) -> BinaryIO:
    import fsspec

    try:
        return cast(BinaryIO, fsspec.open(url, mode="rb").open())
    except FileNotFoundError as error:
        raise VideoNotFoundError(f"no file at {url}; check the address and that it may be read") from error
    except ImportError as error:
        raise MissingDependencyError(f"{url}: {error}; add it to this environment with pip install") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    """Where one file lies in an archive."""

    offset_bytes: int
    """Of the member's data in a tar, of its header in a zip."""
    stored_bytes: int
    """Length in the archive."""
    inflated_bytes: int | None = None
    """Length of the file where it is deflated, else None."""
    refusal: str | None = None
    """Why it cannot be read, else None."""


def _open_member(pointer: str, *, archive: str, name: str, root: str | None) -> BinaryIO:
    kind = archive.lower().rpartition(".")[2]
    if "://" in archive:
        raise UnreadableVideoError(f"{pointer}: archives are read from local disk only; download {archive}")
    if kind not in _MEMBERS_OF:
        raise UnreadableVideoError(
            f"{pointer}: a compressed tar cannot be read at random; unpack it: civid unpack {archive} --output FOLDER"
        )
    path = _local_path(archive, root=root)
    status = os.stat(path)
    try:
        members = _MEMBERS_OF[kind](path, num_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
        member = members.get(posixpath.normpath(name))
        if member is not None and not member.refusal:
            return _open_tar_member(path, member) if kind == "tar" else _open_zip_member(path, member)
    except _DAMAGED_ARCHIVE as error:
        raise UnreadableVideoError(f"{pointer}: the archive cannot be read ({error}); download it again") from error
    if member is None:
        raise VideoNotFoundError(f"{pointer}: none of the {len(members)} files in the archive is {name!r}")
    raise UnreadableVideoError(f"{pointer}: {member.refusal}; unpack the archive")


@cache
def _tar_members(path: str, *, num_bytes: int, mtime_ns: int) -> Mapping[str, _Member]:
    """Every file of a tar, found once per process; length and time make a replaced archive another key."""
    members = {}
    with tarfile.open(path, mode="r:") as archive:
        for info in archive:
            # Checked before the next header is looked for: a size below 0 would lead back here without end.
            end = info.offset_data + (0 if info.issparse() else info.size)
            if info.size < 0 or end > num_bytes:
                raise tarfile.ReadError(f"{info.name!r} reaches from byte {info.offset_data} to {end} of {num_bytes}")
            if info.isreg():
                members[posixpath.normpath(info.name)] = _Member(
                    offset_bytes=info.offset_data,
                    stored_bytes=info.size,
                    refusal="it is stored as a sparse file" if info.issparse() else None,
                )
    return members


@cache
def _zip_members(path: str, *, num_bytes: int, mtime_ns: int) -> Mapping[str, _Member]:
    """As `_tar_members`, for a zip."""
    with zipfile.ZipFile(path) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        return {posixpath.normpath(info.filename): _zip_member(info, num_bytes=num_bytes) for info in files}


def _zip_member(info: zipfile.ZipInfo, *, num_bytes: int) -> _Member:
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    refusal = None
    if not 0 <= info.header_offset <= num_bytes - info.compress_size:
        refusal = "it lies outside the archive, which is damaged"
    elif info.flag_bits & 0x1:
        refusal = "it is encrypted"
    elif not deflated and info.compress_type != zipfile.ZIP_STORED:
        refusal = f"its zip compression (method {info.compress_type}) is neither stored nor deflated"
    elif deflated and info.file_size > MAX_INFLATED_BYTES:
        refusal = f"inflating it would take {info.file_size} bytes of memory, the limit is {MAX_INFLATED_BYTES}"
    return _Member(
        offset_bytes=info.header_offset,
        stored_bytes=info.compress_size,
        inflated_bytes=info.file_size if deflated else None,
        refusal=refusal,
    )


_MEMBERS_OF: Final = {"tar": _tar_members, "zip": _zip_members}


def _open_tar_member(path: str, member: _Member) -> BinaryIO:
    return io.BufferedReader(_Slice(path, start=member.offset_bytes, num_bytes=member.stored_bytes))


def _open_zip_member(path: str, member: _Member) -> BinaryIO:
    with open(path, "rb") as file:
        file.seek(member.offset_bytes)
        header = file.read(_ZIP_LOCAL_HEADER_BYTES)
    if len(header) < _ZIP_LOCAL_HEADER_BYTES or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"no file header at byte {member.offset_bytes}")
    # Name and extra field stand between header and data, with lengths of their own, not those of the directory.
    start = member.offset_bytes + len(header) + sum(struct.unpack("<HH", header[-4:]))
    stored = io.BufferedReader(_Slice(path, start=start, num_bytes=member.stored_bytes))
    if member.inflated_bytes is None:
        return stored
    with stored:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored.read(), member.inflated_bytes)
    if len(data) != member.inflated_bytes:
        raise zipfile.BadZipFile(f"{len(data)} bytes of {member.inflated_bytes} could be inflated")
    return io.BytesIO(data)


class _Slice(io.RawIOBase):
    """`num_bytes` of the file at `path` from byte `start` on, as a file of its own."""

    def __init__(self, path: str, *, start: int, num_bytes: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._start, self._num_bytes, self._position = start, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = max(0, offset + (0, self._position, self._num_bytes)[whence])
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(buffer), self._num_bytes - self._position)
        if wanted <= 0:
            return 0
        self._file.seek(self._start + self._position)
        num_read = self._file.readinto(memoryview(buffer)[:wanted])
        self._position += num_read
        return num_read

    def close(self) -> None:
        self._file.close()
        super().close()
