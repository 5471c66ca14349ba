"""Unpack the archives a release ships (`chunk_0_40.tar.gz`) into a folder: one pass, checked to the end, resumable.

Beside the files lie two small ones per archive: `.<archive>.civid-unpacking` while it is not finished, and
`.<archive>.civid-unpacked`, written last.
"""

import errno
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from civid_loader.errors import ArchiveError, OutputError
from civid_loader.member_files import MemberFiles, RefusedError
from civid_loader.progress import track_bytes
from civid_loader.storage import write_json
from civid_loader.tar_stream import TarStream, members

MAX_EXAMPLES: Final = 100
"""Refused members that are kept by name; all are counted."""

_GROWTH: Final = 1.05
"""Videos do not compress: an archive of them unpacks to a little more than its own size."""
_IN_MARKER: Final = ("num_bytes", "refused", "examples")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveReport:
    """What came out of one archive."""

    archive: str
    num_files: int
    """Written now."""
    num_skipped: int
    """Files that were there before."""
    num_bytes: int
    """Of both."""
    refused: Mapping[str, int]
    """Members that were not written, by reason."""
    examples: tuple[str, ...]
    """The first `MAX_EXAMPLES` of them, with their reasons."""
    was_finished: bool
    """An earlier run had finished it, and it has not changed since: it was not read again."""
    error: str | None
    """Why it could not be read to the end, and the cure; null: it is whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackReport:
    """What `unpack` did, archive by archive."""

    output: str
    archives: tuple[ArchiveReport, ...]

    @property
    def failed(self) -> tuple[ArchiveReport, ...]:
        """Archives that are damaged, cut off or no tar; their whole files before the damage are kept."""
        return tuple(report for report in self.archives if report.error)


def unpack(
    archives: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    quiet: bool = False,
) -> UnpackReport:
    """Unpack tars (plain, gzip, bzip2 or xz) into one folder; the same call again continues where a killed one stopped.

    Only plain files and folders below the output folder come out of an archive, and no other file is overwritten.

    Args:
        archives: one or several; the compression is told from the first bytes, not from the name.
        output: the folder for all of them; made where it is not there.
        quiet: no progress bar.

    Returns:
        A report. A damaged archive does not raise: it is in `failed`, and the others are unpacked.

    Raises:
        ArchiveError: an archive is not there, or may not be read; nothing was done.
        OutputError: no folder, too little space on its disk, or another process unpacks there; what is unpacked stays.
    """
    named = [archives] if isinstance(archives, (str, os.PathLike)) else archives
    paths = list(dict.fromkeys(Path(name) for name in named))
    for path in paths:
        if not path.is_file() or not os.access(path, os.R_OK):
            raise ArchiveError(
                f"{path}: no such file, or one that may not be read; name .tar.gz (.bz2, .xz) or .tar files"
            )
    root = Path(os.path.realpath(output))
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root}: not a folder; name the one to unpack into")
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root):
        reports = [_Unpacking(path, root=root, later=paths[i + 1 :]).run(quiet=quiet) for i, path in enumerate(paths)]
    return UnpackReport(output=str(output), archives=tuple(reports))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process per folder: a lock that ends with the process, however it ends."""
    try:
        with FileLock(root / ".civid-unpack.lock", timeout=0):
            yield
    except Timeout as error:
        raise OutputError(
            f"{root}: another process unpacks there; wait for it, or name a folder of its own (one below it will do)"
        ) from error


@dataclass(kw_only=True, slots=True)
class _Tally:
    num_files: int = 0
    num_skipped: int = 0
    num_bytes: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)


class _Unpacking:
    """One archive on its way into the folder `root`."""

    def __init__(self, path: Path, *, root: Path, later: Sequence[Path]) -> None:
        status = path.stat()
        self._path, self._root, self._later = path, root, later
        self._stamp = {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        self._tally = _Tally()
        self._has_space, self._may_be_finished = False, True

    def run(self, *, quiet: bool) -> ArchiveReport:
        begun_path, finished_path = _markers(self._path, root=self._root)
        begun, finished = _read_marker(begun_path), _read_marker(finished_path)
        if finished is not None and self._stamp.items() <= finished.items():
            self._tally = _Tally(num_skipped=finished["num_files"], **{key: finished[key] for key in _IN_MARKER})
            return self._report(was_finished=True)
        # Files from a copy of this archive that was damaged, or is another now, are compared byte by byte: a wrong bit
        # in a video shows only in the checksum at the archive's end, and not which file it hit.
        earlier = finished if begun is None else begun
        is_trusted = earlier is None or self._stamp.items() <= earlier.items()
        write_json(begun_path, self._stamp if is_trusted else {})
        if error := self._read_through(is_trusted=is_trusted, quiet=quiet):
            write_json(begun_path, {})
        elif self._may_be_finished:
            begun_path.unlink()
            tally = asdict(self._tally)
            num_files = {"num_files": tally["num_files"] + tally["num_skipped"]}
            write_json(finished_path, self._stamp | num_files | {key: tally[key] for key in _IN_MARKER})
        return self._report(error=error)

    def _read_through(self, *, is_trusted: bool, quiet: bool) -> str | None:
        """The archive from end to end; returns what is wrong with it."""
        bar = track_bytes(label=self._path.name, total_bytes=self._stamp["size_bytes"], quiet=quiet)
        with self._path.open("rb") as file, bar as show:
            files = MemberFiles(
                self._root, is_trusted=is_trusted, before_new_file=lambda: self._check_space(file.tell())
            )
            last = None
            try:
                stream = TarStream(file, show=show)
                for info in members(stream):
                    last = info.name
                    self._take(info, stream, files)
            except tarfile.TarError as error:
                return self._damage(error, last=last, position_bytes=file.tell())
        return None

    def _take(self, info: tarfile.TarInfo, stream: TarStream, files: MemberFiles) -> None:
        tally = self._tally
        try:
            is_written = files.put(info, stream)
        except RefusedError as refusal:
            self._may_be_finished &= refusal.is_final
            tally.refused[str(refusal)] = tally.refused.get(str(refusal), 0) + 1
            if len(tally.examples) < MAX_EXAMPLES:
                tally.examples.append(f"{_shown(info.name)}: {refusal}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutputError(
                f"{self._root}: the disk is full, at {_shown(info.name)} of {self._path.name}. The {tally.num_files:,} "
                "files written from it in this run, and all from before, are kept; make room and run the same command "
                "again, it goes on there"
            ) from error
        else:
            tally.num_files += is_written
            tally.num_skipped += not is_written and info.isreg()
            tally.num_bytes += info.size if info.isreg() else 0

    def _check_space(self, position_bytes: int) -> None:
        """Before the first new file: room for the rest of this archive, and for those of which nothing is there yet."""
        if self._has_space:
            return
        later = [path for path in self._later if not any(map(Path.exists, _markers(path, root=self._root)))]
        rest_bytes = self._stamp["size_bytes"] - position_bytes + sum(path.stat().st_size for path in later)
        needed_bytes = int(rest_bytes * _GROWTH)
        missing_bytes = needed_bytes - shutil.disk_usage(self._root).free
        if missing_bytes > 0:
            raise OutputError(
                f"{self._root}: the disk lacks {missing_bytes / 1e9:,.3f} GB of the {needed_bytes / 1e9:,.3f} GB that "
                f"{self._path.name}{f' and {len(later)} more' if later else ''} will take; make room, or name "
                "another output folder or fewer archives. What is unpacked stays"
            )
        self._has_space = True

    def _damage(self, error: tarfile.TarError, *, last: str | None, position_bytes: int) -> str:
        if isinstance(error, tarfile.CompressionError):
            return f"{self._path}: {error}"
        where = f"near byte {position_bytes:,} of {self._stamp['size_bytes']:,}"
        if last is None:
            return f"{self._path}: no tar can be read in it, {where} ({error}); look into it, or download it again"
        num_kept = self._tally.num_files + self._tally.num_skipped
        return (
            f"{self._path}: damaged or cut off {where}, in or after {_shown(last)} ({error}). The {num_kept:,} whole "
            "files before that are kept; download the archive again and run the same command: it compares them with it"
        )

    def _report(self, *, error: str | None = None, was_finished: bool = False) -> ArchiveReport:
        tally = asdict(self._tally) | {"examples": tuple(self._tally.examples)}
        return ArchiveReport(archive=str(self._path), error=error, was_finished=was_finished, **tally)


def _markers(archive: Path, *, root: Path) -> tuple[Path, Path]:
    """Of an archive that is begun, and of one that is finished."""
    return root / f".{archive.name}.civid-unpacking", root / f".{archive.name}.civid-unpacked"


def _read_marker(path: Path) -> dict[str, Any] | None:
    """Null: there is none; empty: it says nothing that can be trusted."""
    try:
        marker = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return marker if isinstance(marker, dict) else {}


def _shown(name: str) -> str:
    """A name from an archive, safe to print."""
    return repr(name if len(name) <= 200 else f"{name[:200]}…")
