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
_READ_BYTES: Final = 1 << 20
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
            num_lines = 0
            for _ in range(0, range_bytes, _READ_BYTES):
                num_lines += stream.read(min(_READ_BYTES, range_bytes)).count(b"\n")
            num_lines += stream.readline().count(b"\n")
            end = stream.tell()
            ranges.append(
                JsonRange(path=str(path), file=file, start_byte=start, end_byte=end, first_row=first_row, is_lines=True)
            )
            start, first_row = end, first_row + num_lines
    return ranges


def _is_lines(path: Path) -> bool:
    """Whether the first line that holds anything is a whole JSON object."""
    with path.open("rb") as stream:
        first = next((line for line in stream if line.removeprefix(codecs.BOM_UTF8).strip()), b"")
    return isinstance(_record(0, first).value, dict)


def read_json(part: JsonRange) -> Iterator[JsonRecord]:
    """Records of a range. What cannot be read comes as a record with a reason; blank lines are passed over."""
    with Path(part.path).open("rb", buffering=_READ_BYTES) as stream:
        stream.seek(part.start_byte)
        if part.is_lines:
            for row, line in enumerate(_lines(stream, part.end_byte - part.start_byte), start=part.first_row):
                body = line.removeprefix(codecs.BOM_UTF8)
                if body and not body.isspace():
                    yield _record(row, body)
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
        return JsonRecord(row_index=row, reason=_reason(error), raw=text)


def _reason(error: Exception) -> str:
    hint = "; was the file cut off?" if isinstance(error, json.JSONDecodeError) else ""
    return f"not JSON ({error}){hint}"


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
                # The next value most likely begins at the next brace that stands as far in as this one.
                indent = text[text.rfind("\n", 0, position) + 1 : position]
                end = text.find("\n{" if indent.strip() else f"\n{indent}{{", position + 1)
                end = len(text) if end < 0 else end
                raw = text[position:end]
                yield JsonRecord(reason=_reason(error), raw=raw)
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
        return data.removeprefix(codecs.BOM_UTF8).decode()  # the codec utf-8-sig is ten times as slow
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
        raise AnnotationError(f"{path}: {_reason(error) if text.strip() else 'empty file'}") from error
    return _parsed(value, text), bool(text[end:].strip())


def _parsed(value: Any, text: str) -> Any:
    """The value without halves of surrogate pairs, which no file can hold; only an escape can bring them in."""
    return _without_surrogates(value) if "\\" in text and "\\u" in text else value  # most have no backslash at all


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, dict):
        return {without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    return [_without_surrogates(inner) for inner in value] if isinstance(value, list) else value


def without_surrogates(text: str) -> str:
    """Text that can be written as UTF-8: half an emoji (`\\ud83d` alone in an escape) becomes U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
