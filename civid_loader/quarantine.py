"""Samples that could not be read: each written down once, and a stop where there are too many."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from civid_loader.errors import TooManyFailedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One clip that could not be read."""

    sample_id: str
    clip_id: str
    video: str | None
    """Its pointer; None where upstream names no file."""
    error: str
    """Class of the exception."""
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What came of reading one sample."""

    failures: tuple[Failure, ...]
    """Clips that could not be read, in order."""
    is_read: bool
    """The sample is there all the same, without clips whose file is missing."""


class Quarantine:
    """The failures of a run, in memory by number and in a file by name, one JSON line for each clip and error."""

    def __init__(self, path: Path | None, *, max_consecutive: int, max_failures: int | None) -> None:
        """`path`: None keeps no file. What an earlier run wrote there is not written again.

        Raises:
            ValueError: the file is there and is something else.
        """
        self.counts: Counter[str] = Counter()
        """Samples that could not be read, by class of the first exception."""
        self._path, self._max_consecutive, self._max_failures = path, max_consecutive, max_failures
        self._seen = set() if path is None or not path.is_file() else _read(path)
        self._num_consecutive = 0
        self._last: list[Failure] = []

    def note(self, attempts: Iterable[Attempt]) -> None:
        """What came of samples, in order.

        Raises:
            TooManyFailedError: more failures in a row, or altogether, than allowed.
        """
        new = []
        for attempt in attempts:
            new += [one for one in attempt.failures if _key(asdict(one)) not in self._seen]
            self._seen.update(_key(asdict(one)) for one in attempt.failures)
            if attempt.is_read:
                self._num_consecutive = 0
                continue
            self._num_consecutive += 1
            self.counts[attempt.failures[0].error] += 1
            self._last = [*self._last[-9:], attempt.failures[0]]
        if new and self._path is not None:
            self._write(new)
        total = self.counts.total()
        if self._num_consecutive >= self._max_consecutive:
            self._stop(f"{self._num_consecutive} samples in a row (max_consecutive_failures={self._max_consecutive})")
        if self._max_failures is not None and total > self._max_failures:
            self._stop(f"{total} samples (max_failures={self._max_failures})")

    def _write(self, failures: list[Failure]) -> None:
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        first_seen = datetime.now(UTC).isoformat(timespec="seconds")
        lines = [json.dumps(asdict(one) | {"first_seen": first_seen}, ensure_ascii=False) for one in failures]
        with self._path.open("a", encoding="utf-8") as file:
            # A run that was killed while it wrote may have left half a line.
            file.write("" if _ends_whole(self._path) else "\n")
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _stop(self, what: str) -> None:
        by_class = ", ".join(f"{number} {name}" for name, number in self.counts.most_common())
        last = "\n".join(f"{one.error}: {one.message}" for one in self._last)
        listed = f" All are in {self._path}." if self._path else ""
        raise TooManyFailedError(
            f"{what} could not be read ({by_class}): is the video root right, and the disk there?{listed} The last:\n"
            + last
        )


def _key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return line["sample_id"], line["clip_id"], line["error"]


def _read(path: Path) -> set[tuple[str, str, str]]:
    """Clips and errors that the file names; a line that a kill cut off names none."""
    found = set()
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(filter(None, lines), 1):
        try:
            found.add(_key(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            if not line.endswith("}"):
                continue
            raise ValueError(
                f"quarantine {path}, line {number}: not what a loader writes there; name another file, or delete it"
            ) from error
    return found


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
