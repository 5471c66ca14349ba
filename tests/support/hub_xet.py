"""The Xet side of the loopback Hub: a content store on disk that hf_xet itself writes and reads."""

import importlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

RECORD_BYTES = 48
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30
LOCK_SECONDS = 60.0
"""How long a reader waits for a client that has the store open."""


@dataclass(kw_only=True)
class XetStore:
    """A folder given to clients as the address of their content store."""

    folder: Path
    """Empty at first."""
    known: dict[str, tuple[str, int]] = field(default_factory=dict)
    """sha256 -> (Xet hash, size in bytes), of the shards read so far."""
    shards_read: set[Path] = field(default_factory=set)
    """Descriptions of files that are in `known`."""

    @property
    def url(self) -> str:
        """What hf_xet takes for an endpoint: it works on the folder, in the client's process."""
        return f"local://{self.folder}"

    @property
    def num_bytes(self) -> int:
        """Size of the content kept so far, after deduplication."""
        folder = self.folder / "xet" / "xorbs" / "xorbs"
        return sum(path.stat().st_size for path in folder.glob("*") if path.suffix != ".tagset")

    def find(self, sha256: str) -> tuple[str, int] | None:
        """(Xet hash, size in bytes) of a file known by its sha256."""
        if sha256 not in self.known:
            for shard in (self.folder / "xet" / "xorbs" / "shards").glob("*.mdb"):
                if shard not in self.shards_read:  # Their names are their hashes: they do not change.
                    self.known |= dict(_files(shard.read_bytes()))
                    self.shards_read.add(shard)
        return self.known.get(sha256)

    def fetch(self, sha256: str, path: Path) -> None:
        """Write a file to a path."""
        found = self.find(sha256)
        if found is None:
            raise FileNotFoundError(f"no file with sha256 {sha256} in {self.url}")
        hf_xet = importlib.import_module("hf_xet")
        temporary = path.with_name(f"{path.name}.{time.monotonic_ns()}")
        deadline_seconds = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                with hf_xet.XetSession().new_file_download_group(endpoint=self.url) as group:
                    group.start_download_file(hf_xet.XetFileInfo(*found), str(temporary))
                break
            except Exception as error:
                # One process at a time may have the store open.
                if "acquire lock" not in str(error) or time.monotonic() > deadline_seconds:
                    raise
                time.sleep(0.1)
        temporary.replace(path)


def _files(shard: bytes) -> Iterator[tuple[str, tuple[str, int]]]:
    """(sha256, (Xet hash, size in bytes)) of the files of a shard."""
    at = RECORD_BYTES
    while shard[at : at + 32] != b"\xff" * 32:
        file_hash, flags, num_segments = struct.unpack_from("<32sII", shard, at)
        at += RECORD_BYTES
        num_bytes = sum(struct.unpack_from("<I", shard, at + RECORD_BYTES * n + 36)[0] for n in range(num_segments))
        at += RECORD_BYTES * num_segments * (2 if flags & HAS_VERIFICATION else 1)
        if flags & HAS_METADATA:
            yield _hexadecimal(shard[at : at + 32]), (_hexadecimal(file_hash), num_bytes)
            at += RECORD_BYTES


def _hexadecimal(hash_bytes: bytes) -> str:
    """A hash as hf_xet prints it: four little-endian 64-bit numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", hash_bytes))
