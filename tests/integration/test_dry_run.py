"""A dry run tells what there is to do, also where it cannot be done yet."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from civid_loader.cli import app
from civid_loader.decoding import read_frames
from civid_loader.sampling import All
from support.built import clip, write_dataset
from support.media import write_video

NUM_FRAMES, FPS = 40, 10
GOOD = 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three good clips and one whose video is missing."""
    (tmp_path / "videos").mkdir()
    for i in range(GOOD):
        write_video(tmp_path / "videos" / f"{i}.mp4", num_frames=NUM_FRAMES, fps=FPS, gop=10, size=(48, 64))
    names = [*(f"{i}.mp4" for i in range(GOOD)), "gone.mp4"]
    return write_dataset(tmp_path / "set", {"train": [[clip(f"c{i}", name)] for i, name in enumerate(names)]})


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))


def told(root: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = ["process", str(root), "--videos", str(root.parent / "videos"), "--dry-run", *options]
    as_json, shown = (CliRunner().invoke(app, [*command, *more]) for more in (["--json"], []))
    assert (as_json.exit_code, shown.exit_code) == (0, 0), shown.output
    return json.loads(as_json.stdout), shown.stdout


def test_it_counts_frames_of_good_clips_only(root: Path) -> None:
    found, shown = told(root, "--stage", 'scene_cuts:{"fps": 2.0}')
    assert (found["num_clips"], found["num_sampled"], found["num_failed"]) == (4, 4, 1)
    assert found["frames_used_per_clip"] == 8  # 4 s at 2 fps
    assert found["frames_used_per_clip"] <= found["frames_decoded_per_clip"] <= NUM_FRAMES
    assert "8.0 of them looked at; in all about" in shown
    assert "something went wrong with 1 of 4 clips: VideoNotFoundError" in shown
    assert not list(root.glob(".incomplete*"))


def test_without_weights_it_plans_all_and_times_the_rest(root: Path) -> None:
    flow = 'optical_flow:{"size": [128, 128], "fps": 5.0}'
    found, shown = told(root, "--stage", "colour", "--stage", flow)
    assert list(found["missing"]) == ["optical_flow"]
    assert "raft_large_C_T_SKHT_V2-ff5fadd5.pth" in found["missing"]["optical_flow"]
    assert found["stages"] == ["colour", "optical_flow"]
    assert found["num_requests"] == 2
    assert found["frames_used_per_clip"] == 24  # every 2nd and every 5th frame
    assert found["seconds_per_clip"] > 0
    assert "stage optical_flow cannot run yet: model torchvision/raft_large-C_T_SKHT_V2 (raft)" in shown
    assert "without optical_flow" in shown
    alone, shown = told(root, "--stage", flow)
    assert alone["seconds_per_clip"] is None
    assert (alone["num_failed"], alone["frames_used_per_clip"]) == (1, 20)
    assert "no stage can run yet" in shown


def test_a_stage_that_needs_one_without_weights_is_planned_only(root: Path) -> None:
    spared = 'optical_flow:{"size": [128, 128], "min_codec_motion": 0.01}'
    found, _ = told(root, "--stage", "codec_motion", "--stage", spared)
    assert list(found["missing"]) == ["optical_flow"]
    assert found["seconds_per_clip"] > 0


def test_a_limit_and_an_empty_dataset(root: Path, tmp_path: Path) -> None:
    found, _ = told(root, "--stage", "colour", "--limit", "2")
    assert (found["num_clips"], found["num_sampled"], found["num_failed"]) == (2, 2, 0)
    empty = write_dataset(tmp_path / "empty", {"train": []})
    found, shown = told(empty, "--stage", "colour")
    assert (found["num_clips"], found["num_chunks"], found["seconds_per_clip"]) == (0, 0, None)
    assert "0 clips in 0 chunks" in shown


def test_all_frames_are_decoded_once(root: Path) -> None:
    path = root.parent / "videos" / "0.mp4"
    assert read_frames(path, All()).num_decoded == NUM_FRAMES
    found, _ = told(root, "--stage", "split", "--stage", "scene_cuts", "--stage", "technical_quality")
    assert found["frames_decoded_per_clip"] == NUM_FRAMES
