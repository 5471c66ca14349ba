"""Movies by a server: many at once, each shot after shot, and on after a kill where each was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.storage import read_table
from support.built import clip, write_dataset
from support.media import write_video
from support.model_server import MODEL, Asked, ModelServer, serve_model

NUM_MOVIES, NUM_SHOTS, SHOT_FRAMES, FPS = 8, 6, 10, 25

RUN = """
import json, sys
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
if __name__ == "__main__":
    root, videos, model, options = sys.argv[1:]
    spec = CaptionerSpec(backend="openai", model=model, options=json.loads(options))
    stages = [StageSpec(name="moviebench_scenes", params={}, weights={})]
    process(root, stages, layer="captions-x", videos=videos, captioner=spec, quiet=True)
"""


def place(asked: Asked) -> str:
    """Named after the last picture, so shot by shot another one."""
    return f"place of {len(asked.pictures)} {asked.digest}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_model(fields={"scene": place}, delay_seconds=0.1, keeps=True) as running:
        yield running


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for movie in range(NUM_MOVIES):
        write_video(tmp_path / "videos" / f"{movie}.mp4", num_frames=NUM_SHOTS * SHOT_FRAMES, fps=FPS, gop=5)
    return tmp_path / "videos"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sample of which nothing says that it is a part of a movie is one."""
    step = SHOT_FRAMES / FPS
    movies = [
        [clip(f"m{movie}-{n}", f"{movie}.mp4", span=(n * step, (n + 1) * step)) for n in range(NUM_SHOTS)]
        for movie in range(NUM_MOVIES)
    ]
    return write_dataset(tmp_path / "set", {"train": movies})


def options(server: ModelServer) -> dict[str, Any]:
    return {"base_url": server.base_url, "max_in_flight": 16}


def assert_whole(root: Path) -> None:
    for row in read_table(root, "scores/x").to_pylist():
        assert row["reason"] is None
        assert row["scene_number"] == 1 + int(row["clip_id"].partition("-")[2]), "each shot has another place"


@pytest.mark.parametrize("chunk_clips", [2, 256])
def test_movies_are_gone_through_at_the_same_time(
    server: ModelServer, root: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, chunk_clips: int
) -> None:
    """As chunks of one movie each, and as one chunk of all."""
    monkeypatch.setattr("civid_loader.processing.chunks.CHUNK_CLIPS", chunk_clips)
    spec = CaptionerSpec(backend="openai", model=MODEL, options=options(server))
    stages = [StageSpec(name="moviebench_scenes", params={}, weights={})]
    process(root, stages, layer="captions-x", videos=videos, captioner=spec, quiet=True)
    assert_whole(root)
    assert sum(server.sent.values()) == NUM_MOVIES * NUM_SHOTS
    assert NUM_MOVIES - 2 <= server.max_parallel <= NUM_MOVIES, "one shot of each"


def test_killed_inside_movies(server: ModelServer, root: Path, videos: Path) -> None:
    server.delay_seconds = 0.2
    command = [sys.executable, "-c", RUN, str(root), str(videos), MODEL, json.dumps(options(server))]
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    limit = time.monotonic() + 100
    while len(server.answered) < NUM_MOVIES * NUM_SHOTS // 2 and running.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    server.delay_seconds = 0.0
    before = server.sent.copy()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert_whole(root)
    again = server.sent - before
    assert len(again.keys() & before.keys()) <= NUM_MOVIES, "only what was under way is asked twice"
    assert len(server.sent) == NUM_MOVIES * NUM_SHOTS, "what is asked follows from the answers that were kept"
