"""Folders of small made-up files, and archives of them."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_tree(root: Path, files: Mapping[str, Any]) -> Path:
    """Files by relative name, folders made as needed: bytes and text as they are, anything else as JSON."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, (bytes, str)) else json.dumps(content, ensure_ascii=False)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def write_tar(path: Path, members: Mapping[str, bytes], *, links: Mapping[str, str] | None = None) -> Path:
    """An uncompressed tar of files and symbolic links, names taken literally."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def tree_bytes(root: Path, *, without: str = "") -> dict[str, bytes]:
    """Content of every file by relative name; `without`: a folder to leave out."""
    names = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if not without or name.split("/")[0] != without}
