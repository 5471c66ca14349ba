import io
import json
import multiprocessing
import os
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from civid_loader import archives
from civid_loader.errors import UnreadableVideoError, VideoNotFoundError
from civid_loader.videos import as_file, open_video

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def read(pointer: str, root: Path | None) -> bytes:
    with as_file(open_video(pointer, root=None if root is None else str(root))) as file:
        return file.read()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, members: dict[str, bytes], compression: int) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


class Scans:
    """How often archives were scanned; a new process is one whose memory is empty."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num = 0
        for kind, scan in list(archives._SCANS.items()):
            monkeypatch.setitem(archives._SCANS, kind, self._counted(scan))

    def _counted(self, scan: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.num += 1
            return scan(*args, **kwargs)

        return counted

    def new_process(self) -> None:
        archives._entries.cache_clear()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    return Scans(monkeypatch)


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    return write_tar(path, members) if path.suffix == ".tar" else write_zip(path, members, zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(("name", "member"), [("c.tar", "5/\udcff é.mp4"), ("c.zip", "5/é.mp4")])
def test_only_the_first_process_scans(root: Path, scans: Scans, name: str, member: str) -> None:
    write_archive(root / name, {**{f"{i}.mp4": CONTENT[i:] for i in range(100)}, member: CONTENT[5:]})
    assert read(f"{name}!{member}", root) == CONTENT[5:]
    assert sorted(path.name for path in root.iterdir()) == [name, f"{name}.civid-index"]
    scans.new_process()
    assert read(f"{name}!{member}", root) == CONTENT[5:]
    assert scans.num == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"noise", zlib.compress(b"[]"), zlib.compress(b"{}"), zlib.compress(b"[" * 100_000), zlib.compress(b"null")],
)
def test_an_index_that_is_none_is_made_again(root: Path, scans: Scans, content: bytes) -> None:
    write_tar(root / "c.tar", {"x.mp4": CONTENT})
    (root / "c.tar.civid-index").write_bytes(content)
    for _ in range(2):
        scans.new_process()
        assert read("c.tar!x.mp4", root) == CONTENT
    assert scans.num == 1


def forge(root: Path, **changes: Any) -> None:
    """Change fields of the index of c.tar."""
    path = root / "c.tar.civid-index"
    path.write_bytes(zlib.compress(json.dumps(json.loads(zlib.decompress(path.read_bytes())) | changes).encode()))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0}, {"num_bytes": 7}, {"mtime_ns": 7}, {"files": {"x.mp4": ["0", 5, None, None]}},
        {"files": {"x.mp4": [0]}}, {"files": {"x.mp4": [0, 5, None, 7]}}, {"files": []}, {"files": {"x.mp4": 7}},
        {"files": {"x.mp4": [True, 5, None, None]}},
    ],
)  # fmt: skip
def test_a_foreign_index_is_made_again(root: Path, scans: Scans, changes: dict[str, Any]) -> None:
    write_tar(root / "c.tar", {"x.mp4": CONTENT})
    read("c.tar!x.mp4", root)
    forge(root, **changes)
    scans.new_process()
    assert read("c.tar!x.mp4", root) == CONTENT
    assert scans.num == 2


@pytest.mark.parametrize("place", [[-5, 10], [512, 1 << 40], [1 << 70, 5], [512, -1]])
def test_places_outside_the_archive_are_refused(root: Path, scans: Scans, place: list[int]) -> None:
    write_tar(root / "c.tar", {"x.mp4": CONTENT})
    read("c.tar!x.mp4", root)
    forge(root, files={"x.mp4": [*place, None, None]})
    scans.new_process()
    with pytest.raises(UnreadableVideoError, match="lies outside the archive"):
        open_video("c.tar!x.mp4", root=str(root))


def test_an_archive_that_was_replaced(root: Path, scans: Scans) -> None:
    path = write_tar(root / "c.tar", {"x.mp4": b"old"})
    assert read("c.tar!x.mp4", root) == b"old"
    write_tar(path, {"y.mp4": b"y", "x.mp4": b"new"})
    os.utime(path, ns=(1, 1))
    for _ in range(2):
        scans.new_process()
        assert read("c.tar!x.mp4", root) == b"new"
    assert scans.num == 2


def test_a_folder_that_cannot_be_written_to(root: Path, scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("read-only")

    write_tar(root / "c.tar", {"x.mp4": CONTENT, "y.mp4": b"y"})
    monkeypatch.setattr(archives, "replace", refuse)
    assert read("c.tar!x.mp4", root) == CONTENT
    assert read("c.tar!y.mp4", root) == b"y"
    assert scans.num == 1, "kept in memory"
    assert [path.name for path in root.iterdir()] == ["c.tar"], "nothing is left behind"


def _read_all(root: Path) -> None:
    archives._entries.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        read_all = list(pool.map(lambda i: read(f"c.tar!{i}.mp4", root), range(50)))
    assert read_all == [CONTENT[i:] for i in range(50)]


def test_many_at_once(root: Path) -> None:
    """Processes that all find no index and all write one, with threads that do so too."""
    write_tar(root / "c.tar", {f"{i}.mp4": CONTENT[i:] for i in range(50)})
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_read_all, args=(root,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert sorted(path.name for path in root.iterdir()) == ["c.tar", "c.tar.civid-index"]


def test_what_tars_and_zips_hold_besides_files(root: Path) -> None:
    """Sparse files and encrypted members."""
    sparse = tarfile.TarInfo("x.mp4")
    sparse.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (root / "sparse.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(UnreadableVideoError, match="stored as a sparse file; unpack"):
        open_video("sparse.tar!x.mp4", root=str(root))
    data = bytearray(write_zip(root / "w", {"x.mp4": CONTENT}, zipfile.ZIP_STORED).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (root / "locked.zip").write_bytes(data)
    with pytest.raises(UnreadableVideoError, match="it is encrypted; unpack"):
        open_video("locked.zip!x.mp4", root=str(root))


@pytest.mark.parametrize("kind", ["tar", "stored.zip", "deflated.ZIP"])
def test_members_of_archives(root: Path, kind: str) -> None:
    members = {"./a/first.mp4": CONTENT, "b/second.mp4": CONTENT[7:], "empty.mp4": b""}
    path = root / f"chunk.{kind}"
    if kind == "tar":
        write_tar(path, members)
    else:
        write_zip(path, members, zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED)
    assert read(f"{path.name}!a/first.mp4", root) == CONTENT
    assert read(f"{path}!./b//second.mp4", None) == CONTENT[7:]
    assert read(f"{path.name}!empty.mp4", root) == b""
    with pytest.raises(VideoNotFoundError, match=r"none of the 3 files in the archive is 'a/third\.mp4'"):
        open_video(f"{path.name}!a/third.mp4", root=str(root))


@pytest.mark.parametrize("compression", [None, zipfile.ZIP_STORED])
def test_a_member_is_a_file_of_its_own(root: Path, compression: int | None) -> None:
    members = {"before": b"x" * 1000, "clip.mp4": CONTENT, "after": b"y" * 1000}
    if compression is None:
        pointer = f"{write_tar(root / 'c.tar', members).name}!clip.mp4"
    else:
        pointer = f"{write_zip(root / 'c.zip', members, compression).name}!clip.mp4"
    with as_file(open_video(pointer, root=str(root))) as file:
        assert file.seekable()
        assert file.seek(0, io.SEEK_END) == len(CONTENT)
        assert file.read() == b""
        assert file.seek(-10, io.SEEK_END) == len(CONTENT) - 10
        assert file.read(100) == CONTENT[-10:], "nothing of the next member"
        assert file.seek(5) == file.tell() == 5
        file.seek(3, io.SEEK_CUR)
        assert file.read(4) == CONTENT[8:12]


def test_archives_that_cannot_be_read_at_random(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(root / "c.tar.gz", {"x.mp4": CONTENT}, "w:gz")
    write_zip(root / "lzma.zip", {"x.mp4": CONTENT}, zipfile.ZIP_LZMA)
    write_zip(root / "large.zip", {"x.mp4": CONTENT}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(archives, "MAX_INFLATED_BYTES", len(CONTENT) - 1)
    for pointer, message in {
        "c.tar.gz!x.mp4": "compressed tar cannot be read at random; unpack it",
        "lzma.zip!x.mp4": "neither stored nor deflated; unpack",
        "large.zip!x.mp4": "5120 bytes of memory, the limit is 5119",
        "s3://bucket/c.tar!x.mp4": "local disk only; download the archive",
    }.items():
        with pytest.raises(UnreadableVideoError, match=message):
            open_video(pointer, root=str(root))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_damaged_archives(root: Path, kind: str) -> None:
    whole = write_tar(root / "w", {"x.mp4": CONTENT}) if kind == "tar" else write_zip(root / "w", {"x.mp4": CONTENT}, 8)
    (root / f"noise.{kind}").write_bytes(CONTENT)
    (root / f"empty.{kind}").write_bytes(b"")
    data = whole.read_bytes()
    (root / f"half.{kind}").write_bytes(data[: len(data) // 3])
    (root / f"inside.{kind}").write_bytes(data if kind == "tar" else data[:40] + b"\xff" * 8 + data[48:])
    for name in ("noise", "empty", "half", *(["inside"] if kind == "zip" else [])):
        with pytest.raises(UnreadableVideoError, match=r"archive cannot be read .*download it again"):
            open_video(f"{name}.{kind}!x.mp4", root=str(root))


def test_a_tar_whose_sizes_lie(root: Path) -> None:
    """A size below 0 leads Python's tarfile back to the same header, for ever; one beyond the end, out of the file."""
    data = write_tar(root / "whole.tar", {"x.mp4": CONTENT}).read_bytes()
    for size in (b"\xff" * 10 + b"\xfe\x00", b"77777777777\0"):
        header = data[:124] + size + data[136:148] + b" " * 8 + data[156:512]
        header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
        (root / "lying.tar").write_bytes(header + data[512:])
        os.utime(root / "lying.tar", ns=(size[0], size[0]))
        with pytest.raises(UnreadableVideoError, match="archive cannot be read"):
            open_video("lying.tar!x.mp4", root=str(root))


def test_a_zip_whose_directory_lies(root: Path) -> None:
    """Fields of an entry, by offset: 6 version needed, 20 compressed and 24 inflated length."""
    data = write_zip(root / "whole.zip", {"x.mp4": CONTENT}, zipfile.ZIP_DEFLATED).read_bytes()
    entry = data.index(b"PK\1\2")
    for field, value, message in (
        (6, 255, "zip file version"),
        (20, len(data) + 1, "lies outside the archive"),
        (24, len(CONTENT) + 1, "5120 bytes of 5121 could be inflated"),
    ):
        width = 2 if field == 6 else 4
        lie = value.to_bytes(width, "little")
        (root / f"lying{field}.zip").write_bytes(data[: entry + field] + lie + data[entry + field + width :])
        with pytest.raises(UnreadableVideoError, match=message):
            open_video(f"lying{field}.zip!x.mp4", root=str(root))


def test_links_in_an_archive_are_not_followed(root: Path) -> None:
    with tarfile.open(root / "c.tar", "w") as archive:
        link = tarfile.TarInfo("x.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(VideoNotFoundError, match="none of the 0 files"):
        open_video("c.tar!x.mp4", root=str(root))
