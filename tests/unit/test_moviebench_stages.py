"""Stages that describe the shots of a film: who is in them, and which are of one scene."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from civid_loader.errors import CaptionerError
from civid_loader.processing import pictures
from civid_loader.processing.answers import Answers
from civid_loader.processing.captioner import CaptionerSpec, Picture, Request
from civid_loader.processing.captions.moviebench_scenes import MoviebenchScenes, MoviebenchScenesParams
from civid_loader.processing.captions.moviebench_shot import MoviebenchShot, MoviebenchShotParams
from civid_loader.processing.chunks import plan_chunks, read_clips
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.schema import arrow_schema
from civid_loader.storage import read_manifest, read_table, write_json, write_shard
from civid_loader.videos import open_video
from support.built import clip, write_dataset
from support.media import write_video
from support.scripted_captioner import (
    ScriptedCaptioner,
    asked_clip,
    caption,
    connected,
    failing,
    pictures_of,
    texts_of,
)

ANSWER: Mapping[str, Any] = {
    "characters": [{"name": "Su-Chin", "description": "In a red coat."}],
    "style_elements": ["low key"],
    "plot": "Su-Chin waits.",
    "background": "A station.",
    "camera": "It stands still.",
}


def character(name: str, *portraits: str, aliases: Sequence[str] = ()) -> dict[str, Any]:
    return {"name": name, "aliases": list(aliases), "portraits": list(portraits)}


def paint(path: Path, *, size: tuple[int, int], color: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the videos lie, and portraits."""
    paint(tmp_path / "videos/bank/su/best.png", size=(200, 400), color=(200, 0, 0))
    paint(tmp_path / "videos/bank/con/best.png", size=(64, 32), color=(0, 0, 200))
    (tmp_path / "videos/bank/broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    paint(tmp_path / "outside.png", size=(8, 8), color=(1, 2, 3))
    os.symlink(tmp_path / "outside.png", tmp_path / "videos/bank/link.png")
    return tmp_path / "videos"


BANK = [character("Su-Chin", "bank/su/best.png", "bank/gone.png"), character("The Conductor", "bank/con/best.png")]


def shot(
    bank: Any = BANK,
    *,
    root: Path | None = None,
    answer: Mapping[str, Any] = ANSWER,
    num_frames: int = 100,
    captions: Sequence[Mapping[str, Any]] = (),
    **params: Any,
) -> tuple[Any, Request]:
    """What is said of a shot, and what was asked."""
    stage = MoviebenchShot(MoviebenchShotParams(**params))
    captioner = connected(stage, lambda request: answer, pictures=None if root is None else str(root))
    told = {"captions": list(captions)} | ({} if bank is None else {"bank": bank})
    (row,) = stage.run([asked_clip(stage, num_frames=num_frames, fps=25.0, row=told)])
    return row, captioner.requests[0]


def test_the_question_about_a_shot(root: Path) -> None:
    """Characters with portraits, frames, what is said, what is described, then the names."""
    captions = [
        caption("subtitle", "It never leaves.", window=(2.5, 3.0)),
        caption("subtitle", "Ticket, please.", window=(0.25, 1.0)),
        caption("audio_description", "SOMEONE waits."),
    ]
    _, request = shot(root=root, captions=captions)
    order = [one if isinstance(one, str) else "picture" for one in request.parts]
    assert order[1:-1] == ["Character: Su-Chin", "picture", "Character: The Conductor", "picture", *["picture"] * 6]
    shown = pictures_of(request)
    assert [one.shape[:2] for one in shown[:2]] == [(256, 128), (128, 256)]
    assert [one[0, 0].tolist() for one in shown[:2]] == [[200, 0, 0], [0, 0, 200]]
    assert [int(one[0, 0, 0]) for one in shown[2:]] == [0, 19, 39, 59, 79, 99]
    assert order[0].startswith("You describe one shot")
    said, described = order[-1].split("Description for people who cannot see it:")
    assert "Length of the shot: 4.00 seconds. Frames above: 6." in said
    assert said.strip().endswith("0.2: Ticket, please.\n2.5: It never leaves.")
    assert described.strip().startswith("SOMEONE waits.")
    assert "Su-Chin\nThe Conductor" in described
    assert request.max_tokens == 2048
    schema = request.schema or {}
    assert all(f'"{name}"' in order[0] for name in schema["required"])


def test_the_answer_about_a_shot(root: Path) -> None:
    row, _ = shot(root=root, answer={**ANSWER, "style_elements": ["low key", " noir ", "", "35 mm", "rain"]})
    assert [(one["kind"], one["text"]) for one in row["captions"]] == [
        ("plot", "Su-Chin waits."), ("background", "A station."), ("camera_movement", "It stands still."),
        ("style", "low key"), ("style", "noir"), ("style", "35 mm"),
    ]  # fmt: skip
    assert row["moviebench_shot_characters"] == ["Su-Chin: In a red coat."]
    assert row["moviebench_shot_unknown_names"] == []
    assert row["moviebench_shot_notes"] == ["style elements left out: 1"]


def test_other_names_are_told() -> None:
    _, request = shot([character("Su-Chin", aliases=["Su", "Chin"]), character("Wren")])
    named = [part for part in request.parts if isinstance(part, str) and part.startswith("Character: ")]
    assert named == ["Character: Su-Chin (also called Su, Chin)", "Character: Wren"]


def test_names_that_are_not_in_the_bank_are_left_out() -> None:
    bank = [character("Su-Chin", aliases=["Su", "Chin"]), character("Bleeker's Mom", aliases=["Mom"])]
    bank += [character("Juno's Mom", aliases=["Mom"]), character("Chin")]
    names = ["SU", "su-chin", "A passenger", "Bleeker's_Mom", " Mom ", "CHIN", "Juno's  mom"]
    described = [{"name": name, "description": f"about {name}"} for name in names]
    row, request = shot(bank, answer={**ANSWER, "characters": described})
    assert row["moviebench_shot_characters"] == [
        "Su-Chin: about SU",
        "Bleeker's Mom: about Bleeker's_Mom",
        "Chin: about CHIN",
        "Juno's Mom: about Juno's  mom",
    ]
    assert row["moviebench_shot_unknown_names"] == ["A passenger", "Mom"], "of the two, nobody knows which"
    assert "reason" not in row
    assert len(pictures_of(request)) == 6, "frames only"
    assert row["moviebench_shot_notes"] == [f"no portrait: {one['name']}" for one in bank]


def test_a_film_without_a_bank() -> None:
    banks: tuple[Any, ...] = (None, [])
    for bank in banks:
        row, request = shot(bank)
        assert row["moviebench_shot_characters"] == []
        assert row["moviebench_shot_unknown_names"] == ["Su-Chin"]
        assert row["moviebench_shot_notes"] == ["no characters known"]
        assert 'none: "characters" is empty' in texts_of(request)
        assert len(row["captions"]) == 4


def test_words_over_their_limits_are_noted() -> None:
    wordy = {"characters": [{"name": "Su-Chin", "description": "x " * 31}], "plot": "x " * 81, "camera": "x " * 30}
    row, _ = shot(BANK, answer={**ANSWER, **wordy})
    assert row["moviebench_shot_words_over_limit"] == ["plot"]
    assert row["moviebench_shot_notes"][-1] == "longer than asked for: Su-Chin"


@pytest.mark.parametrize(
    "pointer",
    [
        "bank/gone.png",
        "bank/broken.jpg",
        "bank/link.png",
        "../outside.png",
        "{outside}",
        "file://{outside}",
        "bank",
        "",
    ],
)
def test_portraits_that_cannot_or_must_not_be_read(root: Path, pointer: str) -> None:
    """Whatever the annotation points to: nothing outside the root is shown to anyone."""
    pointer = pointer.format(outside=root.parent / "outside.png")
    row, request = shot([character("A", pointer)], root=root)
    assert row["moviebench_shot_notes"] == ["no portrait: A"]
    assert len(pictures_of(request)) == 6
    assert "Character: A" in request.parts


def test_a_portrait_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(pointer: str, **arguments: Any) -> Any:
        opened.append(pointer)
        return open_video(pointer, **arguments)

    monkeypatch.setattr("civid_loader.processing.pictures.open_video", counted)
    found = [pictures.portrait("bank/su/best.png", root=str(root), short_side_px=64) for _ in range(3)]
    assert opened == ["bank/su/best.png"]
    assert isinstance(found[0], Picture)
    assert found[0].pixels_HWC.shape == (128, 64, 3)


@pytest.mark.parametrize("num_frames", [1, 4])
def test_a_shot_of_a_few_frames(num_frames: int) -> None:
    """0.18 s at 25 frames per second are 4 and a half."""
    row, request = shot([], num_frames=num_frames)
    assert [int(one[0, 0, 0]) for one in pictures_of(request)] == list(range(num_frames))
    assert f"Frames above: {num_frames}." in texts_of(request)
    assert len(row["captions"]) == 4


# Scenes of a film.


def film(places: Sequence[Any], *, gap_at: int | None = None) -> tuple[list[Any], ScriptedCaptioner]:
    """What is found for shots of which the model answers these; `gap_at`: that one could not be read."""
    stage = MoviebenchScenes(MoviebenchScenesParams())
    answers = {f"s{i}": place for i, place in enumerate(places)}

    def script(request: Request) -> Any:
        place = answers[request.id.partition("/")[0]]
        return failing(request) if place is None else {"scene": place}

    captioner = connected(stage, script)
    clips = [asked_clip(stage, clip_id=f"s{i}", num_frames=4 * (i + 1)) for i in range(len(places)) if i != gap_at]
    return stage.run(clips), captioner


def test_shots_of_one_place_have_one_number() -> None:
    rows, captioner = film(["A kitchen", " a KITCHEN ", "A street", "A kitchen", "A quay"])
    assert [row["scene_number"] for row in rows] == [1, 1, 2, 1, 3]
    titles = [[(one["kind"], one["text"]) for one in row["captions"]] for row in rows]
    assert titles[:2] == [[("scene_title", "A kitchen")], [("scene_title", "a KITCHEN")]]
    asked = [texts_of(request) for request in captioner.requests]
    assert "No shot before it is known" in asked[0]
    assert 'Its place was named: "A street".' in asked[3]
    assert all('"scene"' in text for text in asked)


def test_a_shot_is_shown_with_the_one_before() -> None:
    _, captioner = film(["A kitchen"] * 2)
    first, second = captioner.requests
    assert [isinstance(part, str) for part in first.parts] == [True, True, False, False, False]
    assert [isinstance(part, str) for part in second.parts] == [True, False, False, False, True, False, False, False]
    assert [int(one[0, 0, 0]) for one in pictures_of(second)] == [0, 2, 3, 1, 4, 6]


def test_numbers_go_on_after_a_shot_without_an_answer() -> None:
    rows, captioner = film(["A kitchen", "A street", None, None, "A kitchen", "A quay"])
    assert [row.get("scene_number") for row in rows] == [1, 2, None, None, 1, 3]
    assert rows[2]["reason"] == "no memory left"
    assert "No shot before it is known" in texts_of(captioner.requests[4])
    rows, captioner = film(["A kitchen", "A street", "A kitchen"], gap_at=1)
    assert [row["scene_number"] for row in rows] == [1, 1]
    rows, _ = film(["  "])
    assert rows[0]["reason"] == "scene: the answer names no place"


def test_a_film_goes_on_where_it_stopped(tmp_path: Path) -> None:
    places = ["A kitchen", "A street", "A kitchen", "A quay"]
    found = []
    for stops_at in (2, None):

        def script(request: Request, stops_at: int | None = stops_at) -> Any:
            number = int(request.id.partition("/")[0][1:])
            if number == stops_at:
                raise CaptionerError("the server is gone")
            return {"scene": places[number]}

        stage, captioner = MoviebenchScenes(MoviebenchScenesParams()), ScriptedCaptioner(script=script)
        answers = Answers(captioner=captioner, path=tmp_path / "answers.sqlite")
        stage.connect(answers, pictures=None)
        clips = [asked_clip(stage, clip_id=f"s{i}", num_frames=4 * (i + 1)) for i in range(len(places))]
        if stops_at is None:
            found = stage.run(clips)
            assert [request.id.partition("/")[0] for request in captioner.requests] == ["s2", "s3"]
        else:
            with pytest.raises(CaptionerError):
                stage.run(clips)
        answers.close()
    assert [row["scene_number"] for row in found] == [1, 2, 1, 3]


# A dataset with characters.


def with_characters(root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the table to a built dataset."""
    name, schema = "characters/train-00000-of-00001.parquet", arrow_schema("characters")
    empty: dict[str, Any] = {
        "character_id": "c",
        "movie_id": "m",
        "name": None,
        "actor": None,
        "aliases": [],
        "portraits": [],
    }
    table = pa.Table.from_pylist([{**empty, "audio": [], **row} for row in rows], schema=schema)
    count = write_shard(root / name, [table], table="characters")
    manifest = read_manifest(root)
    manifest["shards"]["characters"], manifest["num_rows"]["characters"] = [name], {"train": count}
    write_json(root / "manifest.json", manifest)


def test_clips_know_the_characters_of_their_movie(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", {"train": [[clip("a", "a.mp4")], [clip("b", "b.mp4")]]})
    (chunk,) = plan_chunks(root).listed
    assert all("bank" not in one for one in read_clips(root, chunk))
    movie = "lvd2m/ytb/train-0"  # a sample without a movie is one
    known = {"movie_id": movie, "name": "Wren", "aliases": ["W."], "portraits": ["wren/best.png"]}
    with_characters(root, [known, {"movie_id": movie, "name": None}, {"movie_id": "another", "name": "X"}])
    first, second = read_clips(root, chunk)
    assert first["bank"] == [{"name": "Wren", "aliases": ["W."], "portraits": ["wren/best.png"]}]
    assert second["bank"] == []


def test_a_run_over_a_dataset_with_characters(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    paint(videos / "wren/best.png", size=(20, 20), color=(9, 9, 9))
    write_video(videos / "a.mp4", num_frames=10)
    root = write_dataset(tmp_path / "set", {"train": [[clip("a", "a.mp4"), clip("gone", "gone.mp4")]]})
    portraits = ["wren/best.png"]
    with_characters(root, [{"movie_id": "lvd2m/ytb/train-0", "name": "Wren", "portraits": portraits}])
    stages = [StageSpec(name=name, params={}, weights={}) for name in ("moviebench_shot", "moviebench_scenes")]
    captioner = CaptionerSpec(backend="echo", model="echo")
    process(
        root, stages, layer="captions-x", videos=videos, pictures=videos, captioner=captioner, num_proc=0, quiet=True
    )
    found, gone = read_table(root, "captions/x").to_pylist()
    kinds = [one["kind"] for one in found["captions"]]
    assert kinds == ["plot", "background", "camera_movement", "style", "scene_title"]
    assert gone["reason"].startswith("VideoNotFoundError")
    score = read_table(root, "scores/x").to_pylist()[0]
    assert (score["scene_number"], score["moviebench_shot_characters"]) == (1, [])
    assert score["moviebench_shot_unknown_names"][0].startswith("name: ")
    assert score["moviebench_shot_notes"] == []
