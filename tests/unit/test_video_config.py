"""The `videos` config: what goes in, what stock readers get back, and that it survives a kill."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from civid_loader.errors import AnnotationError, OutputError, VideoNotFoundError
from civid_loader.hub import video_config, video_places, video_plan
from civid_loader.hub.video_config import planned_videos, write_video_config
from civid_loader.hub.video_report import VideoConfigReport
from civid_loader.probing.dataset import probe_dataset
from civid_loader.storage import read_manifest, read_table, shards
from civid_loader.videos import open_video
from support.built import clip, write_dataset
from support.media import write_video

SAMPLES = {"train": [["a"], ["b", "c"], ["d"], ["e", "f", "g"], ["a", "h"]], "test": [["i"], ["j"]]}
"""Clips of each sample; clip a is in two."""
NAMES = "abcdefghij"


def contents(name: str) -> bytes:
    """The bytes of the file of a clip; not one like another."""
    return random.Random(name).randbytes(20_000 + 1000 * NAMES.index(name))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.mp4").write_bytes(contents(name))
    return folder


def built(root: Path) -> Path:
    """A dataset of clips that name their files."""
    rows = {split: [[clip(n, f"{n}.mp4") for n in names] for names in of] for split, of in SAMPLES.items()}
    return write_dataset(root, rows)


def pack(root: Path, files: Path | None, **options: Any) -> VideoConfigReport:
    return write_video_config(root, video_root=files, quiet=True, **{"shard_bytes": 60_000, **options})


def everything(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def order(root: Path, split: str) -> list[str]:
    return [
        str(one) for path in shards(root, "videos", split=split) for one in pq.read_table(path)["clip_id"].to_pylist()
    ]


def places(root: Path) -> dict[str, tuple[Any, ...]]:
    rows = read_table(root, "media").to_pylist()
    return {row["clip_id"]: (row["shard"], row["byte_offset"], row["num_bytes"]) for row in rows}


def read_at(root: Path, place: tuple[Any, ...]) -> bytes:
    shard, offset, num_bytes = place
    return (root / str(shard)).read_bytes()[offset : offset + num_bytes]


def test_stock_datasets_reads_every_file(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    report = pack(root, files)
    assert (report.num_clips, report.num_inside, report.num_missing) == (10, 10, 0)
    assert report.num_bytes == sum(len(contents(name)) for name in NAMES)
    assert report.num_shards == report.num_written == len(shards(root, "videos")) > 3
    for split, names in (("train", "abcdefgh"), ("test", "ij")):
        rows = datasets.load_dataset(str(root), "videos", split=split, cache_dir=str(tmp_path / "cache"))
        assert isinstance(rows.features["video"], datasets.Video)
        plain = rows.cast_column("video", datasets.Video(decode=False))
        assert {row["clip_id"]: row["video"]["bytes"] for row in plain} == {name: contents(name) for name in names}
    assert len(datasets.load_dataset(str(root), split="train", cache_dir=str(tmp_path / "cache"))) == 5
    manifest = read_manifest(root)
    assert manifest["num_rows"]["videos"] == {"train": 8, "test": 2}
    assert not (root / video_config.WORK).exists()


def test_samples_are_shuffled_and_stay_together(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    pack(root, files)
    train = "".join(order(root, "train"))
    assert sorted(train) == list("abcdefgh")
    assert train != "abcdefgh"
    assert "bc" in train
    assert "efg" in train


def test_the_media_layer_tells_where_each_clip_lies(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    pack(root, files)
    assert list(places(root)) == list(NAMES), "the order of the annotations"
    assert {name: read_at(root, place) for name, place in places(root).items()} == {n: contents(n) for n in NAMES}
    assert set(read_table(root, "media")["status"].to_pylist()) == {"not_checked"}
    assert read_manifest(root)["num_rows"]["media"] == {"train": 8, "test": 2}


def test_a_media_layer_keeps_all_else_it_knows(tmp_path: Path, files: Path) -> None:
    for name in NAMES:
        write_video(files / f"{name}.mp4", num_frames=5 + NAMES.index(name))
    (files / "d.mp4").unlink()
    root = built(tmp_path / "data")
    probe_dataset(root, videos=files, quiet=True)
    before, told = read_table(root, "media"), read_manifest(root)["media"]
    names = [path.name for path in shards(root, "media")]
    pack(root, files)
    after = read_table(root, "media")
    known = [name for name in before.column_names if name not in ("shard", "byte_offset")]
    assert after.select(known).equals(before.select(known)), "num_bytes too: the files are those that were probed"
    assert after.schema.equals(before.schema, check_metadata=True)
    assert [path.name for path in shards(root, "media")] == names
    assert read_manifest(root)["media"] == told
    for name, place in places(root).items():
        assert place[0] is None if name == "d" else read_at(root, place) == (files / f"{name}.mp4").read_bytes()


def test_after_probing_again_the_places_are_told_again(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    pack(root, files)
    before = everything(root)
    probe_dataset(root, videos=files, quiet=True)
    assert set(read_table(root, "media")["status"].to_pylist()) == {"unreadable"}
    report = pack(root, files)
    assert report.num_written == 0
    assert {name: read_at(root, place) for name, place in places(root).items()} == {n: contents(n) for n in NAMES}
    assert {path: data for path, data in everything(root).items() if path.startswith("videos/")} == {
        path: data for path, data in before.items() if path.startswith("videos/")
    }


def test_missing_files_are_left_out_and_listed(tmp_path: Path, files: Path) -> None:
    (files / "c.mp4").unlink()
    (files / "i.mp4").write_bytes(b"")
    root = built(tmp_path / "data")
    report = pack(root, files)
    assert (report.num_inside, report.num_missing) == (8, 2)
    assert report.examples[0].startswith("c: no file 'c.mp4'")
    lines = [json.loads(line) for line in (root / video_config.REJECTED).read_text().splitlines()]
    assert [line["clip_id"] for line in lines] == ["c", "i"]
    assert places(root)["c"] == (None, None, None)
    (files / "c.mp4").write_bytes(contents("c"))
    assert pack(root, files).num_missing == 1
    assert places(root)["c"][0] is not None
    assert open_video("videos:c", root=None, dataset=str(root)).size() == len(contents("c"))


def test_a_second_run_does_nothing_new(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    first = pack(root, files)
    before = everything(root)
    again = pack(root, files)
    assert (again.num_written, again.num_inside, first.num_written) == (0, 10, again.num_shards)
    assert everything(root) == before
    assert pack(root, files, shard_bytes=10**9).num_shards == 2, "other options, other shards"
    assert len(list((root / "videos").iterdir())) == 2


def test_spans_are_refused(tmp_path: Path, files: Path) -> None:
    cut = clip("s", "a.mp4", span=(1.0, 2.0))
    root = write_dataset(
        tmp_path / "data", {"train": [[clip("a", "a.mp4")], [cut], [clip("w", "b.mp4", span=(0.0, None))]]}
    )
    with pytest.raises(AnnotationError, match=r"1 of 3 clips are spans.*first clip s, of 'a.mp4'.*civid proxies"):
        pack(root, files)
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "manifest.json"]


def test_a_dataset_with_videos_of_its_own_is_left_alone(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    pack(root, files)
    own = write_dataset(tmp_path / "own", {"train": [[clip("a", "videos:a")]]})
    shutil.copytree(root / "videos", own / "videos")
    manifest = read_manifest(own)
    for key in ("shards", "num_rows"):
        manifest[key]["videos"] = read_manifest(root)[key]["videos"]
    (own / "manifest.json").write_text(json.dumps(manifest))
    before = everything(own)
    report = pack(own, None)
    assert report.is_kept
    assert report.num_inside == 10
    assert everything(own) == before


def test_what_cannot_be_done_is_told_before_it_is_begun(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = built(tmp_path / "data")
    with pytest.raises(VideoNotFoundError, match=r"are relative: .*--video-root"):
        pack(root, None)
    with pytest.raises(VideoNotFoundError, match="no folder"):
        pack(root, tmp_path / "gone")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(VideoNotFoundError, match=r"not one of the 10 clips.*The first, a: no file"):
        pack(root, empty)
    with pytest.raises(AnnotationError, match="no built dataset"):
        pack(files, files)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"the disk has 0\.000 GB free; make room"):
        pack(root, files)
    assert not (root / "videos").exists()


def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = built(tmp_path / "data")
    measured = video_plan.read_sizes

    def then_grow(*given: Any, **options: Any) -> Any:
        sizes = measured(*given, **options)
        (files / "g.mp4").write_bytes(b"longer" * 9999)
        return sizes

    monkeypatch.setattr(video_config, "read_sizes", then_grow)
    with pytest.raises(OutputError, match=r"clip g: its file no longer has 26,000 bytes.*delete .*incomplete-videos"):
        pack(root, files)
    with pytest.raises(OutputError, match="differs in shard_bytes"):
        pack(root, files, shard_bytes=10**6)


KILLED = """
import sys
from pathlib import Path
from civid_loader.hub.video_config import planned_videos, write_video_config
print("ready", flush=True)
report = write_video_config(Path(sys.argv[1]), video_root=sys.argv[2], shard_bytes=60_000, quiet=True)
print(report.num_written)
"""


def _runs(root: Path, files: Path, delays_seconds: Sequence[float]) -> int:
    """Start and kill a run for each delay; returns how many were still at work."""
    num_killed = 0
    for delay_seconds in delays_seconds:
        command = [sys.executable, "-c", KILLED, str(root), str(files)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            client.stdout.readline()
            time.sleep(delay_seconds)
            os.kill(client.pid, signal.SIGKILL)
            client.stdout.read()
        num_killed += client.returncode == -signal.SIGKILL
    return num_killed


def test_killed_at_any_moment_a_rerun_ends_with_the_same_bytes(tmp_path: Path, files: Path) -> None:
    clean = built(tmp_path / "clean")
    pack(clean, files)
    root = built(tmp_path / "data")
    delays = random.Random(3)
    assert _runs(root, files, [delays.uniform(0, 0.12) for _ in range(4)]) > 0
    pack(root, files)
    assert everything(root) == everything(clean)


STEPS = [
    *((video_config, "write_video_shard", turn) for turn in (1, 2, 4)),
    *((video_config, "replace", turn) for turn in (1, 2)),
    (video_config, "write_places", 1),
    (video_places, "write_shard", 2),
    (video_places, "replace", 2),
    (video_places, "write_json", 1),
    *((video_config, "write_json", turn) for turn in (1, 2)),
    (video_config, "add_table", 1),
]


@pytest.mark.parametrize(("module", "step", "turn"), STEPS)
def test_cut_off_at_any_step_a_rerun_ends_with_the_same_bytes(
    module: ModuleType, step: str, turn: int, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = built(tmp_path / "clean")
    pack(clean, files)
    root = built(tmp_path / "data")
    original, num_calls = getattr(module, step), 0

    def cut_off(*given: Any, **options: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == turn:
            raise KeyboardInterrupt
        return original(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, step, cut_off)
        with pytest.raises(KeyboardInterrupt):
            pack(root, files)
    report = pack(root, files)
    assert everything(root) == everything(clean)
    if step == "write_video_shard":
        assert report.num_written == report.num_shards - (turn - 1), "finished shards are not written again"


def test_urls_and_members_of_archives_go_in(tmp_path: Path, files: Path) -> None:
    subprocess.run(["tar", "-cf", "b.tar", "b.mp4"], cwd=files, check=True)
    pointers = {"a": f"file://{files}/a.mp4", "b": "b.tar!b.mp4", "c": str(files / "c.mp4"), "n": None}
    root = write_dataset(tmp_path / "data", {"train": [[clip(name, pointer)] for name, pointer in pointers.items()]})
    report = pack(root, files)
    assert report.examples == ("n: upstream names no video",)
    assert {name: read_at(root, places(root)[name]) for name in "abc"} == {name: contents(name) for name in "abc"}
    assert isinstance(read_table(root, "videos"), pa.Table)


def test_probing_keeps_the_places(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "0.mp4", num_frames=8, gop=4, size=(32, 48))
    root = write_dataset(tmp_path / "set", {"train": [[clip("c0", "0.mp4")]]})
    write_video_config(root, video_root=tmp_path / "videos", quiet=True)
    told = read_table(root, "media").select(["clip_id", "shard", "byte_offset", "num_bytes"]).to_pylist()
    for _ in range(2):  # looked into, and left as it was
        probe_dataset(root, videos=tmp_path / "videos", quiet=True)
        found = read_table(root, "media")
        assert found.select(["clip_id", "shard", "byte_offset", "num_bytes"]).to_pylist() == told
        assert found["status"].to_pylist() == ["ok"]


def test_a_shard_size_is_kept(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    num_shards = pack(root, files).num_shards
    assert num_shards > 3
    report = write_video_config(root, video_root=files, quiet=True)
    assert (report.num_shards, report.num_written) == (num_shards, 0)


def test_what_would_be_written_is_told_and_nothing_changes(tmp_path: Path, files: Path) -> None:
    root = built(tmp_path / "data")
    before = everything(root)
    planned = planned_videos(root, video_root=files, quiet=True)
    assert planned is not None
    assert [(one.name, one.num_bytes) for one in planned] == [
        ("videos/train-00000-of-00001.parquet", sum(len(contents(name)) for name in "abcdefgh")),
        ("videos/test-00000-of-00001.parquet", sum(len(contents(name)) for name in "ij")),
    ]
    assert everything(root) == before
    pack(root, files)
    assert planned_videos(root, video_root=files, quiet=True) is None, "all is there"


@pytest.mark.parametrize("kind", ["tar", "url"])
def test_the_video_root_may_be_a_url_or_an_archive(tmp_path: Path, files: Path, kind: str) -> None:
    root = built(tmp_path / "data")
    archive = tmp_path / "all.tar"
    subprocess.run(["tar", "-cf", str(archive), *(f"{name}.mp4" for name in NAMES)], cwd=files, check=True)
    write_video_config(root, video_root=str(archive) if kind == "tar" else f"file://{files}", quiet=True)
    assert {name: read_at(root, place) for name, place in places(root).items()} == {n: contents(n) for n in NAMES}
    note = tmp_path / "note.txt"
    note.touch()
    with pytest.raises(VideoNotFoundError, match=r"neither a folder nor a \.tar or \.zip"):
        pack(built(tmp_path / "other"), note)
