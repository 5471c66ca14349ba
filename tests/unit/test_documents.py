"""JSON in every form upstream has it; what is damaged is rejected with a reason, and costs nothing else."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civid_loader.errors import AnnotationError
from civid_loader.upstream.documents import JsonRecord, plan_json, read_document, read_json, without_surrogates

BIG = 1 << 30
VALUES: list[dict[str, Any]] = [
    {"id": 0, "words": "plain, with [brackets] and {braces}"},
    {"id": 1, "inner": {"list": [1, 2.5, None, True], "empty": {}}, "words": 'says "hi"\nand goes'},
    {"id": 2, "words": "日本語, Кириллица, é, 😀"},
]


def records_of(path: Path, data: bytes, *, range_bytes: int = BIG) -> list[JsonRecord]:
    path.write_bytes(data)
    return [record for part in plan_json(path, "name", range_bytes=range_bytes) for record in read_json(part)]


def values_of(path: Path, data: bytes) -> list[Any]:
    """Values of a file in which nothing is wrong."""
    records = records_of(path, data)
    assert [record.reason for record in records] == [None] * len(records)
    return [record.value for record in records]


def lines(values: Sequence[Any], end: str = "\n") -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + end for value in values)


def pretty(values: Sequence[Any], indent: int = 4) -> str:
    return "\n".join(json.dumps(value, indent=indent, ensure_ascii=False) for value in values) + "\n"


FORMS: dict[str, Callable[[Sequence[Any]], str]] = {
    "one a line": lines,
    "one a line, CRLF": lambda values: lines(values, "\r\n"),
    "one a line, no final newline": lambda values: lines(values).rstrip("\n"),
    "one a line, blank lines between": lambda values: "\n" + lines(values, "\n\n \n"),
    "pretty-printed": pretty,
    "pretty-printed, CRLF": lambda values: pretty(values, 2).replace("\n", "\r\n"),
    "pretty-printed, commas between": lambda values: pretty(values).replace("\n}\n{", "\n},\n{"),
    "one behind the other": lambda values: lines(values, ""),
    "array": lambda values: json.dumps(values),
    "array, pretty-printed": lambda values: json.dumps(values, indent=2, ensure_ascii=False) + "\n",
    "array after a blank line": lambda values: "\n " + json.dumps(values, ensure_ascii=False),
    "array, one a line": lambda values: "[\n" + ",\n".join(map(json.dumps, values)) + "\n]\n",
}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_values(tmp_path: Path, form: str, bom: bytes) -> None:
    for values in (VALUES, VALUES[:1]):
        assert values_of(tmp_path / "x.jsonl", bom + FORMS[form](values).encode()) == values


def test_values_of_a_file_without_lines_are_numbered_and_one_range(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    records = records_of(path, pretty(VALUES).encode(), range_bytes=1)
    assert [record.row_index for record in records] == [0, 1, 2]
    (part,) = plan_json(path, "name", range_bytes=1)
    assert (part.is_lines, part.start_byte, part.end_byte) == (False, 0, path.stat().st_size)


def test_records_of_lines_are_numbered_by_line(tmp_path: Path) -> None:
    records = records_of(tmp_path / "x.jsonl", b'{"a":0}\n\n{"a":2}\r\n   \n{"a":4}')
    assert [(record.row_index, record.value) for record in records] == [(0, {"a": 0}), (2, {"a": 2}), (4, {"a": 4})]


def test_a_broken_line_costs_no_other_line(tmp_path: Path) -> None:
    data = lines(VALUES).encode().splitlines(keepends=True)
    data.insert(1, b'{"id": 1, "words": "cut o\n')
    first, bad, *rest = records_of(tmp_path / "x.jsonl", b"".join(data))
    assert [first.value, *(record.value for record in rest)] == VALUES
    assert bad.row_index == 1
    assert bad.raw.startswith('{"id": 1')
    assert "was the file cut off?" in str(bad.reason)


@pytest.mark.parametrize("form", ["one a line", "pretty-printed"])
def test_a_file_cut_off_anywhere_keeps_what_came_before(tmp_path: Path, form: str) -> None:
    data = FORMS[form](VALUES).encode()
    ends = [len(FORMS[form](VALUES[:n]).rstrip().encode()) for n in range(len(VALUES) + 1)]
    for size in range(1, len(data)):
        records = records_of(tmp_path / "x.jsonl", data[:size])
        whole = sum(end <= size for end in ends[1:])
        good = [record.value for record in records if record.reason is None]
        assert good == VALUES[:whole], size
        bad = [record for record in records if record.reason]
        assert len(bad) == bool(data[ends[whole] : size].strip()), size
        assert all(record.row_index == whole for record in bad)


def test_an_array_cut_off_anywhere_keeps_what_came_before_and_says_so(tmp_path: Path) -> None:
    data = json.dumps(VALUES).encode()
    for size in range(1, len(data)):
        records = records_of(tmp_path / "x.json", data[:size])
        good = [record.value for record in records if record.reason is None]
        assert good == VALUES[: len(good)]
        assert [bool(record.reason) for record in records] == [False] * len(good) + [True], size
        assert "cut off" in str(records[-1].reason)


def test_after_a_damaged_object_reading_goes_on_at_the_next_one(tmp_path: Path) -> None:
    text = pretty(VALUES).replace('"inner": {', '"inner": ')
    first, bad, last = records_of(tmp_path / "x.jsonl", text.encode())
    assert [first.value, last.value] == [VALUES[0], VALUES[2]]
    assert bad.reason
    assert '"inner"' in bad.raw
    assert [record.row_index for record in (first, bad, last)] == [0, 1, 2]


@pytest.mark.parametrize("indent", [1, 4])
def test_after_a_damaged_item_of_an_array_reading_goes_on_at_the_next_one(tmp_path: Path, indent: int) -> None:
    """One rejected record in place of all that follow would pass for a small loss."""
    text = json.dumps([*VALUES, *VALUES], indent=indent).replace('"inner": {', '"inner": ', 1)
    records = records_of(tmp_path / "x.json", text.encode())
    assert [record.value for record in records if not record.reason] == [VALUES[0], VALUES[2], *VALUES]
    assert [bool(record.reason) for record in records] == [False, True, False, False, False, False]


@pytest.mark.parametrize("tail", ['{"id": 7}', "]", "trailing words", '[{"id": 8}]'])
def test_what_follows_an_array_is_not_lost_in_silence(tmp_path: Path, tail: str) -> None:
    records = records_of(tmp_path / "x.json", f"{json.dumps(VALUES)}\n{tail}\n".encode())
    assert [record.value for record in records[:3]] == VALUES
    assert len(records) > 3
    assert records[3].reason or records[3].value["id"] in (7, 8)


def test_a_stray_bracket_between_objects_hides_none_of_them(tmp_path: Path) -> None:
    records = records_of(tmp_path / "x.jsonl", pretty(VALUES).replace("}\n{", "}\n]\n{", 1).encode())
    assert [record.value for record in records if not record.reason] == VALUES


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_one_rejected_record(tmp_path: Path, data: bytes) -> None:
    (record,) = records_of(tmp_path / "x.jsonl", data)
    assert (record.row_index, record.reason) == (0, "empty file")


def test_an_empty_array_has_no_records(tmp_path: Path) -> None:
    assert values_of(tmp_path / "x.json", b"[ ]\n") == []


@pytest.mark.parametrize("data", [b"hello\nworld\n", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n\0\0", b"}"])
def test_what_is_no_json_is_rejected_with_its_text(tmp_path: Path, data: bytes) -> None:
    records = records_of(tmp_path / "x.jsonl", data)
    assert records
    assert all(record.reason and "not JSON" in record.reason and record.raw for record in records)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_windows_1252_line_leaves_the_other_lines_alone(tmp_path: Path, place: int) -> None:
    values = [{"words": "日本語 Кириллица"} for _ in range(3)]
    data = lines(values).encode().splitlines(keepends=True)
    data[place] = '{"words": "café – naïve"}\n'.encode("cp1252")
    values[place] = {"words": "café – naïve"}
    assert values_of(tmp_path / "x.jsonl", b"".join(data)) == values


def test_a_windows_1252_object_over_several_lines_is_read(tmp_path: Path) -> None:
    values = [{"words": "café"}, {"words": "naïve"}]
    assert values_of(tmp_path / "x.jsonl", pretty(values).encode("cp1252")) == values


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = [*value.values()]
    if isinstance(value, list):
        for item in value:
            yield from strings_in(item)


HALVES = r'{"words": "half \ud83d", "pair": "\ud83d\ude00", "list": ["\udc00"], "\ud83d": {"in": "\ud800x"}}'


def test_half_an_emoji_becomes_a_replacement_character() -> None:
    assert without_surrogates("half \ud83d") == "half \ufffd"
    assert without_surrogates("\udc00\ud800日") == "\ufffd\ufffd日"
    for text in ("plain", "日 😀 é", ""):
        assert without_surrogates(text) == text


@pytest.mark.parametrize(
    "data",
    [HALVES + "\n", json.dumps(json.loads(HALVES), indent=1), HALVES.replace(", ", ",\n")],
    ids=["line", "pretty", "by hand"],
)
def test_half_an_emoji_never_gets_past_the_reader(tmp_path: Path, data: str) -> None:
    """Arrow and JSON files take no half of a pair: wherever one is left, in a text, key or path, a build dies of it."""
    (value,) = values_of(tmp_path / "x.jsonl", data.encode())
    document, _ = read_document(tmp_path / "x.jsonl")
    for read in (value, document):
        for text in strings_in(read):
            text.encode()
    assert (value["words"], value["pair"]) == ("half \ufffd", "😀")


@pytest.mark.parametrize(
    "deep",
    ['{"a":' * 100_000, "[" * 100_000, '{"a":[' * 100_000 + "]}" * 100_000],
    ids=["objects", "lists", "closed"],
)
def test_a_value_nested_too_deep_is_rejected_alone(tmp_path: Path, deep: str) -> None:
    path = tmp_path / "x.jsonl"
    first, bad, last = records_of(path, f'{{"a": 0}}\n{deep}\n{{"a": 2}}\n'.encode())
    assert (first.value, last.value) == ({"a": 0}, {"a": 2})
    assert bad.reason
    assert records_of(path, f'{{\n"a": 0}}\n{deep}\n'.encode())[-1].reason
    path.write_text(deep)
    with pytest.raises(AnnotationError, match=r"x\.jsonl"):
        read_document(path)


def test_a_number_of_thousands_of_digits_is_rejected_alone(tmp_path: Path) -> None:
    records = records_of(tmp_path / "x.jsonl", b'{"a": 0}\n{"a": ' + b"9" * 5000 + b'}\n{"a": 2}\n')
    assert [bool(record.reason) for record in records] == [False, True, False]


def test_a_document_says_whether_something_follows_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text, more in (('{"a": [1]}', False), ('\n {"a": [1]} \n', False), ('\ufeff{"a": [1]}\nDone!', True)):
        path.write_text(text, encoding="utf-8")
        assert read_document(path) == ({"a": [1]}, more)
    path.write_text("[1, 2]")
    assert read_document(path) == ([1, 2], False)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty file"), (" \n", "empty file"), ("{", "cut off"), ("words", "not JSON")]
)
def test_a_document_that_cannot_be_read_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=reason) as caught:
        read_document(path)
    assert str(path) in str(caught.value)


JSON_VALUES = st.dictionaries(
    st.text(max_size=3),
    st.integers() | st.text(max_size=8) | st.lists(st.none() | st.booleans(), max_size=3),
    max_size=3,
)
LINES = st.lists(
    st.sampled_from(["", "  ", '{"torn": "', "[1, 2]"])
    | JSON_VALUES.map(lambda value: json.dumps(value, ensure_ascii=False)),
    max_size=12,
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 60))
def test_ranges_of_lines_give_the_same_records_with_the_same_numbers(
    texts: list[str], end: str, is_closed: bool, range_bytes: int
) -> None:
    texts = ['{"first": 0}', *texts]
    data = (end.join(texts) + (end if is_closed else "")).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        records = records_of(path, data, range_bytes=range_bytes)
        parts = plan_json(path, "name", range_bytes=range_bytes)
        assert records == records_of(path, data)
    assert [part.start_byte for part in parts] == [0, *(part.end_byte for part in parts[:-1])]
    assert parts[-1].end_byte == len(data)
    assert all(part.end_byte - part.start_byte >= range_bytes for part in parts[:-1])
    written = {number: text for number, text in enumerate(texts) if text.strip()}
    assert [record.row_index for record in records] == [*written]
    for record, text in zip(records, written.values(), strict=True):
        assert record.reason is not None if "torn" in text else record.value == json.loads(text)
