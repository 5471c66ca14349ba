"""Whether what is about to be written fits on the disk."""

import shutil
from pathlib import Path
from typing import Final

from civid_loader.errors import OutputError

_SPARE: Final = 1.01
"""Names, indexes and footers come on top of the bytes of the files themselves."""


def check_space(folder: Path, num_bytes: int, *, what: str) -> None:
    """Refuse to begin what cannot be finished.

    Args:
        folder: it, or the nearest folder above it that exists, tells the disk.
        num_bytes: that are to be written.
        what: they are, for the message.

    Raises:
        OutputError: fewer bytes are free.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free_bytes = shutil.disk_usage(there).free
    if num_bytes * _SPARE > free_bytes:
        raise OutputError(
            f"{folder}: {what} take {num_bytes * _SPARE / 1e9:,.3f} GB, and the disk has {free_bytes / 1e9:,.3f} GB "
            "free; make room, or choose a folder on another disk"
        )
