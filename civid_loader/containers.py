"""Files as FFmpeg opens them, safely; and what containers say that FFmpeg does not pass on."""

import errno
import os
from typing import Any, BinaryIO, Final

import av
from av.container import InputContainer

from civid_loader.deadlines import Deadline

# Only containers that hold their own data. FFmpeg also plays text that names other files (concat, HLS, DASH): a "video"
# of 30 bytes would then read any file of this machine.
_OPEN_OPTIONS: Final = {"format_whitelist": "mov,matroska,avi,mpegts,mpeg,asf,ogg,ivf,mp3,wav,flac,aac"}
_MAX_STREAMS: Final = 64
_MATROSKA_HEADER_BYTES: Final = 1 << 16
_MAX_BLOCK_HEADER_BYTES: Final = 32
"""Of a Matroska block or an AVI chunk, before the packet itself."""


def open_container(file: BinaryIO, deadline: Deadline, *, is_thorough: bool) -> InputContainer:
    """Open a file with FFmpeg.

    FFmpeg decodes some frames when it opens a file, which takes longer than all else; only if `is_thorough` may it. It
    learns from them how H.264 that does not say so puts its frames in order.
    """
    guarded: Any = _GuardedFile(file, deadline)
    of_streams: Any = [] if is_thorough else [{"skip_frame": "all"}] * _MAX_STREAMS
    options: Any = {"mode": "r", "options": _OPEN_OPTIONS, "metadata_errors": "replace"}
    container: InputContainer
    try:
        container = av.open(guarded, stream_options=of_streams, **options)
    except ValueError:  # MPEG program streams tell what they hold only on the way
        guarded.seek(0, os.SEEK_SET)
        container = av.open(guarded, **options)
    return container


def place_of(packet: Any, file: BinaryIO) -> int:
    """Where the packet's bytes stand in the file in one piece; -1 if they do not.

    A container may put a header of its own before them, or, as MPEG-TS does, cut them into pieces.
    """
    # Parameter sets that come beside a packet are lost when only its bytes are read.
    if packet.pos is None or packet.pos < 0 or packet.has_sidedata("new_extradata"):
        return -1
    at = file.tell()
    file.seek(packet.pos)
    data, wanted = file.read(packet.size + _MAX_BLOCK_HEADER_BYTES), bytes(packet)
    # By its first bytes: to look for all of a long packet takes long.
    found = data.find(wanted[:16])
    while found >= 0 and not data.startswith(wanted, found):
        found = data.find(wanted[:16], found + 1)
    file.seek(at)
    return -1 if found < 0 else packet.pos + found


def may_have_projection(file: BinaryIO) -> bool:
    """Whether the header of a Matroska file, all before its first cluster, may hold the element that turns frames."""
    at = file.tell()
    file.seek(0)
    header, cluster, _ = file.read(_MATROSKA_HEADER_BYTES).partition(b"\x1f\x43\xb6\x75")
    file.seek(at)
    return not cluster or b"\x76\x70" in header


class _GuardedFile:
    """A file as FFmpeg expects it: a place before the first byte is refused by a number, not by an exception.

    Empty files and damaged headers lead to such places. A place past the end is fine, there is nothing to read there.
    """

    def __init__(self, file: BinaryIO, deadline: Deadline) -> None:
        self._file, self._seek, self.tell = file, file.seek, file.tell
        self._deadline = deadline
        self._num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, num_bytes: int) -> bytes:
        self._deadline.check()
        return self._file.read(num_bytes)

    def seek(self, offset: int, whence: int) -> int:
        position = offset + (0, self.tell(), self._num_bytes)[whence]
        if position < 0:
            return -errno.EINVAL
        self._seek(min(position, self._num_bytes))
        return position
