import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from civid_loader import videos
from civid_loader.errors import (
    MissingDependencyError,
    UnreadableVideoError,
    UnsafePathError,
    VideoError,
    VideoNotFoundError,
)
from civid_loader.videos import open_video

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b!.mp4").write_bytes(CONTENT)
    (tmp_path / "outside.mp4").write_bytes(b"secret")
    return tmp_path / "root"


def read(pointer: str, root: Path | None) -> bytes:
    with open_video(pointer, root=None if root is None else str(root)) as file:
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
    with pytest.raises(VideoNotFoundError, match="ships no `videos` config"):
        open_video("videos:clip-1", root=str(root))


def test_a_wrong_root_is_the_users_mistake_not_a_missing_video(root: Path) -> None:
    """Not a VideoError: skipping missing clips must not hide it."""
    for wrong, message in ((None, "is relative: pass the folder"), (str(root / "no"), "root '.*no' is not a folder")):
        with pytest.raises(ValueError, match=message) as caught:
            open_video("a/b!.mp4", root=wrong)
        assert not isinstance(caught.value, VideoError)


def test_a_url_whose_package_is_absent_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "open", absent)
    with pytest.raises(MissingDependencyError, match=r"s3://bucket/x\.mp4: Install s3fs"):
        open_video("s3://bucket/x.mp4", root=None)


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
    with open_video(pointer, root=str(root)) as file:
        assert file.seekable()
        assert file.seek(0, io.SEEK_END) == len(CONTENT)
        assert file.read() == b""
        assert file.seek(-10, io.SEEK_END) == len(CONTENT) - 10
        assert file.read(100) == CONTENT[-10:], "nothing of the next member"
        assert file.seek(5) == file.tell() == 5
        file.seek(3, io.SEEK_CUR)
        assert file.read(4) == CONTENT[8:12]


def test_an_archive_is_listed_once_until_it_is_replaced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(root / "c.tar", {"x.mp4": b"old"})
    assert read("c.tar!x.mp4", root) == b"old"
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert read("c.tar!x.mp4", root) == b"old"
    write_tar(path, {"y.mp4": b"y", "x.mp4": b"new"})
    os.utime(path, ns=(1, 1))
    assert read("c.tar!x.mp4", root) == b"new"


def test_archives_that_cannot_be_read_at_random(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(root / "c.tar.gz", {"x.mp4": CONTENT}, "w:gz")
    write_zip(root / "lzma.zip", {"x.mp4": CONTENT}, zipfile.ZIP_LZMA)
    write_zip(root / "large.zip", {"x.mp4": CONTENT}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(videos, "MAX_INFLATED_BYTES", len(CONTENT) - 1)
    for pointer, message in {
        "c.tar.gz!x.mp4": "compressed tar cannot be read at random; unpack it",
        "lzma.zip!x.mp4": "neither stored nor deflated; unpack",
        "large.zip!x.mp4": "5120 bytes of memory, the limit is 5119",
        "s3://bucket/c.tar!x.mp4": "local disk only; download s3://bucket/c.tar",
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
