"""Text cells to typed Arrow columns, all rows at once. A cell that cannot be read marks its row as rejected."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from civid_loader.schema import arrow_schema
from civid_loader.upstream.records import Rejected
from civid_loader.upstream.tables import NULLS
from civid_loader.upstream.video_index import Located

TIMECODE: Final = r"^(?:(?P<hours>\d{1,4}):)?(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2}(?:\.\d+)?)$"
"""`H:MM:SS(.fff)`, `HH:MM:SS.mmm`, `MM:SS`."""
_LONGEST_NULL: Final = max(map(len, NULLS))
_PAIR: Final = (
    r"^[\[(]\s*['\"]?(?P<first>[^'\",\s()\[\]]+)['\"]?\s*,\s*['\"]?(?P<second>[^'\",\s()\[\]]+)['\"]?\s*[\])]$"
)
"""What Python prints for a list or tuple of two strings or numbers. Every character decides how to go on: that is five
times as fast as classes that overlap."""

_TYPES: Final = {field.name: field.type for field in arrow_schema("annotations")}
_CLIP_TYPES: Final = {field.name: field.type for field in _TYPES["clips"].value_type}
_CAPTIONS: Final = _TYPES["captions"]


class Cells:
    """The cells of a block of records, and which records turned out unreadable while they were parsed."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.problems: list[tuple[npt.NDArray[np.bool_], str]] = []
        self.flags: dict[str, npt.NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def text(self, name: str) -> pa.Array:
        """Trimmed text; null where missing or the column is absent."""
        if name not in self.table.column_names:
            return pa.nulls(len(self), pa.string())
        trimmed = pc.utf8_trim_whitespace(self.table.column(name)).combine_chunks()
        may_be_null = pc.less_equal(pc.binary_length(trimmed), _LONGEST_NULL)
        if not pc.any(may_be_null).as_py():
            return trimmed
        is_null = pc.and_(may_be_null, pc.is_in(trimmed, value_set=pa.array(NULLS)))
        return pc.if_else(is_null, pa.scalar(None, pa.string()), trimmed)

    def number(self, name: str) -> pa.Array:
        """float64."""
        return self._number(self.text(name), f"{name} is not a number")

    def integer(self, name: str, *, num_bits: Literal[32, 64] = 64) -> pa.Array:
        """int64, or int32; `1280.0` is read as 1280."""
        whole = self._integer(self.text(name), f"{name} is not a whole number")
        if num_bits == 64:
            return whole
        fits = pc.less(pc.abs(whole), 2**31)
        self.reject(pc.invert(fits), f"{name} is too large")
        return pc.if_else(fits, whole, pa.scalar(None, pa.int64())).cast(pa.int32())

    def positive(self, number: pa.Array) -> pa.Array:
        """The same without zeros and negative numbers: they stand for missing, and are flagged."""
        is_positive = pc.greater(number, 0)
        self.flag("zero_or_negative_measure", pc.invert(is_positive))
        return pc.if_else(is_positive, number, pa.scalar(None, number.type))

    def integer_pair(self, name: str) -> tuple[pa.Array, pa.Array]:
        """int64 columns from cells like `[11439, 13864.0]`."""
        reason = f"{name} is not a list of two whole numbers"
        first, second = self._pair(name, reason)
        return self._integer(first, reason), self._integer(second, reason)

    def time_pair(self, name: str) -> tuple[pa.Array, pa.Array]:
        """Seconds, float64, from cells like `['00:06:21.300', '00:07:42.133']`."""
        reason = f"{name} is not a list of two times"
        first, second = self._pair(name, reason)
        return self._seconds(first, reason), self._seconds(second, reason)

    def match(self, name: str, pattern: str, *, example: str) -> pa.StructArray:
        """Named groups of a regular expression; a cell that is present and does not match is a problem."""
        found = pc.extract_regex(self.text(name), pattern=pattern)
        return self._must_parse(self.text(name), found, f"{name} does not look like {example}")

    def reject(self, bad: pa.Array, reason: str) -> None:
        """Mark rows as unreadable (null counts as good)."""
        mask = _mask(bad)
        if mask.any():
            self.problems.append((mask, reason))

    def flag(self, name: str, odd: pa.Array | npt.NDArray[np.bool_]) -> None:
        """Put a flag on rows that were odd but could be read (null counts as not odd)."""
        mask = _mask(odd)
        if mask.any():
            self.flags[name] = mask | self.flags.get(name, False)

    def without_problems(self) -> tuple["Cells", npt.NDArray[np.bool_], list[str]]:
        """(the good rows, mask of kept rows, reason for each row that is not kept)."""
        reasons: list[str | None] = [None] * len(self)
        for mask, reason in reversed(self.problems):
            for row in np.flatnonzero(mask).tolist():
                reasons[row] = reason
        kept = np.array([reason is None for reason in reasons], dtype=np.bool_)
        return Cells(self.table.filter(pa.array(kept))), kept, [reason for reason in reasons if reason]

    def _pair(self, name: str, reason: str) -> tuple[pa.Array, pa.Array]:
        text = self.text(name)
        found = self._must_parse(text, pc.extract_regex(text, pattern=_PAIR), reason)
        return pc.struct_field(found, "first"), pc.struct_field(found, "second")

    def _seconds(self, text: pa.Array, reason: str) -> pa.Array:
        found = self._must_parse(text, pc.extract_regex(text, pattern=TIMECODE), reason)
        hours, minutes, seconds = (pc.struct_field(found, part) for part in ("hours", "minutes", "seconds"))
        hours = pc.if_else(pc.equal(hours, ""), "0", hours)
        whole = pc.add(
            pc.multiply(pc.cast(hours, pa.float64()), 3600.0), pc.multiply(pc.cast(minutes, pa.float64()), 60.0)
        )
        microseconds = pc.round(pc.multiply(pc.add(whole, pc.cast(seconds, pa.float64())), 1e6))
        return pc.divide(microseconds, 1e6)

    def _number(self, text: pa.Array, reason: str) -> pa.Array:
        try:
            number = pc.cast(text, pa.float64())
        except pa.ArrowInvalid:
            plain = pc.match_substring_regex(text, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
            self.reject(pc.invert(plain), reason)
            number = pc.cast(pc.if_else(plain, text, pa.scalar(None, pa.string())), pa.float64())
        finite = pc.is_finite(number)
        self.reject(pc.invert(finite), reason)
        return pc.if_else(finite, number, pa.scalar(None, pa.float64()))

    def _integer(self, text: pa.Array, reason: str) -> pa.Array:
        number = self._number(text, reason)
        whole = pc.and_(pc.equal(number, pc.floor(number)), pc.less(pc.abs(number), float(2**53)))
        self.reject(pc.invert(whole), reason)
        return pc.cast(pc.if_else(whole, number, pa.scalar(None, pa.float64())), pa.int64())

    def _must_parse(self, text: pa.Array, parsed: pa.Array, reason: str) -> pa.Array:
        self.reject(pc.and_(text.is_valid(), parsed.is_null()), reason)
        return parsed


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionColumn:
    """Captions of one kind. Rows must ascend; several windows of a row in time order."""

    kind: str
    annotator: str | pa.Array
    text: pa.Array
    """Nulls are rows without this caption."""
    row: npt.NDArray[np.int64] | None = None
    """The row each text belongs to; null: text i belongs to row i."""
    start_seconds: pa.Array | None = None
    end_seconds: pa.Array | None = None


def nest_captions(columns: Sequence[CaptionColumn], num_rows: int) -> pa.ListArray:
    """list<CAPTION> per row: the kinds in the order given, windows in time order."""
    total = [len(column.text) for column in columns]
    rows = np.concatenate([np.arange(num_rows) if column.row is None else column.row for column in columns])
    text = pa.concat_arrays([column.text for column in columns])
    annotator = pa.concat_arrays([_repeat(column.annotator, len(column.text)) for column in columns])
    kind = pa.concat_arrays([_repeat(column.kind, len(column.text)) for column in columns])
    edges = [
        pa.concat_arrays([_or_nulls(getattr(column, edge), len(column.text), pa.float64()) for column in columns])
        for edge in ("start_seconds", "end_seconds")
    ]
    assert sum(total) == len(text)
    present = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False))
    order = present[np.argsort(rows[present], kind="stable")]
    taken = [array.take(pa.array(order)) for array in (kind, text, *edges, annotator)]
    counts = np.bincount(rows[present], minlength=num_rows)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = pa.StructArray.from_arrays(taken, fields=list(_CAPTIONS.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=_CAPTIONS)


def one_clip_samples(num_rows: int, clip: dict[str, pa.Array], **columns: Any) -> pa.Table:
    """Sample rows of one clip each. Fields of `clip` and `columns` not given are missing (lists: empty)."""
    clips = struct_of(clip | {"index": _repeat(0, num_rows, pa.int32())}, _TYPES["clips"].value_type, num_rows)
    offsets = pa.array(np.arange(num_rows + 1, dtype=np.int32))
    given = {name: _repeat(value, num_rows, _TYPES[name]) for name, value in columns.items()}
    given["clips"] = pa.ListArray.from_arrays(offsets, clips, type=_TYPES["clips"])
    schema = arrow_schema("annotations")
    return pa.table([given.get(name, _missing(kind, num_rows)) for name, kind in _TYPES.items()], schema=schema)


def pointer_fields(cells: Cells, located: Located) -> dict[str, pa.Array]:
    """The clip fields that say where the video is; what is odd about it becomes a flag."""
    cells.flag("video_not_found", located.not_found)
    cells.flag("ambiguous_video", located.ambiguous)
    return {"video": located.video, "trimmed": pa.array(located.trimmed)}


def clip_struct(name: str, num_rows: int, **fields: Any) -> pa.StructArray:
    """The `source` or `media` struct of clips; fields not given are null."""
    return struct_of(fields, _CLIP_TYPES[name], num_rows)


def provenance(num_rows: int, **fields: Any) -> pa.StructArray:
    """The `provenance` struct."""
    return struct_of(fields, _TYPES["provenance"], num_rows)


def one_score(value: pa.Array, *, name: str, unit: str, annotator: str) -> pa.ListArray:
    """Upstream's score of each clip: a list of one, or empty where null."""
    kept = value.drop_null()
    fields = {"name": name, "unit": unit, "annotator": annotator, "value": kept}
    offsets = np.concatenate([[0], np.cumsum(value.is_valid().to_numpy(zero_copy_only=False))]).astype(np.int32)
    kind = _CLIP_TYPES["scores"]
    return pa.ListArray.from_arrays(pa.array(offsets), struct_of(fields, kind.value_type, len(kept)), type=kind)


def nest_flags(cells: Cells) -> pa.ListArray:
    """list<flag> per row."""
    num_rows = len(cells)
    names = list(cells.flags)
    masks = np.stack(list(cells.flags.values()), axis=1) if names else np.zeros((num_rows, 0), dtype=np.bool_)
    rows, which = np.nonzero(masks)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))]).astype(np.int32)
    values = pa.array(names, pa.string()).take(pa.array(which))
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=_TYPES["flags"])


def rejected_rows(
    cells: Cells, kept: npt.NDArray[np.bool_], reasons: list[str], *, file: str, row_index: npt.NDArray[np.int64]
) -> list[Rejected]:
    """`Rejected` for the rows of `cells` that are not kept."""
    bad = cells.table.filter(pa.array(~kept)).to_pylist()
    return [
        Rejected(file=file, row_index=row, reason=reason, raw=json.dumps(raw, ensure_ascii=False))
        for row, reason, raw in zip(row_index[~kept].tolist(), reasons, bad, strict=True)
    ]


def _mask(values: pa.Array | npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    if isinstance(values, np.ndarray):
        return values
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def nest(counts: Sequence[int], values: pa.Array, kind: pa.ListType) -> pa.ListArray:
    """Lists of `counts[i]` values each."""
    offsets = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


def struct_of(fields: dict[str, Any], kind: pa.StructType, num_rows: int, *, mask: pa.Array = None) -> pa.StructArray:
    """Structs; fields not given are missing (lists: empty); null where `mask`."""
    unknown = fields.keys() - {field.name for field in kind}
    assert not unknown, unknown
    arrays = [
        _repeat(fields[field.name], num_rows, field.type) if field.name in fields else _missing(field.type, num_rows)
        for field in kind
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=mask)


def _repeat(value: Any, num_rows: int, kind: pa.DataType | None = None) -> pa.Array:
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return value if kind is None or value.type == kind else value.cast(kind)
    if isinstance(value, np.ndarray):
        return pa.array(value, kind)
    return pa.repeat(pa.scalar(value, kind or pa.string()), num_rows)


def _or_nulls(array: pa.Array | None, num_rows: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(num_rows, kind) if array is None else array


def _missing(kind: pa.DataType, num_rows: int) -> pa.Array:
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(
            pa.array(np.zeros(num_rows + 1, dtype=np.int32)), pa.nulls(0, kind.value_type), type=kind
        )
    return pa.nulls(num_rows, kind)
