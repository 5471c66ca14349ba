"""Where the members of a tar or zip lie in it: found by one scan, kept beside the archive for every later process."""

import json
import os
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from civid_loader.errors import UnreadableVideoError, VideoNotFoundError
from civid_loader.storage import atomic_file, replace

INDEX_SUFFIX: Final = ".civid-index"
MAX_INFLATED_BYTES: Final = 2 << 30
"""A deflated zip member is unpacked in memory; one that claims to be larger is refused."""

_INDEX_VERSION: Final = 1
_MAX_INDEX_BYTES: Final = 512 << 20  # unpacked; about 4 million members
_ZIP_LOCAL_HEADER_BYTES: Final = 30
# Measured on damaged archives: tarfile and zipfile raise more than errors of their own.
_DAMAGED_ARCHIVE: Final = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError, IndexError, ValueError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """Where the bytes of one file lie in an archive."""

    offset_bytes: int
    """First byte of its data."""
    stored_bytes: int
    """Length in the archive."""
    inflated_bytes: int | None = None
    """Length of the file where it is deflated, else None."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file as the archive lists it; in this order in the index."""

    offset_bytes: int
    """Of the member's data in a tar, of its header in a zip."""
    stored_bytes: int
    """Length in the archive."""
    inflated_bytes: int | None = None
    """Length of the file where it is deflated, else None."""
    refusal: str | None = None
    """Why it cannot be read, else None."""


def find_member(path: str, name: str, *, pointer: str) -> Member:
    """The place of one file in a local archive.

    Args:
        path: of the archive, which exists.
        name: of the file in it.
        pointer: what messages name.

    Raises:
        VideoNotFoundError: no such member.
        UnreadableVideoError: damaged, compressed as a whole, or stored in a way that cannot be read at random.
    """
    kind = path.lower().rpartition(".")[2]
    if kind not in _SCANS:
        raise UnreadableVideoError(
            f"{pointer}: a compressed tar cannot be read at random; unpack it: civid unpack {path} --output FOLDER"
        )
    status = os.stat(path)
    try:
        entries = _entries(path, kind=kind, num_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
        entry = entries.get(posixpath.normpath(name))
        if entry is None:
            raise VideoNotFoundError(f"{pointer}: none of the {len(entries)} files in the archive is {name!r}")
        if refusal := _refusal(entry, num_bytes=status.st_size):
            raise UnreadableVideoError(f"{pointer}: {refusal}; unpack the archive")
        offset = entry.offset_bytes if kind == "tar" else _zip_data_offset(path, entry.offset_bytes)
        if offset + entry.stored_bytes > status.st_size:
            raise zipfile.BadZipFile(f"it reaches beyond the {status.st_size} bytes of the archive")
    except _DAMAGED_ARCHIVE as error:
        raise UnreadableVideoError(f"{pointer}: the archive cannot be read ({error}); download it again") from error
    return Member(offset_bytes=offset, stored_bytes=entry.stored_bytes, inflated_bytes=entry.inflated_bytes)


def inflate(data: bytes, *, num_bytes: int, pointer: str) -> bytes:
    """A deflated zip member of `num_bytes`.

    Raises:
        UnreadableVideoError: damaged.
    """
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, num_bytes)
        if len(inflated) != num_bytes:
            raise zipfile.BadZipFile(f"{len(inflated)} bytes of {num_bytes} could be inflated")
    except _DAMAGED_ARCHIVE as error:
        raise UnreadableVideoError(f"{pointer}: the archive cannot be read ({error}); download it again") from error
    return inflated


def _refusal(entry: _Entry, *, num_bytes: int) -> str | None:
    if entry.refusal:
        return entry.refusal
    if entry.stored_bytes < 0 or not 0 <= entry.offset_bytes <= num_bytes - entry.stored_bytes:
        return "it lies outside the archive, which is damaged"
    if (entry.inflated_bytes or 0) > MAX_INFLATED_BYTES:
        return f"inflating it would take {entry.inflated_bytes} bytes of memory, the limit is {MAX_INFLATED_BYTES}"
    return None


@lru_cache(maxsize=256)
def _entries(path: str, *, kind: str, num_bytes: int, mtime_ns: int) -> Mapping[str, _Entry]:
    """Every file of an archive; length and time make a replaced archive another key, in memory as on disk."""
    index = Path(f"{path}{INDEX_SUFFIX}")
    stamp = {"version": _INDEX_VERSION, "num_bytes": num_bytes, "mtime_ns": mtime_ns}
    entries = _read_index(index, stamp)
    if entries is None:
        entries = _SCANS[kind](path, num_bytes=num_bytes)
        status = os.stat(path)
        if (status.st_size, status.st_mtime_ns) == (num_bytes, mtime_ns):
            _write_index(index, stamp, entries)
    return entries


def _read_index(path: Path, stamp: Mapping[str, int]) -> dict[str, _Entry] | None:
    """None: there is none, it is of another archive, or it is no index at all."""
    try:
        unpacker = zlib.decompressobj()
        value = json.loads(unpacker.decompress(path.read_bytes(), _MAX_INDEX_BYTES))
        if {key: value[key] for key in stamp} != stamp:
            return None
        return {name: _checked(_Entry(*fields)) for name, fields in value["files"].items()}
    except (OSError, zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _checked(entry: _Entry) -> _Entry:
    """Raise TypeError unless each field is of its type; whether it fits the archive is seen when it is read."""
    kinds = tuple(map(type, astuple(entry)))
    if kinds[:2] != (int, int) or kinds[2] not in (int, type(None)) or kinds[3] not in (str, type(None)):
        raise TypeError(f"no entry: {entry}")
    return entry


def _write_index(path: Path, stamp: Mapping[str, int], entries: Mapping[str, _Entry]) -> None:
    value = {**stamp, "files": {name: astuple(entry) for name, entry in entries.items()}}
    data = zlib.compress(json.dumps(value, separators=(",", ":")).encode(), level=1)
    # A name of its own: several processes may have scanned the archive at the same time.
    own = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    with suppress(OSError):  # a folder that cannot be written to: the next process scans again
        try:
            with atomic_file(own) as file:
                file.write(data)
            replace(own, path)
        finally:
            own.with_name(f"{own.name}.incomplete").unlink(missing_ok=True)
            own.unlink(missing_ok=True)


def _scan_tar(path: str, *, num_bytes: int) -> dict[str, _Entry]:
    entries = {}
    with tarfile.open(path, mode="r:") as archive:
        for info in archive:
            # Checked before the next header is looked for: a size below 0 would lead back here without end.
            end = info.offset_data + (0 if info.issparse() else info.size)
            if info.size < 0 or end > num_bytes:
                raise tarfile.ReadError(f"{info.name!r} reaches from byte {info.offset_data} to {end} of {num_bytes}")
            if info.isreg():
                refusal = "it is stored as a sparse file" if info.issparse() else None
                entries[posixpath.normpath(info.name)] = _Entry(info.offset_data, info.size, None, refusal)
    return entries


def _scan_zip(path: str, *, num_bytes: int) -> dict[str, _Entry]:
    with zipfile.ZipFile(path) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        return {posixpath.normpath(info.filename): _zip_entry(info) for info in files}


def _zip_entry(info: zipfile.ZipInfo) -> _Entry:
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    refusal = None
    if info.flag_bits & 0x1:
        refusal = "it is encrypted"
    elif not deflated and info.compress_type != zipfile.ZIP_STORED:
        refusal = f"its zip compression (method {info.compress_type}) is neither stored nor deflated"
    return _Entry(info.header_offset, info.compress_size, info.file_size if deflated else None, refusal)


_SCANS: Final = {"tar": _scan_tar, "zip": _scan_zip}


def _zip_data_offset(path: str, header_offset: int) -> int:
    with open(path, "rb") as file:
        file.seek(header_offset)
        header = file.read(_ZIP_LOCAL_HEADER_BYTES)
    if len(header) < _ZIP_LOCAL_HEADER_BYTES or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"no file header at byte {header_offset}")
    # Name and extra field stand between header and data, with lengths of their own, not those of the directory.
    name_bytes, extra_bytes = struct.unpack("<HH", header[-4:])
    return header_offset + len(header) + int(name_bytes) + int(extra_bytes)
