"""A MovieBench release on disk: what belongs together is found together; what is odd keeps its place or is named."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from civid_loader import builders
from civid_loader.errors import AnnotationError
from civid_loader.upstream.inputs import stamp
from civid_loader.upstream.movies import (
    SHOT_NAME,
    Movie,
    Release,
    find_release,
    in_time_order,
    plain_name,
    read_descriptions,
    read_subtitles,
    seconds_of,
)
from civid_loader.upstream.records import Rejected, Source
from civid_loader.upstream.shots import ShotTexts, read_shot
from support.trees import write_tree

MOVIE = "1000_Made-Up_Half-Story"
FIRST, SECOND, THIRD = (
    f"{MOVIE}_00.00.{start}-00.00.{end}"
    for start, end in (("01.000", "03.500"), ("10.000", "11.000"), ("10.500", "12.250"))
)
SHOT = {"Characters": {"Ann": "wears a hat"}, "Plot": "Ann waits.", "Camera Motion": "static"}
Files = dict[str, Any]


def shot_file(name: str, content: Any = SHOT) -> Files:
    return {f"Annotation_Shot_Desc/{SHOT_NAME.match(name)['movie']}/{name}.json": content}  # type: ignore[index]


def scenes_file(scenes: Any, movie: str = MOVIE) -> Files:
    return {"movies_scenes.json": {movie: scenes}}


def release_of(root: Path, *parts: Files) -> Release:
    for part in parts:
        write_tree(root, part)
    return find_release((str(root),))


def movie_of(root: Path, *parts: Files) -> Movie:
    (movie,) = release_of(root, *parts).movies
    return movie


@pytest.mark.parametrize(
    "movie", ["1000_Spin-Off1", "1001_A_B", "1002_The_Half-Blood_Thing_2", "x", "1003_01.02.03.004-x"]
)
def test_a_shot_name_is_read_from_its_end(movie: str) -> None:
    match = SHOT_NAME.match(f"{movie}_01.02.03.456-01.02.04.000")
    assert match
    assert match.groups() == (movie, "01.02.03.456", "01.02.04.000")
    assert (seconds_of(match["start"]), seconds_of(match["end"])) == (3723.456, 3724.0)


@pytest.mark.parametrize(
    "name",
    ["", MOVIE, f"{FIRST}x", f"{FIRST}.json", f"{MOVIE}_0.00.01.000-00.00.02.000", f"{MOVIE}_00:00:01.000-00:00:02.000",
     "_00.00.01.000-00.00.02.000", f"{MOVIE}-00.00.01.000-00.00.02.000", f"{FIRST}\n"],
)  # fmt: skip
def test_what_is_no_shot_name_does_not_match(name: str) -> None:
    assert not SHOT_NAME.match(name)


def test_shots_stand_in_order_of_time_and_other_names_at_the_end() -> None:
    late = f"{MOVIE}_01.00.00.000-01.00.01.000"
    assert in_time_order(["junk", late, THIRD, FIRST, SECOND]) == [FIRST, SECOND, THIRD, late, "junk"]


def test_parts_of_a_release_are_brought_together(tmp_path: Path) -> None:
    release = release_of(
        tmp_path,
        shot_file(FIRST) | shot_file(SECOND) | shot_file("1001_Other_00.00.01.000-00.00.02.000"),
        scenes_file({"Sence 1: a room.": [FIRST, SECOND]}),
        {"data_split.json": {"Train": [MOVIE], "Test": ["1002_Unseen"]}},
        {"mad2plot.json": {MOVIE: "Ann waits for rain."}, "mad2imdb.json": {MOVIE: "tt0000001", "1001": "tt0000002"}},
    )
    other, movie = sorted(release.movies, key=lambda one: one.split)
    assert (movie.movie_id, movie.title, movie.split) == (MOVIE, "Made-Up Half-Story", "train")
    assert (movie.imdb_id, movie.synopsis) == ("tt0000001", "Ann waits for rain.")
    assert movie.shots == [FIRST, SECOND]
    assert read_shot(movie.shot_files[FIRST]) == (SHOT, None, None)
    assert (other.movie_id, other.split, other.scenes, other.imdb_id) == ("1001_Other", "extra", (), None)


@pytest.mark.parametrize("split", ["Train", "Test", "Val"])
def test_every_movie_is_in_some_split_of_the_plan(tmp_path: Path, split: str) -> None:
    write_tree(tmp_path, shot_file(FIRST) | {"data_split.json": {split: [MOVIE]}})
    chunks = builders.find("moviebench").plan(Source(annotations=(str(tmp_path),), subset="shots"))
    planned = [(chunk.split, chunk.payload[1]) for chunk in chunks if chunk.table == "annotations"]
    assert [(name, [movie.movie_id for movie in movies]) for name, movies in planned] == [(split.lower(), [MOVIE])]


def test_scenes_keep_the_order_of_the_file_and_their_shots_that_of_time(tmp_path: Path) -> None:
    movie = movie_of(
        tmp_path,
        scenes_file(
            {
                "Sence 2: the yard.": [THIRD, SECOND],
                "Scene 1: a room: at night.": [f"{FIRST}.avi"],
                "sence3": [],
                " Scene 10 . ": [],
                "An unnumbered place": [],
            }
        ),
    )
    assert [(scene.scene_id, scene.title) for scene in movie.scenes] == [
        (f"{MOVIE}/2", "the yard."),
        (f"{MOVIE}/1", "a room: at night."),
        (f"{MOVIE}/3", None),
        (f"{MOVIE}/10", None),
        (f"{MOVIE}/5", "An unnumbered place"),
    ]
    assert [scene.shots for scene in movie.scenes][:2] == [(SECOND, THIRD), (FIRST,)]
    assert movie.shots == [FIRST, SECOND, THIRD]


def test_shots_without_scene_and_scenes_without_shot_file_both_stay(tmp_path: Path) -> None:
    movie = movie_of(tmp_path, shot_file(FIRST), scenes_file({"Sence 1: x.": [SECOND]}))
    assert movie.shots == [FIRST, SECOND]
    assert read_shot(movie.shot_files.get(SECOND)) == ({}, "missing_shot_annotation", None)


def test_characters_have_every_name_upstream_uses_for_them(tmp_path: Path) -> None:
    bank = f"Character_Bank/{MOVIE}"
    movie = movie_of(
        tmp_path,
        shot_file(FIRST),
        {
            f"{bank}/Ann_Actor-Su-Chin/{file}": b"x"
            for file in ("a.jpg", "best.jpg", "B.PNG", "voice.wav", "faces.pkl", ".DS_Store", "notes.txt")
        },
        {f"{bank}/Bo_Other-Bo/1.jpg": b"x", f"{bank}/no_hyphen/1.jpg": b"x"},
    )
    su, bo, alone = movie.characters
    assert (su.actor, su.name, su.aliases) == ("Ann Actor", "Su-Chin", ("Su-Chin", "Su", "Chin"))
    assert [path.rpartition("/")[2] for path in su.portraits] == ["best.jpg", "B.PNG", "a.jpg"]
    assert su.audio == (f"{bank}/Ann_Actor-Su-Chin/voice.wav",)
    assert (bo.actor, bo.name, bo.aliases) == ("Bo Other", "Bo", ("Bo",))
    assert (alone.actor, alone.name) == (None, "no hyphen")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_the_same_whether_or_not_a_disk_decomposed_their_accents(tmp_path: Path, form: Any) -> None:
    folder = unicodedata.normalize(form, "Zoé_Brûlé-Éponine_Thénardier")
    movie = movie_of(tmp_path, shot_file(FIRST), {f"Bank/{MOVIE}/{folder}/best.jpg": b"x"})
    assert (movie.characters[0].name, movie.characters[0].actor) == ("Éponine Thénardier", "Zoé Brûlé")
    assert plain_name(unicodedata.normalize(form, "Éponine_Thénardier ")) == "Éponine Thénardier"


def test_a_movie_is_one_movie_whether_or_not_a_disk_decomposed_its_title(tmp_path: Path) -> None:
    name = "1003_Über_Nacht"
    shot = f"{name}_00.00.01.000-00.00.02.000"
    movie = movie_of(
        tmp_path,
        scenes_file({"Sence 1: x.": [shot]}, name),
        shot_file(unicodedata.normalize("NFD", shot), {"Plot": "p"}),
    )
    assert movie.movie_id == name
    assert movie.shots == [shot]


def test_junk_files_change_nothing(tmp_path: Path) -> None:
    clean = release_of(tmp_path, shot_file(FIRST))
    write_tree(
        tmp_path,
        {
            "Annotation_Shot_Desc/.DS_Store": b"\0\1",
            f"Annotation_Shot_Desc/{MOVIE}/._{FIRST}.json": b"\0\5\x16\7",
            f"Annotation_Shot_Desc/{MOVIE}/notes.json": b"junk",
            f"Annotation_Shot_Desc/{MOVIE}/{FIRST}.json.bak": b"junk",
            "README.md": b"words",
            f"Bank/{MOVIE}/x-y/representations_vgg_face.pkl": b"\x80\4",
        },
    )
    assert find_release((str(tmp_path),)) == clean


def test_parts_may_be_named_one_by_one(tmp_path: Path) -> None:
    write_tree(tmp_path, shot_file(FIRST) | {"elsewhere/movies_scenes.json": {MOVIE: {"Sence 1: x.": [FIRST]}}})
    named = (str(tmp_path / "Annotation_Shot_Desc"), str(tmp_path / "elsewhere" / "movies_scenes.json"))
    (movie,) = find_release(named).movies
    assert (len(movie.scenes), [*movie.shot_files]) == (1, [FIRST])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"README.md": b"nothing here"}, "neither shot files .* nor movies_scenes.json.*Annotation_Shot_Desc"),
        ({"movies_scenes.json": [1]}, r"movies_scenes\.json: an object by movie or split is expected, this is list"),
        ({"movies_scenes.json": b""}, r"movies_scenes\.json: empty file"),
        ({"movies_scenes.json": b'{"a": {'}, r"movies_scenes\.json: not JSON.*cut off"),
        (scenes_file([FIRST]), f"{MOVIE} is list, not an object of scenes"),
        (scenes_file({"Sence 1: x.": FIRST}), f"{MOVIE}, 'Sence 1: x.': a list of shot names is expected"),
        (scenes_file({"Sence 1: x.": [1]}), "a list of shot names is expected"),
        (shot_file(FIRST) | {"data_split.json": {"Train": 5}}, r"data_split\.json.*Train.*list"),
        (shot_file(FIRST) | {"data_split.json": {"Train": MOVIE}}, r"data_split\.json.*Train.*list"),
        (shot_file(FIRST) | {"data_split.json": {"Train": [[MOVIE]]}}, r"data_split\.json.*Train.*list"),
    ],
)
def test_a_part_of_another_form_is_refused_by_name(tmp_path: Path, part: Files, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        release_of(tmp_path, part)


def test_a_synopsis_or_imdb_id_that_is_no_text_is_missing(tmp_path: Path) -> None:
    movie = movie_of(tmp_path, shot_file(FIRST), {"mad2plot.json": {MOVIE: ["p"]}, "mad2imdb.json": {MOVIE: 7}})
    assert (movie.synopsis, movie.imdb_id) == (None, None)
    movie = movie_of(tmp_path, {"mad2plot.json": {MOVIE: "  "}, "mad2imdb.json": {MOVIE: None}})
    assert (movie.synopsis, movie.imdb_id) == (None, None)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="absent: no such file or folder"):
        find_release((str(tmp_path / "absent"),))


@pytest.mark.parametrize(
    ("content", "annotation", "flag", "reason"),
    [
        (b'{"Plot": "p"}', {"Plot": "p"}, None, None),
        (b'{"Plot": "p"}\n```\nI hope this helps', {"Plot": "p"}, "text_after_annotation", None),
        (b'[{"Plot": "p"}]', {}, "unreadable_shot_annotation", "a shot annotation is an object, not list"),
        (b'"p"', {}, "unreadable_shot_annotation", "a shot annotation is an object, not str"),
        (b"", {}, "unreadable_shot_annotation", "empty file"),
        (b'{"Plot": "p', {}, "unreadable_shot_annotation", "not JSON"),
        (b"[" * 100_000, {}, "unreadable_shot_annotation", "not JSON"),
    ],
    ids=["good", "trailing", "list", "text", "empty", "cut off", "too deep"],
)
def test_an_odd_shot_file_is_flagged_with_the_reason(
    tmp_path: Path, content: bytes, annotation: Any, flag: str | None, reason: str | None
) -> None:
    path = write_tree(tmp_path, {"x.json": content}) / "x.json"
    found = read_shot(str(path))
    assert found[:2] == (annotation, flag)
    assert (found[2] or "").startswith(reason or "")
    assert str(path) not in (found[2] or "")


def test_audio_descriptions_keep_commas_quotes_and_tabs(tmp_path: Path) -> None:
    lines = [
        f'{FIRST}\tAnn, the "quiet" one, waits.',
        f'{SECOND}\t"She" turns.\tAnd goes.',
        "",
        "a line of another kind",
        f"{THIRD}\tÉ – 日本",
        "1009_Other_00.00.01.000-00.00.02.000\tNot asked for.",
    ]
    for end in ("\n", "\r\n"):
        path = write_tree(tmp_path, {"annotations-original.csv": end.join(lines)}) / "annotations-original.csv"
        assert read_descriptions(str(path), {MOVIE}) == {
            FIRST: 'Ann, the "quiet" one, waits.',
            SECOND: '"She" turns.\tAnd goes.',
            THIRD: "É – 日本",
        }


@pytest.mark.parametrize("odd", ["a\rb", "x" * 200_000, "nul \0 inside"], ids=["carriage return", "long", "nul"])
def test_an_odd_audio_description_costs_no_other(tmp_path: Path, odd: str) -> None:
    path = write_tree(tmp_path, {"a.tsv": f"{FIRST}\t{odd}\n{SECOND}\tShe turns.\n"}) / "a.tsv"
    assert read_descriptions(str(path), {MOVIE})[SECOND] == "She turns."


SRT = "1\n00:00:02,000 --> 00:00:10,250\n<i>Rain</i>,\nagain.\n\n2\n00:00:10,600 --> 00:00:20,000\nYes.\n"
LINES = [{"start": 2.0, "end": 10.25, "text": "Rain, again."}, {"start": 10.6, "end": 20, "text": " Yes. "}]


@pytest.mark.parametrize("name", [f"Subtitles/{MOVIE}.srt", f"any/{MOVIE}.srt", f"subtitles/{MOVIE}.json"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_movies_subtitles_are_cut_to_each_shot(tmp_path: Path, name: str, bom: str) -> None:
    pytest.importorskip("pysubs2")
    content = LINES if name.endswith("json") else f"{bom}{SRT}".replace("\n", "\r\n" if bom else "\n")
    release = release_of(tmp_path, shot_file(FIRST) | shot_file(SECOND), {name: content})
    texts = ShotTexts(release, {MOVIE}, [])
    (movie,) = release.movies

    def spoken(shot: str, start: float, end: float) -> Sequence[tuple[str, float, float]]:
        captions = texts.captions(movie, shot, start_seconds=start, end_seconds=end)
        assert {caption["kind"] for caption in captions} <= {"subtitle"}
        return [(caption["text"], caption["start_seconds"], caption["end_seconds"]) for caption in captions]

    assert spoken(FIRST, 1.0, 3.5) == [("Rain, again.", 1.0, 2.5)]
    assert spoken(SECOND, 10.0, 11.0) == [("Rain, again.", 0.0, 0.25), ("Yes.", 0.6, 1.0)]
    assert spoken(THIRD, 20.0, 21.0) == []


def test_subtitles_that_cannot_be_read_are_rejected_once_and_cost_no_shot(tmp_path: Path) -> None:
    name = f"subtitles/{MOVIE}.json"
    release = release_of(tmp_path, shot_file(FIRST) | shot_file(SECOND), {name: "[{"})
    rejected: list[Rejected] = []
    texts = ShotTexts(release, {MOVIE}, rejected)
    for shot in (FIRST, SECOND):
        assert texts.captions(release.movies[0], shot, start_seconds=1.0, end_seconds=3.5) == []
    assert [(row.file, row.reason.startswith("not JSON")) for row in rejected] == [(f"{MOVIE}.json", True)]


def test_a_shots_own_subtitles_run_on_its_own_time(tmp_path: Path) -> None:
    lines = [
        {"start": 0.25, "end": 99, "text": "Oh."},
        {"start": 3, "end": 4, "text": "Too late."},
        {"start": 1, "end": 2, "text": ""},
    ]
    release = release_of(tmp_path, shot_file(SECOND), {f"subtitles/{SECOND}.json": lines})
    captions = ShotTexts(release, {MOVIE}, []).captions(release.movies[0], SECOND, start_seconds=10.0, end_seconds=11.0)
    assert [(line["text"], line["start_seconds"], line["end_seconds"]) for line in captions] == [("Oh.", 0.25, 1.0)]


def test_an_audio_description_comes_before_the_subtitles(tmp_path: Path) -> None:
    release = release_of(
        tmp_path,
        shot_file(FIRST),
        {"annotations-original.csv": f"{FIRST}\tAnn waits, \\ud83d.\n", f"subtitles/{MOVIE}.json": LINES},
    )
    captions = ShotTexts(release, {MOVIE}, []).captions(release.movies[0], FIRST, start_seconds=1.0, end_seconds=3.5)
    assert [(line["kind"], line["start_seconds"]) for line in captions] == [
        ("audio_description", None),
        ("subtitle", 1.0),
    ]


@pytest.mark.parametrize("content", ["", "\ufeff\r\n"])
def test_an_empty_subtitle_file_has_no_lines(tmp_path: Path, content: str) -> None:
    assert read_subtitles(str(write_tree(tmp_path, {"x.srt": content}) / "x.srt")) == []


@pytest.mark.parametrize("text", [None, "", "  "])
def test_a_subtitle_without_text_is_none(tmp_path: Path, text: str | None) -> None:
    release = release_of(
        tmp_path, shot_file(FIRST), {f"subtitles/{MOVIE}.json": [{"start": 1, "end": 3, "text": text}]}
    )
    assert ShotTexts(release, {MOVIE}, []).captions(release.movies[0], FIRST, start_seconds=1.0, end_seconds=3.5) == []


ASS = """[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial
[Events]
Format: Layer, Start, End, Style, Text
Dialogue: 0,0:0?:01.00,0:00:02.00,Default,Hi
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.srt", "no subtitles here"),
        ("x.ass", ASS),
        ("x.json", [{"start": 1, "end": 2}]),
        ("x.json", [{"start": "soon", "end": 2, "text": "t"}]),
        ("x.json", {"start": 1, "end": 2, "text": "t"}),
        ("x.json", 5),
        ("x.json", "{"),
    ],
)
def test_subtitles_of_another_form_are_refused_by_name(tmp_path: Path, name: str, content: Any) -> None:
    pytest.importorskip("pysubs2")
    path = write_tree(tmp_path, {name: content}) / name
    with pytest.raises(AnnotationError, match=name):
        read_subtitles(str(path))


def test_a_shot_says_which_file_it_is_from(tmp_path: Path) -> None:
    release = release_of(tmp_path / "in", shot_file(FIRST), scenes_file({"Sence 1: x.": [SECOND]}))
    texts = ShotTexts(release, {MOVIE}, [])
    (movie,) = release.movies
    assert texts.file_of(movie, FIRST) == f"Annotation_Shot_Desc/{MOVIE}/{FIRST}.json"
    assert texts.file_of(movie, SECOND) == "movies_scenes.json"


def test_a_file_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    write_tree(tmp_path, shot_file(FIRST))
    (tmp_path / os.fsdecode(b"caf\xe9.json")).write_bytes(b"{}")
    for look in (find_release, stamp):
        with pytest.raises(AnnotationError, match=r"caf.*UTF-8"):
            look((str(tmp_path),))
