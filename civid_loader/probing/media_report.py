"""What a run of `civid probe` found: counted while rows pass, printed as tables, drawn as one picture."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MAX_KINDS: Final = 20
"""Kinds of reasons that are told apart; the rest is counted as one."""
OTHER: Final = "other"
_MAX_CODECS: Final = 10
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")
_NUMBER: Final = re.compile(r"\d[\d.,]*")

_Edges = tuple[tuple[str, float], ...]
# (label, where the bucket begins). The last one is open.
SHORT_SIDES_PX: Final[_Edges] = (
    ("< 240", 0), ("240-359", 240), ("360-479", 360), ("480-719", 480), ("720-1079", 720), ("1080-1439", 1080),
    ("1440-2159", 1440), ("2160+", 2160),
)  # fmt: skip
# Of rates rounded to whole numbers: 23.976 is 24, 59.94 is 60.
RATES_FPS: Final[_Edges] = (
    ("< 24", 0), ("24", 24), ("25", 25), ("26-29", 26), ("30", 30), ("31-49", 31), ("50", 50), ("51-59", 51),
    ("60", 60), ("> 60", 61),
)  # fmt: skip
DURATIONS_SECONDS: Final[_Edges] = (
    ("< 2", 0), ("2-5", 2), ("5-10", 5), ("10-20", 10), ("20-30", 20), ("30-60", 30), ("60-120", 60), ("120-300", 120),
    ("300-600", 300), ("600+", 600),
)  # fmt: skip
SHORT_SIDE, CODEC, RATE, DURATION = "short side, px", "codec", "frames per second", "clip duration, s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One kind of change since the last run."""

    num_files: int
    first: tuple[str, ...]
    """Pointers of the first ten files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeReport:
    """What a run found. Counts are of clips unless they say files."""

    dataset: str
    """The folder: `datasets.load_dataset(report.dataset, "media")`."""
    num_clips: int
    num_files: int
    """Different pointers."""
    num_unchanged: int
    """Files that are what they were in the last run, and were not looked into again."""
    first_are_missing: int
    """How many files were looked at first, if every one of them is missing, as under a wrong video root; else 0."""
    statuses: Mapping[str, int]
    """ok, missing, unreadable, no_video, not_checked -> clips."""
    reasons: Mapping[str, Mapping[str, int]]
    """Status -> kind of reason -> clips; names and numbers are left out of the reason."""
    num_truncated: int
    """Clips of files that are cut off."""
    num_vfr: int
    """Clips of files with a variable frame rate."""
    num_with_audio: int
    hours: float
    """Of all clips that are ok."""
    histograms: Mapping[str, Mapping[str, int]]
    """Short side, codec, frame rate, duration: bucket -> clips that are ok."""
    changes: Mapping[str, Change] | None
    """Newly missing, newly found, changed content, `ok → unreadable` ... -> files; None: there was no earlier run."""
    picture: str
    """PNG of the histograms."""

    @property
    def length(self) -> str:
        """`1,234.5 hours of video`, or minutes."""
        return f"{self.hours:,.1f} hours of video" if self.hours >= 1 else f"{self.hours * 60:.1f} minutes of video"


class Tally:
    """Counts over rows of the media layer, fed in pieces."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._facts: Counter[str] = Counter()
        self._seconds = 0.0
        self._buckets: dict[str, Counter[str]] = {name: Counter() for name in (SHORT_SIDE, CODEC, RATE, DURATION)}

    def add(self, rows: pa.Table) -> None:
        """Count rows."""
        self._statuses.update(_counts(rows["status"]))
        bad = rows.filter(pc.is_valid(rows["reason"]))
        for status, reason in zip(bad["status"].to_pylist(), bad["reason"].to_pylist(), strict=True):
            self._count_reason(status, kind_of_reason(reason))
        ok = rows.filter(pc.equal(rows["status"], "ok"))
        for name in ("is_truncated", "is_vfr", "has_audio"):
            self._facts[name] += pc.sum(ok[name]).as_py() or 0
        self._seconds += pc.sum(ok["clip_duration_seconds"]).as_py() or 0.0
        sides = pc.min_element_wise(ok["width"], ok["height"])
        rates = pc.round(ok["fps"])
        for name, values, edges in (
            (SHORT_SIDE, sides, SHORT_SIDES_PX),
            (RATE, rates, RATES_FPS),
            (DURATION, ok["clip_duration_seconds"], DURATIONS_SECONDS),
        ):
            self._buckets[name].update(_bucketed(values.drop_null().to_numpy(), edges))
        self._buckets[CODEC].update(_counts(ok["codec"]))

    def _count_reason(self, status: str, kind: str) -> None:
        kinds = self._reasons.setdefault(status, Counter())
        kinds[kind if kind in kinds or len(kinds) < MAX_KINDS else OTHER] += 1

    def results(self) -> dict[str, Any]:
        """The fields of `ProbeReport` that come from rows."""
        codecs = self._buckets[CODEC].most_common()
        rest = sum(count for _, count in codecs[_MAX_CODECS:])
        histograms = {
            SHORT_SIDE: _trimmed(self._buckets[SHORT_SIDE], SHORT_SIDES_PX),
            CODEC: dict(codecs[:_MAX_CODECS]) | ({OTHER: rest} if rest else {}),
            RATE: _trimmed(self._buckets[RATE], RATES_FPS),
            DURATION: _trimmed(self._buckets[DURATION], DURATIONS_SECONDS),
        }
        return {
            "num_clips": self._statuses.total(),
            "statuses": dict(self._statuses.most_common()),
            "reasons": {status: dict(kinds.most_common()) for status, kinds in sorted(self._reasons.items())},
            "num_truncated": self._facts["is_truncated"],
            "num_vfr": self._facts["is_vfr"],
            "num_with_audio": self._facts["has_audio"],
            "hours": self._seconds / 3600,
            "histograms": histograms,
        }


def kind_of_reason(reason: str) -> str:
    """A reason without its cure, names and numbers: "no file '…' in the video root"."""
    return _NUMBER.sub("N", _QUOTED.sub("'…'", reason.split(";")[0]))


def _counts(texts: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(texts).to_pylist()}


def _bucketed(values: npt.NDArray[Any], edges: _Edges) -> dict[str, int]:
    places = np.searchsorted([start for _, start in edges], values, side="right") - 1
    return {edges[place][0]: int(count) for place, count in zip(*np.unique(places, return_counts=True), strict=True)}


def _trimmed(counts: Counter[str], edges: _Edges) -> dict[str, int]:
    """Buckets in order, without the empty ones at both ends."""
    labels = [label for label, _ in edges]
    filled = [place for place, label in enumerate(labels) if counts[label]]
    return {label: counts[label] for label in labels[filled[0] : filled[-1] + 1]} if filled else {}
