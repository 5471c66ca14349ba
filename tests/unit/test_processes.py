"""Forked and spawned workers: sources and indexes cross, threads and decoders do not, and nothing hangs."""

import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from av.video.frame import VideoFrame
from torch.utils.data import DataLoader, Dataset

from civid_loader import schema
from civid_loader.decode_threads import run_in_threads, set_max_threads
from civid_loader.decoding import read_frames
from civid_loader.media import probe
from civid_loader.packets import PacketIndex
from civid_loader.pixels import ImageWriter
from civid_loader.sampling import Uniform
from civid_loader.transforms.decode_clips import DecodeClips
from civid_loader.videos import ByteSource, bytes_source, open_video
from support.structures import write_structure

SAMPLER = Uniform(9)
PATIENCE_SECONDS = 20
# A process that forks while threads of its own run is what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(150),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_structure(tmp_path_factory.mktemp("processes"), "h264-b3", num_frames=100)


@pytest.fixture(autouse=True)
def _usual_limit() -> Iterator[None]:
    yield
    set_max_threads(None)


def decoded(source: ByteSource, index: PacketIndex, threads: int | None) -> bytes:
    found = read_frames(source, SAMPLER, index=index, threads=threads)
    return found.frames_TCHW.numpy().tobytes()


def report(connection: Any, source: ByteSource, index: PacketIndex, threads: int | None) -> None:
    connection.send([decoded(source, index, threads) for _ in range(2)])


def in_workers(method: str, count: int, source: ByteSource, index: PacketIndex, threads: int | None) -> list[bytes]:
    """What `count` processes decode at the same time."""
    context = multiprocessing.get_context(method)
    started = []
    for _ in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=report, args=(theirs, source, index, threads))  # type: ignore[attr-defined]
        process.start()
        started.append((process, ours))
    found: list[bytes] = []
    try:
        for process, ours in started:
            assert ours.poll(PATIENCE_SECONDS), f"no answer from a {method} worker"
            found += ours.recv()
            process.join(PATIENCE_SECONDS)
            assert process.exitcode == 0
    finally:
        for process, _ in started:
            process.kill()
    return found


@pytest.mark.parametrize(("method", "count"), [("fork", 4), ("spawn", 1)])
@pytest.mark.parametrize("threads", [2, None])
def test_a_source_and_an_index_used_before_serve_workers_too(
    method: str, count: int, threads: int | None, path: Path
) -> None:
    """Also when the threads of this process decode at the moment of the fork."""
    source, index = open_video(str(path), root=None), probe(open_video(str(path), root=None)).index
    expected = decoded(source, index, 2)
    stop = threading.Event()

    def keep_decoding() -> None:
        while not stop.is_set():
            assert decoded(source, index, 2) == expected

    busy = threading.Thread(target=keep_decoding)
    busy.start()
    try:
        found = in_workers(method, count, source, index, threads)
    finally:
        stop.set()
        busy.join(PATIENCE_SECONDS)
    assert found == [expected] * (2 * count)
    assert decoded(source, index, 2) == expected, "and go on serving this process"


def test_sources_and_indexes_pickle(path: Path) -> None:
    for source in (open_video(str(path), root=None), bytes_source(path.read_bytes())):
        index = probe(source).index
        copy_of_source, copy_of_index = pickle.loads(pickle.dumps((source, index)))  # noqa: S301
        assert decoded(copy_of_source, copy_of_index, 1) == decoded(source, index, 1)


class Rows(Dataset[Any]):
    """Samples of one clip each, decoded when they are asked for."""

    def __init__(self, path: Path) -> None:
        source = dict.fromkeys(schema.SOURCE)
        clip = {**dict.fromkeys(schema.CLIP), "clip_id": "c", "index": 0, "video": path.name, "trimmed": True}
        clip |= {"source": source, "captions": [], "characters": [], "scores": []}
        self.row = {**schema.empty_sample(), "sample_id": "s", "clips": [clip]}
        self.decode = DecodeClips(videos=str(path.parent), frames=SAMPLER)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> torch.Tensor:
        batch = self.decode({name: [value] for name, value in self.row.items()})
        frames: torch.Tensor = batch["frames_NTCHW"][0]
        return frames[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loader_with_workers_gives_the_frames_of_one_without(method: str, path: Path) -> None:
    rows = Rows(path)
    expected = rows[0]
    assert torch.equal(expected, read_frames(path, SAMPLER, threads=2).frames_TCHW)
    loader = DataLoader(rows, batch_size=3, num_workers=2, multiprocessing_context=method, timeout=PATIENCE_SECONDS)
    batches = list(loader)
    assert len(batches) == 4
    assert all(torch.equal(frames, expected) for batch in batches for frames in batch)


class Crowd:
    """Counts how many are at work at one time."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def work(self, _: int) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_all_calls_together_keep_to_the_limit(limit: int) -> None:
    set_max_threads(limit)
    crowd = Crowd()
    callers = [threading.Thread(target=partial(run_in_threads, crowd.work, range(10), threads=4)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE_SECONDS)
    assert crowd.most <= limit


def test_one_call_keeps_to_its_own_number_of_threads() -> None:
    set_max_threads(8)
    for threads in (1, 2, 5):
        crowd = Crowd()
        run_in_threads(crowd.work, range(20), threads=threads)
        assert crowd.most == threads


def threads_of_a_read(connection: Any, path: Path) -> None:
    """Reports in which threads the frames of several groups were taken."""
    used = set()
    put = ImageWriter.put

    def noted(self: ImageWriter, packet: int, frame: VideoFrame) -> None:
        used.add(threading.get_ident())
        put(self, packet, frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageWriter, "put", noted)
        read_frames(path, SAMPLER, threads=None)
    connection.send(len(used))


def test_a_worker_decodes_with_one_thread_unless_told_otherwise(path: Path) -> None:
    """Every core has a worker already."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=threads_of_a_read, args=(theirs, path))
    process.start()
    assert ours.poll(PATIENCE_SECONDS)
    assert ours.recv() == 1
    process.join(PATIENCE_SECONDS)
