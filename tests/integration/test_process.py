"""Runs over a dataset: every engine finds the same, kills lose nothing, bad clips cost a row."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import load_dataset

from civid_loader.errors import OutputError, StageError
from civid_loader.hub.loading import load
from civid_loader.processing.chunks import plan_chunks
from civid_loader.processing.planner import decode_clip
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.storage import read_manifest, read_table
from support.built import clip, write_dataset
from support.media import write_sound, write_video

STAGES = [StageSpec(name=name, params={}, weights={}) for name in ("colour", "technical_quality")]
NUM_GOOD = 14
BAD = ("page.mp4", "sound.mp4", "empty.mp4", "gone.mp4")

RUN = """
import sys
from civid_loader.processing import chunks, run
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
chunks.CHUNK_CLIPS = 2
jobs = run._jobs
def noted(*arguments, **settings):
    for job in jobs(*arguments, **settings):
        with open(sys.argv[4], "a") as file:
            file.write(f"{job.index}\\n")
        yield job
run._jobs = noted
if __name__ == "__main__":
    stages = [StageSpec(name=name, params={}, weights={}) for name in ("colour", "technical_quality")]
    process(sys.argv[1], stages, layer="scores-x", videos=sys.argv[2], num_proc=int(sys.argv[3]), quiet=True)
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen good videos and four bad ones."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(NUM_GOOD):
        write_video(folder / f"{i}.mp4", num_frames=20 + i, gop=8, size=(48, 64))
    (folder / "page.mp4").write_text("<html>404</html>" * 50)
    write_sound(folder / "sound.mp4")
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    good = [[clip(f"c{i}", f"{i}.mp4")] for i in range(NUM_GOOD)]
    bad = [[clip(name, name), clip(f"also-{name}", "0.mp4")] for name in BAD]
    return write_dataset(tmp_path / "set", {"train": [*good[:8], *bad, *good[8:12]], "test": good[12:]})


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("civid_loader.processing.chunks.CHUNK_CLIPS", 2)


def rows_of(root: Path, layer: str = "scores/x") -> pa.Table:
    return read_table(root, layer)


def test_each_clip_has_a_row_and_bad_ones_say_why(root: Path, videos: Path, tmp_path: Path) -> None:
    report = process(root, STAGES, layer="scores-x", videos=videos, num_proc=0, quiet=True)
    rows = {row["clip_id"]: row for row in rows_of(root).to_pylist()}
    parts = (load_dataset(str(root), split=split, cache_dir=str(tmp_path / "cache")) for split in ("train", "test"))
    assert list(rows) == [one["clip_id"] for part in parts for row in part for one in row["clips"]]
    assert report.num_clips == len(rows) == NUM_GOOD + 2 * len(BAD)
    for name in BAD:
        assert rows[name]["luma_mean"] is rows[name]["sharpness_mean"] is None
        assert rows[f"also-{name}"]["reason"] is None
    assert rows["page.mp4"]["reason"].startswith("UnreadableVideoError: page.mp4: cannot be decoded as a video")
    assert not any(str(videos) in (row["reason"] or "") for row in rows.values()), "no path of this machine"
    assert report.reasons == {"UnreadableVideoError": 1, "NoVideoStreamError": 1, "VideoNotFoundError": 2}
    assert report.statistics["luma_mean"]["num_null"] == len(BAD)
    assert Path(report.picture or "").is_file()
    told = read_manifest(root)["layers"]["scores-x"]
    assert [one["stage"] for one in told["stages"]] == ["colour", "technical_quality"]
    assert told["columns"][0]["name"] == "luma_mean"
    joined = load(root, layers=["scores-x"])
    assert joined[0]["scores-x"][0]["luma_mean"] == rows["c0"]["luma_mean"]


def test_every_engine_finds_the_same(root: Path, videos: Path) -> None:
    found = {}
    for name, settings in {
        "here": {"num_proc": 0},
        "one": {"num_proc": 1, "decode_threads": 0},
        "two": {"num_proc": 2, "decode_threads": 3},
        "ray": {"engine": "ray", "num_proc": 2},
    }.items():
        process(root, STAGES, layer=f"scores-{name}", videos=videos, quiet=True, **settings)  # type: ignore[arg-type]
        found[name] = rows_of(root, f"scores/{name}")
    assert all(rows.equals(found["here"]) for rows in found.values())


def start(root: Path, videos: Path, num_proc: int, given: Path) -> "subprocess.Popen[bytes]":
    """A run that notes in the file `given` which chunks it gives to workers."""
    given.write_text("")
    command = [sys.executable, "-c", RUN, str(root), str(videos), str(num_proc), str(given)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("num_proc", "num_kills"), [(0, 10), (2, 4)])
def test_killed_at_any_moment(root: Path, videos: Path, tmp_path: Path, num_proc: int, num_kills: int) -> None:
    process(root, STAGES, layer="scores-clean", videos=videos, num_proc=0, quiet=True)
    journal = root / ".incomplete-scores-x" / "journal.jsonl"
    rng, seen = random.Random(3), [0]

    def num_finished() -> int:
        return journal.read_bytes().count(b"\n") if journal.is_file() else 0

    def finished() -> list[int]:
        whole = journal.read_bytes().rpartition(b"\n")[0].splitlines() if journal.is_file() else []
        return [json.loads(line)["chunk"] for line in whole]

    def given_again(before: list[int]) -> set[int]:
        return set(before) & set(map(int, given.read_text().split()))

    given = tmp_path / "given"
    for _ in range(num_kills):
        before = finished()
        running, wanted = start(root, videos, num_proc, given), seen[-1] + rng.randrange(2)
        limit = time.monotonic() + 60
        while running.poll() is None and num_finished() < wanted and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(0.05 * rng.random())
        assert running.poll() is None, "there is work for all of the kills"
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        assert num_finished() >= seen[-1], "no finished chunk is lost"
        assert not given_again(before), "nor done again"
        assert len(set(finished())) == len(finished()), "each is finished once"
        seen.append(num_finished())
    assert len(seen) == num_kills + 1
    before = finished()
    last = start(root, videos, 1, given)
    assert last.communicate()[1] == b""
    assert last.returncode == 0
    assert not given_again(before)
    assert len(given.read_text().split()) == len(plan_chunks(root).listed) - len(before)
    assert rows_of(root).equals(rows_of(root, "scores/clean"))


def test_a_finished_run_is_not_done_again_and_errors_are_on_demand(root: Path, videos: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in videos.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    arguments: dict[str, Any] = {"layer": "scores-x", "videos": own, "num_proc": 0, "quiet": True}
    assert process(root, STAGES, **arguments).num_chunks_run == len(plan_chunks(root).listed)
    assert process(root, STAGES, **arguments).num_chunks_run == 0
    (own / "gone.mp4").write_bytes((own / "3.mp4").read_bytes())
    (own / "5.mp4").unlink()  # whoever looks at it again would find it missing
    assert process(root, STAGES, **arguments).reasons["VideoNotFoundError"] == 2
    report = process(root, STAGES, retry_errors=True, **arguments)
    assert report.reasons == {"UnreadableVideoError": 1, "NoVideoStreamError": 1, "VideoNotFoundError": 1}
    rows = {row["clip_id"]: row for row in rows_of(root).to_pylist()}
    assert rows["gone.mp4"]["luma_mean"] == rows["c3"]["luma_mean"]
    assert rows["c5"]["luma_mean"] is not None


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Workers with the decoder of `support.crashing`."""
    # The fork server starts with an import path of its own, and passes over what it does not find.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr("civid_loader.processing.engines.local._PRELOAD", ["support.crashing"])
    stop_fork_server()  # one that runs already has loaded other modules
    yield monkeypatch
    stop_fork_server()


def test_a_clip_that_kills_its_worker_costs_one_row(root: Path, videos: Path, crashing: pytest.MonkeyPatch) -> None:
    """The decoder crashes at one clip, and never comes back from another."""
    crashing.setenv("CIVID_TEST_CRASH", "4.mp4")
    crashing.setenv("CIVID_TEST_HANG", "6.mp4")
    report = process(
        root, STAGES, layer="scores-x", videos=videos, num_proc=2, decode_threads=2, timeout_seconds=1.0, quiet=True
    )
    rows = {row["clip_id"]: row for row in rows_of(root).to_pylist()}
    assert rows["c4"]["reason"] == "WorkerError: decoding it ended the worker process (SIGSEGV)"
    assert rows["c6"]["reason"].startswith("StuckVideoError: stuck for more than 1 s")
    assert sum(row["luma_mean"] is not None for row in rows.values()) == NUM_GOOD + len(BAD) - 2
    assert report.num_clips == len(rows)


def test_a_clip_that_takes_too_much_memory_costs_one_row(
    root: Path, videos: Path, crashing: pytest.MonkeyPatch
) -> None:
    limit_bytes = 3 << 29  # twice and more what a worker takes without
    crashing.setenv("CIVID_TEST_GREEDY", "5.mp4")
    crashing.setenv("CIVID_TEST_BYTES", str(limit_bytes))
    arguments: dict[str, Any] = {"layer": "scores-x", "videos": videos, "num_proc": 1, "quiet": True}
    report = process(root, STAGES, max_memory_bytes=limit_bytes, timeout_seconds=30.0, **arguments)
    rows = {row["clip_id"]: row for row in rows_of(root).to_pylist()}
    assert rows["c5"]["reason"] == "WorkerError: decoding it ended the worker process (SIGKILL)"
    assert report.reasons["WorkerError"] == 1
    assert sum(row["luma_mean"] is not None for row in rows.values()) == NUM_GOOD + len(BAD) - 1
    assert report.num_clips == len(rows)


def stop_fork_server() -> None:
    forkserver._forkserver._stop()  # type: ignore[attr-defined] # there is no public way


def test_what_does_not_fit(root: Path, videos: Path) -> None:
    twice = [STAGES[0], StageSpec(name="colour", params={"fps": 1.0}, weights={})]
    with pytest.raises(StageError, match="both find 'luma_mean'"):
        process(root, twice, layer="scores-x", videos=videos, quiet=True)
    with pytest.raises(StageError, match="makes sequences of a film's clips; `civid curate` runs it"):
        process(root, [StageSpec(name="similarity_segment", params={}, weights={})], layer="scores-x", videos=videos)
    for name, params, message in (
        ("color", {}, "there is no stage 'color'.*Did you mean 'colour'"),
        ("colour", {"framerate": 2}, "stage colour: there is no parameter 'framerate'; there are fps"),
    ):
        strange = [StageSpec(name=name, params=params, weights={})]
        with pytest.raises(StageError, match=message):
            process(root, strange, layer="scores-x", videos=videos, quiet=True)
    unfinished = root / ".incomplete-scores-x"
    unfinished.mkdir()
    plan = {"clips": plan_chunks(root).fingerprint, "fingerprint": "of others"}
    (unfinished / "plan.json").write_text(json.dumps(plan))
    (unfinished / "journal.jsonl").write_text('{"chunk": 0, "num_rows": 2}\n')
    with pytest.raises(OutputError, match="holds an unfinished run that differs in fingerprint"):
        process(root, STAGES, layer="scores-x", videos=videos, num_proc=0, quiet=True)


def test_each_frame_is_decoded_once_for_all_stages(root: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def counted(row: Any, *arguments: Any, **settings: Any) -> Any:
        decoded.append(row["clip_id"])
        return decode_clip(row, *arguments, **settings)

    monkeypatch.setattr("civid_loader.processing.work.decode_clip", counted)
    process(root, STAGES, layer="scores-x", videos=videos, num_proc=0, quiet=True)
    assert len(decoded) == len(set(decoded)) == NUM_GOOD + 2 * len(BAD)
