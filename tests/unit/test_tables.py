"""Big CSV tables: every record is a row, rejected with a reason, or blank, whatever is wrong with the file."""

import csv
import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civid_loader.errors import AnnotationError
from civid_loader.upstream import tables
from civid_loader.upstream.tables import NULLS, CsvRange, plan_ranges, read_header, read_range

BIG = 1 << 30
Cells = list[str | None]


@dataclass
class Contents:
    """What a table was read as."""

    rows: dict[int, Cells] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    num_blank: int = 0
    cp1252: list[int] = field(default_factory=list)


def read(ranges: list[CsvRange], *, only: str | None = None) -> Contents:
    """All ranges; every block must be consistent in itself, and record numbers must never go back or repeat."""
    found = Contents()
    for part in ranges:
        num_records = 0
        last = part.first_row - 1
        for block in read_range(part, only=only):
            numbers = block.row_index.tolist()
            assert len(numbers) == block.cells.num_rows == len(block.is_cp1252)
            rows = [list(row.values()) for row in block.cells.to_pylist()]
            together = sorted([*numbers, *(row for row, _, _ in block.rejected)])
            assert numbers == sorted(numbers)
            assert len(set(together)) == len(together)
            assert not together or together[0] > last
            last = max([last, *together])
            num_records += len(together) + block.num_blank
            found.rows |= dict(zip(numbers, rows, strict=True))
            found.rejected |= {row: reason for row, reason, _ in block.rejected}
            found.num_blank += block.num_blank
            found.cp1252 += [row for row, odd in zip(numbers, block.is_cp1252, strict=True) if odd]
        following = [later.first_row for later in ranges if later.start_byte == part.end_byte]
        assert last < part.first_row + num_records
        assert following in ([], [part.first_row + num_records])
    return found


def read_file(path: Path, data: bytes, *, range_bytes: int = BIG, only: str | None = None) -> Contents:
    path.write_bytes(data)
    return read(plan_ranges(path, range_bytes=range_bytes), only=only)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_leave_no_trace(tmp_path: Path, end: bytes, bom: bytes) -> None:
    found = read_file(tmp_path / "t.csv", bom + end.join([b"key,words", b"a,one", b'b,"two, three"', b""]))
    assert found == Contents(rows={0: ["a", "one"], 1: ["b", "two, three"]})
    assert read_header(tmp_path / "t.csv")[0] == ("key", "words")


def test_quoted_newlines_commas_and_quotes_stay_in_their_cell(tmp_path: Path) -> None:
    found = read_file(tmp_path / "t.csv", b'a,b\n"one\ntwo","say ""hi"", then go"\n\n"x\r\n\r\ny",z\n')
    assert found.rows == {0: ["one\ntwo", 'say "hi", then go'], 2: ["x\r\n\r\ny", "z"]}
    assert found.num_blank == 1


def test_blank_records_are_passed_over_and_still_counted_in_the_numbers(tmp_path: Path) -> None:
    found = read_file(tmp_path / "t.csv", b'a,b\r\n1,2\r\n\r\n,\r\n3,4\r\n"",""\r\n5,6\r\n,\r\n')
    assert found == Contents(rows={0: ["1", "2"], 3: ["3", "4"], 5: ["5", "6"]}, num_blank=4)


@pytest.mark.parametrize("null", NULLS)
def test_words_for_missing_are_missing(tmp_path: Path, null: str) -> None:
    found = read_file(tmp_path / "t.csv", f'a,b\n1,{null}\n"{null}",2\n'.encode())
    assert found.rows == {0: ["1", None], 1: [None, "2"]}
    jagged = read_file(tmp_path / "t.csv", f"a,b\n1,{null}\n1,2,3\n".encode())
    assert jagged.rows == {0: ["1", None]}, "the same where the block is read record by record"


def test_jagged_rows_are_rejected_alone(tmp_path: Path) -> None:
    found = read_file(tmp_path / "t.csv", b"a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert found.rows == {0: ["1", "2"], 3: ["7", "8"]}
    assert found.rejected == {1: "1 cells, the header has 2", 2: "3 cells, the header has 2"}


def test_a_last_record_without_a_newline_counts(tmp_path: Path) -> None:
    for data in (b"a,b\n1,2\n3,4", b'a,b\n1,2\n3,"4"', b"a,b\n1,2\r\n3,4"):
        assert read_file(tmp_path / "t.csv", data).rows == {0: ["1", "2"], 1: ["3", "4"]}


def test_a_file_of_a_header_only_has_no_records(tmp_path: Path) -> None:
    for data in (b"a,b", b"a,b\n", b"a,b\r\n"):
        assert read_file(tmp_path / "t.csv", data) == Contents()


def test_a_file_cut_off_inside_a_quoted_cell_rejects_its_last_record_only(tmp_path: Path) -> None:
    whole = b'a,b\n1,"x, y"\n2,"long, with ""quotes"" and more"\n'
    for size in range(whole.index(b'2,"l') + 3, len(whole) - 1):
        found = read_file(tmp_path / "t.csv", whole[:size])
        assert found.rows.pop(0) == ["1", "x, y"]
        assert set(found.rows) | set(found.rejected) == {1}
        if whole[:size].count(b'"') % 2:
            assert "was the file cut off?" in found.rejected[1]


def test_text_that_is_not_utf8_is_read_as_windows_1252_and_marked(tmp_path: Path) -> None:
    rows = ["日本,1".encode(), "café,2".encode("cp1252"), "naïve,3".encode(), b"plain,4", b"\x81\x8d,5"]
    found = read_file(tmp_path / "t.csv", b"a,b\n" + b"\n".join(rows))
    assert found.rows == {0: ["日本", "1"], 1: ["café", "2"], 2: ["naïve", "3"], 3: ["plain", "4"]}
    assert found.cp1252 == [1]
    assert found.rejected == {4: "neither UTF-8 nor Windows-1252"}


def test_one_column_can_be_read_alone(tmp_path: Path) -> None:
    found = read_file(tmp_path / "t.csv", b"a,b\n1,x\n2,\n3,z\n", only="b")
    assert [row[-1] for row in found.rows.values() if row[-1]] == ["x", "z"]
    assert [number for number, row in found.rows.items() if row[-1]] == [0, 2]


def test_a_quote_that_is_never_closed_spoils_only_its_own_line_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 200)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 500)
    lines = [f'key{i},"words, {i}"' for i in range(300)]
    lines[100] = 'key100,"never closed'
    lines[299] = 'key299,"cut off he'
    data = "a,b\n" + "\n".join(lines)
    for range_bytes in (1, 700, BIG):
        found = read_file(tmp_path / "t.csv", data.encode(), range_bytes=range_bytes)
        assert sorted(found.rejected) == [100, 299]
        assert found.rows == {i: [f"key{i}", f"words, {i}"] for i in range(300) if i not in found.rejected}


@pytest.mark.parametrize("block_bytes", [1200, 1571, 1942])
def test_a_quote_that_is_never_closed_spoils_only_its_own_line_where_nearly_all_text_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Seen from the open quote on, most blocks then end inside what looks like closed quotes."""
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 200)
    monkeypatch.setattr(tables, "BLOCK_BYTES", block_bytes)
    words = "words and more words, " * 6
    lines = [f'{i},"{words}"' for i in range(80)]
    lines[3] = '3,"never closed'
    found = read_file(tmp_path / "t.csv", ("a,b\n" + "\n".join(lines) + "\n").encode(), range_bytes=2000)
    assert [*found.rejected] == [3]
    assert found.rows == {i: [f"{i}", words] for i in range(80) if i != 3}


def test_a_last_record_over_the_limit_is_cut_wherever_its_range_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 10)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 13)
    data = b'c0,c1\na,,\nx,",bb\nyyy,x\nx\n",a,'
    first, second = (read_file(tmp_path / "t.csv", data, range_bytes=size) for size in (4, BIG))
    assert {*first.rows, *first.rejected} == {*second.rows, *second.rejected}


def test_an_inch_mark_in_a_plain_cell_costs_no_other_record(tmp_path: Path) -> None:
    found = read_file(tmp_path / "t.csv", b'a,b\n1,x\n2,a 5" nail\n3,"p, q"\n4,z\n')
    assert {0, 2, 3} <= set(found.rows)
    assert set(found.rows) | set(found.rejected) == {0, 1, 2, 3}


def test_a_very_long_cell_is_read_also_beside_a_broken_record(tmp_path: Path) -> None:
    long = "very long words " * 20_000
    for beside in ("", "jagged\n"):
        found = read_file(tmp_path / "t.csv", f'a,b\n1,"{long}"\n{beside}'.encode())
        assert found.rows == {0: ["1", long]}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("place", ["first", "middle", "last", "unfinished"])
@pytest.mark.parametrize("cell", ["x" * 300, '"{}"'.format("x, y" * 90), '"{}\nz"'.format("x" * 300)])
def test_a_record_longer_than_the_limit_comes_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, cell: str
) -> None:
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 250)
    short = [f"{i},words" for i in range(20)]
    at = {"first": 0, "middle": 10}.get(place, 20)
    text = "\n".join(["a,b", *short[:at], f"long,{cell}", *short[at:]]) + ("" if place == "unfinished" else "\n")
    found = read_file(tmp_path / "t.csv", text.encode(), range_bytes=100)
    assert [row for row in found.rows.values() if row[1] == "words"] == [row.split(",") for row in short]
    if "\n" not in cell:
        assert found.rows[at] == ["long", cell.strip('"')] or at in found.rejected


@pytest.mark.parametrize("end", ["\r\r\n", "\r"])
def test_carriage_returns_where_none_belong_are_read_or_rejected_by_name(tmp_path: Path, end: str) -> None:
    """`\\r\\r\\n` is what Python's csv module writes on Windows to a file opened without newline=""."""
    found = read_file(tmp_path / "t.csv", f"a,b\n1,2{end}3,4\n5,6\n".encode())
    assert found.rows.pop(2 if end == "\r\r\n" else 1) == ["5", "6"]
    assert list(found.rows.values()) == [["1", "2"], ["3", "4"]] or all(
        "carriage return" in reason for reason in found.rejected.values()
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b" \r\n\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"PK\x03\x04\0\0\r\n\x1a\n", "binary"),
        ("a,b\n1,2\n".encode("utf-16"), "binary"),
        (b"a,b, a\n1,2,3\n", "repeat: a, b, a"),
        (b"a,b\r1,2\r", "carriage return"),
        (b"a" * (1 << 20) + b",b\n1,2\n", "not a CSV table"),
        (b"\na,b\n1,2\n", "blank"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_columns_without_a_name_get_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'a, b ,,"c,d",\r\n1,2,3,4,5\r\n')
    assert read_header(tmp_path / "t.csv")[0] == ("a", "b", "column_2", "c,d", "column_4")


WORDS = st.text(st.sampled_from(list("ab ,;\"\n\r'é日😀\t")) | st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def written_tables(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """(header and blank-or-not records) as bytes, each with its line end; a record is quoted where it must be."""
    num_columns = draw(st.integers(1, 4))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    cells = WORDS | st.sampled_from(NULLS)
    record = st.lists(st.tuples(cells, st.booleans()), min_size=num_columns, max_size=num_columns)
    records = draw(st.lists(record | st.just([]), max_size=12))
    header = [([f"c{i}" for i in range(num_columns)], draw(st.booleans()))]
    lines = [",".join(f'"{name}"' if quoted else name for name in names) for names, quoted in header]
    for row in records:
        quoted = [
            f'"{cell.replace(chr(34), chr(34) * 2)}"' if q or set(cell) & set(',"\r\n') else cell for cell, q in row
        ]
        lines.append(",".join(quoted))
    encoded = [f"{line}{end}".encode() for line in lines]
    if len(encoded) > 1 and draw(st.booleans()):
        encoded[-1] = lines[-1].encode()
    bom = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    return [bom + encoded[0]], [line for line in encoded[1:] if line]


def expected_contents(records: list[bytes]) -> Contents:
    """What Python's own csv module makes of the records."""
    found = Contents()
    text = b"".join(records).decode()
    for number, row in enumerate(csv.reader(io.StringIO(text, newline=""))):
        cells = [None if cell in NULLS else cell for cell in row]
        if any(cells):
            found.rows[number] = cells
        else:
            found.num_blank += 1
    return found


@settings(derandomize=True, deadline=None, max_examples=100)
@given(written_tables(), st.integers(1, 120), st.integers(0, 60))
def test_ranges_together_are_the_rows_of_pythons_csv_reader(
    table: tuple[list[bytes], list[bytes]], range_bytes: int, more_block_bytes: int
) -> None:
    header, records = table
    longest = max(map(len, [*header, *records]))
    data = b"".join([*header, *records])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tables, "MAX_RECORD_BYTES", longest)
        monkeypatch.setattr(tables, "BLOCK_BYTES", longest + more_block_bytes)
        path = Path(folder, "t.csv")
        path.write_bytes(data)
        ranges = plan_ranges(path, range_bytes=range_bytes)
        edges = [edge for part in ranges for edge in (part.start_byte, part.end_byte)]
        assert edges[1:-1:2] == edges[2::2], "ranges touch"
        assert not ranges or (edges[0], edges[-1]) == (len(header[0]), len(data))
        assert all(part.end_byte - part.start_byte < range_bytes + longest for part in ranges)
        assert read(ranges) == expected_contents(records)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 6),
        st.sampled_from([b"", b'"', b'""', b"\n", b"\r", b",", b"\0", b"\xff", b"\x81", b'",\n"', b"\xe6\x97"]),
    ),
    min_size=1,
    max_size=5,
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(written_tables(), EDITS, st.integers(1, 120), st.integers(0, 40))
def test_no_damage_loses_a_record_or_stops_the_reading(
    table: tuple[list[bytes], list[bytes]], edits: list[tuple[int, int, bytes]], range_bytes: int, more_bytes: int
) -> None:
    header, records = table
    data = bytearray(b"".join(records))
    for position, num_gone, new in edits:
        position %= len(data) + 1
        data[position : position + num_gone] = new
    longest = max(map(len, [header[0], *bytes(data).split(b"\n")])) + 1
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tables, "MAX_RECORD_BYTES", longest + more_bytes)
        monkeypatch.setattr(tables, "BLOCK_BYTES", longest + 2 * more_bytes)
        path = Path(folder, "t.csv")
        path.write_bytes(header[0] + bytes(data))
        found, at_once = (read(plan_ranges(path, range_bytes=size)) for size in (range_bytes, BIG))
    for contents in (found, at_once):
        assert not contents.rows.keys() & contents.rejected.keys()
        assert all(len(row) == len(header[0].split(b",")) for row in contents.rows.values())
    counts = [len(contents.rows) + len(contents.rejected) + contents.num_blank for contents in (found, at_once)]
    assert counts[0] == counts[1]
    assert found.rows.keys() | found.rejected.keys() == at_once.rows.keys() | at_once.rejected.keys()
