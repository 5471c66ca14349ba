"""Which video files a root holds, found by one scan that opens no video, and looked up by upstream's names."""

import os
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import xxhash

from civid_loader.errors import AnnotationError

VIDEO_SUFFIXES: Final = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".ts")
_PACKED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
_SEPARATOR: Final = re.compile(r"/|(?<=\.tar)!", re.IGNORECASE)
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """Where the clips of a block lie."""

    video: pa.Array
    """Pointers; where nothing was found (or no root given), upstream's name of the trimmed clip."""
    trimmed: npt.NDArray[np.bool_]
    """False: the pointer is the whole source video."""
    not_found: npt.NDArray[np.bool_]
    ambiguous: npt.NDArray[np.bool_]
    """Several files fit equally well; the first by name was taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoIndex:
    """The video files below a root: pointers, and the sorted hashes of their names without suffix."""

    name_hash: npt.NDArray[np.uint64]
    pointer: pa.Array
    skipped: dict[str, int]
    """What the scan left out, counted by reason."""

    @staticmethod
    def scan(root: str) -> "VideoIndex":
        """List a folder and the members of the uncompressed tars in it.

        Raises:
            AnnotationError: the root is not a readable folder.
        """
        if not os.path.isdir(root) or not os.access(root, os.R_OK | os.X_OK):
            raise AnnotationError(f"{root}: not a readable folder; --videos names the folder the video files lie in")
        skipped: Counter[str] = Counter()
        pointers = sorted(set(_scan(Path(root), skipped)))
        hashes = np.fromiter((_hash(name) for name in pointers), dtype=np.uint64, count=len(pointers))
        order = np.argsort(hashes, kind="stable")
        pointer = pa.array(pointers, pa.string()).take(pa.array(order))
        return VideoIndex(name_hash=hashes[order], pointer=pointer, skipped=dict(skipped))

    def save(self, path: Path) -> None:
        """Write to an Arrow file that worker processes map into memory."""
        table = pa.table({"name_hash": self.name_hash, "pointer": self.pointer})
        skipped = {name: str(count) for name, count in self.skipped.items()}
        feather.write_feather(table.replace_schema_metadata(skipped), str(path), compression="uncompressed")

    @staticmethod
    def load(path: Path) -> "VideoIndex":
        """Open what `save` wrote."""
        table = feather.read_table(str(path), memory_map=True).combine_chunks()
        skipped = {name.decode(): int(count) for name, count in (table.schema.metadata or {}).items()}
        pointer = table["pointer"].chunk(0) if len(table) else pa.array([], pa.string())
        return VideoIndex(name_hash=table["name_hash"].to_numpy(), pointer=pointer, skipped=skipped)

    def find(self, names: pa.Array) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
        """(pointer or null, whether several fit equally well) for upstream's relative names; null names: null.

        A file fits if its name without video suffix is the same; of several, the one with the longest common path
        tail; never one in another video's digest folder.
        """
        wanted = names.to_pylist()
        hashes = np.fromiter((_hash(name or "") for name in wanted), dtype=np.uint64, count=len(wanted))
        first = np.searchsorted(self.name_hash, hashes, side="left")
        last = np.searchsorted(self.name_hash, hashes, side="right")
        pointers: list[str | None] = [None] * len(wanted)
        ambiguous = np.zeros(len(wanted), dtype=np.bool_)
        for i in np.flatnonzero(last > first).tolist():
            if wanted[i]:
                candidates = self.pointer[int(first[i]) : int(last[i])].to_pylist()
                pointers[i], ambiguous[i] = _best(wanted[i], candidates)
        return pa.array(pointers, pa.string()), ambiguous


def locate(
    index: VideoIndex | None, clips: pa.Array, sources: Sequence[pa.Array] = (), *, starts: pa.Array | None = None
) -> Located:
    """The trimmed clip where there is one, else the raw source video, else upstream's name for the clip.

    Args:
        index: the scanned root; null where the user named none.
        clips: upstream's names of the trimmed clips.
        sources: upstream's names of the whole videos, best first.
        starts: where the clips begin in them; where that is null, a whole video is of no use. Null: known for all.
    """
    num_rows = len(clips)
    is_trimmed = np.ones(num_rows, dtype=np.bool_)
    nowhere = np.zeros(num_rows, dtype=np.bool_)
    if index is None:
        return Located(video=clips, trimmed=is_trimmed, not_found=nowhere, ambiguous=nowhere)
    video, ambiguous = index.find(clips)
    for names in sources:
        missing = video.is_null().to_numpy(zero_copy_only=False)
        if starts is not None:
            missing &= starts.is_valid().to_numpy(zero_copy_only=False)
        if not missing.any():
            break
        found, several = index.find(pc.if_else(pa.array(missing), names, pa.scalar(None, pa.string())))
        is_source = found.is_valid().to_numpy(zero_copy_only=False)
        is_trimmed &= ~is_source
        ambiguous |= several & is_source
        video = pc.coalesce(video, found)
    not_found = video.is_null().to_numpy(zero_copy_only=False)
    return Located(video=pc.coalesce(video, clips), trimmed=is_trimmed, not_found=not_found, ambiguous=ambiguous)


def _scan(root: Path, skipped: Counter[str]) -> Iterator[str]:
    real_root = os.path.realpath(root)
    folders = [root]
    while folders:
        with _entries(folders.pop()) as entries:
            for entry in entries:
                name = entry.name.lower()
                pointer = Path(entry.path).relative_to(root).as_posix()
                if entry.is_symlink() and not _is_inside(os.path.realpath(entry.path), real_root):
                    skipped["link out of the root"] += 1
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif name.endswith(_PACKED):
                    skipped["archive that cannot be read at random: unpack it (civid unpack)"] += 1
                elif name.endswith((*VIDEO_SUFFIXES, ".tar")):
                    if not _num_bytes(entry):
                        skipped["empty file or dead link"] += 1
                    elif name.endswith(".tar"):
                        yield from _members(Path(entry.path), pointer, skipped)
                    elif _is_utf8(pointer, skipped):
                        yield pointer


def _entries(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except PermissionError as error:
        raise AnnotationError(f"{folder}: permission denied; change its permissions (chmod)") from error


def _is_inside(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _num_bytes(entry: os.DirEntry[str]) -> int:
    """Size of a regular file, 0 for anything else."""
    try:
        return entry.stat().st_size if entry.is_file() else 0
    except OSError:
        return 0


def _members(archive: Path, pointer: str, skipped: Counter[str]) -> Iterator[str]:
    size = archive.stat().st_size
    try:
        with tarfile.open(archive, mode="r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse() and not 0 <= member.size <= size - member.offset_data:
                    raise tarfile.ReadError("cut off, or a header that leads tarfile astray")
                if not member.name.lower().endswith(VIDEO_SUFFIXES):
                    continue
                if not member.isreg() or member.issparse() or not member.size:
                    skipped["empty, sparse or linked archive member"] += 1
                elif member.name.startswith("/") or ".." in member.name.split("/"):
                    skipped["archive member with an unsafe name"] += 1
                elif _is_utf8(member.name, skipped):
                    yield f"{pointer}!{member.name}"
    except tarfile.TarError:
        skipped["broken archive: download it again"] += 1


def _is_utf8(name: str, skipped: Counter[str]) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        skipped["name that is not UTF-8"] += 1
        return False
    return True


def _parts(name: str) -> list[str]:
    """Folders, archives and file of a pointer: `part/x.tar!in/a.mp4` -> part, x.tar, in, a.mp4

    Accents are composed: some file systems decompose them.
    """
    return _SEPARATOR.split(name if name.isascii() else unicodedata.normalize("NFC", name))


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(_stem(name).encode())


def _stem(name: str) -> str:
    base = _parts(name)[-1]
    dot = base.rfind(".")
    return base[:dot] if base[dot:].lower() in VIDEO_SUFFIXES else base


def _best(wanted: str, candidates: list[str]) -> tuple[str | None, bool]:
    base = _parts(wanted)[-1]
    fitting = sorted(
        (-_common_tail(wanted, name), _parts(name)[-1] != base, name)
        for name in candidates
        if _same_video(wanted, name)
    )
    if not fitting:
        return None, False
    return fitting[0][2], len(fitting) > 1 and fitting[0][:2] == fitting[1][:2]


def _common_tail(left: str, right: str) -> int:
    ours, theirs = (reversed(_parts(name)[:-1]) for name in (left, right))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))


def _same_video(wanted: str, candidate: str) -> bool:
    ours, theirs = (_parts(name)[-2:-1] for name in (wanted, candidate))
    return not (ours and theirs and ours != theirs and _DIGEST.fullmatch(ours[0]) and _DIGEST.fullmatch(theirs[0]))


def relative_name(path: str) -> str:
    """A path out of an annotation as a name below the video root.

    The annotators' own absolute paths (and any `..`) are cut to the last two parts, `<folder>/<file>`, which is what
    upstream's naming rules speak of.
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if path.startswith(("/", "\\")) or ".." in parts or ":" in path:
        parts = [part for part in parts if part != ".."][-2:]
    return "/".join(parts)
