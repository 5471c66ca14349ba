"""Films to datasets: made films whose scenes are known, killed runs, and real films where there are some."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset

from civid_loader.contact_sheets import SheetRow, contact_sheet
from civid_loader.decoding import Frames, read_frames
from civid_loader.errors import AnnotationError, OutputError, StageError
from civid_loader.processing.curate import CurateReport, curate
from civid_loader.processing.recipe import Recipe, Step, load_recipe
from civid_loader.sampling import Uniform
from civid_loader.storage import read_table
from support.films import Take, write_film

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"

# A run slow enough that a kill finds it at work.
_SCRIPT = """
import sys, time
from civid_loader.processing import curate
run = curate._run
def slowly(job):
    time.sleep(0.3)
    return run(job)
curate._run = slowly
curate.curate(sys.argv[1], recipe="civid", output=sys.argv[2], quiet=True)
"""


def _pair(seed: int) -> list[Take]:
    """Two scenes alike enough for a sequence and no repeat; those of another seed are another topic."""
    return [Take(seed=seed, num_frames=30), Take(seed=seed, other=seed + 50, share=0.45, num_frames=30)]


def _changed(recipe: str, stage: str, **params: Any) -> Recipe:
    """A recipe with other parameters of one step."""
    made = load_recipe(recipe)
    steps = [
        replace(step, params={**step.params, **params}) if step.stage == stage else step for step in made.segmentation
    ]
    return replace(made, segmentation=tuple(steps))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    write_film(root / "a" / "one.mp4", _pair(1) + _pair(3))
    write_film(root / "a" / "two.mp4", _pair(7) + _pair(4))
    write_film(root / "b" / "long.mp4", [Take(seed=5, num_frames=12 * 24), Take(seed=6, num_frames=48, brighter=-120)])
    (root / "b" / "page.mp4").write_bytes(b"<html>not found</html>" * 20)
    return root


@pytest.fixture(scope="module")
def made(films: Path, tmp_path_factory: pytest.TempPathFactory) -> CurateReport:
    return curate(films, recipe="civid", output=tmp_path_factory.mktemp("out") / "civid", quiet=True)


def _bytes_of(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_planted_sequences_are_found(made: CurateReport) -> None:
    rows = read_table(Path(made.output)).to_pylist()
    spans = [[(c["source"]["start_frame"], c["source"]["end_frame"]) for c in row["clips"]] for row in rows]
    assert spans == 2 * [[(0, 30), (30, 60)], [(60, 90), (90, 120)]]
    assert [row["sample_id"] for row in rows[:2]] == ["a/one.mp4#0", "a/one.mp4#1"]
    clip = rows[0]["clips"][1]
    assert clip["clip_id"] == "a/one.mp4:30-60"
    assert clip["video"] == "a/one.mp4"
    assert not clip["trimmed"]
    assert clip["source"]["video_id"] == "one"
    assert clip["source"]["platform"] is None
    assert (clip["source"]["start_seconds"], clip["source"]["end_seconds"]) == (1.25, 2.5)
    assert clip["media"] == {"width": 256, "height": 144, "fps": 24.0, "duration_seconds": 1.25, "num_frames": 30}
    [score] = clip["scores"]
    assert 0.6 < score["value"] <= 0.8
    assert score["annotator"] == "civid_loader:colour_gradient"
    assert rows[0]["clips"][0]["scores"] == []  # nothing is before the first scene
    assert {(row["dataset"], row["subset"], row["level"]) for row in rows} == {("civid", "curated", "sequence")}
    assert rows[0]["flags"] == ["stand_in_embedding", "entity_not_checked"]
    assert rows[0]["provenance"]["annotation_file"] == "a/one.mp4"


def test_what_cannot_be_read_is_listed_and_counted(made: CurateReport) -> None:
    assert (made.num_videos, dict(made.rejected)) == (4, {"unreadable": 1})
    assert made.num_scenes == 4 + 4 + 2
    [line] = (Path(made.output) / "rejected" / "videos.jsonl").read_text().splitlines()
    assert json.loads(line)["video"] == "b/page.mp4"
    assert "b/page.mp4: b/page.mp4: cannot be opened" in made.examples[0]


def test_what_was_not_done_is_told(made: CurateReport) -> None:
    assert all("entity_not_checked" in row["flags"] for row in read_table(Path(made.output)).to_pylist())
    card = (Path(made.output) / "README.md").read_text()
    assert "| entity_segment |" not in card
    assert "Not done, as no model was asked: entity_segment." in card
    assert "| keep |" in card
    assert "`civid filter --recipe civid`" in card
    assert "- `flow_mean_px >= 70`: A mean flow of at least 70." in card


def test_clips_of_civid_have_1_to_10_seconds(tmp_path: Path) -> None:
    """Those left out are not compared, and keep their numbers."""
    (short, long), second = ((Take(seed=9, num_frames=20), Take(seed=8, num_frames=250)), _pair(3))
    write_film(tmp_path / "in" / "film.mp4", [second[0], short, second[1], long, *_pair(7)])
    report = curate(tmp_path / "in", recipe="civid", output=tmp_path / "out", quiet=True)
    rows = read_table(Path(report.output)).to_pylist()
    spans = [[(c["source"]["start_frame"], c["source"]["end_frame"]) for c in row["clips"]] for row in rows]
    assert report.num_scenes == 6
    assert spans == [[(0, 30), (50, 80)], [(330, 360), (360, 390)]]
    assert 0.6 < rows[0]["clips"][1]["scores"][0]["value"] <= 0.8, "of the scene before among those that count"


def test_stock_datasets_loads_it(made: CurateReport, films: Path, tmp_path: Path) -> None:
    ds = load_dataset(made.output, split="train", cache_dir=str(tmp_path))
    assert len(ds) == made.num_samples
    assert sum(map(len, ds["clips"])) == made.num_clips
    clip = ds[0]["clips"][0]
    span = clip["source"]["start_seconds"], clip["source"]["end_seconds"]
    frames = read_frames(films / clip["video"], Uniform(4), span=span)
    assert frames.frames_TCHW.shape == (4, 3, 144, 256)


def test_two_processes_give_the_same_bytes(made: CurateReport, films: Path, tmp_path: Path) -> None:
    curate(films, recipe="civid", output=tmp_path / "two", num_proc=2, quiet=True)
    assert _bytes_of(tmp_path / "two") == _bytes_of(Path(made.output))


def test_killed_runs_end_with_the_same_bytes(made: CurateReport, films: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    journal = output / ".incomplete" / "journal.jsonl"
    with subprocess.Popen([sys.executable, "-c", _SCRIPT, str(films), str(output)]) as process:
        while process.poll() is None:
            if journal.is_file() and journal.read_bytes().count(b"\n"):
                process.kill()
            time.sleep(0.005)
    assert process.returncode == -9
    assert not (output / "manifest.json").exists()
    assert curate(films, recipe="civid", output=output, quiet=True).num_samples == made.num_samples
    assert _bytes_of(output) == _bytes_of(Path(made.output))


def test_a_finished_dataset_is_kept(made: CurateReport, films: Path) -> None:
    before = {path: os.stat(path).st_mtime_ns for path in Path(made.output).rglob("*")}
    assert curate(films, recipe="civid", output=made.output, quiet=True) == made
    assert {path: os.stat(path).st_mtime_ns for path in Path(made.output).rglob("*")} == before
    with pytest.raises(OutputError, match="differs in recipe"):
        curate(films, recipe=_changed("civid", "split", threshold=4.0), output=made.output, quiet=True)


def test_long_takes(films: Path, tmp_path: Path) -> None:
    report = curate(films, recipe="lvd2m", output=tmp_path / "out", quiet=True)
    rows = read_table(Path(report.output)).to_pylist()
    [sample] = rows
    [clip] = sample["clips"]
    assert (clip["clip_id"], sample["level"], sample["flags"]) == ("b/long.mp4:0-288", "clip", [])
    assert report.clip_seconds == pytest.approx(12.0)


def test_a_take_with_a_cut_in_it_is_none(films: Path, tmp_path: Path) -> None:
    # Split at 200, where no cut is; the test for cuts at 26 then finds it.
    recipe = _changed("lvd2m", "split", threshold=200.0)
    kept = curate(films, recipe=_with_keep(recipe, None), output=tmp_path / "kept", quiet=True)
    assert kept.clip_seconds == pytest.approx(14.0)
    with pytest.raises(AnnotationError, match=r"no sample came of 4 films: 1 of them cannot be read"):
        curate(films, recipe=_with_keep(recipe, 26.0), output=tmp_path / "none", quiet=True)


@pytest.mark.parametrize(("frames_at_once", "batches"), [(1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (7, [7])])
def test_a_take_is_searched_a_few_frames_at_a_time(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames_at_once: int, batches: list[int]
) -> None:
    """14 s at 0.5 per second are 7 frames; the cut is before the last, between two batches or within one."""
    read: list[int] = []

    def counted(*arguments: Any, **settings: Any) -> Frames:
        frames = read_frames(*arguments, **settings)
        read.append(len(frames.frames_TCHW))
        return frames

    monkeypatch.setattr("civid_loader.processing.curate_video.read_frames", counted)
    monkeypatch.setattr("civid_loader.processing.curate_video._FRAMES_AT_ONCE", frames_at_once)
    (tmp_path / "in").mkdir()
    shutil.copy(films / "b" / "long.mp4", tmp_path / "in")
    recipe = _with_keep(_changed("lvd2m", "split", threshold=200.0), 26.0)
    with pytest.raises(AnnotationError, match="no sample came of 1 films"):
        curate(tmp_path / "in", recipe=recipe, output=tmp_path / "out", quiet=True)
    assert read == batches


def _with_keep(recipe: Recipe, threshold: float | None) -> Recipe:
    keep = Step(stage="keep", evidence="ours", source="-", params={"min_seconds": 10.0, "cut_threshold": threshold})
    return replace(recipe, segmentation=(*recipe.segmentation[:1], keep))


def test_scenes_that_go_on_are_stitched(tmp_path: Path) -> None:
    flash = Take(seed=5, num_frames=40, brighter=60)  # 60 of 3 x 255 and less colour: more than 26
    write_film(tmp_path / "in" / "film.mp4", [Take(seed=5, num_frames=60), flash, Take(seed=8, num_frames=60)])
    low = {"imagebind_at_least": 0.25, "dino_at_least": 0.6, "min_seconds": 2.0}
    report = curate(
        tmp_path / "in", recipe=_changed("miradata", "split_stitch", **low), output=tmp_path / "out", quiet=True
    )
    rows = read_table(Path(report.output)).to_pylist()
    assert report.num_scenes == 3
    assert [row["clips"][0]["source"]["end_frame"] for row in rows] == [100, 160]
    assert rows[0]["flags"] == ["stitched_by_features_only", "stand_in_embedding"]


def test_recipes_that_do_not_cut_films(films: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="moviebench"):
        curate(films, recipe="moviebench", output=tmp_path / "out")
    with pytest.raises(StageError, match="no parameter 'treshold'"):
        curate(films, recipe=_changed("civid", "split", treshold=1), output=tmp_path / "out")
    with pytest.raises(AnnotationError, match="no video files"):
        curate(tmp_path, recipe="civid", output=tmp_path / "out")
    with pytest.raises(AnnotationError, match="none is not there; name the folder that the films lie in"):
        curate(tmp_path / "none", recipe="civid", output=tmp_path / "out")
    with pytest.raises(AnnotationError, match=r"page\.mp4 is a file; name the folder"):
        curate(films / "b" / "page.mp4", recipe="civid", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not MEDIA.is_dir(), reason="no real films here")
def test_real_films(tmp_path: Path) -> None:
    for name in ("bikes.mp4", "nasa_13013.mp4"):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(MEDIA / "real" / name, tmp_path / "in")
    # One scene of each pair here is shorter than the second that the recipe asks for.
    recipe = _changed("civid", "keep", min_seconds=0.2)
    report = curate(tmp_path / "in", recipe=recipe, output=tmp_path / "out", quiet=True)
    rows = read_table(Path(report.output)).to_pylist()
    assert {row["sample_id"] for row in rows} == {"bikes.mp4#0", "nasa_13013.mp4#0"}
    sheet = []
    for row in rows:
        for clip in row["clips"]:
            span = clip["source"]["start_seconds"], clip["source"]["end_seconds"]
            frames = read_frames(MEDIA / "real" / clip["video"], Uniform(6), span=span).frames_TCHW.numpy()
            text = f"{span[0]:.2f} to {span[1]:.2f} s"
            sheet.append(SheetRow(sample_id=row["sample_id"], title=clip["clip_id"], text=text, frames_TCHW=frames))
            assert np.ptp(frames) > 50
    contact_sheet(sheet, tmp_path / "sheet.png", title="civid")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
