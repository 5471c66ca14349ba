"""LVD-2M: what each odd cell of its three tables becomes."""

from pathlib import Path
from typing import Any

import pytest

from civid_loader.errors import AnnotationError
from civid_loader.upstream import builder
from support.reading import Reading, Row, only_reason, only_row, rows_of, texts, write_files, write_table

COMMON = (
    "key", "url", "dataset_src", "raw_caption", "refined_caption", "rewritten_caption", "orig_caption", "total score",
    "video_time",
)  # fmt: skip
COLUMNS = {
    "ytb_600k_720p.csv": ("video_id", *COMMON, "span"),
    "hdvg_300k_720p.csv": ("video_id", *COMMON, "orig_span", "scene_cut"),
    "webvid_1200k_336_short.csv": COMMON,
    "random_sample_100.csv": ("video_id", *COMMON, "span"),
}
YTB, HDVG, WEBVID, SAMPLE = COLUMNS
ROW = {
    "key": "-tramRide07.66_3",
    "video_id": "-tramRide07",
    "url": "https://www.youtube.com/watch?v=-tramRide07",
    "dataset_src": "panda70m",
    "raw_caption": "A tram climbs a hill.",
    "refined_caption": "A red tram climbs a steep hill.",
    "rewritten_caption": "red tram going uphill",
    "orig_caption": "a tram",
    "total score": "33.25",
    "video_time": "12.0",
    "span": "['00:00:17.750', '00:00:29.750']",
    "orig_span": "['00:01:40.000', '00:02:20.000']",
    "scene_cut": "[0, -1]",
}
WEB = ROW | {"key": "1044219901", "url": "https://media.example.invalid/1044219901.mp4", "dataset_src": "webvid"}


def read(tmp_path: Path, name: str, *rows: dict[str, str], **options: Any) -> Reading:
    return rows_of("lvd2m", write_table(tmp_path / name, rows, COLUMNS[name]), **options)


def span_of(row: Row) -> tuple[float | None, float | None]:
    source = row["clips"][0]["source"]
    return source["start_seconds"], source["end_seconds"]


def raw_of(row: Row) -> list[tuple[str, float | None, float | None]]:
    found = [caption for caption in row["clips"][0]["captions"] if caption["kind"] == "raw"]
    return [(caption["text"], caption["start_seconds"], caption["end_seconds"]) for caption in found]


def test_ytb_row(tmp_path: Path) -> None:
    row = only_row(read(tmp_path, YTB, ROW))
    (clip,) = row["clips"]
    assert (row["sample_id"], row["subset"]) == ("lvd2m/ytb/-tramRide07.66_3", "ytb")
    assert row["provenance"] == {
        "annotation_file": YTB, "row_index": 0, "upstream_version": None, "license": "hdvila-research",
    }  # fmt: skip
    assert (clip["clip_id"], clip["video"], clip["trimmed"]) == ("-tramRide07.66_3", "-tramRide07.66_3.mp4", True)
    assert clip["source"] == {
        "platform": "youtube", "category": "panda70m", "video_id": "-tramRide07", "url": ROW["url"],
        "start_seconds": 17.75, "end_seconds": 29.75, "start_frame": None, "end_frame": None,
    }  # fmt: skip
    assert clip["media"]["duration_seconds"] == 12.0
    assert [(caption["kind"], caption["text"], caption["annotator"]) for caption in clip["captions"]] == [
        ("raw", ROW["raw_caption"], "upstream:llava-v1.6-34b"),
        ("refined", ROW["refined_caption"], "upstream:claude-3-haiku"),
        ("rewritten", ROW["rewritten_caption"], "upstream:llama-3.1-70b"),
        ("original", ROW["orig_caption"], "upstream:panda70m"),
    ]
    assert clip["scores"] == [{"name": "flow_mean", "unit": "px", "annotator": "upstream:raft", "value": 33.25}]
    assert row["flags"] == []


@pytest.mark.parametrize(
    ("name", "subset"), [(YTB, "ytb"), (HDVG, "hdvg"), (WEBVID, "webvid"), (SAMPLE, "random_sample")]
)
def test_each_table_is_its_own_subset(tmp_path: Path, name: str, subset: str) -> None:
    row = only_row(read(tmp_path, name, ROW))
    assert (row["subset"], row["sample_id"]) == (subset, f"lvd2m/{subset}/{ROW['key']}")


@pytest.mark.parametrize(("columns_of", "subset"), [(YTB, "ytb"), (HDVG, "hdvg"), (WEBVID, "webvid")])
def test_table_under_another_name_is_told_by_its_columns(tmp_path: Path, columns_of: str, subset: str) -> None:
    path = write_table(tmp_path / "mine.csv", [ROW], COLUMNS[columns_of])
    assert only_row(rows_of("lvd2m", path))["subset"] == subset


def test_webvid_row_has_no_span_and_no_video_id(tmp_path: Path) -> None:
    row = only_row(read(tmp_path, WEBVID, WEB))
    source = row["clips"][0]["source"]
    assert (source["platform"], source["video_id"], source["url"]) == ("web", None, WEB["url"])
    assert span_of(row) == (None, None)
    assert row["flags"] == []


@pytest.mark.parametrize("key", ["a.66_3", "-_x.14_2", "x.mp4", "007", "1e5", "clip.ts"])
def test_keys_are_text_and_dots_are_no_suffix(tmp_path: Path, key: str) -> None:
    clip = only_row(read(tmp_path, YTB, ROW | {"key": key}))["clips"][0]
    stem = key.removesuffix(".mp4")
    assert (clip["clip_id"], clip["video"]) == (stem, f"{stem}.mp4")


@pytest.mark.parametrize("key", ["/etc/x", "../../x", "a/../../x", "https://host.invalid/x", "videos:x"])
def test_no_pointer_leaves_the_video_root(tmp_path: Path, key: str) -> None:
    for row in read(tmp_path, YTB, ROW | {"key": key}).rows:
        assert not row["clips"][0]["video"].startswith(("/", "..", "a/..", "https:", "videos:"))


@pytest.mark.parametrize(
    ("files", "video", "trimmed", "flags"),
    [
        (["a/-tramRide07.66_3.mp4"], "a/-tramRide07.66_3.mp4", True, []),
        (["-tramRide07.66_3.MKV"], "-tramRide07.66_3.MKV", True, []),
        (["-tramRide07.mp4"], "-tramRide07.mp4", False, []),
        (["-tramRide07.66.mp4"], "-tramRide07.66_3.mp4", True, ["video_not_found"]),
    ],
    ids=["clip", "another container", "whole source video", "another clip"],
)
def test_files(tmp_path: Path, files: list[str], video: str, trimmed: bool, flags: list[str]) -> None:
    row = only_row(read(tmp_path, YTB, ROW, videos=write_files(tmp_path / "videos", files)))
    assert (row["clips"][0]["video"], row["clips"][0]["trimmed"], row["flags"]) == (video, trimmed, flags)


@pytest.mark.parametrize("name", [YTB, HDVG])
def test_whole_source_video_is_no_clip_where_the_span_is_not_known(tmp_path: Path, name: str) -> None:
    videos = write_files(tmp_path / "videos", ["-tramRide07.mp4"])
    row = only_row(read(tmp_path, name, ROW | {"span": "", "orig_span": ""}, videos=videos))
    assert (row["clips"][0]["video"], row["clips"][0]["trimmed"]) == ("-tramRide07.66_3.mp4", True)
    assert row["flags"] == ["video_not_found"]


def test_long_clips_that_were_never_downloaded_stay(tmp_path: Path) -> None:
    videos = write_files(tmp_path / "videos", ["short.mp4"])
    rows = (ROW | {"key": "short"}, ROW | {"key": "long", "video_time": "24.5", "refined_caption": "Another."})
    assert [row["flags"] for row in read(tmp_path, YTB, *rows, videos=videos).rows] == [[], ["video_not_found"]]


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        ("['00:00:17.759', '00:00:29.759']", (17.759, 29.759)),
        ("['0:01:20.880', '0:01:32.880']", (80.88, 92.88)),
        ("['0:01:20', '0:01:32.5']", (80.0, 92.5)),
        ('["1:00:00.000", "1:00:12.000"]', (3600.0, 3612.0)),
        ("('00:00:00.000','00:00:12.000')", (0.0, 12.0)),
    ],
)
def test_spans_of_both_forms(tmp_path: Path, span: str, seconds: tuple[float, float]) -> None:
    assert span_of(only_row(read(tmp_path, YTB, ROW | {"span": span}))) == seconds


@pytest.mark.parametrize(
    ("cut", "span", "flags"),
    [
        ("[0, -1]", (100.0, 140.0), []),
        ("[200, -1]", (128.0, 140.0), ["span_from_scene_cut"]),
        ("[150, 450]", (106.0, 118.0), ["span_from_scene_cut"]),
        ("[150.0, 450.0]", (106.0, 118.0), ["span_from_scene_cut"]),
        ("[30000, 30300]", (100.0, 140.0), ["scene_cut_not_inside_orig_span"]),
        ("", (100.0, 140.0), []),
    ],
    ids=["whole", "to the end", "inside", "floats", "outside", "missing"],
)
def test_hdvg_frame_cut(tmp_path: Path, cut: str, span: tuple[float, float], flags: list[str]) -> None:
    """orig_span is 100-140 s and the cut lasts 12 s, so [150, 450] is 300 frames in 12 s: 25 fps, 106-118 s."""
    row = only_row(read(tmp_path, HDVG, ROW | {"scene_cut": cut}))
    assert span_of(row) == pytest.approx(span)
    assert row["flags"] == flags


def test_hdvg_frame_cut_needs_the_length(tmp_path: Path) -> None:
    row = only_row(read(tmp_path, HDVG, ROW | {"scene_cut": "[150, 450]", "video_time": ""}))
    assert (span_of(row), row["flags"]) == ((100.0, 140.0), ["scene_cut_not_inside_orig_span"])


@pytest.mark.parametrize(
    ("raw", "seconds", "parts", "flags"),
    [
        (
            "Caption 1: A tram climbs. Caption 2: It stops.", "41.2",
            [("A tram climbs.", 0.0, 30.0), ("It stops.", 30.0, 41.2)], ["caption_windows_assumed"],
        ),
        (
            "Caption 1:\nA tram climbs.\n\nCaption 2:\nIt stops.", "95.0",
            [("A tram climbs.", None, None), ("It stops.", None, None)], ["caption_parts_without_windows"],
        ),
        ("Caption 1: A tram climbs.", "12.0", [("A tram climbs.", None, None)], []),
        ("A sign reads Caption and a number.", "41.2", [("A sign reads Caption and a number.", None, None)], []),
        ("Caption 1: ", "12.0", [], []),
        ("", "12.0", [], []),
    ],
    ids=["one part per 30 s", "too few parts", "one part", "the word only", "head only", "empty"],
)  # fmt: skip
def test_raw_caption_parts(tmp_path: Path, raw: str, seconds: str, parts: list[Any], flags: list[str]) -> None:
    other = ROW | {"key": "other", "raw_caption": "A tram.", "refined_caption": "Another."}
    rows = read(tmp_path, YTB, other, ROW | {"raw_caption": raw, "video_time": seconds}).rows
    assert raw_of(rows[0]) == [("A tram.", None, None)]
    assert raw_of(rows[1]) == parts
    assert [row["flags"] for row in rows] == [[], flags]


@pytest.mark.parametrize("score", ["", "nan", "None"])
def test_missing_score_is_no_score(tmp_path: Path, score: str) -> None:
    rows = read(tmp_path, YTB, ROW | {"total score": score}, ROW | {"key": "b", "refined_caption": "Another."}).rows
    assert [len(row["clips"][0]["scores"]) for row in rows] == [0, 1]


def test_missing_cells_are_null(tmp_path: Path) -> None:
    row = only_row(read(tmp_path, YTB, {"key": "x"} | dict.fromkeys(ROW.keys() - {"key"}, "nan")))
    clip = row["clips"][0]
    assert clip["captions"] == []
    assert set(clip["source"].values()) | set(clip["media"].values()) == {None}


@pytest.mark.parametrize("chunk_bytes", [1, 64 << 20], ids=["a chunk per row", "one chunk"])
@pytest.mark.parametrize("field_map", [{}, {"refined_caption": "better_caption"}], ids=["", "renamed"])
def test_repeated_refined_caption_is_flagged_all_over_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, field_map: dict[str, str]
) -> None:
    monkeypatch.setattr(builder, "CHUNK_BYTES", chunk_bytes)
    wrong, column = "A grey room.", field_map.get("refined_caption", "refined_caption")
    columns = [field_map.get(name, name) for name in COLUMNS[YTB]]
    captions = [wrong, "A tram.", "", wrong, "A ferry.", "", wrong]
    rows = [ROW | {"key": f"k{i}", column: text} for i, text in enumerate(captions)]
    reading = rows_of("lvd2m", write_table(tmp_path / YTB, rows, columns), field_map=field_map)
    assert [row["flags"] for row in reading.rows] == [
        ["duplicated_refined_caption"] if text == wrong else [] for text in captions
    ]
    assert texts(reading.rows[3]["clips"][0]["captions"])["refined"] == wrong


def test_the_same_caption_in_two_files_is_no_repeat(tmp_path: Path) -> None:
    paths = [write_table(tmp_path / name, [ROW], COLUMNS[name]) for name in (YTB, SAMPLE)]
    rows = rows_of("lvd2m", paths).rows
    assert [(row["subset"], row["flags"]) for row in rows] == [("ytb", []), ("random_sample", [])]


def test_the_same_file_name_in_two_folders_is_no_repeat(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    paths = [write_table(tmp_path / folder / YTB, [ROW | {"key": folder}], COLUMNS[YTB]) for folder in ("old", "new")]
    assert [row["flags"] for row in rows_of("lvd2m", paths).rows] == [[], []]


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        (YTB, {"key": ""}, "key is missing"),
        (YTB, {"span": "['17.759', '23']"}, "span is not a list of two times"),
        (YTB, {"span": "[]"}, "span is not a list of two times"),
        (YTB, {"span": "exit()"}, "span is not a list of two times"),
        (YTB, {"span": "['00:00:29.750', '00:00:17.750']"}, "the span ends before it starts"),
        (YTB, {"video_time": "0"}, "video_time is not positive"),
        (YTB, {"video_time": "long"}, "video_time is not a number"),
        (YTB, {"total score": "inf"}, "total score is not a number"),
        (HDVG, {"orig_span": "['a', 'b']"}, "orig_span is not a list of two times"),
        (HDVG, {"scene_cut": "[0.5, -1]"}, "scene_cut is not a list of two whole numbers"),
        (HDVG, {"scene_cut": "[450, 150]"}, "scene_cut ends before it starts"),
    ],
)
def test_rows_that_cannot_be_read_are_rejected(tmp_path: Path, name: str, changed: Row, reason: str) -> None:
    reading = read(tmp_path, name, ROW | changed)
    assert only_reason(reading) == reason
    assert (reading.rejected[0].file, reading.rejected[0].row_index) == (name, 0)


def test_broken_record_is_rejected_alone(tmp_path: Path) -> None:
    path = write_table(tmp_path / YTB, [ROW, ROW | {"key": "b", "refined_caption": "Another."}], COLUMNS[YTB])
    first, second, third = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(f"{first}{second}too,few,cells\n{third}", encoding="utf-8")
    reading = rows_of("lvd2m", path)
    assert [row["provenance"]["row_index"] for row in reading.rows] == [0, 2]
    assert [(bad.row_index, bad.reason) for bad in reading.rejected] == [(1, "3 cells, the header has 11")]


def test_one_odd_value_never_ends_the_build(tmp_path: Path) -> None:
    reading = read(tmp_path, HDVG, ROW | {"scene_cut": "[1e30, 2e30]"}, ROW | {"key": "b"})
    assert (len(reading.rows), reading.rejected[0].reason) == (1, "scene_cut is not a list of two whole numbers")


def test_table_of_something_else_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [{"file_path": "x"}], ["file_path", "dense_caption"])
    with pytest.raises(AnnotationError, match=r"t\.csv: LVD-2M tables .*; this one has dense_caption, file_path\. "):
        rows_of("lvd2m", path)
