"""The annotation files a user named: found, readable, and in a fixed order."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from civid_loader.errors import AnnotationError


def find_files(annotations: tuple[str, ...], suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """(path, name relative to what the user named) of every file with one of the suffixes, sorted by name.

    A file that is named itself counts whatever its suffix.

    Raises:
        AnnotationError: a path is missing or unreadable, or a folder holds no such file.
    """
    found: list[tuple[Path, str]] = []
    for named in map(Path, annotations):
        check_readable(named)
        if named.is_file():
            found.append((named, named.name))
            continue
        files = sorted(path for path in walk(named) if path.name.lower().endswith(suffixes))
        if not files:
            raise AnnotationError(f"{named}: no {' or '.join(suffixes)} file in this folder; `civid inspect` shows it")
        for path in files:
            check_readable(path)
        found += [(path, path.relative_to(named).as_posix()) for path in files]
    return found


def walk(root: Path) -> Iterator[Path]:
    """Files below a folder; a folder that cannot be listed is an error, not a gap."""

    def refuse(error: OSError) -> None:
        raise AnnotationError(f"{error.filename}: {error.strerror}; change its permissions or name another folder")

    for folder, _, names in os.walk(root, onerror=refuse):
        for name in names:
            if not name.startswith("."):
                if not _is_utf8(name):
                    raise AnnotationError(f"{str(Path(folder, name))!r}: the file's name is not UTF-8; rename it")
                yield Path(folder, name)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_readable(path: Path) -> None:
    """Raise `AnnotationError` unless the path exists and can be read."""
    if not path.exists():
        parent = next(parent for parent in path.absolute().parents if parent.is_dir())
        beside = ", ".join(sorted(entry.name for entry in parent.iterdir())[:8]) or "nothing"
        raise AnnotationError(f"{path}: no such file or folder; {parent} holds {beside}")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise AnnotationError(f"{path}: permission denied; change its permissions (chmod) or copy it")


def read_field_map(path: Path) -> dict[str, str]:
    """A field map: JSON object, name this package knows -> name the user's files use.

    Raises:
        AnnotationError: unreadable, or not an object of strings.
    """
    check_readable(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AnnotationError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise AnnotationError(f'{path}: a field map is an object of strings, like {{"clips": "my_clip_list"}}')
    return value


def stamp(annotations: tuple[str, ...]) -> str:
    """Sizes and modification times of everything named: changes when the files do."""
    entries = []
    for named in map(Path, annotations):
        check_readable(named)
        for path in sorted(walk(named)) if named.is_dir() else [named]:
            status = path.stat()
            entries.append(f"{path}:{status.st_size}:{status.st_mtime_ns}")
    return xxhash.xxh3_128_hexdigest("\n".join(entries).encode())
