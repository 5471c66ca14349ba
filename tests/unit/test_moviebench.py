"""MovieBench: what each odd part of the released tree becomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from civid_loader.errors import AnnotationError
from support.reading import Row, only_row, rows_of, texts, write_files, write_json

MOVIE = "0907_Half-Moon_Ferry-Man2"
"""A title with "-", "_" and a digit at its end."""
FIRST = f"{MOVIE}_00.01.02.500-00.01.05.000"
BLINK = f"{MOVIE}_00.00.43.459-00.00.43.636"
LAST = f"{MOVIE}_01.00.00.000-01.00.02.250"
SHOTS_DIR = "Annotation_Shot_Desc_11.15_V2_160movies"
BANK_DIR = "Character_Bank_All_11.16"
ANNOTATION = {
    "Characters": {"Lu-Chen": "Lu-Chen wears a yellow coat."},
    "Style Elements": ["Cold light", "Grain"],
    "Plot": "Lu-Chen waits for the ferry.",
    "Background Description": "A pier in fog.",
    "Camera Motion": "The camera is still.",
}


def release(tmp_path: Path, shots: Row | None = None, **documents: Any) -> Path:
    """A tree as upstream ships it: shot name -> annotation (text: as it is), and documents by name."""
    root = tmp_path / "MovieBench"
    given = {"movies_scenes": {MOVIE: {"Sence 1: A pier.": [FIRST, BLINK]}}, "data_split": {"Train": [MOVIE]}}
    for name, value in (given | documents).items():
        if value is not None:
            write_json(root / f"{name}.json", value, ensure_ascii=True)
    for shot, annotation in ({FIRST: ANNOTATION} if shots is None else shots).items():
        path = root / SHOTS_DIR / shot.rpartition("_")[0] / f"{shot}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(annotation if isinstance(annotation, str) else json.dumps(annotation), encoding="utf-8")
    return root


def bank(root: Path, *folders: str) -> Path:
    return write_files(root / BANK_DIR / MOVIE, [f"{folder}/best.jpg" for folder in folders])


def shot_row(root: Path, **options: Any) -> Row:
    """The row of `FIRST` in the subset `shots`."""
    rows = rows_of("moviebench", root, subset="shots", **options).rows
    return next(row for row in rows if row["clips"][0]["clip_id"] == FIRST)


def captions_of(row: Row, kind: str) -> list[tuple[str, float | None, float | None]]:
    found = [caption for caption in row["clips"][0]["captions"] if caption["kind"] == kind]
    return [(caption["text"], caption["start_seconds"], caption["end_seconds"]) for caption in found]


def test_scene_row(tmp_path: Path) -> None:
    root = release(tmp_path, {FIRST: ANNOTATION, BLINK: {}}, mad2plot={MOVIE: " A ferry. "}, mad2imdb={MOVIE: "tt99"})
    row = only_row(rows_of("moviebench", root))
    assert row["sample_id"] == f"moviebench/scenes/{MOVIE}/1"
    assert (row["subset"], row["level"], row["flags"]) == ("scenes", "scene", [])
    assert row["hierarchy"] == {
        "movie_id": MOVIE, "movie_title": "Half-Moon Ferry-Man2", "imdb_id": "tt99", "scene_id": f"{MOVIE}/1",
        "scene_index": 0, "sequence_index": None,
    }  # fmt: skip
    assert texts(row["captions"]) == {"scene_title": "A pier.", "synopsis": "A ferry."}
    assert [(clip["clip_id"], clip["index"]) for clip in row["clips"]] == [(BLINK, 0), (FIRST, 1)]
    assert row["provenance"] == {
        "annotation_file": "movies_scenes.json", "row_index": 0, "upstream_version": None,
        "license": "moviebench-unstated",
    }  # fmt: skip


def test_shot_row(tmp_path: Path) -> None:
    row = shot_row(release(tmp_path))
    (clip,) = row["clips"]
    assert (row["sample_id"], row["level"]) == (f"moviebench/shots/{FIRST}", "clip")
    assert (row["hierarchy"]["scene_id"], row["hierarchy"]["sequence_index"]) == (f"{MOVIE}/1", 1)
    assert texts(row["captions"]) == {"scene_title": "A pier."}
    assert (clip["video"], clip["trimmed"]) == (f"{MOVIE}/{FIRST}.avi", True)
    assert clip["source"] == {
        "platform": "lsmdc", "category": None, "video_id": MOVIE, "url": None,
        "start_seconds": 62.5, "end_seconds": 65.0, "start_frame": None, "end_frame": None,
    }  # fmt: skip
    assert [(caption["kind"], caption["text"], caption["annotator"]) for caption in clip["captions"]] == [
        ("plot", ANNOTATION["Plot"], "upstream:gpt-4o"),
        ("background", ANNOTATION["Background Description"], "upstream:gpt-4o"),
        ("camera_movement", ANNOTATION["Camera Motion"], "upstream:gpt-4o"),
        ("style", "Cold light", "upstream:gpt-4o"),
        ("style", "Grain", "upstream:gpt-4o"),
    ]
    assert clip["characters"] == [{"name": "Lu-Chen", "description": "Lu-Chen wears a yellow coat."}]
    assert row["provenance"]["annotation_file"] == f"{SHOTS_DIR}/{MOVIE}/{FIRST}.json"
    assert row["flags"] == []


def test_shot_of_a_fifth_of_a_second(tmp_path: Path) -> None:
    rows = rows_of("moviebench", release(tmp_path, {BLINK: ANNOTATION}), subset="shots").rows
    source = rows[0]["clips"][0]["source"]
    assert source["end_seconds"] - source["start_seconds"] == pytest.approx(0.177)


@pytest.mark.parametrize(
    ("key", "number", "title"),
    [
        ("Sence 7: A pier.", "7", "A pier."),
        ("Scene 7: A pier: at night.", "7", "A pier: at night."),
        ("sence 7", "7", None),
        ("A pier.", "1", "A pier."),
    ],
)
def test_scene_titles(tmp_path: Path, key: str, number: str, title: str | None) -> None:
    row = only_row(rows_of("moviebench", release(tmp_path, movies_scenes={MOVIE: {key: [FIRST]}})))
    assert row["hierarchy"]["scene_id"] == f"{MOVIE}/{number}"
    assert texts(row["captions"]) == ({"scene_title": title} if title else {})


def test_scenes_keep_the_order_of_the_file_and_shots_that_of_time(tmp_path: Path) -> None:
    scenes = {"Sence 2: A deck.": [f"{LAST}.avi", f"{FIRST}.mp4"], "Sence 1: A pier.": [BLINK]}
    rows = rows_of("moviebench", release(tmp_path, movies_scenes={MOVIE: scenes})).rows
    assert [row["hierarchy"]["scene_id"] for row in rows] == [f"{MOVIE}/2", f"{MOVIE}/1"]
    assert [row["hierarchy"]["scene_index"] for row in rows] == [0, 1]
    assert [clip["clip_id"] for clip in rows[0]["clips"]] == [FIRST, LAST]


def test_missing_annotation_and_video_leave_the_shot_in_its_place(tmp_path: Path) -> None:
    videos = write_files(tmp_path / "lsmdc", [f"avi/{MOVIE}/{FIRST}.mp4"])
    row = only_row(rows_of("moviebench", release(tmp_path), videos=videos))
    assert [clip["video"] for clip in row["clips"]] == [f"{MOVIE}/{BLINK}.avi", f"avi/{MOVIE}/{FIRST}.mp4"]
    assert [len(clip["captions"]) for clip in row["clips"]] == [0, 5]
    assert row["flags"] == ["missing_shot_annotation", "video_not_found"]


@pytest.mark.parametrize(
    ("annotation", "flag", "reason"),
    [
        ("", "unreadable_shot_annotation", "empty file"),
        ('{"Plot": "A', "unreadable_shot_annotation", "was the file cut off?"),
        ("[]", "unreadable_shot_annotation", "a shot annotation is an object, not list"),
        (json.dumps(ANNOTATION) + "\n\nThat is all.", "text_after_annotation", None),
    ],
)
def test_odd_shot_files(tmp_path: Path, annotation: str, flag: str, reason: str | None) -> None:
    reading = rows_of("moviebench", release(tmp_path, {FIRST: annotation}), subset="shots")
    row = next(row for row in reading.rows if row["clips"][0]["clip_id"] == FIRST)
    assert row["flags"] == [flag]
    assert len(row["clips"][0]["captions"]) == (0 if reason else 5)
    assert [(bad.file, bad.raw, (reason or "") in bad.reason) for bad in reading.rejected] == (
        [(f"{SHOTS_DIR}/{MOVIE}/{FIRST}.json", FIRST, True)] if reason else []
    )


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ({}, []),
        (None, []),
        (["Lu-Chen", "The_Stoker"], [("Lu-Chen", None), ("The Stoker", None)]),
        ({"E\u0301loi\u0308se": " a coat "}, [("\u00c9lo\u00efse", "a coat")]),
    ],
)
def test_characters_of_a_shot(tmp_path: Path, people: Any, expected: list[tuple[str, str | None]]) -> None:
    clip = shot_row(release(tmp_path, {FIRST: ANNOTATION | {"Characters": people}}))["clips"][0]
    assert [(person["name"], person["description"]) for person in clip["characters"]] == expected


@pytest.mark.parametrize(
    ("folder", "actor", "name", "aliases"),
    [
        ("Valeria_Tran-Lu-Chen", "Valeria Tran", "Lu-Chen", ["Lu-Chen", "Lu", "Chen"]),
        ("J.P._Harkness-Captain's_Mate", "J.P. Harkness", "Captain's Mate", ["Captain's Mate"]),
        ("The\u0301odora_M-E\u0301loi\u0308se", "Th\u00e9odora M", "\u00c9lo\u00efse", ["\u00c9lo\u00efse"]),
    ],
)
def test_character_folders(tmp_path: Path, folder: str, actor: str, name: str, aliases: list[str]) -> None:
    root = release(tmp_path)
    write_files(root / BANK_DIR / MOVIE / folder, ["4_0.jpg", "best.jpg", "11.57.47.jpg", ".DS_Store", "vgg.pkl"])
    write_files(root / BANK_DIR / MOVIE, [".DS_Store", "representations.pkl"])
    row = only_row(rows_of("moviebench", root, table="characters"))
    assert (row["movie_id"], row["actor"], row["name"], row["aliases"]) == (MOVIE, actor, name, aliases)
    stills = [f"{BANK_DIR}/{MOVIE}/{folder}/{still}" for still in ("best.jpg", "11.57.47.jpg", "4_0.jpg")]
    assert (row["portraits"], row["audio"]) == (stills, [])


@pytest.mark.parametrize("path", [f"Speaker/{MOVIE}/{FIRST}/{FIRST}_0.wav", f"frames/{MOVIE}/{FIRST}/0001.jpg"])
def test_sound_and_frames_of_a_shot_are_no_character(tmp_path: Path, path: str) -> None:
    root = release(tmp_path)
    write_files(root, [path])
    assert rows_of("moviebench", root, table="characters").rows == []


@pytest.mark.parametrize("called", ["Lu-Chen", "Lu", "Chen"])
def test_character_is_known_by_every_alias(tmp_path: Path, called: str) -> None:
    root = release(tmp_path, {FIRST: ANNOTATION | {"Characters": {called: "a coat"}}})
    bank(root, "Valeria_Tran-Lu-Chen")
    assert shot_row(root)["flags"] == []


def test_character_the_bank_does_not_know_is_flagged(tmp_path: Path) -> None:
    root = release(tmp_path, {FIRST: ANNOTATION | {"Characters": {"The Stoker": "soot"}}})
    assert shot_row(root)["flags"] == []
    bank(root, "Valeria_Tran-Lu-Chen")
    assert shot_row(root)["flags"] == ["character_not_in_bank"]


def test_audio_descriptions_are_tab_separated_without_quoting(tmp_path: Path) -> None:
    root = release(tmp_path)
    sentence = '"Mind the step," SOMEONE calls, twice; a card, 6" wide.'
    lines = f"{FIRST}\t{sentence}\nnot a shot\tText.\n{LAST}\tHe leaves.\n"
    (root / "annotations-original.csv").write_text(lines, encoding="utf-8")
    row = shot_row(root)
    assert captions_of(row, "audio_description") == [(sentence, None, None)]
    assert row["clips"][0]["captions"][-1]["annotator"] == "upstream:lsmdc"


@pytest.mark.parametrize("text", ["She waits.\rThen she leaves.", "x" * 140_000], ids=["carriage return", "long"])
def test_any_audio_description_can_be_read(tmp_path: Path, text: str) -> None:
    root = release(tmp_path)
    (root / "annotations-original.csv").write_text(f"{FIRST}\t{text}\n", encoding="utf-8", newline="")
    assert captions_of(shot_row(root), "audio_description") == [(text, None, None)]


@pytest.mark.parametrize("suffix", [".srt", ".json"])
@pytest.mark.parametrize(("name", "origin"), [(MOVIE, 62.5), (FIRST, 0.0)], ids=["of the movie", "of the shot"])
def test_subtitles_are_cut_to_the_shot(tmp_path: Path, suffix: str, name: str, origin: float) -> None:
    """The shot is 62.5-65 s of the movie; subtitles of a shot begin at its own 0 s."""
    root = release(tmp_path)
    lines = [(-1.0, 0.5, "Wait!"), (1.0, 1.5, "Who\ncalls?"), (2.0, 9.0, "Me."), (9.0, 10.0, "Too late.")]
    timed = [(origin + start, origin + end, text) for start, end, text in lines if origin + start >= 0]
    path = root / "Subtitles" / f"{name}{suffix}"
    write_json(path, [{"start": start, "end": end, "text": text.replace("\n", " ")} for start, end, text in timed])
    if suffix == ".srt":
        clock = [f"00:{int(t // 60):02d}:{t % 60:06.3f}".replace(".", ",") for cue in timed for t in cue[:2]]
        cues = [f"{i}\n{clock[2 * i]} --> {clock[2 * i + 1]}\n<i>{cue[2]}</i>\n" for i, cue in enumerate(timed)]
        path.write_bytes("\n".join(cues).replace("\n", "\r\n").encode())
    expected = [("Wait!", 0.0, 0.5), ("Who calls?", 1.0, 1.5), ("Me.", 2.0, 2.5)]
    assert captions_of(shot_row(root), "subtitle") == (expected if origin else expected[1:])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (f"{FIRST}.srt", ""),
        (f"{FIRST}.json", "[]"),
        (f"{FIRST}.json", '[{"start": 0, "end": 1, "text": null}]'),
        (f"{FIRST}.json", '[{"start": 0, "end": 1, "text": " "}]'),
    ],
    ids=["empty SRT", "empty list", "null", "blank"],
)
def test_shot_in_which_nobody_speaks_has_no_subtitles(tmp_path: Path, file: str, content: str) -> None:
    root = release(tmp_path)
    (root / "subtitles").mkdir()
    (root / "subtitles" / file).write_text(content, encoding="utf-8")
    assert captions_of(shot_row(root), "subtitle") == []


def test_a_movie_about_subtitles_keeps_its_shots(tmp_path: Path) -> None:
    shot = "0908_The_Subtitle_00.00.10.000-00.00.12.000"
    row = only_row(rows_of("moviebench", release(tmp_path, {shot: ANNOTATION}, movies_scenes=None), subset="shots"))
    assert row["clips"][0]["clip_id"] == shot


@pytest.mark.parametrize(
    ("split", "expected"), [({"Train": [MOVIE]}, "train"), ({"Test": [MOVIE]}, "test"), ({"Train": ["x"]}, "extra")]
)
def test_movies_in_neither_split_are_extra(tmp_path: Path, split: Row, expected: str) -> None:
    root = release(tmp_path, data_split=split)
    found = {name: len(rows_of("moviebench", root, split=name).rows) for name in ("train", "test", "extra")}
    assert found == dict.fromkeys(("train", "test", "extra"), 0) | {expected: 1}


def test_no_movie_is_lost_to_a_split_with_another_name(tmp_path: Path) -> None:
    assert len(rows_of("moviebench", release(tmp_path, data_split={"Val": [MOVIE]})).rows) == 1


def test_shots_in_no_scene_are_counted_and_found_in_the_other_subset(tmp_path: Path) -> None:
    root = release(tmp_path, {FIRST: ANNOTATION, LAST: ANNOTATION})
    reading = rows_of("moviebench", root)
    assert reading.notes["shots in no scene (build --subset shots for them)"] == 1
    shots = rows_of("moviebench", root, subset="shots").rows
    assert [row["clips"][0]["clip_id"] for row in shots] == [BLINK, FIRST, LAST]
    assert shots[2]["hierarchy"]["scene_id"] is None


def test_movies_table(tmp_path: Path) -> None:
    others = {"1901": "tt1", "THE_TWO_BOATS": "tt2", MOVIE: "tt99"}
    rows = rows_of("moviebench", release(tmp_path, mad2imdb=others, mad2plot={MOVIE: "A ferry."}), table="movies").rows
    assert rows == [
        {
            "movie_id": MOVIE,
            "title": "Half-Moon Ferry-Man2",
            "imdb_id": "tt99",
            "synopsis": "A ferry.",
            "scene_ids": [f"{MOVIE}/1"],
        }
    ]


def test_movie_without_scenes_gives_shots_only(tmp_path: Path) -> None:
    root = release(tmp_path, movies_scenes=None)
    with pytest.raises(AnnotationError, match="missing or empty, so there are no scenes; --subset shots"):
        rows_of("moviebench", root)
    assert len(rows_of("moviebench", root, subset="shots").rows) == 1


def test_folder_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="name the release's folder"):
        rows_of("moviebench", write_files(tmp_path / "x", ["readme.txt"]))


def test_field_map_renames_the_keys_of_a_shot(tmp_path: Path) -> None:
    annotation = ANNOTATION | {"Story": "A ferry.", "Mood": "calm"}
    root = release(tmp_path, {FIRST: {key: text for key, text in annotation.items() if key != "Plot"}})
    reading = rows_of("moviebench", root, field_map={"Plot": "Story"})
    assert texts(reading.rows[0]["clips"][1]["captions"])["plot"] == "A ferry."
    assert reading.notes["key not read: Mood"] == 1


@pytest.mark.parametrize(
    ("shots", "reason"),
    [
        ([], "a scene without shots"),
        ([FIRST, "pier"], "'pier' is not a shot name (<movie>_<HH.MM.SS.mmm>-<HH.MM.SS.mmm>)"),
        ([f"{MOVIE}_00.00.02.000-00.00.01.000"], f"shot '{MOVIE}_00.00.02.000-00.00.01.000' ends before it starts"),
    ],
)
def test_scenes_that_cannot_be_read_are_rejected(tmp_path: Path, shots: list[str], reason: str) -> None:
    scenes = {"Sence 1: A pier.": shots, "Sence 2: A deck.": [BLINK]}
    reading = rows_of("moviebench", release(tmp_path, movies_scenes={MOVIE: scenes}))
    assert len(reading.rows) == 1
    assert [(bad.file, bad.row_index, bad.reason) for bad in reading.rejected] == [("movies_scenes.json", 0, reason)]


@pytest.mark.parametrize("movie", ["/etc", "../..", "https://host.invalid", "videos:x"])
@pytest.mark.parametrize("subset", ["scenes", "shots"])
def test_no_pointer_leaves_the_video_root(tmp_path: Path, movie: str, subset: str) -> None:
    scenes = {movie: {"Sence 1: A pier.": [f"{movie}_00.00.01.000-00.00.02.000"]}}
    reading = rows_of("moviebench", release(tmp_path, {}, movies_scenes=scenes), subset=subset)
    for row in reading.rows:
        assert not row["clips"][0]["video"].startswith(("/", "..", "https:", "videos:"))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("Characters", value) for value in (True, 1.5, {"\ud83d": "\ud83d"})),
        *(("mad2imdb", value) for value in ("", 95, ["tt1"])),
        *(("mad2plot", value) for value in (95, ["A ferry."], "\ud83d")),
        ("title", "\ud83d"),
    ],
)
def test_one_odd_value_never_ends_the_build(tmp_path: Path, part: str, value: Any) -> None:
    odd: dict[str, Row] = {
        "Characters": {"shots": {FIRST: ANNOTATION | {"Characters": value}}},
        "title": {"movies_scenes": {MOVIE: {f"Sence 1: {value}": [FIRST]}}},
    }
    root = release(tmp_path, **odd.get(part, {part: {MOVIE: value}}))
    assert len(rows_of("moviebench", root).rows) == len(rows_of("moviebench", root, table="movies").rows) == 1


def test_split_that_is_no_list_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"data_split\.json"):
        rows_of("moviebench", release(tmp_path, data_split={"Train": 7}))


def test_scene_number_used_twice_gives_two_scenes(tmp_path: Path) -> None:
    scenes = {"Sence 1: A pier.": [FIRST], "Sence 1: A deck.": [BLINK]}
    rows = rows_of("moviebench", release(tmp_path, movies_scenes={MOVIE: scenes})).rows
    assert [row["hierarchy"]["scene_id"] for row in rows] == [f"{MOVIE}/1", f"{MOVIE}/1_2"]


def test_shot_listed_twice_is_one_clip_and_flagged(tmp_path: Path) -> None:
    row = only_row(rows_of("moviebench", release(tmp_path, movies_scenes={MOVIE: {"Sence 1: x.": [FIRST, FIRST]}})))
    assert [clip["clip_id"] for clip in row["clips"]] == [FIRST]
    assert row["flags"] == ["repeated_shot"]


def test_broken_subtitle_file_costs_only_its_subtitles(tmp_path: Path) -> None:
    root = release(tmp_path)
    (root / "Subtitles").mkdir()
    (root / "Subtitles" / f"{MOVIE}.json").write_text("{", encoding="utf-8")
    reading = rows_of("moviebench", root, subset="shots")
    assert len(reading.rows) == 2
    assert [(bad.file, bad.reason[:8]) for bad in reading.rejected] == [(f"{MOVIE}.json", "not JSON")]
