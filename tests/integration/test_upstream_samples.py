"""The builders on real files of the four sources, where the checkout has them beside it; they are not ours to ship."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from support.reading import only_row, rows_of, write_files, write_json

SAMPLES: Final = Path(__file__).parents[2].parent / "shared" / "reference" / "upstream-samples"
CAPTION_FILES: Final = sorted([*SAMPLES.glob("civid/pretty_dict/*.jsonl"), *SAMPLES.glob("civid/pretty_str/*.jsonl")])
FENCE: Final = 3 * "`"
WINDOW: Final = re.compile(r"\|\|\|\s*\d+\s*\|\|\|\s*\d+\s*\|\|\|")
MOVIE: Final = "1004_Juno"
SHOT: Final = f"{MOVIE}_00.05.14.970-00.05.18.686"

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the upstream samples are not here")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CAPTION_FILES, ids=lambda path: path.stem)
def test_civid_caption_file(path: Path) -> None:
    upstream = _json(path)
    row = only_row(rows_of("civid", path))
    assert row["sample_id"] == f"civid/samples/{path.stem}"
    singles, joints = upstream["single_captions:"], upstream["joint_captions:"]
    assert [len(clip["captions"]) for clip in row["clips"]] == [4] * len(singles)
    assert [(step["from_index"], len(step["captions"])) for step in row["transitions"]] == [
        (i, 6) for i in range(len(joints))
    ]
    captions = [caption for part in (*row["clips"], *row["transitions"]) for caption in part["captions"]]
    for caption in captions:
        text = caption["text"]
        assert FENCE not in text
        assert '\\"' not in text
        assert not re.search(r"\\u[0-9a-fA-F]{4}", text)
        if caption["kind"] in ("background", "change_camera_movement"):
            assert text.endswith(".")
    assert ("fence_residue" in row["flags"]) == (FENCE in path.read_text(encoding="utf-8"))


def test_civid_folders_hold_all_caption_files() -> None:
    assert len(CAPTION_FILES) == 23
    reading = rows_of("civid", [SAMPLES / "civid" / "pretty_dict", SAMPLES / "civid" / "pretty_str"])
    assert not reading.rejected
    assert not reading.notes
    assert len({row["sample_id"] for row in reading.rows}) == 23


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_miradata_table_with_every_caption_window(version: str) -> None:
    path = SAMPLES / "miradata" / f"miradata_{version}_first40.csv"
    with path.open(encoding="utf-8", newline="") as file:
        upstream = list(csv.DictReader(file))
    reading = rows_of("miradata", path)
    assert not reading.rejected
    assert len(reading.rows) == len(upstream) == 40
    for record, row in zip(upstream, reading.rows, strict=True):
        (clip,) = row["clips"]
        assert clip["source"]["video_id"] == record["video_id"]
        for kind in ("short", "dense", "main_object", "background", "camera", "style"):
            found = [caption for caption in clip["captions"] if caption["kind"] == kind]
            assert len(found) == max(len(WINDOW.findall(record[f"{kind}_caption"])), 1)
            assert not any("|||" in caption["text"] for caption in found)
            starts = [caption["start_seconds"] for caption in found]
            assert starts == ([None] if starts == [None] else sorted(starts))


def test_miradata_v1_windows_that_are_missing_are_flagged() -> None:
    rows = rows_of("miradata", SAMPLES / "miradata" / "miradata_v1_first40.csv").rows
    flagged = {row["clips"][0]["clip_id"] for row in rows if "missing_caption_windows" in row["flags"]}
    assert flagged == {"000000009674.1", "000000009675.0", "000000010606.0", "000000039957.1"}


def test_miradata_times_agree_with_the_stated_lengths() -> None:
    for row in rows_of("miradata", SAMPLES / "miradata" / "miradata_v1_first40.csv").rows:
        (clip,) = row["clips"]
        length = clip["source"]["end_seconds"] - clip["source"]["start_seconds"]
        assert length == pytest.approx(clip["media"]["duration_seconds"], abs=0.01)


def test_moviebench_shot(tmp_path: Path) -> None:
    upstream = _json(SAMPLES / "moviebench" / "shot_annotation_test.json")
    shots = tmp_path / "shots" / MOVIE
    shots.mkdir(parents=True)
    shutil.copy(SAMPLES / "moviebench" / "shot_annotation_test.json", shots / f"{SHOT}.json")
    row = only_row(rows_of("moviebench", tmp_path, subset="shots"))
    (clip,) = row["clips"]
    assert (clip["clip_id"], clip["video"]) == (SHOT, f"{MOVIE}/{SHOT}.avi")
    assert (clip["source"]["start_seconds"], clip["source"]["end_seconds"]) == (314.97, 318.686)
    assert [(caption["kind"], caption["text"]) for caption in clip["captions"]] == [
        ("plot", upstream["Plot"]),
        ("background", upstream["Background Description"]),
        ("camera_movement", upstream["Camera Motion"]),
        *(("style", element) for element in upstream["Style Elements"]),
    ]
    assert {person["name"]: person["description"] for person in clip["characters"]} == upstream["Characters"]
    assert row["flags"] == []


def test_moviebench_splits_and_imdb_ids(tmp_path: Path) -> None:
    movies = [movie for listed in _json(SAMPLES / "moviebench" / "data_split.json").values() for movie in listed]
    scenes = {movie: {"Sence 1: A room.": [f"{movie}_00.00.01.000-00.00.02.000"]} for movie in movies}
    write_json(tmp_path / "movies_scenes.json", scenes)
    for name in ("data_split.json", "mad2imdb.json"):
        shutil.copy(SAMPLES / "moviebench" / name, tmp_path / name)
    counts = {split: len(rows_of("moviebench", tmp_path, split=split).rows) for split in ("train", "test", "extra")}
    assert counts == {"train": 85, "test": 6, "extra": 0}
    table = rows_of("moviebench", tmp_path, table="movies").rows
    assert sorted(row["movie_id"] for row in table) == sorted(movies)
    assert all(re.fullmatch(r"tt\d+", row["imdb_id"]) for row in table)


def test_moviebench_character_bank(tmp_path: Path) -> None:
    listed = (SAMPLES / "moviebench" / "char_bank_layout" / "paths.txt").read_text(encoding="utf-8").splitlines()
    write_files(tmp_path, [path for path in listed if path.endswith(".jpg")], content=b"")
    write_json(tmp_path / "shots" / f"{SHOT}.json", {"Plot": "A person waits."})
    rows = rows_of("moviebench", tmp_path, subset="shots", table="characters").rows
    bank = [Path(path) for path in listed if f"/{MOVIE}/" in path and "-" in Path(path).parent.name]
    assert len(rows) == len({path.parent.name for path in bank})
    assert sum(len(row["portraits"]) for row in rows) == len(bank)
    assert all(row["portraits"][0].endswith("/best.jpg") and row["actor"] for row in rows)
    (hyphenated,) = [row for row in rows if len(row["aliases"]) > 1]
    assert set(hyphenated["aliases"]) == {"Su-Chin", "Su", "Chin"}
