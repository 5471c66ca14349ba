"""Captions from a server that fails in every way: each clip gets its own text, and nothing is asked for twice."""

import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from civid_loader.errors import CaptionerError
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.process_report import ProcessReport
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.storage import read_table
from support.built import clip, write_dataset
from support.media import number_image, read_number, write_video
from support.model_server import ALWAYS, MODEL, Asked, Fault, FaultKind, ModelServer, serve_model

KEY = "sk-very-secret-0123456789"
NUM_FILES, NUM_SPANS, SPAN_FRAMES, FPS = 20, 25, 10, 25
NUM_CLIPS = NUM_FILES * NUM_SPANS
STAGES = [StageSpec(name="civid_single", params={}, weights={})]
LIMIT = 16
SIZE = (48, 64)
STRIP_PX = SIZE[1] // 8

RUN = """
import json, sys
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
if __name__ == "__main__":
    root, videos, model, options = sys.argv[1:]
    spec = CaptionerSpec(backend="openai", model=model, options=json.loads(options))
    stages = [StageSpec(name="civid_single", params={}, weights={})]
    process(root, stages, layer="captions-x", videos=videos, captioner=spec, quiet=True)
"""


def image(file: int, frame: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Which file and which frame it is, each in a strip of its own."""
    picture = number_image(frame, size=SIZE)
    picture[STRIP_PX : 2 * STRIP_PX] = number_image(file, size=SIZE)[:STRIP_PX]
    return picture


def describe(asked: Asked) -> str:
    """What a model would see: file and frame of each picture."""
    seen = []
    for data in asked.pictures:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert pixels is not None
        frame_CHW = torch.from_numpy(pixels).permute(2, 0, 1)  # noqa: N806 - tensors carry their shape
        seen.append(f"{read_number(frame_CHW[:, STRIP_PX:])}:{read_number(frame_CHW)}")
    return f"seen {' '.join(seen)} in {asked.digest}"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(NUM_FILES):
        write_video(
            folder / f"{i}.mp4", num_frames=NUM_SPANS * SPAN_FRAMES, fps=FPS, size=SIZE, gop=10, image=partial(image, i)
        )
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return dataset(tmp_path / "set", num_clips=NUM_CLIPS)


def dataset(root: Path, *, num_clips: int) -> Path:
    """Clip `c<file>-<n>` is frames [10 n, 10 n + 10) of a file."""
    step = SPAN_FRAMES / FPS
    places = [(i % NUM_FILES, i // NUM_FILES) for i in range(num_clips)]
    return write_dataset(
        root, {"train": [[clip(f"c{i}-{n}", f"{i}.mp4", span=(n * step, (n + 1) * step))] for i, n in places]}
    )


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIVID_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("civid_loader.processing.chunks.CHUNK_CLIPS", 100)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serve_model(describe, api_key=KEY, delay_seconds=0.01) as running:
        yield running


def options(server: ModelServer, **others: Any) -> dict[str, Any]:
    return {"base_url": server.base_url, "max_in_flight": LIMIT, "backoff_seconds": 0.02} | others


def run(server: ModelServer, root: Path, videos: Path, *, model: str = MODEL, **others: Any) -> ProcessReport:
    settings = {name: others.pop(name) for name in ("num_proc", "retry_errors") if name in others}
    spec = CaptionerSpec(backend="openai", model=model, options=options(server, **others))
    return process(root, STAGES, layer="captions-x", videos=videos, captioner=spec, quiet=True, **settings)


def rows_of(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Clip id -> its texts by kind; and its row of the scores beside them."""
    tables: list[pa.Table] = [read_table(root, f"{kind}/x") for kind in ("captions", "scores")]
    texts, scores = ({row["clip_id"]: row for row in table.to_pylist()} for table in tables)
    return {key: {one["kind"]: one["text"] for one in row["captions"]} for key, row in texts.items()}, scores


def assert_own(clip_id: str, texts: dict[str, str]) -> None:
    """All texts of a clip are about its own pictures."""
    file, number = map(int, clip_id[1:].split("-"))
    assert set(texts) == {"content", "camera_angle", "camera_movement", "background"}
    for kind, text in texts.items():
        assert text.startswith({"content": "video_content", "background": "video_background"}.get(kind, kind))
        seen = [tuple(map(int, one)) for one in re.findall(r"(\d+):(\d+)", text)]
        assert len(seen) == 3
        assert {one for one, _ in seen} == {file}, clip_id
        assert {frame // SPAN_FRAMES for _, frame in seen} == {number}, clip_id


def test_each_clip_has_its_own_text_whatever_fails(
    server: ModelServer, root: Path, videos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kinds: list[tuple[FaultKind, dict[str, Any]]] = [
        ("status", {"status": 429, "headers": {"Retry-After": "0"}}),
        ("status", {"status": 500}),
        ("closed", {}),
        ("broken_body", {}),
        ("swapped", {"times": 8}),
        ("length", {"times": 5, "match": lambda asked: asked.body["max_tokens"] == 1024}),  # not once more
        ("slow", {"seconds": 0.3}),
    ]
    server.faults += [Fault(kind=kind, after=20 + 40 * i, **{"times": 6} | how) for i, (kind, how) in enumerate(kinds)]
    # One clip each, known by its pictures; before all others, as the first fault that fits is taken.
    message = "This model's maximum context length is 4096 tokens"
    server.faults[:0] = [
        Fault(kind="no_json", match=lambda asked: " 7:12" in describe(asked)),
        Fault(kind="status", status=400, message=message, match=lambda asked: " 11:3" in describe(asked)),
    ]
    report = run(server, root, videos, max_tries=30)  # one request may meet many of the faults
    texts, scores = rows_of(root)
    assert len(texts) == len(scores) == NUM_CLIPS
    bad = {clip_id: row for clip_id, row in scores.items() if row["reason"] is not None}
    assert len(bad) == 2
    no_json, refused = sorted(bad.values(), key=lambda row: str(row["reason"]))
    assert no_json["reason"].startswith("civid_single: single: the answer is no JSON")
    assert no_json["civid_single_raw_text"] == "I cannot say."
    assert no_json["clip_id"].startswith("c7-")
    assert refused["reason"].startswith(f"civid_single: the server does not take the request: HTTP 400 {message}")
    assert refused["clip_id"].startswith("c11-")
    assert not any(texts[clip_id] for clip_id in bad)
    for clip_id in scores.keys() - bad.keys():
        assert_own(clip_id, texts[clip_id])
    assert all(fault.times == 0 for fault in server.faults), "every kind of failure came"
    assert server.max_parallel <= LIMIT
    assert sum(row["civid_single_num_requests"] == 2 for row in scores.values()) == 5, "those cut off"
    assert max(server.answered.values()) == 1
    assert report.usage is not None
    assert report.usage.num_requests == NUM_CLIPS + 5
    assert report.server_share is not None
    everything = caplog.text + json.dumps([report.usage.num_requests, *scores.values()], default=str)
    everything += "".join(path.read_text() for path in root.rglob("*.json*"))
    assert KEY not in everything


def test_killed_and_run_again(server: ModelServer, tmp_path: Path, videos: Path) -> None:
    num_clips, root = 300, dataset(tmp_path / "killed", num_clips=300)
    server.delay_seconds = 0.05
    work = root / ".incomplete-captions-x"
    command = [sys.executable, "-c", RUN, str(root), str(videos), MODEL, json.dumps(options(server))]
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    limit = time.monotonic() + 100
    while len(server.answered) < num_clips // 2 and running.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    (answers,) = root.glob(".answers-*.sqlite")
    with closing(sqlite3.connect(answers)) as file:
        kept = {key for (key,) in file.execute("SELECT key FROM answers")}
    assert num_clips // 3 < len(kept) < num_clips
    server.delay_seconds = 0.0
    before = server.sent.copy()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    again = server.sent - before
    assert not kept & again.keys(), "what is finished is not sent again"
    assert kept | again.keys() == server.sent.keys()
    assert len(server.sent) == num_clips
    assert max(again.values()) == 1
    texts, scores = rows_of(root)
    assert len(scores) == num_clips
    for clip_id, own in texts.items():
        assert_own(clip_id, own)
    assert not work.exists()


def test_the_server_goes_down_in_the_middle(server: ModelServer, tmp_path: Path, videos: Path) -> None:
    root = dataset(tmp_path / "down", num_clips=250)
    server.faults.append(Fault(kind="closed", after=130, times=ALWAYS))
    with pytest.raises(
        CaptionerError, match=r"20 requests one after the other failed, .*; when the server answers again"
    ):
        run(server, root, videos, max_tries=2)
    done = set(server.answered)
    assert len(done) == 130
    server.faults.clear()
    run(server, root, videos, max_tries=2)
    run(server, root, videos, max_tries=2, retry_errors=True)  # of chunks that were finished all the same
    assert {server.answered[key] for key in done} == {1}, "their answers were kept"
    texts, scores = rows_of(root)
    assert [row["reason"] for row in scores.values()] == [None] * 250
    for clip_id, own in texts.items():
        assert_own(clip_id, own)


def test_a_server_that_is_down_for_a_while(server: ModelServer, tmp_path: Path, videos: Path) -> None:
    root = dataset(tmp_path / "small", num_clips=40)
    server.faults.append(Fault(kind="closed", after=10, times=3 * LIMIT))
    run(server, root, videos, max_tries=8)
    texts, scores = rows_of(root)
    assert [row["reason"] for row in scores.values()] == [None] * 40
    for clip_id, own in texts.items():
        assert_own(clip_id, own)


def test_two_workers_keep_to_the_limit(
    server: ModelServer, tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.api_key = None  # a fork server that runs already has the environment of its start
    server.delay_seconds = 0.1
    monkeypatch.setattr("civid_loader.processing.chunks.CHUNK_CLIPS", 20)
    root = dataset(tmp_path / "two", num_clips=200)
    run(server, root, videos, num_proc=2)
    texts, _ = rows_of(root)
    assert len(texts) == 200
    for clip_id, own in texts.items():
        assert_own(clip_id, own)
    assert LIMIT // 2 < server.max_parallel <= LIMIT
    server.max_parallel = 0
    run(server, dataset(tmp_path / "more", num_clips=40), videos, num_proc=2, max_in_flight=1)
    assert server.max_parallel == 1, "no more workers than requests at once"


def test_what_is_wrong_is_said_before_anything_is_done(
    server: ModelServer, root: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        CaptionerError, match=r"has no model 'org/see-8'; it has org/see-8b\. Did you mean 'org/see-8b'"
    ):
        run(server, root, videos, model="org/see-8")
    monkeypatch.setenv("CIVID_API_KEY", "sk-of-another")
    with pytest.raises(CaptionerError, match="refuses the key that was sent; set CIVID_API_KEY") as raised:
        run(server, root, videos)
    assert "sk-of-another" not in str(raised.value)
    assert not server.sent
    assert not (root / ".incomplete-captions-x").exists()


def test_a_key_that_is_withdrawn_ends_the_run(server: ModelServer, root: Path, videos: Path) -> None:
    server.faults.append(Fault(kind="status", status=401, after=30, times=ALWAYS))
    with pytest.raises(CaptionerError, match="refuses the key that was sent"):
        run(server, root, videos)
    assert sum(server.sent.values()) < 30 + 4 * LIMIT, "nobody goes on asking"
