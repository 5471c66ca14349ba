"""Big CSV tables: cut at record boundaries, decoded, and read into text columns by pyarrow.

A record ends at a newline outside quotes (RFC 4180). Finding those needs only the positions of quotes and newlines,
0.4 s of CPU per GB, so a table is first cut into ranges with known row numbers, and ranges are read in parallel.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from civid_loader.errors import AnnotationError

BLOCK_BYTES: Final = 8 << 20
"""Input parsed at once: bounds memory, and is the row group size."""
MAX_RECORD_BYTES: Final = 1 << 20
"""A longer record is a quote that was never closed (the longest real cell has 7 KB)."""
_CARRIAGE_RETURN: Final = "a lone carriage return ends a line here; save the file with newlines as line ends"
NULLS: Final = ("", "nan", "NaN", "None", "none", "null", "NULL", "N/A")
"""Cell texts that mean missing."""

csv.field_size_limit(2 * BLOCK_BYTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvRange:
    """Records of one CSV file that lie together."""

    path: str
    columns: tuple[str, ...]
    """All columns of the file; unnamed ones are called `column_<i>`."""
    start_byte: int
    first_row: int
    """Record number of the first record, header not counted."""
    blocks: tuple[tuple[int, int], ...]
    """(first byte after the last record, number of records) of pieces of at most about `BLOCK_BYTES`, in order."""

    @property
    def end_byte(self) -> int:
        """The first byte after the last record."""
        return self.blocks[-1][0]


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvBlock:
    """Parsed records."""

    cells: pa.Table
    """Every column as text; missing is null."""
    row_index: npt.NDArray[np.int64]
    """Record number of each row."""
    is_cp1252: npt.NDArray[np.bool_]
    """True where the record was not UTF-8 and was read as Windows-1252."""
    rejected: list[tuple[int, str, str]]
    """(record number, reason, text) of what cannot be read."""
    num_blank: int
    """Records without a single value, skipped."""


def read_header(path: Path) -> tuple[tuple[str, ...], int]:
    """Column names and the byte at which the records begin.

    Raises:
        AnnotationError: empty file, or text that is not a table.
    """
    with path.open("rb") as file:
        head = file.read(MAX_RECORD_BYTES)
    bom = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    if not head[bom:].strip():
        raise AnnotationError(f"{path}: the file is empty; was the download cut off?")
    ends = _record_ends(head[bom:])
    if not len(ends) and len(head) == MAX_RECORD_BYTES:
        raise AnnotationError(f"{path}: its first line does not end within 1 MB; this is not a CSV table")
    end = bom + int(ends[0]) if len(ends) else len(head)
    text = _decode(head[bom:end])[0]
    if text is None or "\0" in text:
        raise AnnotationError(f"{path}: binary data, not a CSV table")
    if "\r" in text.rstrip("\r\n"):
        raise AnnotationError(f"{path}: {_CARRIAGE_RETURN}")
    if not text.strip():
        raise AnnotationError(f"{path}: the first line is blank; it must name the columns")
    names = tuple(name.strip() or f"column_{i}" for i, name in enumerate(next(csv.reader(io.StringIO(text)))))
    if len(set(names)) < len(names):
        raise AnnotationError(f"{path}: column names repeat: {', '.join(names)}")
    return names, end


def plan_ranges(path: Path, *, range_bytes: int) -> list[CsvRange]:
    """Cut a CSV file into ranges of whole records of about `range_bytes`. Reads the file once, block by block."""
    columns, begin = read_header(path)
    start, first_row, num_rows = begin, 0, 0
    blocks: list[tuple[int, int]] = []
    ranges: list[CsvRange] = []

    def close_range() -> None:
        ranges.append(
            CsvRange(path=str(path), columns=columns, start_byte=start, first_row=first_row, blocks=tuple(blocks))
        )
        blocks.clear()

    for ends in _scan(path, begin, path.stat().st_size):
        done = 0
        while done < len(ends):
            upto = min(int(np.searchsorted(ends, start + range_bytes)) + 1, len(ends))
            end = int(ends[upto - 1])
            blocks.append((end, upto - done))
            num_rows, done = num_rows + upto - done, upto
            if end >= start + range_bytes:
                close_range()
                start, first_row = end, num_rows
    if blocks:
        close_range()
    return ranges


def read_range(part: CsvRange, *, only: str | None = None) -> Iterator[CsvBlock]:
    """Parse a range, about `BLOCK_BYTES` at a time. A record that cannot be read is rejected, never fatal.

    Args:
        only: the one column that is needed; saves a third of the work.
    """
    row, start = part.first_row, part.start_byte
    with Path(part.path).open("rb") as file:
        file.seek(start)
        for end, num_rows in part.blocks:
            data, start = file.read(end - start), end
            cells = _parse_fast(data, num_rows, part.columns, [only] if only else list(part.columns))
            if cells is None:
                yield _parse_each(data, _close_records(data, at_end=True), part.columns, row)
            else:
                yield _without_blank(cells, row)
            row += num_rows


def _scan(path: Path, start: int, end: int) -> Iterator[npt.NDArray[np.int64]]:
    """File positions after each record, `BLOCK_BYTES` at a time."""
    num_bytes = BLOCK_BYTES
    with path.open("rb") as file:
        while start < end:
            file.seek(start)  # reading the cut-off record again is cheaper than joining its halves
            data = file.read(min(num_bytes, end - start))
            ends = _close_records(data, at_end=start + len(data) >= end)
            if len(ends):
                yield ends + start
                start, num_bytes = start + int(ends[-1]), BLOCK_BYTES
            elif len(data) == num_bytes == BLOCK_BYTES:
                num_bytes = 2 * BLOCK_BYTES
            else:
                raise AnnotationError(f"{path}: no end of a record within {len(data)} bytes; this is not a CSV table")


def _positions(data: bytes, byte: bytes) -> npt.NDArray[np.int64]:
    """Where a byte occurs; piece by piece, each small enough for the processor's cache."""
    view = np.frombuffer(data, dtype=np.uint8)
    found = [np.flatnonzero(view[i : i + (1 << 18)] == byte[0]) + i for i in range(0, len(view), 1 << 18)]
    return np.concatenate(found) if found else np.array([], dtype=np.int64)


def _record_ends(data: bytes) -> npt.NDArray[np.int64]:
    """Positions after each newline that lies outside quotes, for data that begins at a record."""
    newlines = _positions(data, b"\n")
    outside = (np.searchsorted(_positions(data, b'"'), newlines) & 1) == 0
    ends: npt.NDArray[np.int64] = newlines[outside] + 1
    return ends


def _close_records(data: bytes, *, at_end: bool) -> npt.NDArray[np.int64]:
    """Record ends, where a quote that is never closed spoils only its own line.

    Two good records, then one that opens a quote and goes on for over 1 MB: the third record is cut at its first
    newline, and the text after it is looked at afresh.
    """
    ends = _record_ends(data)
    num_checked = 0
    while True:
        long = np.flatnonzero(np.diff(ends, prepend=0)[num_checked:] > MAX_RECORD_BYTES)
        number = num_checked + int(long[0]) if len(long) else len(ends)
        begin = int(ends[number - 1]) if number else 0
        if number == len(ends):
            rest_bytes = len(data) - begin
            if not rest_bytes or (rest_bytes <= MAX_RECORD_BYTES and not at_end):
                return ends
            if rest_bytes <= MAX_RECORD_BYTES and data.count(b'"', begin) % 2 == 0:
                return np.append(ends, len(data))
        newline = data.find(b"\n", begin)
        if newline < 0:
            return np.append(ends, len(data)) if at_end else ends
        if number == len(ends) or newline + 1 < ends[number]:
            rest = _record_ends(data[newline + 1 :]) + newline + 1
            ends = np.concatenate([ends[:number], [newline + 1], rest])
        num_checked = number + 1


def _parse_fast(data: bytes, num_rows: int, columns: Sequence[str], wanted: list[str]) -> pa.Table | None:
    """All records in one go; null unless every record is well-formed UTF-8 with the right number of columns."""
    if np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == ord('"')) % 2:  # three times as fast as data.count
        return None
    try:
        cells = pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(
                column_names=list(columns), use_threads=False, block_size=max(len(data) + 1, 1024)
            ),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=list(NULLS),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return cells.combine_chunks() if cells.num_rows == num_rows else None


def _parse_each(data: bytes, ends: npt.NDArray[np.int64], columns: Sequence[str], first_row: int) -> CsvBlock:
    """Record by record, for blocks in which something is wrong."""
    rows: list[list[str | None]] = []
    row_index: list[int] = []
    is_cp1252: list[bool] = []
    rejected: list[tuple[int, str, str]] = []
    num_blank = begin = 0
    for row, end in enumerate(ends.tolist(), start=first_row):
        record, begin = data[begin:end], end
        text, encoding = _decode(record)
        if text is None:
            rejected.append((row, "neither UTF-8 nor Windows-1252", record.decode("latin-1")))
            continue
        cells, reason = _split(text, len(columns))
        values = [None if cell in NULLS else cell for cell in cells]
        if not any(values):
            num_blank += 1
        elif reason:
            rejected.append((row, reason, text))
        else:
            rows.append(values)
            row_index.append(row)
            is_cp1252.append(encoding == "cp1252")
    by_column = zip(*rows, strict=True) if rows else [()] * len(columns)
    return CsvBlock(
        cells=pa.table([pa.array(cells, pa.string()) for cells in by_column], names=list(columns)),
        row_index=np.array(row_index, dtype=np.int64),
        is_cp1252=np.array(is_cp1252, dtype=np.bool_),
        rejected=rejected,
        num_blank=num_blank,
    )


def _split(text: str, num_columns: int) -> tuple[list[str], str | None]:
    """Cells of one record, and what is wrong with it."""
    body = text.rstrip("\r\n")
    try:
        records = list(csv.reader(io.StringIO(body, newline=""), strict=True))
    except csv.Error as error:
        if "new-line" in str(error):
            return [text], _CARRIAGE_RETURN
        return [text], f"broken quotes ({error}); was the file cut off?"
    if len(records) > 1:
        return [text], _CARRIAGE_RETURN if "\r" in body else "quotes run over several lines; is one unescaped?"
    cells = records[0] if records else []
    return cells, None if len(cells) == num_columns else f"{len(cells)} cells, the header has {num_columns}"


def _decode(record: bytes) -> tuple[str | None, str]:
    for encoding in ("utf-8", "cp1252"):
        try:
            return record.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return None, ""


def _without_blank(cells: pa.Table, first_row: int) -> CsvBlock:
    """A block of well-formed records, without those that hold nothing."""
    blank = cells.column(0).is_null()
    for column in cells.columns[1:]:
        if not pc.any(blank).as_py():
            break
        blank = pc.and_(blank, column.is_null())
    kept = np.asarray(~blank.to_numpy())
    row_index = np.flatnonzero(kept) + first_row
    return CsvBlock(
        cells=cells if kept.all() else cells.filter(pa.array(kept)),
        row_index=row_index,
        is_cp1252=np.zeros(len(row_index), dtype=np.bool_),
        rejected=[],
        num_blank=len(kept) - len(row_index),
    )
