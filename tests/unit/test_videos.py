import io
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from civid_loader.errors import (
    MissingDependencyError,
    UnsafePathError,
    VideoError,
    VideoNotFoundError,
    VideoTimeoutError,
)
from civid_loader.videos import ByteSource, LocalSource, as_file, bytes_source, file_source, open_range, open_video
from support.servers import serve

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b!.mp4").write_bytes(CONTENT)
    (tmp_path / "outside.mp4").write_bytes(b"secret")
    return tmp_path / "root"


def read(pointer: str, root: Path | None) -> bytes:
    with as_file(open_video(pointer, root=None if root is None else str(root))) as file:
        return file.read()


def test_paths_relative_and_absolute_and_urls(root: Path) -> None:
    assert read("a/b!.mp4", root) == CONTENT
    assert read(str(root / "a" / "b!.mp4"), None) == CONTENT
    assert read(f"file://{root}/a/b!.mp4", None) == CONTENT


@pytest.mark.parametrize(
    "pointer", ["../outside.mp4", "a/../../outside.mp4", "a/../a/b!.mp4", "link.mp4", "folder/x.mp4"]
)
def test_a_relative_pointer_never_leaves_the_root(root: Path, pointer: str) -> None:
    (root / "link.mp4").symlink_to(root.parent / "outside.mp4")
    (root / "folder").symlink_to(root.parent)
    with pytest.raises(UnsafePathError, match="leaves the video root"):
        open_video(pointer, root=str(root))
    with pytest.raises(UnsafePathError, match="NUL"):
        open_video("a\0.mp4", root=str(root))


def test_a_root_that_is_a_link_or_has_a_sibling_with_its_name(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    assert read("a/b!.mp4", root.parent / "alias") == CONTENT
    (root.parent / "root2").mkdir()
    (root / "sibling").symlink_to(root.parent / "root2")
    with pytest.raises(UnsafePathError):
        open_video("sibling/x.mp4", root=str(root))


def test_what_is_not_there_says_what_to_do(root: Path) -> None:
    with pytest.raises(VideoNotFoundError, match=r"no file 'a/c\.mp4' in the video root '.*root'; download it"):
        open_video("a/c.mp4", root=str(root))
    with pytest.raises(VideoNotFoundError, match="no file 'a'"):
        open_video("a", root=str(root))
    with pytest.raises(VideoNotFoundError, match=r"no file '/no/such\.mp4' \(an absolute path\)"):
        open_video("/no/such.mp4", root=str(root))
    with pytest.raises(VideoNotFoundError, match=r"no file at file:///no/such\.mp4"):
        open_video("file:///no/such.mp4", root=None)
    (root / "empty.mp4").touch()
    with pytest.raises(VideoNotFoundError, match=r"empty\.mp4: the file is empty, as failed downloads are"):
        open_video("empty.mp4", root=str(root))


def test_a_wrong_root_is_the_users_mistake_not_a_missing_video(root: Path) -> None:
    """Not a VideoError: skipping missing clips must not hide it."""
    for wrong, message in ((None, "is relative: pass the folder"), (str(root / "no"), "root '.*no' is not a folder")):
        with pytest.raises(ValueError, match=message) as caught:
            open_video("a/b!.mp4", root=wrong)
        assert not isinstance(caught.value, VideoError)


RANGES = [(5000, 500), (0, 10), (5, 10), (5119, 1), (5120, 1), (9999, 4), (7, 0)]


@pytest.fixture(params=["local", "window", "bytes", "file", "http"])
def source(request: pytest.FixtureRequest, root: Path) -> Iterator[ByteSource]:
    path = root / "a" / "b!.mp4"
    (root / "shard").write_bytes(b"before" + CONTENT + b"behind")
    with serve({"x.mp4": CONTENT}) as server, path.open("rb", buffering=0) as file:
        yield {
            "local": lambda: open_video(str(path), root=None),
            "window": lambda: open_range(str(root / "shard"), offset=6, num_bytes=len(CONTENT)),
            "bytes": lambda: bytes_source(CONTENT),
            "file": lambda: file_source(file),
            "http": lambda: open_video(server.address("x.mp4"), root=None),
        }[request.param]()


def test_every_source_reads_alike(source: ByteSource) -> None:
    assert source.size() == len(CONTENT)
    assert source.read_ranges(RANGES) == [CONTENT[at : at + length] for at, length in RANGES]
    assert source.read_ranges([]) == []
    assert isinstance(source, ByteSource)
    for wrong in ((-1, 4), (4, -1)):
        with pytest.raises(ValueError, match="both must be >= 0"):
            source.read_ranges([wrong])
    if not source.is_remote:
        assert source.counters.num_requests == len(RANGES)
        assert source.counters.num_bytes == 120 + 10 + 10 + 1
    with ThreadPoolExecutor(4) as pool:
        wanted = [(at, 100) for at in range(0, 5000, 50)]
        assert list(pool.map(lambda one: source.read_ranges([one])[0], wanted)) == [
            CONTENT[at : at + 100] for at, _ in wanted
        ]


def test_every_source_is_a_file_too(source: ByteSource) -> None:
    with as_file(source) as file:
        assert file.seekable()
        assert file.readable()
        assert file.read(10) == CONTENT[:10]
        assert file.seek(0, io.SEEK_END) == len(CONTENT)
        assert file.read() == b""
        assert file.seek(-10, io.SEEK_END) == len(CONTENT) - 10
        assert file.read(100) == CONTENT[-10:]
        assert file.seek(5) == file.tell() == 5
        file.seek(3, io.SEEK_CUR)
        assert file.read(4) == CONTENT[8:12]
        file.seek(0)
        assert file.read() == CONTENT
        assert file.seek(10_000) == 10_000
        assert file.read() == b""


def test_a_remote_file_is_read_ahead_in_blocks() -> None:
    data = os.urandom(5 << 20)
    with serve({"x.mp4": data}) as server, as_file(open_video(server.address("x.mp4"), root=None)) as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == data
        assert len(server.requests) == 5
        file.seek(-5, io.SEEK_END)
        assert file.read() == data[-5:]
        assert len(server.requests) == 5
        server.behaviour.latency_seconds = 60.0
        with (
            as_file(open_video(server.address("x.mp4"), root=None), timeout_seconds=0.2) as slow,
            pytest.raises(VideoTimeoutError),
        ):
            slow.seek(0, io.SEEK_END)


def test_urls_are_checked_when_they_are_opened(root: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"s3://bucket/x\.mp4: Install s3fs"):
        open_video("s3://bucket/x.mp4?secret=1", root=None)
    with serve({}) as server:
        source = open_video(server.address("no.mp4"), root=str(root))
        with pytest.raises(VideoNotFoundError, match=r"no file at http://.*/no\.mp4"):
            source.size()


def test_a_file_that_goes_away(root: Path) -> None:
    source = open_video("a/b!.mp4", root=str(root))
    (root / "a" / "b!.mp4").unlink()
    with pytest.raises(VideoNotFoundError, match=r"b!\.mp4: the file is gone"):
        source.read_ranges([(0, 1)])


def test_nothing_stays_open(root: Path) -> None:
    sources = [open_video("a/b!.mp4", root=str(root)) for _ in range(50)]
    before = len(os.listdir("/proc/self/fd"))
    assert all(source.read_ranges([(0, 3)]) == [CONTENT[:3]] for source in sources)
    assert len(os.listdir("/proc/self/fd")) == before


def _read_in_child(source: ByteSource, answers: "SimpleQueue[list[bytes]]") -> None:
    answers.put(source.read_ranges([(100, 1000)]))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_sources_cross_processes(root: Path) -> None:
    source = open_video("a/b!.mp4", root=str(root))
    source.read_ranges([(0, 10)])
    copies = [pickle.loads(pickle.dumps(one)) for one in (source, bytes_source(CONTENT))]  # noqa: S301
    assert all(copy.read_ranges(RANGES) == source.read_ranges(RANGES) for copy in copies)
    assert isinstance(copies[0], LocalSource)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    children = [context.Process(target=_read_in_child, args=(source, answers)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert [answers.get() for _ in children] == [[CONTENT[100:1100]]] * 4
    answers.close()
