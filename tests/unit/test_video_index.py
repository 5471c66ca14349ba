"""Which file is meant: found by name and path tail below a root, in folders and tars alike, never outside."""

import io
import os
import re
import tarfile
import tempfile
import unicodedata
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civid_loader.errors import AnnotationError
from civid_loader.upstream.video_index import VIDEO_SUFFIXES, VideoIndex, locate, relative_name
from support.trees import write_tar, write_tree

ONE, TWO = "0123456789abcdef" * 2, "fedcba9876543210" * 2


def scan(root: Path, *names: str) -> VideoIndex:
    root.mkdir(parents=True, exist_ok=True)
    return VideoIndex.scan(str(write_tree(root, dict.fromkeys(names, b"video"))))


def pointers(index: VideoIndex) -> list[str]:
    return sorted(index.pointer.to_pylist())


def find(index: VideoIndex, *names: str | None) -> list[str | None]:
    found: list[str | None] = index.find(pa.array(names, pa.string()))[0].to_pylist()
    return found


def ambiguous(index: VideoIndex, *names: str) -> list[bool]:
    flags: list[bool] = index.find(pa.array(names, pa.string()))[1].tolist()
    return flags


def test_videos_are_listed_at_any_depth_and_other_files_are_not(tmp_path: Path) -> None:
    index = scan(tmp_path, "a.mp4", "deep/er/b.AVI", "deep/c.webm", "notes.txt", "d.mp4.part", "mp4", "deep/e.json")
    assert pointers(index) == ["a.mp4", "deep/c.webm", "deep/er/b.AVI"]
    assert index.skipped == {}


def test_members_of_a_tar_are_listed_like_files(tmp_path: Path) -> None:
    write_tar(tmp_path / "part" / "x.tar", {"in/a.mp4": b"v", "./in/b.mp4": b"v", "c.txt": b"t", "d.MKV": b"v"})
    index = scan(tmp_path, "in/e.mp4")
    assert pointers(index) == ["in/e.mp4", "part/x.tar!./in/b.mp4", "part/x.tar!d.MKV", "part/x.tar!in/a.mp4"]
    assert find(index, "in/a.mp4", "in/b.mp4", "d.mkv", "c.mp4") == [
        "part/x.tar!in/a.mp4", "part/x.tar!./in/b.mp4", "part/x.tar!d.MKV", None,
    ]  # fmt: skip


def test_the_longest_common_path_tail_wins_wherever_it_lies(tmp_path: Path) -> None:
    write_tar(tmp_path / "chunk.tar", {"one/two/x.mp4": b"v"})
    index = scan(tmp_path, "two/x.mp4", "other/x.mp4", "x.mp4")
    assert find(index, "one/two/x.mp4", "zero/two/x.mp4", "other/x.mp4") == [
        "chunk.tar!one/two/x.mp4", "chunk.tar!one/two/x.mp4", "other/x.mp4",
    ]  # fmt: skip
    assert ambiguous(index, "one/two/x.mp4", "zero/two/x.mp4", "other/x.mp4") == [False, True, False]


def test_of_files_that_fit_equally_well_the_first_by_name_is_taken_and_said_so(tmp_path: Path) -> None:
    index = scan(tmp_path, "b/x.mp4", "a/x.mp4", "c/y.mp4")
    assert find(index, "x.mp4", "c/x.mp4", "y.mp4") == ["a/x.mp4", "a/x.mp4", "c/y.mp4"]
    assert ambiguous(index, "x.mp4", "c/x.mp4", "y.mp4") == [True, True, False]


def test_a_member_stored_twice_is_one_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for _ in range(2):
            member = tarfile.TarInfo("a.mp4")
            member.size = 1
            tar.addfile(member, io.BytesIO(b"v"))
    index = scan(tmp_path)
    assert find(index, "a.mp4") == ["x.tar!a.mp4"]
    assert ambiguous(index, "a.mp4") == [False]


def test_another_container_fits_and_the_very_name_fits_better(tmp_path: Path) -> None:
    index = scan(tmp_path, "a.mkv", "b.avi", "b.mkv", "b.mp4")
    assert find(index, "a.mp4", "a") == ["a.mkv", "a.mkv"]
    assert find(index, "b.mp4", "b.avi") == ["b.mp4", "b.avi"]
    assert ambiguous(index, "a.mp4", "b.mp4", "b.avi") == [False, False, False]


def test_never_a_file_in_another_videos_digest_folder(tmp_path: Path) -> None:
    index = scan(tmp_path, f"chunk/{ONE}/clip-Scene-001.mp4", "plain/other-Scene-001.mp4")
    assert find(index, f"{TWO}/clip-Scene-001.mp4") == [None]
    assert (
        find(index, f"{ONE}/clip-Scene-001.mp4", f"x/{ONE}/clip-Scene-001.mp4")
        == [f"chunk/{ONE}/clip-Scene-001.mp4"] * 2
    )
    assert find(index, "clip-Scene-001.mp4", f"{TWO}/other-Scene-001.mp4") == [
        f"chunk/{ONE}/clip-Scene-001.mp4", "plain/other-Scene-001.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["BlUTkf-_GTg.66_3.mp4", "-RCZ_gmjtLU.14_2.mp4", "1431495.10.mp4", "a b.mp4", "日本.mp4", "..a.mp4"],
)
def test_names_with_dots_and_dashes_and_other_scripts_are_found_whole(tmp_path: Path, name: str) -> None:
    index = scan(tmp_path, f"in/{name}")
    stem = name.removesuffix(".mp4")
    assert find(index, name, f"in/{stem}") == [f"in/{name}"] * 2
    assert find(index, stem[:-1], f"{stem}x.mp4", stem.rpartition(".")[0] or "-") == [None] * 3


def test_an_exclamation_mark_in_a_name_is_part_of_the_name(tmp_path: Path) -> None:
    index = scan(tmp_path, "Wow!.mp4", "Oh!/my!x.mp4", "z!.mp4")
    assert find(index, "Wow!.mp4", "Oh!/my!x.mp4", "Yay!.mp4", "x.mp4", ".mp4") == [
        "Wow!.mp4", "Oh!/my!x.mp4", None, None, None,
    ]  # fmt: skip


def test_names_are_the_same_whether_or_not_a_disk_decomposed_their_accents(tmp_path: Path) -> None:
    on_disk = unicodedata.normalize("NFD", "Café/Über.mp4")
    index = scan(tmp_path, on_disk, "other/Über.mp4")
    assert find(index, "Café/Über.mp4", on_disk) == [on_disk] * 2


def test_missing_names_find_nothing(tmp_path: Path) -> None:
    index = scan(tmp_path, "a.mp4", ".mp4")
    assert find(index, None, "a.mp4", "", "b.mp4") == [None, "a.mp4", None, None]
    assert index.find(pa.array([], pa.string()))[0].to_pylist() == []


def test_empty_files_and_dead_links_are_counted_and_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path, {"zero.mp4": b""})
    (tmp_path / "dead.mp4").symlink_to("gone.mp4")
    (tmp_path / "to-folder.mp4").symlink_to("in")
    (tmp_path / "live.mp4").symlink_to("in/a.mp4")
    index = scan(tmp_path, "in/a.mp4")
    assert pointers(index) == ["in/a.mp4", "live.mp4"]
    assert index.skipped == {"empty file or dead link": 3}


@pytest.mark.parametrize("target", ["loop.mp4", "other.mp4"])
def test_links_in_a_circle_are_counted_and_left_out(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop.mp4").symlink_to(target)
    (tmp_path / "other.mp4").symlink_to("loop.mp4")
    index = scan(tmp_path, "a.mp4")
    assert pointers(index) == ["a.mp4"]
    assert sum(index.skipped.values()) == 2


def test_links_out_of_the_root_are_counted_and_not_followed(tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"secret.mp4": b"v", "folder/more.mp4": b"v"})
    write_tar(outside / "o.tar", {"t.mp4": b"v"})
    root = tmp_path / "root"
    root.mkdir()
    (root / "file.mp4").symlink_to(outside / "secret.mp4")
    (root / "folder").symlink_to(outside / "folder")
    (root / "up.mp4").symlink_to("../outside/secret.mp4")
    (root / "o.tar").symlink_to(outside / "o.tar")
    index = scan(root, "a.mp4")
    assert pointers(index) == ["a.mp4"]
    assert index.skipped == {"link out of the root": 4}


def test_a_link_to_a_folder_in_the_root_is_not_walked_twice(tmp_path: Path) -> None:
    index = scan(tmp_path / "root", "a/x.mp4")
    (tmp_path / "root" / "b").symlink_to("a")
    (tmp_path / "root" / "a" / "up").symlink_to("..")
    assert pointers(scan(tmp_path / "root")) == pointers(index) == ["a/x.mp4"]


def test_a_root_that_is_a_link_is_scanned(tmp_path: Path) -> None:
    scan(tmp_path / "real", "a/x.mp4")
    (tmp_path / "link").symlink_to("real")
    assert pointers(VideoIndex.scan(str(tmp_path / "link"))) == ["a/x.mp4"]


def test_unsafe_empty_and_linked_members_are_counted_and_left_out(tmp_path: Path) -> None:
    unsafe = {"../up.mp4": b"v", "a/../../up.mp4": b"v", "/etc/abs.mp4": b"v"}
    write_tar(tmp_path / "x.tar", unsafe | {"zero.mp4": b"", "fine..mp4": b"v"}, links={"link.mp4": "/etc/passwd"})
    index = scan(tmp_path)
    assert pointers(index) == ["x.tar!fine..mp4"]
    assert index.skipped == {"archive member with an unsafe name": 3, "empty, sparse or linked archive member": 2}


def test_archives_that_cannot_be_read_in_place_are_counted(tmp_path: Path) -> None:
    write_tree(tmp_path, dict.fromkeys(("a.tar.gz", "b.tgz", "c.tar.zst", "d.zip"), b"packed") | {"e.tar": b"junk"})
    whole = write_tar(tmp_path / "f.tar", {"in.mp4": b"v" * 2000, "cut.mp4": b"v"}).read_bytes()
    (tmp_path / "f.tar").write_bytes(whole[:1500])
    index = scan(tmp_path, "x.mp4")
    assert "x.mp4" in pointers(index)
    by_kind = {("archive" in reason, "broken" in reason): count for reason, count in index.skipped.items()}
    assert by_kind == {(True, False): 4, (True, True): 2}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("size", [1 << 70, 1 << 62, -512, -1024])
@pytest.mark.parametrize("name", ["odd.mp4", "odd.txt"])
def test_a_tar_that_states_an_absurd_size_is_a_broken_archive(tmp_path: Path, name: str, size: int) -> None:
    """Python's tarfile seeks to wherever a header says; what it then raises is not only its own errors."""
    member = tarfile.TarInfo(name)
    member.size = size
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    index = scan(tmp_path, "a.mp4")
    assert pointers(index) == ["a.mp4"]
    assert ["broken archive" in reason for reason in index.skipped] == [True]


@pytest.mark.parametrize("target", ["gone.tar", "folder"])
def test_a_link_called_tar_that_is_no_file_is_counted_and_left_out(tmp_path: Path, target: str) -> None:
    index = scan(tmp_path, "folder/a.mp4")
    (tmp_path / "x.tar").symlink_to(target)
    assert pointers(scan(tmp_path)) == pointers(index) == ["folder/a.mp4"]
    assert sum(scan(tmp_path).skipped.values()) == 1


@pytest.mark.timeout(5)
def test_a_pipe_is_no_video_and_no_archive_and_nobody_waits_for_it(tmp_path: Path) -> None:
    for name in ("x.tar", "y.mp4"):
        os.mkfifo(tmp_path / name)
    assert pointers(scan(tmp_path, "a.mp4")) == ["a.mp4"]


def test_names_that_are_not_utf8_are_counted_and_left_out(tmp_path: Path) -> None:
    scan(tmp_path, "a.mp4")
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"v")
    (tmp_path / os.fsdecode(b"f\xff")).mkdir()
    (tmp_path / os.fsdecode(b"f\xff") / "b.mp4").write_bytes(b"v")
    write_tar(tmp_path / "x.tar", {os.fsdecode(b"t\xe9.mp4"): b"v", "c.mp4": b"v"})
    index = scan(tmp_path)
    assert pointers(index) == ["a.mp4", "x.tar!c.mp4"]
    assert sum(index.skipped.values()) == 3


@pytest.mark.parametrize("name", ["absent", "file.mp4"])
def test_a_root_that_is_no_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {"file.mp4": b"v"})
    with pytest.raises(AnnotationError, match=f"{name}: not a readable folder; --videos"):
        VideoIndex.scan(str(tmp_path / name))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    write_tree(tmp_path / "root", {"zero.mp4": b"", "x.tar.gz": b"z"})
    for number, names in enumerate([("a.mp4", "b/a.mp4", "日本.mkv"), ()]):
        index = scan(tmp_path / "root", *names) if names else scan(tmp_path / "empty")
        index.save(tmp_path / f"{number}.arrow")
        loaded = VideoIndex.load(tmp_path / f"{number}.arrow")
        assert loaded.name_hash.tolist() == index.name_hash.tolist()
        assert loaded.pointer.equals(index.pointer)
        assert loaded.skipped == index.skipped
        wanted = ("b/a.mp4", "日本.mp4", "no.mp4")
        assert find(loaded, *wanted) == find(index, *wanted)


def located(index: VideoIndex | None, clips: list[str | None], *sources: list[str | None]) -> list[tuple[Any, ...]]:
    where = locate(index, pa.array(clips, pa.string()), [pa.array(names, pa.string()) for names in sources])
    columns = (where.trimmed, where.not_found, where.ambiguous)
    return [*zip(where.video.to_pylist(), *(column.tolist() for column in columns), strict=True)]


def test_a_clip_is_its_file_else_its_whole_video_else_its_name(tmp_path: Path) -> None:
    index = scan(tmp_path, "clips/a.mp4", "raw/v.mp4", "raw/u.mp4", "one/w.mp4", "two/w.mp4")
    clips: list[str | None] = ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"]
    assert located(index, clips, ["v", "v", "no", "no", None], [None, "u", "u", "no", "w"]) == [
        ("clips/a.mp4", True, False, False),
        ("raw/v.mp4", False, False, False),
        ("raw/u.mp4", False, False, False),
        ("d.mp4", True, True, False),
        ("one/w.mp4", False, False, True),
    ]


def test_without_a_root_upstreams_names_stand_unchecked() -> None:
    assert located(None, ["a.mp4", None], ["v", "v"]) == [("a.mp4", True, False, False), (None, True, False, False)]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/c.mp4", "a/b/c.mp4"),
        ("./a//b.mp4", "a/b.mp4"),
        ("/home/someone/data/md5/x.mp4", "md5/x.mp4"),
        ("../../data/md5/x.mp4", "md5/x.mp4"),
        ("a/../../x.mp4", "a/x.mp4"),
        ("C:\\data\\md5\\x.mp4", "md5/x.mp4"),
        ("\\\\host\\share\\md5\\x.mp4", "md5/x.mp4"),
        ("s3://bucket/deep/md5/x.mp4", "md5/x.mp4"),
        ("/x.mp4", "x.mp4"),
        ("", ""),
        ("..", ""),
        ("/", ""),
    ],
)
def test_a_path_out_of_an_annotation_becomes_a_name_below_the_root(path: str, name: str) -> None:
    assert relative_name(path) == name


PARTS = st.sampled_from(["a", "b", "c.d", "-e", ONE, TWO])
STEMS = st.sampled_from(["x", "y.1", "-z", "é"])
SUFFIX = st.sampled_from([".mp4", ".MKV", ".avi"])
FILES = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]), st.lists(PARTS, max_size=3), STEMS, SUFFIX
)


def best(wanted: str, files: set[str]) -> tuple[str | None, bool]:
    """The rule, file by file: same stem, not another video's digest folder, longest tail, very name, first by name."""

    def split(name: str) -> tuple[list[str], str, str]:
        *folders, base = re.split(r"/|(?<=\.tar)!", name)
        stem, dot, suffix = base.rpartition(".")
        return (folders, stem, base) if f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else (folders, base, base)

    fitting = []
    ours, stem, base = split(wanted)
    for file in files:
        theirs, their_stem, their_base = split(file)
        digests = [folders[-1] for folders in (ours, theirs) if folders and re.fullmatch("[0-9a-f]{32}", folders[-1])]
        if their_stem == stem and (len(digests) < 2 or digests[0] == digests[1]):
            pairs = zip(reversed(ours), reversed(theirs), strict=False)
            tail = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
            fitting.append((-tail, base != their_base, file))
    fitting.sort()
    if not fitting:
        return None, False
    return fitting[0][2], len(fitting) > 1 and fitting[0][:2] == fitting[1][:2]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.sets(FILES, max_size=8), st.sets(FILES, max_size=4), st.lists(FILES, max_size=6))
def test_every_lookup_is_what_comparing_with_every_file_gives(
    loose: set[str], packed: set[str], others: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if packed:
            write_tar(Path(folder, "a.tar"), dict.fromkeys(packed, b"v"))
        index = scan(Path(folder), *loose)
    files = loose | {f"a.tar!{name}" for name in packed}
    wanted = [*others, *sorted(loose | packed)]
    assert pointers(index) == sorted(files)
    found, several = index.find(pa.array(wanted, pa.string()))
    assert [*zip(found.to_pylist(), several.tolist(), strict=True)] == [best(name, files) for name in wanted]
