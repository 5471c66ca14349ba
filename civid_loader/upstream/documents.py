"""JSON as upstream writes it: true JSONL, pretty-printed objects one after another, arrays, and cut-off files."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

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

    row_index: int = 0
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
        first = next((line for line in stream if line.removeprefix(codecs.BOM_UTF8).strip()), b"")
    return isinstance(_record(0, first).value, dict)


def read_json(part: JsonRange) -> Iterator[JsonRecord]:
    """Records of a range. What cannot be read comes as a record with a reason; blank lines are passed over."""
    with Path(part.path).open("rb") as stream:
        stream.seek(part.start_byte)
        if part.is_lines:
            for row, line in enumerate(_lines(stream, part.end_byte - part.start_byte), start=part.first_row):
                if line.removeprefix(codecs.BOM_UTF8).strip():
                    yield _record(row, line)
        else:
            values = _values(decode(stream.read()))
            yield from (replace(record, row_index=row) for row, record in enumerate(values))


def _lines(stream: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    while num_bytes > 0:
        line = stream.readline()
        num_bytes -= len(line)
        yield line


def _record(row: int, line: bytes) -> JsonRecord:
    text = decode(line)
    try:
        return JsonRecord(row_index=row, value=_parsed(_DECODER.decode(text), text))
    except (ValueError, RecursionError) as error:
        return JsonRecord(row_index=row, reason=f"not JSON ({error}); was the file cut off?", raw=text)


def _values(text: str) -> Iterator[JsonRecord]:
    """Values one after another, and the items of top-level arrays."""
    in_array = is_torn = False
    position = _after_space(text, 0)
    if position == len(text):
        yield JsonRecord(reason="empty file")
    while position < len(text):
        if text[position] == ("]" if in_array else "["):
            in_array, end = not in_array, position + 1
        else:
            try:
                value, end = _DECODER.raw_decode(text, position)
                yield JsonRecord(value=_parsed(value, text[position:end]))
                is_torn = False
            except (ValueError, RecursionError) as error:
                # The next value most likely begins at the next brace in the first column.
                end = text.find("\n{", position + 1)
                end = len(text) if end < 0 else end
                raw = text[position:end]
                yield JsonRecord(reason=f"not JSON ({error}); was the file cut off?", raw=raw)
                is_torn = True
        position = _after_space(text, end)
    if in_array and not is_torn:
        yield JsonRecord(reason="the array has no end; was the file cut off?", raw=text[-80:])


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match
    return match.end()


def decode(data: bytes) -> str:
    """Text that should be UTF-8; lines that are not are read as Windows-1252."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        lines = data.splitlines(keepends=True)
        return data.decode("cp1252", errors="replace") if len(lines) == 1 else "".join(map(decode, lines))


def read_document(path: Path) -> tuple[Any, bool]:
    """(the first JSON value of a file, whether anything but space follows it).

    Raises:
        AnnotationError: no JSON value at the start of the file.
    """
    text = decode(path.read_bytes())
    try:
        value, end = _DECODER.raw_decode(text, len(text) - len(text.lstrip()))
    except (ValueError, RecursionError) as error:
        reason = "empty file" if not text.strip() else f"not JSON ({error}); was the file cut off?"
        raise AnnotationError(f"{path}: {reason}") from error
    return _parsed(value, text), bool(text[end:].strip())


def _parsed(value: Any, text: str) -> Any:
    """The value without halves of surrogate pairs, which no file can hold; only an escape can bring them in."""
    return _without_surrogates(value) if "\\u" in text else value


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, dict):
        return {without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    return [_without_surrogates(inner) for inner in value] if isinstance(value, list) else value


def without_surrogates(text: str) -> str:
    """Text that can be written as UTF-8: half an emoji (`\\ud83d` alone in an escape) becomes U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
