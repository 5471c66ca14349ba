"""A real Ray cluster on this machine: the same rows, lost actors, clips that kill, and GPUs that are not there."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from civid_loader.errors import StageError
from civid_loader.processing import chunks
from civid_loader.processing.chunks import plan_chunks, read_clips
from civid_loader.processing.engines.ray import gpu_share, run_ray
from civid_loader.processing.run import process
from civid_loader.processing.work import Job, Setup, StageSpec, Worker
from civid_loader.storage import read_table
from support.built import clip, write_dataset
from support.media import write_video
from support.stages_clip import make_aesthetic

NUM_CLIPS = 10
COLOUR = StageSpec(name="colour", params={}, weights={})
START = "import sys; from ray.scripts.scripts import main; main()"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a cluster of one node with two CPUs, whose workers find the modules of the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Paths of its sockets are short, or Ray refuses them.
    folder = Path(tempfile.gettempdir(), f"ray-civid-{os.getpid()}")
    options = [
        "--head",
        "--block",
        f"--port={port}",
        "--num-cpus=2",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    options += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}"]
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "CIVID_TEST_CRASH": "4.mp4"}
    environment["RAY_AUTH_MODE"] = "disabled"  # on 127.0.0.1, for a minute; a driver that has a token may come too
    log = (tmp_path_factory.mktemp("ray") / "log").open("wb")
    head = subprocess.Popen(
        [sys.executable, "-c", START, "start", *options],
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _wait_until_up(head, f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        ray.shutdown()
        children = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
        for pid in [head.pid, *(one.pid for one in children)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)
        log.close()


def _wait_until_up(head: "subprocess.Popen[bytes]", address: str) -> None:
    limit = time.monotonic() + 40
    while True:
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
            ray.shutdown()
            return
        except (ConnectionError, RuntimeError, ValueError):
            assert head.poll() is None, "it did not start"
            assert time.monotonic() < limit, "it does not come up"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(NUM_CLIPS - 1):
        write_video(folder / f"{i}.mp4", num_frames=12 + i, gop=8, size=(48, 64))
    (folder / f"{NUM_CLIPS - 1}.mp4").write_bytes((folder / "0.mp4").read_bytes())  # one and the same again
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(chunks, "CHUNK_CLIPS", 2)
    return write_dataset(tmp_path / "set", {"train": [[clip(f"c{i}", f"{i}.mp4")] for i in range(NUM_CLIPS)]})


def jobs_of(root: Path) -> list[Job]:
    return [Job(index=one.index, clips=read_clips(root, one), skipped={}) for one in plan_chunks(root).listed]


def setup_of(videos: Path, **changed: Any) -> Setup:
    settings: dict[str, Any] = {"device": "cpu", "decode_threads": 1, "timeout_seconds": 30.0, **changed}
    return Setup(stages=(COLOUR,), videos=str(videos), **settings)


def test_stages_that_compare_and_models_find_the_same_everywhere(
    root: Path, videos: Path, tmp_path: Path, address: str
) -> None:
    tiny = make_aesthetic(tmp_path)
    stages = [
        StageSpec(name="duplicates", params={}, weights={}),
        StageSpec(name="aesthetic", params={"heads": ["v1", "v2"]}, weights=tiny.weights),
    ]
    found = {}
    for name, settings in {
        "one": {"num_proc": 1, "decode_threads": 0},
        "two": {"num_proc": 2, "decode_threads": 2},
        "ray": {"engine": "ray", "num_proc": 2, "address": address},
    }.items():
        process(root, stages, layer=f"scores-{name}", videos=videos, quiet=True, **settings)  # type: ignore[arg-type]
        found[name] = read_table(root, f"scores/{name}")
    assert found["one"].equals(found["two"])
    assert found["one"].equals(found["ray"])
    rows = found["ray"].to_pylist()
    assert (rows[-1]["duplicate_of"], rows[-1]["is_exact_duplicate"]) == ("c0", True)
    assert all(row["aesthetic_v1"] is not None for row in rows)


def test_a_lost_actor_costs_no_chunk(root: Path, videos: Path, address: str) -> None:
    expected = {result.index: result.rows for result in Worker(setup_of(videos)).stream(jobs_of(root))}
    ray.init(address=address, log_to_driver=False, configure_logging=False)
    try:
        results = run_ray(jobs_of(root), setup_of(videos), num_actors=1)
        first = next(results)
        actors = [one for one in psutil.process_iter() if _is_actor(one)]
        assert actors
        for one in actors:
            one.kill()
        found = [first, *results]
    finally:
        ray.shutdown()
    assert len(found) == len(expected)
    assert {result.index: result.rows for result in found} == expected


def _is_actor(process_: psutil.Process) -> bool:
    """Of this user's cluster."""
    try:
        return any(part.startswith("ray::_NotingWorker") for part in process_.cmdline()[:1]) and _is_ours(process_)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _is_ours(process_: psutil.Process) -> bool:
    return process_.environ().get("CIVID_TEST_CRASH") == "4.mp4"


def test_a_clip_that_kills_its_actor_costs_one_row(root: Path, videos: Path, address: str) -> None:
    environment = {"worker_process_setup_hook": "support.crashing.install"}
    ray.init(address=address, log_to_driver=False, configure_logging=False, runtime_env=environment)
    try:
        process(root, [COLOUR], layer="scores-x", videos=videos, engine="ray", num_proc=2, quiet=True)
    finally:
        ray.shutdown()
    rows = {row["clip_id"]: row for row in read_table(root, "scores/x").to_pylist()}
    assert rows["c4"]["reason"].startswith("WorkerError: decoding it ended the worker process (Actor")
    assert [name for name, row in rows.items() if row["luma_mean"] is None] == ["c4"]


def test_a_cluster_without_a_gpu(root: Path, videos: Path, address: str) -> None:
    with pytest.raises(StageError, match=r"device cuda: the Ray cluster has no GPU \(2 CPUs\)"):
        next(run_ray(jobs_of(root), setup_of(videos, device="cuda"), address=address))
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("num_actors", "num_gpus", "share"),
    [(1, 1, 1.0), (3, 2, 0.5), (4, 2, 0.5), (5, 2, 1 / 3), (2, 8, 1.0), (2, 0, 0.0)],
)
def test_actors_share_gpus_so_that_each_finds_one(num_actors: int, num_gpus: int, share: float) -> None:
    assert gpu_share(num_actors, num_gpus) == share
    assert num_gpus == 0 or num_gpus * int(1 / share) >= num_actors
