"""Samples that could not be read: each written down once, and a stop where there are too many."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from civid_loader.errors import TooManyFailedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One sample that could not be read."""

    sample_id: str
    error: str
    """Class of the exception."""
    message: str
    """Names clip and pointer."""


class Quarantine:
    """The failures of a run, in memory by number and in a file by name, one JSON line for each sample and error."""

    def __init__(self, path: Path | None, *, max_consecutive: int, max_failures: int | None) -> None:
        """`path`: None keeps no file. What an earlier run wrote there is not written again."""
        self.counts: Counter[str] = Counter()
        """Failures by class of exception, those seen before included."""
        self._path, self._max_consecutive, self._max_failures = path, max_consecutive, max_failures
        self._seen: set[tuple[str, str]] = set()
        self._num_consecutive = 0
        self._last: list[Failure] = []
        if path is not None and path.is_file():
            known = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            self._seen = {(line["sample_id"], line["error"]) for line in known}

    def note(self, results: Iterable[Failure | None]) -> None:
        """Results of samples in order, None for one that was read.

        Raises:
            TooManyFailedError: more failures in a row, or altogether, than allowed.
        """
        new = []
        for result in results:
            if result is None:
                self._num_consecutive = 0
                continue
            self._num_consecutive += 1
            self.counts[result.error] += 1
            self._last = [*self._last[-9:], result]
            if (result.sample_id, result.error) not in self._seen:
                self._seen.add((result.sample_id, result.error))
                new.append(result)
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
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _stop(self, what: str) -> None:
        by_class = ", ".join(f"{number} {name}" for name, number in self.counts.most_common())
        last = "\n".join(f"{one.sample_id}: {one.error}: {one.message}" for one in self._last)
        listed = f" All are in {self._path}." if self._path else ""
        raise TooManyFailedError(
            f"{what} could not be read ({by_class}): is the video root right, and the disk there?{listed} The last:\n"
            + last
        )
