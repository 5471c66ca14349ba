"""Text cells to typed columns: what is read, what makes a row unreadable, and why it says so."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civid_loader.schema import SAMPLE_FEATURES, check_table
from civid_loader.upstream.cells import (
    CaptionColumn,
    Cells,
    clip_struct,
    nest_captions,
    nest_flags,
    one_clip_samples,
    one_score,
    pointer_fields,
    provenance,
    rejected_rows,
)
from civid_loader.upstream.video_index import Located

NUMBERS = {
    "0": 0.0, "-1": -1.0, "+5": 5.0, "1280.0": 1280.0, ".5": 0.5, "5.": 5.0, " 29.97 ": 29.97, "1e3": 1000.0,
    "2E-2": 0.02, "285.55172413793105": 285.55172413793105, "00012": 12.0,
}  # fmt: skip
NO_NUMBERS = [
    "abc", "inf", "-inf", "Infinity", "nan!", "NAN", "1,5", "1_000", "0x10", "1e", "--1", "1 2", "１", "1e999", "12px",
]  # fmt: skip


def cells_of(**columns: list[str | None]) -> Cells:
    return Cells(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}))


def reasons(cells: Cells) -> list[str | None]:
    """Per row, why it is unreadable."""
    _, kept, why = cells.without_problems()
    left = iter(why)
    return [None if good else next(left) for good in kept]


def test_text_is_trimmed_and_blank_is_missing() -> None:
    cells = cells_of(words=[" a b ", "\t\n", None, "", "　日本　", "x"])
    assert cells.text("words").to_pylist() == ["a b", None, None, None, "日本", "x"]
    assert cells.text("no such column").to_pylist() == [None] * 6
    assert len(cells) == 6


def test_numbers_are_read_in_every_usual_form() -> None:
    cells = cells_of(x=[*NUMBERS, None, " "])
    assert cells.number("x").to_pylist() == [*NUMBERS.values(), None, None]
    assert cells.number("absent").to_pylist() == [None] * len(cells)
    assert not cells.problems


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_rejects_its_row_only(text: str) -> None:
    cells = cells_of(x=["1.5", text, None, "-2"])
    assert cells.number("x").to_pylist() == [1.5, None, None, -2.0]
    assert reasons(cells) == [None, "x is not a number", None, None]


@given(st.lists(st.none() | st.sampled_from(["inf", "x", ""]) | st.floats(allow_nan=False), max_size=6))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_any_float_python_prints_is_read_back(values: list[Any]) -> None:
    cells = cells_of(x=[None if value is None else str(value) for value in values])
    finite = [value if isinstance(value, float) and abs(value) != float("inf") else None for value in values]
    assert cells.number("x").to_pylist() == finite
    bad = [value is not None and value != "" and read is None for value, read in zip(values, finite, strict=True)]
    assert [reason is not None for reason in reasons(cells)] == bad


def test_whole_numbers_may_be_written_as_floats() -> None:
    cells = cells_of(x=["1280", "1280.0", "-1", "1e3", None])
    column = cells.integer("x")
    assert column.type == pa.int64()
    assert column.to_pylist() == [1280, 1280, -1, 1000, None]
    assert not cells.problems


@pytest.mark.parametrize("text", ["1.5", "-0.1", "abc", "inf", "1e300", "9223372036854775808", "-1e19"])
def test_what_is_no_whole_number_rejects_its_row_only(text: str) -> None:
    cells = cells_of(x=["7", text, None])
    assert cells.integer("x").to_pylist() == [7, None, None]
    assert reasons(cells) == [None, "x is not a whole number", None]


def test_a_number_too_large_for_its_column_rejects_its_row_only() -> None:
    cells = cells_of(width=["640", "5000000000", "-5000000000"])
    media = clip_struct("media", 3, width=cells.integer("width", num_bits=32))
    assert media.field("width").to_pylist() == [640, None, None]
    assert [reason is not None for reason in reasons(cells)] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("[11439, 13864]", (11439, 13864)),
        ("[0, 1025.0]", (0, 1025)),
        ("(3, 4)", (3, 4)),
        ("[0, -1]", (0, -1)),
        ("[17,-1]", (17, -1)),
        (" [ 1 , 2 ] ", (1, 2)),
        ("['1', '2']", (1, 2)),
    ],
)
def test_pairs_of_whole_numbers(text: str, pair: tuple[int, int]) -> None:
    cells = cells_of(x=[text, None])
    assert [column.to_pylist() for column in cells.integer_pair("x")] == [[pair[0], None], [pair[1], None]]
    assert not cells.problems


@pytest.mark.parametrize(
    "text",
    ["[1]", "[1, 2, 3]", "[]", "1, 2", "[1, 2", "[a, b]", "[1.5, 2]", "[1, None]", "{1, 2}", "[[1, 2]]", "[1, 1e300]",
     "__import__('os')", "[1; 2]", "[1, inf]"],
)  # fmt: skip
def test_what_is_no_pair_of_whole_numbers_rejects_its_row_only(text: str) -> None:
    cells = cells_of(x=["[5, 6]", text, None])
    cells.integer_pair("x")
    assert reasons(cells) == [None, "x is not a list of two whole numbers", None]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("['00:06:21.300', '00:07:42.133']", (381.3, 462.133)),
        ("['0:01:20.880', '0:01:30']", (80.88, 90.0)),
        ('["01:00:00.000", "10:00:00.5"]', (3600.0, 36000.5)),
        ("('00:00:17.759', '00:00:23.279')", (17.759, 23.279)),
        ("[00:00:01, 00:00:02]", (1.0, 2.0)),
        ("['01:02', '01:03.25']", (62.0, 63.25)),
        ("['00:00:00.1', '00:00:00.12']", (0.1, 0.12)),
        ("['123:00:00', '123:00:01']", (442800.0, 442801.0)),
    ],
)
def test_pairs_of_times(text: str, seconds: tuple[float, float]) -> None:
    cells = cells_of(x=[text, None])
    assert [column.to_pylist() for column in cells.time_pair("x")] == [[seconds[0], None], [seconds[1], None]]
    assert not cells.problems


@pytest.mark.parametrize(
    "text",
    ["['00:06:21.300']", "['00:06:21', '00:07:42', '00:08:00']", "[12.5, 13.5]", "['a', 'b']", "['', '']", "nothing",
     "['00:00:01,500', '00:00:02,500']", "['-0:00:01', '0:00:02']", "['1:2:3:4', '1:2:3:5']",
     f"['0:00:01', '{'9' * 400}:00:00']"],
)  # fmt: skip
def test_what_is_no_pair_of_times_rejects_its_row_only(text: str) -> None:
    cells = cells_of(x=["['0:00:01', '0:00:02']", text, None])
    cells.time_pair("x")
    assert reasons(cells) == [None, "x is not a list of two times", None]


def test_a_pattern_gives_its_groups_and_rejects_what_does_not_match() -> None:
    cells = cells_of(x=["a-1", "b", None, ""])
    found = cells.match("x", r"^(?P<word>\w)-(?P<number>\d)$", example="a-1")
    assert found.to_pylist() == [{"word": "a", "number": "1"}, None, None, None]
    assert [reason and reason.startswith("x does not look like") for reason in reasons(cells)] == [
        None,
        True,
        None,
        None,
    ]


def test_a_row_is_rejected_for_the_first_thing_that_was_wrong() -> None:
    cells = cells_of(x=["1", "a", "2", "b"], y=["c", "d", "3", "4"])
    cells.number("x")
    cells.number("y")
    cells.reject(pa.array([None, True, True, False]), "checked last")
    good, kept, why = cells.without_problems()
    assert kept.tolist() == [False] * 4
    assert why == ["y is not a number", "x is not a number", "checked last", "x is not a number"]
    assert len(good) == 0


def test_good_rows_are_handed_on_and_bad_ones_kept_as_they_were() -> None:
    cells = cells_of(x=["1", "é", "3"], y=["a", None, "c"])
    cells.number("x")
    good, kept, why = cells.without_problems()
    assert good.table.to_pylist() == [{"x": "1", "y": "a"}, {"x": "3", "y": "c"}]
    assert not good.problems
    (rejected,) = rejected_rows(cells, kept, why, file="t.csv", row_index=np.array([10, 12, 15]))
    assert (rejected.file, rejected.row_index, rejected.reason) == ("t.csv", 12, "x is not a number")
    assert json.loads(rejected.raw) == {"x": "é", "y": None}


def test_captions_stand_in_the_order_of_kinds_and_windows_and_nulls_leave_no_trace() -> None:
    short = CaptionColumn(kind="short", annotator="a", text=pa.array(["s0", None, "s2", None], pa.string()))
    windows = CaptionColumn(
        kind="dense",
        annotator=pa.array(["x", "y", "z", "w"]),
        text=pa.array(["d0 early", "d0 late", None, "d2"]),
        row=np.array([0, 0, 1, 2]),
        start_seconds=pa.array([0.0, 120.0, 0.0, None]),
        end_seconds=pa.array([120.0, 240.0, 1.0, None]),
    )
    style = CaptionColumn(kind="style", annotator="b", text=pa.array(["t0", None, None, None], pa.string()))
    nested = nest_captions([short, windows, style], 4)
    assert nested.type == SAMPLE_FEATURES.arrow_schema.field("captions").type

    def entry(kind: str, text: str, by: str, start: float | None = None, end: float | None = None) -> dict[str, Any]:
        return {"kind": kind, "text": text, "start_seconds": start, "end_seconds": end, "annotator": by}

    assert nested.to_pylist() == [
        [
            entry("short", "s0", "a"),
            entry("dense", "d0 early", "x", 0.0, 120.0),
            entry("dense", "d0 late", "y", 120.0, 240.0),
            entry("style", "t0", "b"),
        ],
        [],
        [entry("short", "s2", "a"), entry("dense", "d2", "w")],
        [],
    ]


def test_many_captions_of_many_kinds_keep_their_order() -> None:
    kinds, num_rows, num_windows = ("short", "dense", "style"), 7, 40
    row = np.repeat(np.arange(num_rows), num_windows)
    texts = {kind: [f"{kind} {r} {w}" for r in range(num_rows) for w in range(num_windows)] for kind in kinds}
    columns = [CaptionColumn(kind=kind, annotator="a", text=pa.array(texts[kind]), row=row) for kind in kinds]
    nested = nest_captions(columns, num_rows).to_pylist()
    assert [[entry["text"] for entry in captions] for captions in nested] == [
        [f"{kind} {r} {w}" for kind in kinds for w in range(num_windows)] for r in range(num_rows)
    ]


def test_flags_stand_in_the_order_they_were_put_up_and_unused_ones_leave_no_trace() -> None:
    cells = cells_of(x=["1", "2", "3"])
    cells.flag("late", np.array([True, False, True]))
    cells.flag("never", np.zeros(3, dtype=np.bool_))
    cells.flag("odd", pa.array([None, False, True]))
    assert nest_flags(cells).to_pylist() == [["late"], [], ["late", "odd"]]
    assert nest_flags(cells_of(x=["1", "2"])).to_pylist() == [[], []]


def test_a_score_is_a_list_of_one_or_none() -> None:
    scores = one_score(pa.array([1.5, None, 0.0]), name="flow_mean", unit="px", annotator="upstream:raft")
    entry = {"name": "flow_mean", "unit": "px", "annotator": "upstream:raft"}
    assert scores.to_pylist() == [[entry | {"value": 1.5}], [], [entry | {"value": 0.0}]]


def sample_table(cells: Cells, **located: Any) -> pa.Table:
    num_rows = len(cells)
    video = pa.array([f"{i}.mp4" for i in range(num_rows)], pa.string())
    nowhere = np.zeros(num_rows, dtype=np.bool_)
    trimmed = np.ones(num_rows, dtype=np.bool_)
    where = Located(**{"video": video, "trimmed": trimmed, "not_found": nowhere, "ambiguous": nowhere} | located)
    clip = {
        "clip_id": video,
        **pointer_fields(cells, where),
        "media": clip_struct("media", num_rows, width=pa.array([640] * num_rows, pa.int64())),
    }
    return one_clip_samples(
        num_rows,
        clip,
        sample_id=video,
        dataset="civid",
        subset="full",
        level="clip",
        flags=nest_flags(cells),
        provenance=provenance(num_rows, annotation_file="t.csv", row_index=np.arange(num_rows)),
    )


def test_samples_of_one_clip_keep_to_the_schema() -> None:
    cells = cells_of(x=["1", "2"])
    table = sample_table(cells, trimmed=np.array([True, False]), not_found=np.array([False, True]))
    check_table(table, "annotations")
    first, second = table.to_pylist()
    assert (first["flags"], second["flags"]) == ([], ["video_not_found"])
    assert [row["clips"][0]["trimmed"] for row in (first, second)] == [True, False]
    assert first["clips"][0] | {"media": None} == {
        "clip_id": "0.mp4", "index": 0, "video": "0.mp4", "trimmed": True, "source": None, "media": None,
        "captions": [], "characters": [], "scores": [],
    }  # fmt: skip
    assert first["clips"][0]["media"]["width"] == 640
    assert (first["transitions"], first["captions"], first["hierarchy"]) == ([], [], None)
    assert second["provenance"]["row_index"] == 1


def test_what_is_odd_about_a_pointer_becomes_a_flag() -> None:
    cells = cells_of(x=["1", "2"])
    table = sample_table(cells, ambiguous=np.array([True, False]))
    assert table.column("flags").to_pylist() == [["ambiguous_video"], []]


def test_no_rows_give_no_rows() -> None:
    cells = cells_of(x=[])
    table = sample_table(cells)
    check_table(table, "annotations")
    assert table.num_rows == 0
    column = CaptionColumn(kind="short", annotator="a", text=pa.array([], pa.string()))
    assert nest_captions([column], 0).to_pylist() == []
    assert cells.number("x").to_pylist() == cells.integer("x").to_pylist() == []
