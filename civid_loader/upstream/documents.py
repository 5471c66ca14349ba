"""JSON as upstream writes it: true JSONL, pretty-printed objects one after another, arrays, and cut-off files."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from civid_loader.errors import AnnotationError

_DECODER: Final = json.JSONDecoder(strict=False)
_SPACE: Final = re.compile(r"[\s,]*")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonRange:
    """A whole JSON file, or whole lines of a JSONL file."""

    path: str
    file: str
    """Name for provenance."""
    start_byte: int
    end_byte: int
    first_row: int
    """Record number of the first record."""
    is_lines: bool
    """True: one record a line. False: values one after another, each over any number of lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonRecord:
    """One JSON value, or why there is none."""

    row_index: int
    value: Any = None
    reason: str | None = None
    """Null: `value` is good."""
    raw: str = ""
    """The text, where it could not be read."""


def plan_json(path: Path, file: str, *, range_bytes: int) -> list[JsonRange]:
    """Cut a JSONL file into ranges of whole lines; a file of pretty-printed values is one range."""
    size = path.stat().st_size
    if not _is_lines(path):
        return [JsonRange(path=str(path), file=file, start_byte=0, end_byte=size, first_row=0, is_lines=False)]
    ranges = []
    with path.open("rb") as stream:
        start = first_row = 0
        while start < size:
            data = stream.read(range_bytes) + stream.readline()
            end = start + len(data)
            ranges.append(
                JsonRange(path=str(path), file=file, start_byte=start, end_byte=end, first_row=first_row, is_lines=True)
            )
            start, first_row = end, first_row + data.count(b"\n")
    return ranges


def _is_lines(path: Path) -> bool:
    """Whether the first line that holds anything is a whole JSON object."""
    with path.open("rb") as stream:
        first = next((line for line in stream if line.strip()), b"")
    try:
        return isinstance(json.loads(first.lstrip(b"\xef\xbb\xbf")), dict)
    except ValueError:
        return False


def read_json(part: JsonRange) -> Iterator[JsonRecord]:
    """Records of a range. What cannot be read comes as a record with a reason; blank lines are passed over."""
    with Path(part.path).open("rb") as stream:
        stream.seek(part.start_byte)
        if part.is_lines:
            for row, line in enumerate(_lines(stream, part.end_byte - part.start_byte), start=part.first_row):
                if line.strip():
                    yield _record(row, line)
        else:
            yield from _values(decode(stream.read()))


def _lines(stream: Any, num_bytes: int) -> Iterator[bytes]:
    while num_bytes > 0:
        line = stream.readline()
        num_bytes -= len(line)
        yield line


def _record(row: int, line: bytes) -> JsonRecord:
    text = decode(line)
    try:
        return JsonRecord(row_index=row, value=_DECODER.decode(text))
    except ValueError as error:
        return JsonRecord(row_index=row, reason=f"not JSON ({error}); was the file cut off?", raw=text)


def _values(text: str) -> Iterator[JsonRecord]:
    if not text.strip():
        yield JsonRecord(row_index=0, reason="empty file")
        return
    position = _SPACE.match(text, 1 if text.lstrip().startswith("[") and text.find("[") == 0 else 0).end()  # type: ignore[union-attr]
    row = 0
    while position < len(text) and text[position] != "]":
        try:
            value, end = _DECODER.raw_decode(text, position)
            yield JsonRecord(row_index=row, value=value)
        except ValueError as error:
            # The next value most likely begins at the next brace in the first column.
            end = text.find("\n{", position + 1)
            end = len(text) if end < 0 else end
            raw = text[position:end]
            yield JsonRecord(row_index=row, reason=f"not JSON ({error}); was the file cut off?", raw=raw)
        position = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        row += 1


def decode(data: bytes) -> str:
    """Text of a file that should be UTF-8 and may be Windows-1252."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_document(path: Path) -> tuple[Any, bool]:
    """(the first JSON value of a file, whether anything but space follows it).

    Raises:
        AnnotationError: no JSON value at the start of the file.
    """
    text = decode(path.read_bytes())
    try:
        value, end = _DECODER.raw_decode(text, len(text) - len(text.lstrip()))
    except ValueError as error:
        reason = "empty file" if not text.strip() else f"not JSON ({error}); was the file cut off?"
        raise AnnotationError(f"{path}: {reason}") from error
    return value, bool(text[end:].strip())


def without_surrogates(text: str) -> str:
    """Text that can be written as UTF-8: half an emoji (`\\ud83d` alone in an escape) becomes U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
