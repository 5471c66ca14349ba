"""The vectorised table builders make of odd cells what plain row by row code (`support.naive`) makes of them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from civid_loader.builders.lvd2m import LVD2M
from civid_loader.builders.miradata import MiraData
from civid_loader.schema import check_table
from civid_loader.upstream.builder import CsvBuilder, repeats
from civid_loader.upstream.records import Context, Source
from support import naive
from support.odd_tables import CUT, LVD2M_CELLS, SPAN, V0_CELLS, V1_CELLS, Row, tables

CHECK: Final = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def _built(builder: type[CsvBuilder], path: Path) -> dict[int, Any]:
    """Record number -> sample, or null where it was rejected."""
    source = Source(annotations=(str(path),))
    chunks = builder.plan(source)
    hashes = [builder.survey(chunk, source) for chunk in chunks] if builder.SURVEYS else []
    found: dict[int, Any] = {}
    for chunk in chunks:
        for piece in builder.read(chunk, source, Context(repeated=repeats(hashes))):
            check_table(piece.rows, "annotations")
            found |= {row["provenance"]["row_index"]: row for row in piece.rows.to_pylist()}
            found |= {row.row_index: None for row in piece.rejected}
    return found


def _plain(value: Any) -> Any:
    """To compare: flags in any order, times to a nanosecond."""
    if isinstance(value, dict):
        plain = {name: _plain(item) for name, item in value.items()}
        return plain | {"flags": sorted(plain["flags"])} if "flags" in plain else plain
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return round(value, 9) if isinstance(value, float) else value


def _write(path: Path, rows: Sequence[Row], *, line_end: str = "\n", blank_columns: int = 0) -> Path:
    names = list(rows[0])
    blanks = [""] * blank_columns
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(names + blanks)
        writer.writerows([row[name] for name in names] + blanks for row in rows)
        if blank_columns:
            writer.writerow([""] * len(names) + blanks)
    return path


def _check_lvd2m(folder: Path, subset: str, rows: Sequence[Row], line_end: str = "\n") -> None:
    path = _write(folder / f"{subset}.csv", rows, line_end=line_end)
    assert _plain(_built(LVD2M, path)) == _plain(dict(naive.lvd2m(path, subset)))


def _check_v1(folder: Path, rows: Sequence[Row], line_end: str = "\n") -> None:
    path = _write(folder / "miradata_v1_9k.csv", rows, line_end=line_end)
    assert _plain(_built(MiraData, path)) == _plain(dict(naive.miradata_v1(path, "v1_9k")))


def _check_v0(folder: Path, rows: Sequence[Row], line_end: str = "\r\n") -> None:
    path = _write(folder / "miradata_v0.csv", rows, line_end=line_end, blank_columns=2)
    assert _plain(_built(MiraData, path)) == _plain(dict(naive.miradata_v0(path)))


LINE_ENDS: Final = st.sampled_from(["\n", "\r\n"])


@CHECK
@given(rows=tables(LVD2M_CELLS | SPAN, "key", "refined_caption"), line_end=LINE_ENDS)
def test_lvd2m_ytb(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], line_end: str) -> None:
    _check_lvd2m(tmp_path_factory.getbasetemp(), "ytb", rows, line_end)


@CHECK
@given(rows=tables(LVD2M_CELLS | CUT, "key", "refined_caption"), line_end=LINE_ENDS)
def test_lvd2m_hdvg(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], line_end: str) -> None:
    _check_lvd2m(tmp_path_factory.getbasetemp(), "hdvg", rows, line_end)


@CHECK
@given(rows=tables(V1_CELLS, "file_path", "timestamp", "dense_caption"), line_end=LINE_ENDS)
def test_miradata_v1(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], line_end: str) -> None:
    _check_v1(tmp_path_factory.getbasetemp(), rows, line_end)


@CHECK
@given(rows=tables(V0_CELLS, "index", "start_frame", "end_frame", "fps", "dense_caption"), line_end=LINE_ENDS)
def test_miradata_v0(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], line_end: str) -> None:
    _check_v0(tmp_path_factory.getbasetemp(), rows, line_end)


LVD2M_ROW: Final = {"key": "a.1_2", "refined_caption": "A dog.", "video_time": "12"}
V1_ROW: Final = {"file_path": "v/000001431495.10.mp4", "timestamp": "['0:00:01', '0:00:02']", "dense_caption": "A dog."}
V0_ROW: Final = {
    "index": "000000008783_AJp_ANXoGoM-000114", "start_frame": "30", "end_frame": "60", "fps": "30",
    "dense_caption": "A dog.",
}  # fmt: skip


def _with_a_good_one(good: Row, odd: Row) -> list[Row]:
    blank = dict.fromkeys([*good, *odd], "")
    return [blank | good, blank | good | odd]


@pytest.mark.parametrize(
    "odd",
    [
        {"rewritten_caption": " none "},
        {"total score": " nan"},
        {"key": ".mp4"},
        {"video_time": "1e308"},
        {"orig_span": "['0:00:00', '0:00:40']", "scene_cut": "[0, 1e30]"},
        {"orig_span": "['0:00:00', '0:00:40']", "scene_cut": "[-3, 300]"},
        {"span": "['0:00:01', None]"},
        {"raw_caption": "Caption 1: Caption 2:"},
    ],
    ids=str,
)
def test_lvd2m_row(tmp_path: Path, odd: Row) -> None:
    _check_lvd2m(tmp_path, "ytb", _with_a_good_one(LVD2M_ROW, odd))


@pytest.mark.parametrize(
    "odd",
    [
        {"short_caption": " lost", "dense_caption": " lost"},
        {"short_caption": "[|||0||| 120||| \u00a0wide\u3000 |||,]"},
        {"short_caption": "[|||0||| 120||| a dog |||]"},
        {"short_caption": "[|||0||| 120||| a dog |||,\n]"},
        {"short_caption": "[|||0||| 120||| a |||, b |||,]"},
        {"short_caption": "[]"},
        {"source": ", all"},
        {"source": "youtube, "},
        {"width": "99999999999"},
        {"frame_number": "1e30"},
        {"framestamp": "[0, 1e30]"},
        {"fps": "0", "framestamp": "[0, 10]"},
        {"file_path": "../../000001431495.10.mp4"},
    ],
    ids=str,
)
def test_miradata_v1_row(tmp_path: Path, odd: Row) -> None:
    _check_v1(tmp_path, _with_a_good_one(V1_ROW, odd))


@pytest.mark.parametrize(
    "odd", [{"start_frame": "-30"}, {"end_frame": "1e30"}, {"fps": "1e-320"}, {"fps": "1e400"}], ids=str
)
def test_miradata_v0_row(tmp_path: Path, odd: Row) -> None:
    _check_v0(tmp_path, _with_a_good_one(V0_ROW, odd))


def test_lvd2m_rows_without_a_refined_caption_are_no_duplicates(tmp_path: Path) -> None:
    missing = {"refined_caption": " N/A"}
    _check_lvd2m(tmp_path, "ytb", [LVD2M_ROW | missing, LVD2M_ROW | missing])
