import asyncio
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import SimpleQueue
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from civid_loader import remote, transport
from civid_loader.errors import (
    MissingDependencyError,
    RemoteVideoError,
    UnreadableVideoError,
    VideoNotFoundError,
    VideoTimeoutError,
)
from civid_loader.remote import RemoteSource
from support.servers import ALWAYS, Behaviour, RangeServer, serve

MB = 1 << 20
LARGE = np.random.default_rng(0).bytes(8 * MB)
SMALL = LARGE[: MB + 7]
SPREAD = [(7 * MB, 1000), (100, 50), (3 * MB, 5), (8 * MB - 10, 100), (9 * MB, 4), (120, 10), (5, 0)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    with serve({"large.mp4": LARGE, "small.mp4": SMALL, "empty.mp4": b""}) as running:
        yield running


def expected(ranges: list[tuple[int, int]], data: bytes = LARGE) -> list[bytes]:
    return [data[offset : offset + length] for offset, length in ranges]


def test_ranges_in_any_order_overlapping_and_past_the_end(server: RangeServer) -> None:
    source = RemoteSource(server.address("large.mp4"))
    assert source.read_ranges(SPREAD) == expected(SPREAD)
    assert source.is_remote
    assert source.size() == len(LARGE), "learnt from a reply"
    assert source.counters.num_requests == len(server.requests) == 5
    assert source.counters.num_bytes == server.num_bytes == 50 + 5 + 1000 + 10
    assert source.read_ranges(SPREAD) == expected(SPREAD)
    assert len(server.requests) == 5, "kept in memory"
    with pytest.raises(ValueError, match="no range has offset -1"):
        source.read_ranges([(-1, 5)])


def test_ranges_nearer_than_the_gap_are_one_request(server: RangeServer) -> None:
    source = RemoteSource(server.address("large.mp4"))
    near = [(0, 10), (10 + remote.MERGE_GAP_BYTES - 1, 10), (3 * MB, 10)]
    assert source.read_ranges(near) == expected(near)
    assert sorted(asked or "" for _, _, asked in server.requests) == ["bytes=0-262162", "bytes=3145728-3145737"]


def test_requests_run_in_parallel_up_to_a_limit(server: RangeServer) -> None:
    server.behaviour.latency_seconds = 0.1
    ranges = [(i * 512 * 1024, 100) for i in range(12)]
    start = time.monotonic()
    assert RemoteSource(server.address("large.mp4")).read_ranges(ranges) == expected(ranges)
    assert time.monotonic() - start < 1.1, "one after the other takes 1.2 s"
    assert 4 <= server.max_parallel <= remote.MAX_PARALLEL


def test_a_small_file_is_fetched_once_and_whole(server: RangeServer) -> None:
    source = RemoteSource(server.address("small.mp4"))
    assert source.size() == len(SMALL)
    for offset in range(0, len(SMALL), 100_000):
        assert source.read_ranges([(offset, 10)]) == [SMALL[offset : offset + 10]]
    assert [asked for _, _, asked in server.requests] == ["bytes=0-65535", f"bytes=65536-{len(SMALL) - 1}"]
    assert server.num_bytes == len(SMALL)


def test_a_window_of_a_file(server: RangeServer) -> None:
    source = RemoteSource(server.address("large.mp4"), offset=5 * MB, num_bytes=MB)
    assert source.size() == MB
    assert not server.requests
    ranges = [(MB - 10, 20), (0, 10), (MB, 5)]
    assert source.read_ranges(ranges) == expected(ranges, LARGE[5 * MB : 6 * MB])
    assert [asked for _, _, asked in server.requests] == [f"bytes={5 * MB}-{6 * MB - 1}"]


def test_memory_has_a_bound(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CACHE_BYTES", 2 * MB)
    source = RemoteSource(server.address("large.mp4"))
    for offset in (0, MB, 2 * MB):
        assert source.read_ranges([(offset, MB - 1)]) == [LARGE[offset : offset + MB - 1]]
    assert sum(map(len, source._blocks.values())) <= 2 * MB
    server.reset()
    source.read_ranges([(2 * MB, 100), (MB, 100)])
    assert not server.requests
    source.read_ranges([(0, 100)])
    assert len(server.requests) == 1, "the oldest went"
    whole = source.read_ranges([(0, 8 * MB)])
    assert whole == [LARGE], "more than is kept is given all the same"


@pytest.mark.parametrize(
    "fault", [{"num_cut": 2}, {"num_refused": 2, "status": 503}, {"num_refused": 1, "status": 429}, {"num_shifted": 2}]
)
def test_what_passes_is_tried_again(server: RangeServer, fault: dict[str, int]) -> None:
    server.behaviours["large.mp4"] = Behaviour(**fault)  # type: ignore[arg-type]
    source = RemoteSource(server.address("large.mp4"))
    assert source.read_ranges([(1000, 500_000)]) == [LARGE[1000:501_000]]
    assert source.counters.num_requests == len(server.requests) == 1 + max(min(n, 2) for n in fault.values() if n < 9)
    assert source.counters.num_bytes >= 500_000


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"num_cut": ALWAYS}, "in 5 attempts; check the connection and the server"),
        ({"num_refused": ALWAYS, "status": 500}, "the server answers HTTP 500, in 5 attempts"),
        ({"num_shifted": ALWAYS}, "gave bytes from 1001 on, not from 1000, in 5 attempts"),
        ({"num_refused": ALWAYS, "status": 403}, r"refuses to give the file \(HTTP 403\); log in"),
        ({"num_refused": ALWAYS, "status": 401}, "HTTP 401"),
        ({"num_refused": ALWAYS, "status": 400}, "answers HTTP 400; check the address"),
    ],
)
def test_what_does_not_pass_is_an_error(server: RangeServer, fault: dict[str, int], message: str) -> None:
    server.behaviours["large.mp4"] = Behaviour(**fault)  # type: ignore[arg-type]
    with pytest.raises(RemoteVideoError, match=message):
        RemoteSource(server.address("large.mp4")).read_ranges([(1000, 500_000)])
    assert len(server.requests) == (5 if "5 attempts" in message or "500" in message else 1)


def test_what_is_not_there(server: RangeServer) -> None:
    with pytest.raises(VideoNotFoundError, match=r"no file at http://127\.0\.0\.1:\d+/no\.mp4; check"):
        RemoteSource(server.address("no.mp4")).read_ranges([(0, 10)])
    with pytest.raises(VideoNotFoundError, match="the file is empty"):
        RemoteSource(server.address("empty.mp4")).size()
    server.behaviour.ignores_ranges = True
    with pytest.raises(VideoNotFoundError, match="the file is empty"):
        RemoteSource(server.address("empty.mp4")).size()


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    with serve({}) as gone:
        pass
    with pytest.raises(RemoteVideoError, match=r"Cannot connect .* in 5 attempts"):
        RemoteSource(gone.address("x.mp4")).size()
    with pytest.raises(RemoteVideoError, match="correct the address"):
        RemoteSource("http://[::1/x.mp4").size()


@pytest.mark.parametrize("fault", [{"num_stalled": ALWAYS}, {"bytes_per_second": 1000.0}, {"latency_seconds": 60.0}])
def test_a_time_limit_is_kept(server: RangeServer, monkeypatch: pytest.MonkeyPatch, fault: dict[str, float]) -> None:
    server.behaviours["large.mp4"] = Behaviour(**fault)  # type: ignore[arg-type]
    start = time.monotonic()
    with pytest.raises(VideoTimeoutError, match=r"not read within 0\.3 s.*pass a larger timeout_seconds"):
        RemoteSource(server.address("large.mp4")).read_ranges([(0, 500_000), (4 * MB, 5)], timeout_seconds=0.3)
    assert time.monotonic() - start < 10.0
    server.behaviours["large.mp4"] = Behaviour(num_refused=ALWAYS, status=500)
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 100.0)
    source = RemoteSource(server.address("large.mp4"))
    with pytest.raises(VideoTimeoutError, match=r"attempt \d: the server answers HTTP 500"):
        source.read_ranges([(0, 5)], timeout_seconds=0.3)


def test_a_stall_without_a_time_limit_is_tried_again(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STALLED_SECONDS", 0.2)
    server.behaviour.num_stalled = 1
    assert RemoteSource(server.address("large.mp4")).read_ranges([(0, 500_000)]) == [LARGE[:500_000]]
    assert len(server.requests) == 2


@pytest.mark.parametrize("hides_length", [False, True])
def test_a_server_that_ignores_ranges(server: RangeServer, hides_length: bool) -> None:
    server.behaviour = Behaviour(ignores_ranges=True, hides_length=hides_length)
    source = RemoteSource(server.address("large.mp4"))
    assert source.read_ranges(SPREAD) == expected(SPREAD)
    assert source.size() == len(LARGE)
    num_requests = len(server.requests)
    assert source.read_ranges([(i * MB, MB) for i in range(8)]) == expected([(i * MB, MB) for i in range(8)])
    assert len(server.requests) == num_requests
    assert source.counters.num_bytes == len(LARGE), "one body, not one per range"
    window = RemoteSource(server.address("large.mp4"), offset=5 * MB, num_bytes=MB)
    assert window.read_ranges([(10, 20), (MB - 5, 20)]) == expected([(10, 20), (MB - 5, 20)], LARGE[5 * MB : 6 * MB])


@pytest.mark.parametrize("hides_length", [False, True])
def test_a_large_file_on_a_server_that_ignores_ranges(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch, hides_length: bool
) -> None:
    monkeypatch.setattr(transport, "MAX_WHOLE_BYTES", 4 * MB)
    server.behaviour = Behaviour(ignores_ranges=True, hides_length=hides_length)
    with pytest.raises(RemoteVideoError, match=r"ignores the range asked for .* read up to 4194304 bytes; download"):
        RemoteSource(server.address("large.mp4")).read_ranges([(5 * MB, 10)])


def test_a_file_that_is_replaced_while_it_is_read(server: RangeServer) -> None:
    source = RemoteSource(server.address("large.mp4"))
    source.read_ranges([(0, 10)])
    server.files["large.mp4"] = LARGE[: 5 * MB]
    with pytest.raises(RemoteVideoError, match="had 8388608 bytes, now 5242880: it was replaced"):
        source.read_ranges([(3 * MB, 10)])


def test_a_length_that_is_hidden(server: RangeServer) -> None:
    server.behaviour.hides_length = True
    source = RemoteSource(server.address("large.mp4"))
    assert source.read_ranges([(MB, 10)]) == [LARGE[MB : MB + 10]]
    with pytest.raises(RemoteVideoError, match="does not say how long"):
        source.size()


def test_secrets_are_in_no_message(server: RangeServer) -> None:
    host = server.url.removeprefix("http://")
    url = f"http://user:hunter2@{host}/no.mp4?X-Signature=hunter2#hunter2"
    source = RemoteSource(url)
    assert source.name == f"http://{host}/no.mp4"
    for status, name in ((403, "large.mp4"), (500, "large.mp4"), (404, "no.mp4")):
        server.behaviour = Behaviour(status=status, num_refused=ALWAYS)
        with pytest.raises((RemoteVideoError, VideoNotFoundError)) as caught:
            RemoteSource(url.replace("no.mp4", name)).size()
        error: BaseException | None = caught.value
        while error is not None:
            assert "hunter2" not in str(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert transport.without_credentials("zip://a.mp4::https://u:p@h/x.zip?k=s") == "zip://a.mp4::https://h/x.zip"
    assert (
        transport.without_credentials("https://h/x.mp4?sig=a:b::c&d, and 'http://h/?e'")
        == "https://h/x.mp4 and 'http://h/'"
    )


def test_other_protocols_read_what_is_asked_for() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/clips/x.mp4", LARGE)
    try:
        source = RemoteSource("memory://clips/x.mp4")
        assert source.size() == len(LARGE)
        assert source.read_ranges(SPREAD) == expected(SPREAD)
        assert source.counters.num_bytes < 70_000
        with pytest.raises(VideoNotFoundError, match="no file at memory://clips/no"):
            RemoteSource("memory://clips/no.mp4").size()
    finally:
        fs.rm("/clips", recursive=True)
    with pytest.raises(MissingDependencyError, match=r"s3://bucket/x\.mp4: Install s3fs.*pip install"):
        RemoteSource("s3://bucket/x.mp4")
    with pytest.raises(UnreadableVideoError, match=r"nonsense://x\.mp4: .*nonsense.*correct the address"):
        RemoteSource("nonsense://x.mp4")


class CountedFile(AbstractBufferedFile):  # type: ignore[misc]
    """Reads ahead as hf:// does unless told not to."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        Counted.fetched.append(end - start)
        return LARGE[start:end]


class Counted(AbstractFileSystem):  # type: ignore[misc]
    protocol = "counted"
    fetched: list[int] = []  # noqa: RUF012

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> CountedFile:
        return CountedFile(self, path, mode, **kwargs)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": len(LARGE), "type": "file"}


class Stalling(AsyncFileSystem):  # type: ignore[misc]
    """As s3:// is made; stalls, is cut, refuses, as the path says."""

    protocol = "stalling"
    num_left = 0

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": len(LARGE), "type": "file"}

    async def _cat_file(self, path: str, start: int = 0, end: int = 0, **_: Any) -> bytes:
        Stalling.num_left -= 1
        if "refused" in path:
            raise PermissionError("Access Denied")
        if Stalling.num_left >= 0:
            if "stalls" in path:
                await asyncio.sleep(60)
            if "reset" in path:
                raise ConnectionResetError("reset by peer")
            return LARGE[start : end - 1]
        return LARGE[start:end]


def test_file_systems_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    fsspec.register_implementation("counted", Counted, clobber=True)
    fsspec.register_implementation("stalling", Stalling, clobber=True)
    window = RemoteSource("counted://x.mp4", offset=MB, num_bytes=5 * MB)
    assert window.read_ranges([(0, 300_000), (4 * MB, 1000)]) == expected([(MB, 300_000), (5 * MB, 1000)])
    assert sorted(Counted.fetched) == [1000, 300_000]
    for path in ("cut", "reset"):
        Stalling.num_left = 2
        assert RemoteSource(f"stalling://{path}").read_ranges([(5, 10)]) == [LARGE[5:15]]
    Stalling.num_left = ALWAYS
    with pytest.raises(RemoteVideoError, match="reset by peer, in 5 attempts"):
        RemoteSource("stalling://reset").read_ranges([(5, 10)])
    with pytest.raises(RemoteVideoError, match="refuses to give the file"):
        RemoteSource("stalling://refused").read_ranges([(5, 10)])
    start = time.monotonic()
    with pytest.raises(VideoTimeoutError, match=r"within 0\.2 s"):
        RemoteSource("stalling://stalls").read_ranges([(5, 10)], timeout_seconds=0.2)
    assert time.monotonic() - start < 10.0


def _read_in_child(source: RemoteSource, answers: "SimpleQueue[list[bytes]]") -> None:
    answers.put(source.read_ranges([(MB + os.getpid() % 7, 100), (6 * MB, 100)]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_children_read_what_the_parent_reads(server: RangeServer, method: str) -> None:
    source = RemoteSource(server.address("large.mp4"))
    assert source.read_ranges([(0, 100)]) == [LARGE[:100]]
    context: Any = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    children = [
        context.Process(target=_read_in_child, args=(source, answers)) for _ in range(4 if method == "fork" else 1)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    starts = [MB + (child.pid or 0) % 7 for child in children]
    results = [answers.get() for _ in children]
    assert sorted(results) == sorted([LARGE[at : at + 100], LARGE[6 * MB : 6 * MB + 100]] for at in starts)
    assert source.read_ranges([(2 * MB, 100)]) == [LARGE[2 * MB : 2 * MB + 100]], "the parent's connection lives on"
    answers.close()


def test_threads_share_a_source(server: RangeServer) -> None:
    source = RemoteSource(server.address("large.mp4"))
    ranges = [[(i * 100_000, 1000), (8 * MB - i * 100_000 - 1000, 1000)] for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read_ranges, ranges)) == [expected(pair) for pair in ranges]
    assert source.counters.num_requests == len(server.requests)
    assert source.counters.num_bytes == server.num_bytes


def test_it_pickles_as_its_address_and_leaves_nothing_open(server: RangeServer) -> None:
    source = RemoteSource(server.address("large.mp4"), offset=MB, num_bytes=4 * MB)
    source.read_ranges([(0, MB)])
    data = pickle.dumps(source)
    assert len(data) < 300
    copy = pickle.loads(data)  # noqa: S301
    assert copy.size() == 4 * MB
    assert copy.read_ranges([(5, 10)]) == [LARGE[MB + 5 : MB + 15]]
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(50):
        RemoteSource(server.address("large.mp4")).read_ranges([(0, 10)])
    time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before[0] + 2
    assert threading.active_count() <= before[1] + 2
