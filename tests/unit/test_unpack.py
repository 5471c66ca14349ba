"""Unpacking: whole files or none, checked to the end, continued after a stop; nothing outside the folder touched."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

import civid_loader as cl
from civid_loader import member_files, unpacking
from civid_loader.errors import ArchiveError, OutputError
from civid_loader.tar_stream import READ_BYTES
from support.trees import tree_bytes, write_tree

GNU: Final = 1  # tarfile.GNU_FORMAT, of which the type checker does not know the value
MTIME_SECONDS = 1_700_000_000
FILES = {
    "chunk/0/a-Scene-001.mp4": bytes(range(256)) * 20,
    "chunk/0/empty.mp4": b"",
    "chunk/1/日本-Scene-002.mp4": os.urandom(5000),
    "top.mp4": b"short",
}


def member(name: str, size: int = 0, **changes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, MTIME_SECONDS, 0o4777
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def tar_bytes(files: Mapping[str, bytes], *others: tarfile.TarInfo, mtime: float = MTIME_SECONDS) -> bytes:
    """A plain tar: `others` first, then the files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info in others:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
        for name, data in files.items():
            tar.addfile(member(name, len(data), mtime=mtime), io.BytesIO(data))
    return buffer.getvalue()


def archive(path: Path, files: Mapping[str, bytes] = FILES, *others: tarfile.TarInfo) -> Path:
    path.write_bytes(gzip.compress(tar_bytes(files, *others), mtime=0))
    return path


def unpack(*archives: Path, output: Path) -> cl.UnpackReport:
    return cl.unpack(archives, output=output, quiet=True)


def unpack_one(path: Path, output: Path) -> cl.ArchiveReport:
    (report,) = unpack(path, output=output).archives
    return report


def videos(output: Path) -> dict[str, bytes]:
    """What lies in the folder but for our own markers."""
    return {name: data for name, data in tree_bytes(output).items() if ".civid-unpack" not in name}


def identities(output: Path) -> dict[str, tuple[int, int]]:
    """A file that was written again has another inode or time."""
    return {name: ((status := (output / name).stat()).st_ino, status.st_mtime_ns) for name in videos(output)}


def halves(data: bytes) -> bytes:
    return gzip.compress(data[:3000]) + gzip.compress(data[3000:])


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("a.tar.gz", gzip.compress), ("a.tgz", gzip.compress), ("a.tar.bz2", bz2.compress), ("a.tar.xz", lzma.compress),
        ("a.tar", bytes), ("a.tar.gz", bytes), ("misnamed", gzip.compress), ("of_pigz.tar.gz", halves),
        ("padded.tar.gz", lambda data: gzip.compress(data) + bytes(100)),
    ],
)  # fmt: skip
def test_every_kind_of_tar(name: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(compress(tar_bytes(FILES, member("chunk/empty", type=tarfile.DIRTYPE))))
    output = tmp_path / "out"
    report = cl.unpack(str(tmp_path / name), output=str(output))
    assert videos(output) == FILES
    (one,) = report.archives
    assert (one.num_files, one.num_skipped, one.num_bytes) == (4, 0, sum(map(len, FILES.values())))
    assert (one.refused, one.error, one.was_finished) == ({}, None, False)
    assert (output / "chunk/empty").is_dir()
    for path in (output / name for name in FILES):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert path.stat().st_mtime == MTIME_SECONDS


def test_tars_one_behind_the_other_and_all_long_names(tmp_path: Path) -> None:
    long = {"/".join(["folder" * 10] * 5) + "/v.mp4": b"1", "x" * 241 + ".mp4": b"2"}
    (tmp_path / "a.tar").write_bytes(tar_bytes(FILES) + tar_bytes(long))
    report = unpack_one(tmp_path / "a.tar", tmp_path / "out")
    assert report.refused == {"File name too long": 1}, "with .incomplete behind it"
    assert videos(tmp_path / "out") == FILES | dict([*long.items()][:1])


def test_a_finished_archive_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.tar.gz", FILES, member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
    first = unpack_one(path, tmp_path / "out")
    marker = json.loads((tmp_path / "out/.a.tar.gz.civid-unpacked").read_bytes())
    assert marker["size_bytes"] == path.stat().st_size
    assert marker["mtime_ns"] == path.stat().st_mtime_ns
    assert (marker["num_files"], marker["num_bytes"]) == (4, first.num_bytes)
    assert not (tmp_path / "out/.a.tar.gz.civid-unpacking").exists()
    monkeypatch.delattr(unpacking, "TarStream")
    again = unpack_one(path, tmp_path / "out")
    assert again.was_finished
    assert (again.num_files, again.num_skipped, again.num_bytes) == (0, 4, first.num_bytes)
    assert (again.refused, again.examples) == ({"a link": 1}, ("'link': a link",)) == (first.refused, first.examples)


def test_an_unfinished_archive_keeps_and_does_not_rewrite_what_is_there(tmp_path: Path) -> None:
    path, output = archive(tmp_path / "a.tar.gz"), tmp_path / "out"
    unpack_one(path, output)
    (output / ".a.tar.gz.civid-unpacked").unlink()
    (output / "top.mp4").rename(output / "top.mp4.incomplete")
    before = identities(output)
    report = unpack_one(path, output)
    assert (report.num_files, report.num_skipped) == (1, 3)
    del before["top.mp4.incomplete"]
    assert before.items() <= identities(output).items()
    assert videos(output) == FILES


def test_a_changed_archive_is_read_again_and_its_files_compared(tmp_path: Path) -> None:
    path, output = archive(tmp_path / "a.tar.gz"), tmp_path / "out"
    unpack_one(path, output)
    before = identities(output)
    changed = FILES | {"top.mp4": b"other", "new.mp4": b"new"}
    report = unpack_one(archive(path, changed), output)
    assert (report.num_files, report.num_skipped, report.refused) == (2, 3, {})
    assert videos(output) == changed
    assert before.items() & identities(output).items() == {item for item in before.items() if item[0] != "top.mp4"}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_cut_off_anywhere_keeps_the_whole_files_before(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path, output = tmp_path / "a.tar.gz", tmp_path / "out"
    whole = compress(tar_bytes(FILES))
    for size in [*range(0, len(whole), len(whole) // 23), len(whole) - 1]:
        path.write_bytes(whole[:size])
        report = unpack_one(path, output)
        assert report.error is not None, size
        assert str(path) in report.error
        assert "download" in report.error
        assert f"of {size:,}" in report.error
        assert videos(output).items() <= FILES.items()
    path.write_bytes(whole)
    assert unpack_one(path, output).error is None
    assert videos(output) == FILES


def test_a_wrong_bit_is_seen_and_the_next_copy_repairs_the_file_it_hit(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    whole = gzip.compress(tar_bytes(FILES), compresslevel=0, mtime=0)
    spots = [whole.index(FILES[name][1000:1100]) for name in FILES if len(FILES[name]) > 1000] + [len(whole) - 6]
    for number, spot in enumerate(spots):
        output = tmp_path / str(number)
        path.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :])
        report = unpack_one(path, output)
        assert "CRC" in (report.error or "")
        assert set(videos(output)) == set(FILES)
        path.write_bytes(whole)
        report = unpack_one(path, output)
        assert (report.num_files, report.num_skipped, report.error) == ((1, 3, None) if number < 2 else (0, 4, None))
        assert videos(output) == FILES


def test_other_archives_are_done_when_one_is_damaged(tmp_path: Path) -> None:
    bad = archive(tmp_path / "bad.tar.gz")
    bad.write_bytes(bad.read_bytes()[:-2000])
    good = archive(tmp_path / "good.tar.gz", {"good.mp4": b"good"})
    report = unpack(bad, good, bad, output=tmp_path / "out")
    assert [Path(one.archive).name for one in report.archives] == ["bad.tar.gz", "good.tar.gz"]
    assert [one.archive for one in report.failed] == [str(bad)]
    assert (tmp_path / "out/good.mp4").read_bytes() == b"good"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "no tar can be read"), (b"<html>Sign in</html>" * 99, "no tar can be read"),
        (gzip.compress(b"key,url\n" * 999), "no tar can be read"), (b"\x28\xb5\x2f\xfd" + bytes(99), "zstd -d"),
        (b"PK\3\4" + bytes(99), "is a zip"), (b"\x1f\x8b", "no tar can be read"), (bytes(512), "no tar can be read"),
    ],
    ids=["nothing", "page", "gzip of a table", "zstd", "zip", "cut off", "zeros"],
)  # fmt: skip
def test_what_is_no_tar_is_said(data: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    report = unpack_one(tmp_path / "a.tar.gz", tmp_path / "out")
    assert word in (report.error or "")
    assert videos(tmp_path / "out") == {}


def test_headers_that_ask_for_much_or_go_back_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(member("././@LongLink", 1 << 40, type=tarfile.GNUTYPE_LONGNAME).tobuf(GNU) + bytes(2 * READ_BYTES))
    assert "asks for" in (unpack_one(path, tmp_path / "out").error or "")
    path.write_bytes(tar_bytes({}, member("a.mp4"), member("b.mp4", pax_headers={"size": "-5000"})))
    assert "damaged" in (unpack_one(path, tmp_path / "out").error or "")
    path.write_bytes(member("././@LongLink", 1, type=tarfile.GNUTYPE_LONGNAME).tobuf(GNU) + bytes(512) * 9)
    assert "no tar can be read" in (unpack_one(path, tmp_path / "out").error or "")
    path.write_bytes(member("huge.mp4", 1 << 62).tobuf(GNU) + bytes(5000))
    assert "missing at the end" in (unpack_one(path, tmp_path / "out").error or "")
    path.write_bytes(tar_bytes({"kept.mp4": b"x"}) + bytes(2 * READ_BYTES))
    assert "nothing but zeros" in (unpack_one(path, tmp_path / "out").error or "")
    assert set(videos(tmp_path / "out")) == {"a.mp4", "kept.mp4"}


HOSTILE = {
    "a link": [
        member("chunk", type=tarfile.SYMTYPE, linkname="/tmp"),
        member("top.mp4", type=tarfile.LNKTYPE, linkname="../secret"),
    ],
    "a device or pipe": [member("p", type=tarfile.FIFOTYPE), member("d", type=tarfile.CHRTYPE)],
    "a sparse file": [member("s.mp4", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "9"})],
    "neither file nor folder": [member("v", type=b"V")],
    "its path leads out of the output folder": [
        member("../evil"), member("chunk/../../evil"), member("..", type=tarfile.DIRTYPE), member("/etc/evil"),
    ],
    "a backslash or NUL in its path": [member("..\\evil"), member("evil", pax_headers={"path": "a\0b"})],
    "it has no name": [member("."), member("./")],
    "its path is more than 64 folders deep": [member("d/" * 1900 + "evil")],
    "its name is one that this command keeps for itself": [
        member("top.mp4.incomplete"), member(".b.tar.gz.civid-unpacked"), member("x/.B.CIVID-UNPACKING"),
        member(".civid-unpack.lock"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("reason", HOSTILE)
def test_hostile_members_are_refused_counted_and_named(reason: str, tmp_path: Path) -> None:
    write_tree(tmp_path, {"secret": "mine"})
    infos = HOSTILE[reason]
    report = unpack_one(archive(tmp_path / "a.tar.gz", FILES, *infos), tmp_path / "deep" / "out")
    assert report.error is None
    assert report.refused == {reason: len(infos)}
    assert all(example.endswith(f"': {reason}") for example in report.examples)
    assert videos(tmp_path / "deep/out") == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "a.tar.gz", "deep"}
    assert (tmp_path / "deep/out/.a.tar.gz.civid-unpacked").exists(), "a second run would refuse the same"


def test_many_refused_members_are_counted_but_not_all_named(tmp_path: Path) -> None:
    links = [member(f"l{i}", type=tarfile.SYMTYPE, linkname="x") for i in range(unpacking.MAX_EXAMPLES + 50)]
    report = unpack_one(archive(tmp_path / "a.tar.gz", {}, *links), tmp_path / "out")
    assert report.refused == {"a link": len(links)}
    assert len(report.examples) == unpacking.MAX_EXAMPLES


def test_links_in_the_output_folder_are_followed_only_inside_it(tmp_path: Path) -> None:
    output, outside = tmp_path / "out", tmp_path / "outside"
    write_tree(output, {"real/kept.mp4": "kept"})
    write_tree(outside, {"f.mp4": "mine"})
    (output / "inside").symlink_to("real")
    (output / "leads_out").symlink_to(outside)
    (output / "file.mp4").symlink_to(outside / "f.mp4")
    (output / "made.mp4").symlink_to(outside / "not_there.mp4")
    (output / "part.mp4.incomplete").symlink_to(outside / "f.mp4")
    names = ("inside/v.mp4", "leads_out/v.mp4", "file.mp4", "made.mp4", "part.mp4")
    folder = member("leads_out/new", type=tarfile.DIRTYPE)
    report = unpack_one(archive(tmp_path / "a.tar.gz", dict.fromkeys(names, b"evil"), folder), output)
    assert report.num_files == 1
    assert (output / "real/v.mp4").read_bytes() == b"evil"
    assert sum(report.refused.values()) == 5
    assert tree_bytes(outside) == {"f.mp4": b"mine"}
    assert not (output / ".a.tar.gz.civid-unpacked").exists(), "the user may clear the way and run it again"


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "out"
    mine = {"top.mp4": b"other size", "chunk/0/a-Scene-001.mp4": b"x" * 5120, "chunk/1": "a file, not a folder"}
    write_tree(output, mine | {"chunk/0/empty.mp4": b""})
    before = identities(output)
    report = unpack_one(archive(tmp_path / "a.tar.gz"), output)
    assert report.refused == {"exists with other content": 2, "Not a directory": 1}
    assert (report.num_files, report.num_skipped) == (0, 1), "the same bytes at another time are the same file"
    assert identities(output) == before


def test_odd_times_are_kept_within_what_a_disk_can_hold(tmp_path: Path) -> None:
    for number, mtime in enumerate((-5.0, 1e18, 1234.75)):
        path = tmp_path / f"{number}.tar.gz"
        path.write_bytes(gzip.compress(tar_bytes({"a.mp4": b"x"}, mtime=mtime)))
        unpack_one(path, tmp_path / str(number))
        assert (tmp_path / str(number) / "a.mp4").stat().st_mtime == (1234 if mtime == 1234.75 else 0)


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = {f"{i}.mp4": os.urandom(300_000) for i in range(4)}
    paths = [archive(tmp_path / "a.tar.gz", big), archive(tmp_path / "b.tar.gz", big)]
    output = tmp_path / "out"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 2_000_000))
    with pytest.raises(OutputError, match=r"lacks 0\.\d\d\d GB of .* a\.tar\.gz and 1 more .*make room"):
        unpack(*paths, output=output)
    assert videos(output) == {}
    unpack(paths[0], output=output)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 700_000))
    (output / ".a.tar.gz.civid-unpacked").unlink()
    (output / "3.mp4").unlink()
    assert unpack_one(paths[0], output).num_files == 1, "what is there needs no room"


def test_a_disk_that_is_full_midway_keeps_what_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, output, write = archive(tmp_path / "a.tar.gz"), tmp_path / "out", member_files._write

    def full(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        if path.name.startswith("日本"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(member_files, "_write", full)
    with pytest.raises(OutputError, match=r"disk is full, at .*日本.* of a\.tar\.gz\. The 2 files"):
        unpack(path, output=output)
    assert videos(output) == {name: FILES[name] for name in [*FILES][:2]}
    monkeypatch.undo()
    report = unpack_one(path, output)
    assert (report.num_files, report.num_skipped) == (2, 2)


def test_wrong_arguments_are_answered_before_anything_is_done(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz")
    for wrong in (tmp_path / "b.tar.gz", tmp_path):
        with pytest.raises(ArchiveError, match="no such file"):
            unpack(path, wrong, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="not a folder"):
        unpack(path, output=path)


def test_one_process_per_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    taken = FileLock(tmp_path / "out/.civid-unpack.lock")
    with taken, pytest.raises(OutputError, match="another process unpacks there"):
        unpack(archive(tmp_path / "a.tar.gz"), output=tmp_path / "out")


NAMES = st.lists(
    st.sampled_from(["..", ".", "", "a", "b.mp4", "link", "\\", "\0", "日", "\udc80", "x.incomplete", "C:", "~", "\n"]),
    max_size=6,
).map("/".join)
TYPES = st.sampled_from([*tarfile.REGULAR_TYPES, *tarfile.SUPPORTED_TYPES, b"9"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NAMES, TYPES, NAMES, st.integers(0, 700)), max_size=8), st.data())
def test_nothing_is_ever_written_outside(members: list[tuple[str, bytes, str, int]], data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape") as tar:
        for name, kind, target, size in members:
            tar.addfile(member(name, size, type=kind, linkname=target), io.BytesIO(bytes(size)))
    packed = bytearray(buffer.getvalue())
    for spot in data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=2)):
        packed[spot] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        root = write_tree(Path(folder), {"secret": "mine", "up/out/link_target": "mine"})
        (root / "up/out/link").symlink_to(root)
        (root / "a.tar").write_bytes(packed)
        unpack_one(root / "a.tar", root / "up/out")
        assert {path.name for path in root.iterdir()} == {"secret", "up", "a.tar"}
        assert [path.name for path in (root / "up").iterdir()] == ["out"]
        assert (root / "secret").read_bytes() == b"mine"
        links = [path for path in (root / "up").rglob("*") if path.is_symlink()]
        assert links == [root / "up/out/link"]
        assert not [path for path in (root / "up").rglob("*.incomplete") if path.is_file()]


def test_a_bar_of_bytes_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from civid_loader.progress import track_bytes

    for is_terminal, quiet in ((False, False), (True, True), (True, False)):
        if is_terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
        with track_bytes(label="[a].tar.gz", total_bytes=2_000_000, quiet=quiet) as show:
            show(1_000_000)
            show(2_000_000)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ("[a].tar.gz" in shown.err) == (is_terminal and not quiet)
        assert ("2.0/2.0 MB" in shown.err) == (is_terminal and not quiet)
