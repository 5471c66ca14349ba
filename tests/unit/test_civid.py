"""CI-VID: what each odd shape of its caption files and records becomes."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from civid_loader.errors import AnnotationError
from civid_loader.materialize import build
from civid_loader.schema import CAPTION, CLIP, SAMPLE_FEATURES, SOURCE
from support.reading import Row, only_reason, only_row, rows_of, texts, write_files, write_json, write_lines

FENCE = 3 * "`"
MD5, OTHER_MD5 = "0f" * 16, "a7" * 16
SINGLE_KEYS = ("video_content", "camera_angle", "camera_movement", "video_background")
JOINT_KEYS = (
    "continuation_in_video_content", "change_in_video_content", "continuation_in_video_background",
    "change_in_video_background", "change_in_camera_angle", "change_in_camera_movement",
)  # fmt: skip
SINGLE_KINDS = ("content", "camera_angle", "camera_movement", "background")
JOINT_KINDS = (
    "continuation_content", "change_content", "continuation_background", "change_background", "change_camera_angle",
    "change_camera_movement",
)  # fmt: skip


def single(number: int, **changed: str) -> dict[str, str]:
    """Captions of one clip."""
    return {key: f"Clip {number}, {key}: a tin boat." for key in SINGLE_KEYS} | changed


def joint(number: int, **changed: str) -> dict[str, str]:
    """Captions of the step after one clip."""
    return {key: f"Step {number}, {key}: the boat turns." for key in JOINT_KEYS} | changed


def published(num_clips: int, *, colon: str = ":", item: Callable[[Any], Any] = lambda item: item) -> Row:
    """A record as the authors published it."""
    singles, joints = map(single, range(num_clips)), map(joint, range(num_clips - 1))
    return {f"single_captions{colon}": [*map(item, singles)], f"joint_captions{colon}": [*map(item, joints)]}


def pipeline(scenes: tuple[int, ...] = (3, 4, 6), **changed: Any) -> Row:
    """A record with the keys of the construction pipeline."""
    clips = [f"/data/clips/{MD5}/harbour-Scene-{scene:03d}.mp4" for scene in scenes]
    return {
        "path": "/data/raw/harbour.mp4",
        "video_path_md5_hash": MD5,
        "clip_seq": [*clips, f"/data/clips/{MD5}/harbour-Scene-099.mp4"],
        "seq_idx": 2,
        "good_clips": clips,
        "entity": "a tin boat",
        "good_clip_idx": list(scenes),
        **published(len(scenes), colon=""),
    } | changed


def fenced(item: Any) -> str:
    """A model's answer, as it came."""
    return f"{FENCE}json\n{json.dumps(item, indent=4)}\n{FENCE}"


def clip_texts(row: Row) -> list[dict[str, str]]:
    return [texts(clip["captions"]) for clip in row["clips"]]


def step_texts(row: Row) -> list[dict[str, str]]:
    return [texts(step["captions"]) for step in row["transitions"]]


def expected_texts(num_clips: int) -> list[dict[str, str]]:
    return [dict(zip(SINGLE_KINDS, single(i).values(), strict=True)) for i in range(num_clips)]


def expected_steps(num_clips: int) -> list[dict[str, str]]:
    return [dict(zip(JOINT_KINDS, joint(i).values(), strict=True)) for i in range(num_clips - 1)]


def test_caption_file_becomes_one_sequence(tmp_path: Path) -> None:
    row = only_row(rows_of("civid", write_json(tmp_path / "007_caption.jsonl", published(2), indent=4)))

    def captions(found: dict[str, str]) -> list[Row]:
        return [
            dict.fromkeys(CAPTION) | {"kind": kind, "text": text, "annotator": "upstream:gpt-4o"}
            for kind, text in found.items()
        ]

    nothing = dict.fromkeys(CLIP) | {"source": dict.fromkeys(SOURCE), "trimmed": True, "characters": [], "scores": []}
    own, steps = expected_texts(2), expected_steps(2)
    assert row == dict.fromkeys(SAMPLE_FEATURES) | {
        "sample_id": "civid/samples/007_caption",
        "dataset": "civid",
        "subset": "samples",
        "level": "sequence",
        "clips": [
            nothing | {"clip_id": f"007_caption/00{i}", "index": i, "captions": captions(own[i])} for i in range(2)
        ],
        "transitions": [{"from_index": 0, "to_index": 1, "captions": captions(steps[0])}],
        "captions": [],
        "flags": [],
        "provenance": {
            "annotation_file": "007_caption.jsonl",
            "row_index": 0,
            "upstream_version": None,
            "license": "civid-noncommercial",
        },
    }


@pytest.mark.parametrize("colon", [":", ""], ids=["colon", "no colon"])
@pytest.mark.parametrize("item", [lambda item: item, json.dumps, fenced], ids=["object", "string", "fenced answer"])
@pytest.mark.parametrize("indent", [None, 2, 4], ids=["one line", "indent 2", "indent 4"])
def test_every_published_shape_gives_the_same_captions(
    tmp_path: Path, colon: str, item: Callable[[Any], Any], indent: int | None
) -> None:
    record = published(3, colon=colon, item=item)
    row = only_row(rows_of("civid", write_json(tmp_path / "a.jsonl", record, indent=indent)))
    assert clip_texts(row) == expected_texts(3)
    assert step_texts(row) == expected_steps(3)
    assert [(step["from_index"], step["to_index"]) for step in row["transitions"]] == [(0, 1), (1, 2)]
    assert row["flags"] == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_in_other_scripts_and_no_final_newline(tmp_path: Path, encoding: str) -> None:
    text = "A card: 「小さな舟」 and «БУМАЖНЫЙ ЗМЕЙ»."
    path = tmp_path / "a.jsonl"
    record = {"single_captions:": [single(0, video_content=text)], "joint_captions:": []}
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2), encoding=encoding)
    assert not path.read_bytes().endswith(b"\n")
    assert clip_texts(only_row(rows_of("civid", path)))[0]["content"] == text


def test_several_pretty_printed_records_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(json.dumps(published(n), indent=4) for n in (2, 3)), encoding="utf-8")
    rows = rows_of("civid", path).rows
    assert [(row["sample_id"], len(row["clips"])) for row in rows] == [
        ("civid/samples/many", 2), ("civid/samples/many/1", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("residue", ['"\n}\n' + FENCE, '",\n}\n' + FENCE, '")'], ids=["fence", "comma fence", "paren"])
@pytest.mark.parametrize("item", [lambda item: item, json.dumps], ids=["object", "JSON string"])
def test_fence_residue_of_last_field_is_cut(tmp_path: Path, residue: str, item: Callable[[Any], Any]) -> None:
    record = {
        "single_captions:": [item(single(0, video_background="A harbour." + residue)), item(single(1))],
        "joint_captions:": [item(joint(0, change_in_camera_movement="It stops." + residue))],
    }
    row = only_row(rows_of("civid", write_json(tmp_path / "a.jsonl", record, indent=4)))
    assert clip_texts(row)[0]["background"] == "A harbour."
    assert step_texts(row)[0]["change_camera_movement"] == "It stops."
    assert row["flags"] == ["fence_residue"]


@pytest.mark.parametrize(
    ("field", "kind", "text"),
    [
        ("video_background", "background", 'A wall that says "open"'),
        ("video_background", "background", "A wall (painted)"),
        ("video_background", "background", 'A wall (it says "open")'),
        ("video_content", "content", 'A boat named "Tin")'),
        ("video_content", "content", f"Three ticks: {FENCE}"),
    ],
)
def test_text_that_only_looks_like_residue_is_kept(tmp_path: Path, field: str, kind: str, text: str) -> None:
    record = {"single_captions:": [single(0, **{field: text})]}
    row = only_row(rows_of("civid", write_json(tmp_path / "a.jsonl", record, indent=4)))
    assert (clip_texts(row)[0][kind], row["flags"]) == (text, [])


@pytest.mark.parametrize(
    ("text", "becomes", "flag"),
    [
        (r"A sign: \"Tin Boat\".", 'A sign: "Tin Boat".', "escapes_decoded"),
        (r"A sign: \u0417\u041c\u0415\u0419.", "A sign: ЗМЕЙ.", "escapes_decoded"),
        (r"A boat \ud83d\udea4 and half of one \ud83d.", "A boat 🚤 and half of one \ufffd.", "escapes_decoded"),
        (r"A slope of \40 degrees.", r"A slope of \40 degrees.", "escapes_left"),
    ],
)
def test_undecoded_escapes(tmp_path: Path, text: str, becomes: str, flag: str) -> None:
    record = {"single_captions:": [single(0, video_content=text)]}
    row = only_row(rows_of("civid", write_json(tmp_path / "a.jsonl", record, indent=4)))
    assert (clip_texts(row)[0]["content"], row["flags"]) == (becomes, [flag])


def test_raw_answer_is_decoded_once(tmp_path: Path) -> None:
    text = r"A screen shows C:\new."
    record = {"good_clips": ["a/b-Scene-001.mp4"], "response_singles": [fenced(single(0, video_content=text))]}
    row = only_row(rows_of("civid", write_lines(tmp_path / "train.jsonl", [record])))
    assert clip_texts(row)[0]["content"] == text


def test_null_key_does_not_hide_its_alias(tmp_path: Path) -> None:
    record = {"single_captions": None, "response_singles": [fenced(single(0))]}
    row = only_row(rows_of("civid", write_lines(tmp_path / "train.jsonl", [record])))
    assert clip_texts(row) == expected_texts(1)


def test_pipeline_record(tmp_path: Path) -> None:
    paths = [tmp_path / f"CI-VID_{split}_samples.jsonl" for split in ("train", "test")]
    write_lines(paths[0], [pipeline(seq_idx=5), pipeline(seq_idx=6)])
    write_lines(paths[1], [pipeline(seq_idx=7)])
    row = rows_of("civid", paths, split="train").rows[1]
    assert row["sample_id"] == f"civid/full/{MD5}_6"
    assert (row["subset"], row["provenance"]["row_index"]) == ("full", 1)
    assert row["hierarchy"]["sequence_index"] == 6
    assert [clip["clip_id"] for clip in row["clips"]] == [f"{MD5}_6/00{i}" for i in range(3)]
    assert [clip["video"] for clip in row["clips"]] == [f"{MD5}/harbour-Scene-00{n}.mp4" for n in (3, 4, 6)]
    assert {clip["source"]["video_id"] for clip in row["clips"]} == {MD5}
    assert texts(row["captions"]) == {"main_object": "a tin boat"}
    assert row["captions"][0]["annotator"] == "upstream:qwen2.5-vl"
    assert len(rows_of("civid", paths, split="test").rows) == 1


def test_entity_none_is_no_caption(tmp_path: Path) -> None:
    row = only_row(rows_of("civid", write_lines(tmp_path / "train.jsonl", [pipeline(entity="none")])))
    assert row["captions"] == []


def test_absent_clips_stay_in_their_sample(tmp_path: Path) -> None:
    videos = write_files(
        tmp_path / "videos",
        [
            f"chunk_0_40/12/{MD5}/harbour-Scene-003.mp4",
            f"chunk_0_40/12/{MD5}/harbour-Scene-006.mp4",
            f"chunk_0_40/31/{OTHER_MD5}/harbour-Scene-004.mp4",
        ],
    )
    path = write_lines(tmp_path / "train.jsonl", [pipeline((3, 4, 6))])
    row = only_row(rows_of("civid", path, videos=videos))
    assert [(clip["index"], clip["video"], clip["trimmed"]) for clip in row["clips"]] == [
        (0, f"chunk_0_40/12/{MD5}/harbour-Scene-003.mp4", True),
        (1, f"{MD5}/harbour-Scene-004.mp4", True),
        (2, f"chunk_0_40/12/{MD5}/harbour-Scene-006.mp4", True),
    ]
    assert row["flags"] == ["video_not_found"]
    assert clip_texts(row) == expected_texts(3)
    assert step_texts(row) == expected_steps(3)


def test_chunk_as_it_was_downloaded(tmp_path: Path) -> None:
    videos = write_files(tmp_path / "videos", ["chunk_40_80.tar.gz"])
    inside = write_files(tmp_path / "inside", [f"57/{MD5}/harbour-Scene-00{n}.mp4" for n in (3, 4)])
    with tarfile.open(videos / "chunk_0_40.tar", "w") as tar:
        tar.add(inside, arcname=".")
    path = write_lines(tmp_path / "train.jsonl", [pipeline((3, 4))])
    row = only_row(rows_of("civid", path, videos=videos))
    assert [clip["video"] for clip in row["clips"]] == [
        f"chunk_0_40.tar!./57/{MD5}/harbour-Scene-00{n}.mp4" for n in (3, 4)
    ]
    assert row["flags"] == []


@pytest.mark.parametrize(
    "key", ["clips", "good_clips", "clip_seq", "video_paths", "videos", "clip_paths", "path", "clips:"]
)
def test_clips_under_every_name(tmp_path: Path, key: str) -> None:
    record = {key: ["a/b-Scene-001.mp4", "a/b-Scene-002.mp4"], **published(2)}
    reading = rows_of("civid", write_lines(tmp_path / "train.jsonl", [record]))
    assert [clip["video"] for clip in only_row(reading)["clips"]] == record[key]
    assert not reading.notes


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/data/clips/a/b-Scene-001.mp4", "a/b-Scene-001.mp4"),
        ("../../etc/b-Scene-001.mp4", "etc/b-Scene-001.mp4"),
        ("C:\\clips\\a\\b-Scene-001.mp4", "a/b-Scene-001.mp4"),
        ("https://host.invalid/x/a/b-Scene-001.mp4", "a/b-Scene-001.mp4"),
        ("clips/a/b-Scene-001.mp4", "clips/a/b-Scene-001.mp4"),
    ],
)
def test_no_pointer_leaves_the_video_root(tmp_path: Path, path: str, pointer: str) -> None:
    record = {"good_clips": [path], "single_captions": [single(0)]}
    row = only_row(rows_of("civid", write_lines(tmp_path / "train.jsonl", [record])))
    assert row["clips"][0]["video"] == pointer


def test_folder_of_caption_files(tmp_path: Path) -> None:
    names = ("001.jsonl", "001_caption.jsonl", "more/002.jsonl.jsonl")
    for name in names:
        write_json(tmp_path / "samples" / name, published(2), indent=4)
    rows = rows_of("civid", tmp_path / "samples").rows
    assert [row["sample_id"] for row in rows] == [
        "civid/samples/001", "civid/samples/001_caption", "civid/samples/more/002",
    ]  # fmt: skip
    assert tuple(row["provenance"]["annotation_file"] for row in rows) == names


def test_record_id_becomes_part_of_the_sample_id(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "train.jsonl", [{"idx": "0042", **published(2)}, published(2)])
    assert [row["sample_id"] for row in rows_of("civid", path).rows] == ["civid/full/train/0042", "civid/full/train/1"]


@pytest.mark.parametrize("written", ["texts", "texts:"])
def test_field_map_reads_keys_nobody_has_seen(tmp_path: Path, written: str) -> None:
    items = [{"what": "A boat.", "video_background": "A harbour."}]
    path = write_lines(tmp_path / "train.jsonl", [{"shots": ["a/b-Scene-001.mp4"], written: items, "mood": "calm"}])
    field_map = {"singles": written, "clips": "shots", "video_content": "what"}
    reading = rows_of("civid", path, field_map=field_map)
    row = only_row(reading)
    assert clip_texts(row) == [{"content": "A boat.", "background": "A harbour."}]
    assert row["clips"][0]["video"] == "a/b-Scene-001.mp4"
    assert reading.notes == {"key not read: mood": 1}


def test_unknown_keys_are_listed_with_the_way_to_map_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "train.jsonl", [{"texts": [single(0)], "shots": ["a.mp4"]}])
    with pytest.raises(AnnotationError) as error:
        rows_of("civid", path)
    for part in (str(path), "'texts', 'shots'", "single_captions", "good_clips", "civid inspect"):
        assert part in str(error.value)
    example = str(error.value).partition("--field-map FILE with ")[2]
    assert json.JSONDecoder().raw_decode(example)[0] == {"singles": "texts"}


def test_field_map_of_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "train.jsonl", [published(2)])
    with pytest.raises(AnnotationError, match="'single' is not a field of this dataset; it has clips, singles"):
        rows_of("civid", path, field_map={"single": "texts"})


def test_evaluation_prompts_are_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "prompts.jsonl", {"idx": 0, "request": "a trip", "narratives": {"sence_1": "A boat."}})
    with pytest.raises(AnnotationError, match="'idx', 'request', 'narratives'"):
        rows_of("civid", path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"single_captions": [single(0)]}, "1 single captions for 3 clips: which belongs where is not known"),
        ({"joint_captions": [joint(0)]}, "1 joint captions for 3 clips: which belongs where is not known"),
        ({"joint_captions": [joint(0)] * 3}, "3 joint captions for 3 clips: which belongs where is not known"),
        ({"good_clips": "a.mp4"}, "clips is str, not a list"),
        ({"seq_idx": "two"}, "sequence index 'two' is not a whole number"),
        ({"single_captions": [7, 8, 9]}, "a caption is int, not an object"),
        ({"single_captions": ["{", "{", "{"]}, "a caption is not JSON"),
        ({"single_captions": [single(0, video_contents="x")] * 3}, "map it with --field-map if it is 'video_content'"),
        ({"single_captions": [single(0) | {"camera_angle": 3}] * 3}, "camera_angle is int, not text"),
    ],
)
def test_records_that_cannot_be_read_are_rejected(tmp_path: Path, changed: Row, reason: str) -> None:
    assert reason in only_reason(rows_of("civid", write_lines(tmp_path / "train.jsonl", [pipeline(**changed)])))


def test_null_items_leave_clips_without_captions(tmp_path: Path) -> None:
    record = pipeline(single_captions=[single(0), None, single(2)], joint_captions=None)
    row = only_row(rows_of("civid", write_lines(tmp_path / "train.jsonl", [record])))
    assert [len(clip["captions"]) for clip in row["clips"]] == [4, 0, 4]
    assert row["transitions"] == []


def test_cut_off_line_is_rejected_alone(tmp_path: Path) -> None:
    path, good = tmp_path / "train.jsonl", json.dumps(pipeline())
    path.write_text(f"{good}\n\n{good[:60]}\n{good.replace(MD5, OTHER_MD5)}\n[1]\n", encoding="utf-8")
    reading = rows_of("civid", path)
    assert [row["provenance"]["row_index"] for row in reading.rows] == [0, 3]
    assert [(bad.row_index, bad.raw) for bad in reading.rejected] == [(2, good[:60] + "\n"), (4, "[1]")]
    assert "was the file cut off?" in reading.rejected[0].reason
    assert reading.rejected[1].reason == "a record is an object, not list"


@pytest.mark.parametrize(
    "changed",
    [
        *({"video_path_md5_hash": value} for value in ("", 7, ["x"], "\ud83d")),
        *({"seq_idx": value} for value in (True, 10**12, 10**30)),
        *({"good_clips": [value, "a/2.mp4", "a/3.mp4"]} for value in ("", "/", "..", "\ud83d.mp4")),
        {"entity": "\ud83d"},
    ],
    ids=repr,
)
def test_one_odd_value_never_ends_the_build(tmp_path: Path, changed: Row) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in (pipeline(**changed), pipeline(seq_idx=9))))
    reading = rows_of("civid", path)
    assert reading.rows[-1]["hierarchy"]["sequence_index"] == 9
    assert len(reading.rows) + len(reading.rejected) == 2


def test_keys_and_reasons_that_are_no_text_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{json.dumps(r)}\n" for r in (pipeline() | {"\ud83d": 1}, {"\ud83d": 1})))
    report = build("civid", annotations=path, output=tmp_path / "out", max_rejected=0.5, quiet=True)
    assert report.rejected == {"neither captions nor clips; keys: \ufffd": 1}
    assert report.counts["notes"] == {"key not read: \ufffd": 2}


@pytest.mark.timeout(4)
@pytest.mark.parametrize("item", [lambda item: item, fenced], ids=["object", "fenced answer"])
def test_a_long_run_of_spaces_takes_no_time(tmp_path: Path, item: Callable[[Any], Any]) -> None:
    record = {"single_captions:": [item(single(0, video_background=f"A wall{' ' * 3000}and a door."))]}
    assert only_row(rows_of("civid", write_lines(tmp_path / "train.jsonl", [record])))
