"""MiraData v0 and v1: what each odd cell of their tables, and each layout of their folders, becomes."""

from pathlib import Path
from typing import Any

import pytest

from civid_loader.errors import AnnotationError
from support.reading import Reading, Row, only_reason, only_row, rows_of, texts, write_files, write_table

KINDS = ("main_object", "background", "style", "camera", "short", "dense")
CAPTIONS = {f"{kind}_caption": f"The {kind} of a slow ferry." for kind in KINDS}
V0_COLUMNS = (
    "index", "video_id", "start_frame", "end_frame", *CAPTIONS, "fps", "start_timestep", "end_timestep", "", "",
)  # fmt: skip
V1_COLUMNS = (
    "clip_id", "source", "video_url", "video_id", "width", "height", "fps", "seconds", "timestamp", "frame_number",
    "framestamp", "file_path", *CAPTIONS,
)  # fmt: skip
INDEX = "000000008431_ferryCity03-000001"
# The rounded *_timestep columns say 3 s and 7 s; the frames say 3.003 s and 7.007 s.
V0 = CAPTIONS | {
    "index": INDEX, "video_id": "ferryCity03", "start_frame": "90", "end_frame": "210", "fps": "29.97002997",
    "start_timestep": "0:00:03", "end_timestep": "0:00:07",
}  # fmt: skip
V1 = CAPTIONS | {
    "clip_id": "100233.3", "source": "youtube, slow television", "video_url": "https://www.youtube.com/watch?v=-ferry0233x",
    "video_id": "-ferry0233x", "width": "1280", "height": "720", "fps": "25.0", "seconds": "4.25",
    "timestamp": "['01:06:21.300', '01:06:25.550']", "frame_number": "106", "framestamp": "[99532, 99638]",
    "file_path": "video_clips/000000100/000000100233.3.mp4",
}  # fmt: skip


def read_v0(tmp_path: Path, *rows: dict[str, str], **options: Any) -> Reading:
    return rows_of("miradata", write_table(tmp_path / "miradata_v0.csv", rows, V0_COLUMNS, line_end="\r\n"), **options)


def read_v1(tmp_path: Path, *rows: dict[str, str], **options: Any) -> Reading:
    return rows_of("miradata", write_table(tmp_path / "miradata_v1_9k.csv", rows, V1_COLUMNS), **options)


def clip_of(reading: Reading) -> Row:
    """The clip of the only row."""
    clip: Row = only_row(reading)["clips"][0]
    return clip


def coded(*windows: tuple[int, int, str]) -> str:
    """A cell with several windows, as upstream writes it."""
    return "[" + "".join(f"|||{start}||| {end}||| {text} |||," for start, end, text in windows) + "]"


def windows_of(clip: Row, kind: str) -> list[tuple[float, float, str]]:
    found = [caption for caption in clip["captions"] if caption["kind"] == kind]
    return [(caption["start_seconds"], caption["end_seconds"], caption["text"]) for caption in found]


def test_v0_row(tmp_path: Path) -> None:
    row = only_row(read_v0(tmp_path, V0))
    (clip,) = row["clips"]
    assert (row["sample_id"], row["subset"], row["flags"]) == (f"miradata/v0/{INDEX}", "v0", [])
    assert row["provenance"] == {
        "annotation_file": "miradata_v0.csv",
        "row_index": 0,
        "upstream_version": "v0",
        "license": "miradata-research",
    }
    assert clip["clip_id"] == INDEX
    assert (clip["video"], clip["trimmed"]) == (f"000000008/{INDEX}.mp4", True)
    assert clip["source"] == {
        "platform": "youtube",
        "category": "city",
        "video_id": "ferryCity03",
        "url": "https://www.youtube.com/watch?v=ferryCity03",
        "start_seconds": pytest.approx(3.003),
        "end_seconds": pytest.approx(7.007),
        "start_frame": 90,
        "end_frame": 210,
    }
    assert clip["media"]["fps"] == 29.97002997
    assert texts(clip["captions"]) == {kind: CAPTIONS[f"{kind}_caption"] for kind in KINDS}
    annotators = {caption["kind"]: caption["annotator"] for caption in clip["captions"]}
    assert (annotators["short"], annotators["dense"]) == ("upstream:panda-70m", "upstream:gpt-4v")


def test_v0_blank_last_row_and_whole_numbers_that_went_through_a_float(tmp_path: Path) -> None:
    reading = read_v0(tmp_path, V0 | {"start_frame": "90.0", "end_frame": "210.0"}, {})
    assert (tmp_path / "miradata_v0.csv").read_bytes().endswith(b"\n" + 14 * b"," + b"\r\n")
    assert reading.notes == {"blank rows skipped": 1}
    source = clip_of(reading)["source"]
    assert (source["start_frame"], source["end_frame"]) == (90, 210)


def test_v0_caption_that_lost_its_beginning_is_kept_and_flagged(tmp_path: Path) -> None:
    row = only_row(read_v0(tmp_path, V0 | {"main_object_caption": " drifts past two buoys."}))
    assert texts(row["clips"][0]["captions"])["main_object"] == "drifts past two buoys."
    assert row["flags"] == ["caption_prefix_lost"]


@pytest.mark.parametrize(("download_id", "category"), [(7416, "gaming"), (7417, "city")])
def test_v0_category_by_download_id(tmp_path: Path, download_id: int, category: str) -> None:
    clip = clip_of(read_v0(tmp_path, V0 | {"index": f"{download_id:012d}_ferryCity03-000001"}))
    assert clip["source"]["category"] == category


@pytest.mark.parametrize(
    ("files", "video", "trimmed", "flags"),
    [
        (["clip_video/000000009/000000009200_ferry-Ci_04-000002.mp4"], 0, True, []),
        (["clip_video/000000009/000000009200_ferry-Ci_04-000001.mp4"], None, True, ["video_not_found"]),
        (["raw_video/000000009/000000009200_ferry-Ci_04.mp4"], 0, False, []),
        (["raw_video/000000009/000000009200_ferry.mp4"], 0, False, []),
        (["000000009200_ferry.webm"], 0, False, []),
        ([f"{folder}/000000009200_ferry-Ci_04-000002.mp4" for folder in "ab"], 0, True, ["ambiguous_video"]),
    ],
    ids=["clip", "another clip only", "raw", "raw, name cut at the hyphen", "raw, no folder", "twice"],
)
def test_v0_files(tmp_path: Path, files: list[str], video: int | None, trimmed: bool, flags: list[str]) -> None:
    index = "000000009200_ferry-Ci_04-000002"
    videos = write_files(tmp_path / "videos", files)
    row = only_row(read_v0(tmp_path, V0 | {"index": index, "video_id": "ferry-Ci_04"}, videos=videos))
    pointer = f"000000009/{index}.mp4" if video is None else files[video]
    assert (row["clips"][0]["video"], row["clips"][0]["trimmed"], row["flags"]) == (pointer, trimmed, flags)


def test_v1_row(tmp_path: Path) -> None:
    row = only_row(read_v1(tmp_path, V1))
    (clip,) = row["clips"]
    assert (row["sample_id"], row["subset"]) == ("miradata/v1_9k/000000100233.3", "v1_9k")
    assert row["provenance"]["upstream_version"] == "v1"
    assert (clip["clip_id"], clip["video"]) == ("000000100233.3", V1["file_path"])
    assert clip["source"] == {
        "platform": "youtube",
        "category": "slow television",
        "video_id": "-ferry0233x",
        "url": V1["video_url"],
        "start_seconds": 3981.3,
        "end_seconds": 3985.55,
        "start_frame": 99532,
        "end_frame": 99638,
    }
    assert clip["media"] == {"width": 1280, "height": 720, "fps": 25.0, "duration_seconds": 4.25, "num_frames": 106}
    assert row["flags"] == []


@pytest.mark.parametrize(
    ("stated", "number", "flags"),
    [
        ("1431495.1", "10", ["clip_id_float_loss"]),
        ("1431495.1", "1", []),
        ("1431495.10", "10", []),
        ("1431495.0", "0", []),
    ],
)
def test_v1_clip_number_comes_from_the_file_path(tmp_path: Path, stated: str, number: str, flags: list[str]) -> None:
    path = f"video_clips/000001431/000001431495.{number}.mp4"
    row = only_row(read_v1(tmp_path, V1 | {"clip_id": stated, "file_path": path}))
    assert (row["clips"][0]["clip_id"], row["flags"]) == (f"000001431495.{number}", flags)


def test_v1_first_video_of_all_is_not_flagged(tmp_path: Path) -> None:
    row = only_row(read_v1(tmp_path, V1 | {"clip_id": "0.4", "file_path": "video_clips/000000000/000000000000.4.mp4"}))
    assert (row["clips"][0]["clip_id"], row["flags"]) == ("000000000000.4", [])


def test_v1_timestamp_wins_over_frames(tmp_path: Path) -> None:
    row = only_row(read_v1(tmp_path, V1 | {"framestamp": "[99780, 99886]"}))
    source = row["clips"][0]["source"]
    assert (source["start_seconds"], source["start_frame"]) == (3981.3, 99780)
    assert row["flags"] == ["frames_disagree_with_timestamp"]


@pytest.mark.parametrize(
    ("cell", "frames"), [("[0, 1025.0]", (0, 1025)), ("[11439, 13864]", (11439, 13864)), ("(0.0, 5)", (0, 5))]
)
def test_v1_frame_list_may_hold_a_float(tmp_path: Path, cell: str, frames: tuple[int, int]) -> None:
    source = clip_of(read_v1(tmp_path, V1 | {"framestamp": cell}))["source"]
    assert (source["start_frame"], source["end_frame"]) == frames


@pytest.mark.parametrize(
    ("source", "platform", "category"),
    [
        ("videvo, %2Ffree-motion-graphics", "videvo", "/free-motion-graphics"),
        ("videvo, all", "videvo", "all"),
        ("pexels", "pexels", None),
        ("", None, None),
    ],
)
def test_v1_platform_and_category(tmp_path: Path, source: str, platform: str | None, category: str | None) -> None:
    found = clip_of(read_v1(tmp_path, V1 | {"source": source}))["source"]
    assert (found["platform"], found["category"]) == (platform, category)


@pytest.mark.parametrize("video_id", ["6294", "006294", "1e3", "-iFerry_x42", "6294.0"])
def test_v1_ids_stay_text(tmp_path: Path, video_id: str) -> None:
    assert clip_of(read_v1(tmp_path, V1 | {"video_id": video_id}))["source"]["video_id"] == video_id


@pytest.mark.parametrize(
    ("seconds", "starts", "flags"),
    [
        ("381.5", (240, 0, 120), []),
        ("334.6", (0,), ["missing_caption_windows"]),
        ("512.8", (360, 240), ["missing_caption_windows"]),
    ],
    ids=["unsorted, the rest has none", "only the first", "the first is missing"],
)
def test_v1_windows(tmp_path: Path, seconds: str, starts: tuple[int, ...], flags: list[str]) -> None:
    cell = coded(*((start, start + 120, f'Text, "of" {start}') for start in starts))
    row = only_row(read_v1(tmp_path, V1 | dict.fromkeys(CAPTIONS, cell) | {"seconds": seconds}))
    for kind in KINDS:
        expected = [(float(start), start + 120.0, f'Text, "of" {start}') for start in sorted(starts)]
        assert windows_of(row["clips"][0], kind) == expected
    assert row["flags"] == flags


def test_v1_windows_and_plain_captions_side_by_side(tmp_path: Path) -> None:
    long = V1 | {"dense_caption": coded((120, 240, "Later."), (0, 120, "First.")), "seconds": "300.0"}
    plain = V1 | {"file_path": "video_clips/000000100/000000100233.4.mp4", "clip_id": "100233.4"}
    empty = V1 | {"file_path": "video_clips/000000100/000000100233.5.mp4", "clip_id": "100233.5", "dense_caption": ""}
    rows = read_v1(tmp_path, plain, long, empty).rows
    assert [windows_of(row["clips"][0], "dense") for row in rows] == [
        [(None, None, CAPTIONS["dense_caption"])], [(0.0, 120.0, "First."), (120.0, 240.0, "Later.")], [],
    ]  # fmt: skip
    assert texts(rows[1]["clips"][0]["captions"])["style"] == CAPTIONS["style_caption"]


def test_v1_window_without_its_comma_leaves_no_bars(tmp_path: Path) -> None:
    reading = read_v1(tmp_path, V1 | {"dense_caption": "[|||0||| 120||| First. |||,|||120||| 240||| Later. |||]"})
    found = [text for row in reading.rows for _, _, text in windows_of(row["clips"][0], "dense")]
    assert found == ["First.", "Later."] or reading.rejected


def test_v1_very_long_cell_with_newlines(tmp_path: Path) -> None:
    text = "\n".join(f'Line {i}, "quoted"' for i in range(20_000))
    assert len(text) > 131_072
    assert texts(clip_of(read_v1(tmp_path, V1 | {"dense_caption": text}))["captions"])["dense"] == text


@pytest.mark.parametrize(
    ("files", "video", "trimmed", "flags"),
    [
        (["data/video_clips/000000100/000000100233.3.mp4"], 0, True, []),
        (["raw_video/000000100/000000100233.mp4"], 0, False, []),
        (["raw/000000100233.mp4"], 0, False, []),
        (["video_clips/000000100/000000100233.30.mp4"], None, True, ["video_not_found"]),
    ],
    ids=["clip", "raw", "raw, no folder", "another clip"],
)
def test_v1_files(tmp_path: Path, files: list[str], video: int | None, trimmed: bool, flags: list[str]) -> None:
    row = only_row(read_v1(tmp_path, V1, videos=write_files(tmp_path / "videos", files)))
    pointer = V1["file_path"] if video is None else files[video]
    assert (row["clips"][0]["video"], row["clips"][0]["trimmed"], row["flags"]) == (pointer, trimmed, flags)


def test_clip_of_zero_bytes_falls_back_to_the_source_video(tmp_path: Path) -> None:
    videos = write_files(tmp_path / "videos", ["raw_video/000000100/000000100233.mp4"])
    write_files(videos, [V1["file_path"]], content=b"")
    clip = clip_of(read_v1(tmp_path, V1, videos=videos))
    assert (clip["video"], clip["trimmed"]) == ("raw_video/000000100/000000100233.mp4", False)


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_whole_source_video_is_no_clip_where_the_span_is_not_known(tmp_path: Path, version: str) -> None:
    videos = write_files(tmp_path / "videos", ["000000100233.mp4", "000000008431_ferryCity03.mp4"])
    read, row = (read_v0, V0 | {"fps": ""}) if version == "v0" else (read_v1, V1 | {"timestamp": ""})
    found = only_row(read(tmp_path, row, videos=videos))
    assert (found["clips"][0]["trimmed"], found["flags"]) == (True, ["video_not_found"])


def test_clip_in_several_tables_is_several_samples_of_one_clip(tmp_path: Path) -> None:
    names = ("miradata_v1_330k.csv", "miradata_v1_9k.csv", "mine.csv")
    rows = rows_of("miradata", [write_table(tmp_path / name, [V1], V1_COLUMNS) for name in names]).rows
    assert [row["sample_id"].split("/")[1] for row in rows] == ["v1_330k", "v1_9k", "v1"]
    assert {row["clips"][0]["clip_id"] for row in rows} == {"000000100233.3"}


def test_utf8_is_tried_before_windows_1252_row_by_row(tmp_path: Path) -> None:
    path = write_table(tmp_path / "miradata_v0.csv", [V0 | {"short_caption": "Ein Café – “Fähre”"}], V0_COLUMNS)
    other = V0 | {"index": INDEX[:-1] + "2", "short_caption": "Ein Café – “Fähre”"}
    write_table(tmp_path / "other.csv", [other], V0_COLUMNS, encoding="cp1252")
    path.write_bytes(path.read_bytes() + (tmp_path / "other.csv").read_bytes().partition(b"\n")[2])
    rows = rows_of("miradata", path).rows
    assert [texts(row["clips"][0]["captions"])["short"] for row in rows] == ["Ein Café – “Fähre”"] * 2
    assert [row["flags"] for row in rows] == [[], ["read_as_windows_1252"]]


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write_table(tmp_path / "miradata_v0.csv", [V0], V0_COLUMNS, encoding="utf-8-sig")
    assert clip_of(rows_of("miradata", path))["clip_id"] == INDEX


def test_field_map_renames_columns(tmp_path: Path) -> None:
    columns = ["long_text" if name == "dense_caption" else name for name in V1_COLUMNS]
    path = write_table(tmp_path / "miradata_v1_9k.csv", [V1 | {"long_text": "A ferry."}], columns)
    clip = clip_of(rows_of("miradata", path, field_map={"dense_caption": "long_text"}))
    assert texts(clip["captions"])["dense"] == "A ferry."


def test_field_map_wins_over_a_column_of_the_known_name(tmp_path: Path) -> None:
    path = write_table(tmp_path / "miradata_v1_9k.csv", [V1 | {"long_text": "A ferry."}], [*V1_COLUMNS, "long_text"])
    clip = clip_of(rows_of("miradata", path, field_map={"dense_caption": "long_text"}))
    assert texts(clip["captions"])["dense"] == "A ferry."


def test_table_of_something_else_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "other.csv", [{"key": "x"}], ["key", "refined_caption"])
    with pytest.raises(
        AnnotationError, match=r"other\.csv: MiraData tables .*; this one has key, refined_caption\. .*-map"
    ):
        rows_of("miradata", path)


@pytest.mark.parametrize(
    ("version", "changed", "reason"),
    [
        ("v0", {"index": ""}, "index is missing"),
        ("v0", {"index": "8431_ferryCity03-1"}, "index does not look like"),
        ("v0", {"fps": "0"}, "fps is "),
        ("v0", {"end_frame": "90"}, "the clip ends before it starts"),
        ("v0", {"start_frame": "3.5"}, "start_frame is not a whole number"),
        ("v1", {"file_path": "100233.3.mp4"}, "file_path does not look like"),
        ("v1", {"timestamp": "['01:06:21', '01:06:20']"}, "the clip ends before it starts"),
        ("v1", {"timestamp": "__import__('os').getcwd()"}, "timestamp is not a list of two times"),
        ("v1", {"framestamp": "[1, 2, 3]"}, "framestamp is not a list of two whole numbers"),
        ("v1", {"width": "wide"}, "width is not a whole number"),
        ("v1", {"dense_caption": "[|||0||| end||| Text. |||,]"}, "dense_caption: a caption window cannot be read"),
        ("v1", {"style_caption": coded((120, 0, "Text."))}, "style_caption: a caption window ends before it starts"),
    ],
)
def test_rows_that_cannot_be_read_are_rejected(tmp_path: Path, version: str, changed: Row, reason: str) -> None:
    reading = read_v0(tmp_path, V0 | changed) if version == "v0" else read_v1(tmp_path, V1 | changed)
    assert reason in only_reason(reading)


@pytest.mark.parametrize("folder", ["/etc", "../..", "a/../..", "https://host.invalid", "videos:"])
def test_no_pointer_leaves_the_video_root(tmp_path: Path, folder: str) -> None:
    reading = read_v1(tmp_path, V1 | {"file_path": f"{folder}/000000100233.3.mp4"})
    for row in reading.rows:
        assert row["clips"][0]["video"].endswith("000000100233.3.mp4")
        assert not row["clips"][0]["video"].startswith(("/", "..", "a/..", "https:", "videos:"))


@pytest.mark.parametrize(
    ("version", "changed"),
    [
        ("v0", {"start_frame": "-5"}),
        ("v0", {"end_frame": "1e19"}),
        ("v0", {"fps": "1e-320"}),
        ("v0", {"dense_caption": coded((0, 10**400, "Text."))}),
        ("v1", {"source": ", all"}),
        ("v1", {"width": "3000000000"}),
        ("v1", {"frame_number": "1e30"}),
        ("v1", {"framestamp": "[1e30, 2e30]"}),
    ],
)
def test_one_odd_value_never_ends_the_build(tmp_path: Path, version: str, changed: Row) -> None:
    read, good = (read_v0, V0) if version == "v0" else (read_v1, V1)
    reading = read(tmp_path, good | changed, good)
    assert reading.rows[-1]["provenance"]["row_index"] == 1
    assert len(reading.rows) + len(reading.rejected) == 2
