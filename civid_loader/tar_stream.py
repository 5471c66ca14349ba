"""A tar, plain or compressed, as one pass of members and bytes: constant memory, and every checksum on the way.

The streaming modes of `tarfile` are not used because they check neither the gzip checksum nor a second gzip stream,
take a broken header for the end, and keep every member.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

READ_BYTES: Final = 1 << 20
"""Read at once, and the most that the headers of one member may take."""

_DECOMPRESSED: Final[dict[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open,
}  # fmt: skip
_OTHERS: Final = {
    b"\x28\xb5\x2f\xfd": "is compressed with zstd, which is not read here; run `zstd -d` on it, then unpack the .tar",
    b"PK\3\4": "is a zip, not a tar; run `unzip` on it",
}
# Measured on damaged archives: header fields raise more than tarfile's own errors.
_DAMAGE: Final = (
    zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, OverflowError, IndexError, KeyError, RecursionError,
)  # fmt: skip


class TarStream(io.RawIOBase):
    """The decompressed bytes of an archive, forward only; whatever is wrong with them is a `tarfile.ReadError`."""

    def __init__(self, file: IO[bytes], *, show: Callable[[int], None]) -> None:
        """Args:
        file: the archive; its first bytes tell the compression.
        show: is told how many bytes of it are read.

        Raises:
            tarfile.CompressionError: compressed in a way that cannot be read.
        """
        head = file.read(tarfile.BLOCKSIZE)
        file.seek(0)
        self._file, self._show, self._data, self._position = file, show, file, 0
        self._header_bytes_left = READ_BYTES
        self.last = b""
        """What the last `read` gave."""
        if head[257:262] == b"ustar":
            return
        for magic, reason in _OTHERS.items():
            if head.startswith(magic):
                raise tarfile.CompressionError(reason)
        for magic, decompressed in _DECOMPRESSED.items():
            if head.startswith(magic):
                self._data = decompressed(file)

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """For headers: fewer bytes than asked for at the end, and a limit on what one member may ask for."""
        self._header_bytes_left -= size
        if size < 0 or self._header_bytes_left < 0:
            raise tarfile.ReadError(f"the header of a member asks for {size} bytes, the limit is {READ_BYTES}")
        self.last = self._read(size)
        return self.last

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Read on to `offset`, never back; what is there is checked, and dropped."""
        if whence != io.SEEK_SET or offset < self._position:
            raise tarfile.ReadError(f"a member leads back, from byte {self._position} to {offset}")
        for _ in self.chunks(offset - self._position):
            pass
        return self._position

    def chunks(self, num_bytes: int) -> Iterator[bytes]:
        """The next `num_bytes`, all of them."""
        end = self._position + num_bytes
        while self._position < end:
            data = self._read(min(READ_BYTES, end - self._position))
            if not data:
                raise tarfile.ReadError(f"{end - self._position} bytes are missing at the end")
            yield data

    def allow_header(self) -> None:
        """A new member: its headers may be read."""
        self._header_bytes_left = READ_BYTES

    def _read(self, size: int) -> bytes:
        with _as_damage():
            data: bytes = self._data.read(size)
        self._position += len(data)
        self._show(self._file.tell())
        return data


def members(stream: TarStream) -> Iterator[tarfile.TarInfo]:
    """Members in order, the stream at their first byte; after the last one the stream is read to its end.

    Tars that were written one behind the other are read as one.

    Raises:
        tarfile.TarError: damaged, cut off, or no tar at all.
    """
    with _as_damage():
        tar = tarfile.TarFile(fileobj=stream, encoding="utf-8")  # reads the first header
        info = tar.next()
    if info is None:
        raise tarfile.ReadError("zeros where its first member should be")
    num_zeros = 0
    while True:
        if info is not None:
            if info.size < 0:
                raise tarfile.ReadError(f"a member of {info.size} bytes")
            yield info
            stream.seek(tar.offset)
            num_zeros = 0
        elif stream.last:
            num_zeros += tarfile.BLOCKSIZE
            if num_zeros > READ_BYTES:
                raise tarfile.ReadError("nothing but zeros from here on, as unfinished downloads have them")
        elif num_zeros:
            return
        else:
            raise tarfile.ReadError("the mark at the end of a tar is missing")
        info = _next(tar, stream)


def _next(tar: tarfile.TarFile, stream: TarStream) -> tarfile.TarInfo | None:
    """The next member; null: a block of zeros, which marks the end, or nothing more."""
    start = stream.tell()
    stream.allow_header()
    try:
        with _as_damage():
            return tarfile.TarInfo.fromtarfile(tar)
    except tarfile.HeaderError:
        if stream.tell() - start == len(stream.last) in (0, tarfile.BLOCKSIZE) and not any(stream.last):
            return None
        raise


@contextmanager
def _as_damage() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise tarfile.ReadError(str(error) or type(error).__name__) from error
