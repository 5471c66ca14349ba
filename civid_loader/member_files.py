"""Members of a hostile archive as files below one folder: whole or not there, and nothing else touched."""

import errno
import os
import re
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from civid_loader.storage import replace
from civid_loader.tar_stream import READ_BYTES, TarStream

MAX_DEPTH: Final = 64
"""Folders in one path."""

_OWN_NAME: Final = re.compile(r"\.(incomplete|civid-unpack(ed|ing|\.lock))$", re.IGNORECASE)
_OTHER_CONTENT: Final = "exists with other content"
_IN_THE_WAY: Final = {
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ,
}  # fmt: skip
"""What a file system answers to a name it cannot hold; any other answer is an error."""


class RefusedError(Exception):
    """A member is not written, and why."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final
        """The reason is in the archive; else it is in the output folder, where the user may clear the way."""


class MemberFiles:
    """The folder that members are written into."""

    def __init__(self, root: Path, *, is_trusted: bool, before_new_file: Callable[[], None]) -> None:
        """Args:
        root: an existing folder, links resolved.
        is_trusted: a file with a member's length and time has its content; else the bytes are compared.
        before_new_file: called before a file is written that is not there at all.
        """
        self._root, self._is_trusted, self._before_new_file = root, is_trusted, before_new_file

    def put(self, info: tarfile.TarInfo, stream: TarStream) -> bool:
        """Write one file (True) unless it is there already (False), or make one folder (False).

        Raises:
            RefusedError: it must not, or cannot, be written.
            OSError: the disk is full or broken.
        """
        if reason := _fault(info):
            raise RefusedError(reason, is_final=True)
        try:
            target = self._target(info.name)
            if info.isdir():
                target.mkdir(parents=True, exist_ok=True)
                return False
            return self._put_file(target, info, stream)
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                raise RefusedError(os.strerror(error.errno)) from error
            raise

    def _target(self, name: str) -> Path:
        *folders, last = _parts(name) or ["."]
        folder = os.path.realpath(os.path.join(self._root, *folders))
        if os.path.commonpath([folder, self._root]) != str(self._root):
            raise RefusedError("its folder is a link that leads out of the output folder")
        return Path(folder, last)

    def _put_file(self, target: Path, info: tarfile.TarInfo, stream: TarStream) -> bool:
        there = _status(target)
        if there is None:
            self._before_new_file()
        elif not stat.S_ISREG(there.st_mode) or there.st_size != info.size:
            raise RefusedError(_OTHER_CONTENT)
        is_ours = there is not None and there.st_mtime_ns == _mtime_seconds(info) * 10**9
        if is_ours and self._is_trusted:
            return False
        temporary = target.with_name(f"{target.name}.incomplete")
        left = _status(temporary)
        if left is not None and not stat.S_ISREG(left.st_mode):
            raise RefusedError("what lies where its .incomplete file would be is not a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            _write(temporary, info, stream)
            if there is not None and _have_same_bytes(temporary, target):
                return False
            if there is not None and not is_ours:
                raise RefusedError(_OTHER_CONTENT)
            replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return True


def _fault(info: tarfile.TarInfo) -> str | None:
    """Why a member is never written, whatever the output folder holds."""
    parts = _parts(info.name)
    if info.issym() or info.islnk():
        return "a link"
    if info.ischr() or info.isblk() or info.isfifo():
        return "a device or pipe"
    if info.issparse():
        return "a sparse file"
    if not (info.isreg() or info.isdir()):
        return "neither file nor folder"
    if info.name.startswith("/") or ".." in parts:
        return "its path leads out of the output folder"
    if "\0" in info.name or "\\" in info.name:
        return "a backslash or NUL in its path"
    if not parts and not info.isdir():
        return "it has no name"
    if len(parts) > MAX_DEPTH:
        return f"its path is more than {MAX_DEPTH} folders deep"
    return "its name is one that this command keeps for itself" if any(map(_OWN_NAME.search, parts)) else None


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _mtime_seconds(info: tarfile.TarInfo) -> int:
    return int(info.mtime) if 0 <= info.mtime < 1 << 32 else 0


def _write(path: Path, info: tarfile.TarInfo, stream: TarStream) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
        for data in stream.chunks(info.size):
            file.write(data)
        file.flush()
        os.utime(file.fileno(), (_mtime_seconds(info),) * 2)
        os.fsync(file.fileno())


def _have_same_bytes(left: Path, right: Path) -> bool:
    with left.open("rb") as one, right.open("rb") as other:
        while data := one.read(READ_BYTES):
            if data != other.read(READ_BYTES):
                return False
    return True


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
