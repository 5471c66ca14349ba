"""`civid probe`: a row for every clip with what is really there; a second run looks only at what changed."""

import errno
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import load_dataset
from PIL import Image

import civid_loader as cl
from civid_loader.errors import OutputError, RemoteVideoError, VideoNotFoundError, VideoTimeoutError
from civid_loader.output import only_builder
from civid_loader.packets import PacketIndex
from civid_loader.probing import clip_files, dataset, jobs
from civid_loader.storage import read_manifest, read_table, shards, write_json
from civid_loader.video_shards import write_video_shard
from support.built import clip, write_dataset
from support.media import write_sound, write_video
from support.trees import tree_bytes

Row = dict[str, Any]


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "a.mp4", num_frames=50, fps=25)
    write_video(root / "b.mp4", num_frames=30, fps=30, size=(64, 96), rotation_degrees=90)
    write_video(root / "c.mkv", pts_seconds=[0.0, 0.1, 0.15, 0.9])
    write_sound(root / "sound.m4a")
    (root / "page.mp4").write_text("<html>404 Not Found</html>" * 40)
    (root / "empty.mp4").touch()
    whole = write_video(root / "whole.mp4", num_frames=60, container_options={"movflags": "faststart"}).read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    return root


@pytest.fixture
def videos(originals: Path, tmp_path: Path) -> Path:
    for name, content in tree_bytes(originals).items():
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(content)
    return tmp_path / "videos"


def _dataset(root: Path, *clips: Row, **splits: list[Row]) -> Path:
    every = {"train": list(clips), **splits}
    return write_dataset(root, {split: [[one] for one in of_split] for split, of_split in every.items() if of_split})


def _probe(root: Path, videos: Path | None, **options: Any) -> cl.ProbeReport:
    return cl.probe_dataset(root, videos=videos, quiet=True, **options)


def _rows(root: Path) -> dict[str, Row]:
    return {row["clip_id"]: row for row in read_table(root, "media").to_pylist()}


def _facts(root: Path) -> pa.Table:
    return read_table(root, "media").drop_columns("checked_at")


def test_statuses_and_reasons(tmp_path: Path, videos: Path) -> None:
    pointers = ("a.mp4", "gone.mp4", "empty.mp4", "sound.m4a", "page.mp4", "../out.mp4", None)
    root = _dataset(tmp_path / "out", *(clip(f"{i}", pointer) for i, pointer in enumerate(pointers)))
    report = _probe(root, videos)
    rows = list(_rows(root).values())
    expected = ["ok", "missing", "missing", "no_video", "unreadable", "unreadable", "missing"]
    assert [row["status"] for row in rows] == expected
    assert [row["video"] for row in rows] == list(pointers)
    assert rows[0]["reason"] is None
    assert rows[6]["reason"] == "upstream names no video"
    assert all(row["reason"] and str(tmp_path) not in row["reason"] for row in rows[1:])
    assert all(row["codec"] is None and row["packet_index"] is None for row in rows[1:])
    assert rows[4]["num_bytes"] == (videos / "page.mp4").stat().st_size
    assert report.statuses == {"missing": 3, "unreadable": 2, "ok": 1, "no_video": 1}
    assert sum(report.reasons["missing"].values()) == 3
    assert "no file '…' in the video root" in report.reasons["missing"]
    assert (report.num_clips, report.num_files, report.changes, report.first_are_missing) == (7, 6, None, 0)


def test_facts_of_a_whole_file_and_of_spans_in_it(tmp_path: Path, videos: Path) -> None:
    spans = {"start": (0.0, 1.0), "middle": (0.5, 1.02), "past": (1.5, 9.0), "after": (2.0, 3.0), "open": (1.0, None)}
    clips = [clip(name, "a.mp4", span=span) for name, span in spans.items()]
    root = _dataset(tmp_path / "out", clip("file", "a.mp4"), *clips, clip("b", "b.mp4"))
    report = _probe(root, videos)
    rows = _rows(root)
    assert [rows[name]["clip_num_frames"] for name in ("file", *spans)] == [50, 25, 13, 12, None, 25]
    seconds = [rows[name]["clip_duration_seconds"] for name in ("file", "start", "middle", "past", "open")]
    assert seconds == pytest.approx([2.0, 1.0, 0.52, 0.5, 1.0])
    assert {rows[name]["num_frames"] for name in ("file", *spans)} == {50}
    assert rows["after"]["status"] == "unreadable"
    assert "starts at 2.000 s, but the video ends at 2.000 s" in rows["after"]["reason"]
    assert (rows["b"]["width"], rows["b"]["height"], rows["b"]["rotation_degrees"] % 180) == (64, 96, 90)
    part = PacketIndex.from_bytes(rows["middle"]["packet_index"])
    whole = PacketIndex.from_bytes(rows["file"]["packet_index"])
    assert len(part.pts) < len(whole.pts) == 50
    assert part.span_seconds == (0.5, 1.02)
    assert part.offsets is not None
    assert whole.offsets is not None
    assert np.isin(part.offsets, whole.offsets).all()
    assert report.hours == pytest.approx((2.0 + 1.0 + 0.52 + 0.5 + 1.0 + 1.0) / 3600)


def test_a_cut_off_file_says_so_and_clips_beyond_its_end_are_unreadable(tmp_path: Path, videos: Path) -> None:
    clips = clip("early", "cut.mp4", span=(0.0, 0.5)), clip("late", "cut.mp4", span=(2.3, 2.4))
    root = _dataset(tmp_path / "out", *clips)
    report = _probe(root, videos)
    rows = _rows(root)
    assert [rows[name]["status"] for name in ("early", "late")] == ["ok", "unreadable"]
    assert rows["late"]["reason"].endswith("cut off")
    assert rows["early"]["is_truncated"]
    assert report.num_truncated == 1


def test_every_clip_once_in_the_order_of_the_annotations(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ROWS_PER_GROUP", 7)
    monkeypatch.setattr(dataset, "GROUPS_PER_SHARD", 2)
    monkeypatch.setattr(clip_files, "MAX_CLIPS", 5)
    rng = random.Random(0)
    names = ["a.mp4", "b.mp4", "c.mkv", "gone.mp4"]
    clips = [clip(f"{i}", rng.choice(names), span=(0.0, 0.1 + i / 100)) for i in range(40)]
    root = _dataset(tmp_path / "out", *clips, clips[3], test=[clips[5], clip("x", "a.mp4"), clip("y", None)])
    _probe(root, videos)
    table = read_table(root, "media")
    assert table["clip_id"].to_pylist() == [*(f"{i}" for i in range(40)), "x", "y"]
    assert table["video"].to_pylist() == [*(one["video"] for one in clips), "a.mp4", None]
    assert [path.name for path in shards(root, "media")] == [
        *(f"train-0000{i}-of-00003.parquet" for i in range(3)), "test-00000-of-00001.parquet",
    ]  # fmt: skip
    other = _dataset(tmp_path / "other", *clips, clips[3], test=[clips[5], clip("x", "a.mp4"), clip("y", None)])
    _probe(other, videos, num_proc=2)
    assert _facts(other).equals(_facts(root))


def _counting(monkeypatch: pytest.MonkeyPatch, name: str = "probe") -> list[str]:
    """Names of the sources that `jobs.<name>` is called with."""
    seen: list[str] = []
    real: Callable[..., Any] = getattr(jobs, name)

    def counted(source: Any, **options: Any) -> Any:
        seen.append(Path(getattr(source, "name", source)).name)
        return real(source, **options)

    monkeypatch.setattr(jobs, name, counted)
    return seen


def test_each_file_is_opened_once(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _counting(monkeypatch)
    clips = [clip(f"{i}", ("a.mp4", "b.mp4")[i % 2], span=(0.0, 0.5)) for i in range(20)]
    _probe(_dataset(tmp_path / "out", *clips), videos)
    assert seen == ["a.mp4", "b.mp4"]


def test_a_second_run_looks_only_at_what_changed_and_says_so(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.mp4", "b.mp4", "c.mkv", "gone.mp4", "page.mp4", "whole.mp4"]
    root = _dataset(tmp_path / "out", *(clip(name, name) for name in names), clip("span", "a.mp4", span=(0.0, 1.0)))
    _probe(root, videos)
    before, times = _facts(root), read_table(root, "media")["checked_at"].to_pylist()
    seen = _counting(monkeypatch)
    again = _probe(root, videos)
    assert (seen, again.changes, again.num_unchanged) == ([], {}, 5)
    assert _facts(root).equals(before)
    assert read_table(root, "media")["checked_at"].to_pylist() > times
    (videos / "gone.mp4").write_bytes((videos / "b.mp4").read_bytes())
    (videos / "b.mp4").unlink()
    (videos / "page.mp4").write_bytes((videos / "a.mp4").read_bytes())
    write_video(videos / "c.mkv", num_frames=10)
    (videos / "whole.mp4").write_text("not a video")
    changed = _probe(root, videos, num_proc=2).changes
    assert changed is not None
    assert {kind: (change.num_files, change.first) for kind, change in changed.items()} == {
        "newly missing": (1, ("b.mp4",)),
        "newly found": (1, ("gone.mp4",)),
        "changed content": (1, ("c.mkv",)),
        "ok → unreadable": (1, ("whole.mp4",)),
        "unreadable → ok": (1, ("page.mp4",)),
    }
    assert _rows(root)["c.mkv"]["num_frames"] == 10
    fresh = _dataset(tmp_path / "fresh", *(clip(name, name) for name in names), clip("span", "a.mp4", span=(0.0, 1.0)))
    _probe(fresh, videos)
    assert _facts(root).equals(_facts(fresh))


def test_another_version_looks_at_everything_again(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _dataset(tmp_path / "out", clip("a", "a.mp4"))
    _probe(root, videos)
    manifest = read_manifest(root)
    manifest["media"]["made_with"]["av"] = "0"
    write_json(root / "manifest.json", manifest)
    seen = _counting(monkeypatch)
    assert _probe(root, videos).changes == {}
    assert seen == ["a.mp4"]


def test_hash_completes_rows_and_is_kept(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    root = _dataset(tmp_path / "out", clip("a", "a.mp4"), clip("page", "page.mp4"))
    _probe(root, videos)
    assert _rows(root)["a"]["sha256"] is None
    _probe(root, videos, with_sha256=True)
    assert _rows(root)["a"]["sha256"] == hashlib.sha256((videos / "a.mp4").read_bytes()).hexdigest()
    seen = _counting(monkeypatch)
    _probe(root, videos)
    _probe(root, videos, with_sha256=True)
    assert _rows(root)["a"]["sha256"]
    assert not seen


@pytest.mark.parametrize("error", [RemoteVideoError("503"), VideoTimeoutError("slow"), OSError(errno.EIO, "I/O error")])
def test_what_could_not_be_checked_is_tried_again(
    error: Exception, tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _dataset(tmp_path / "out", clip("a", "a.mp4"))

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "probe", fail)
        assert _probe(root, videos).statuses == {"not_checked": 1}
        assert _rows(root)["a"]["reason"]
    report = _probe(root, videos)
    assert report.statuses == {"ok": 1}
    assert list(report.changes or ()) == ["not_checked → ok"]


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no boto"), OSError(errno.EMFILE, "too many open files")])
def test_errors_of_the_system_stop_at_once(
    error: Exception, tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _dataset(tmp_path / "out", clip("a", "a.mp4"))

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(jobs, "probe", fail)
    with pytest.raises(type(error)):
        _probe(root, videos)


def test_a_wrong_root_is_one_error_and_an_empty_one_is_suspected(tmp_path: Path, videos: Path) -> None:
    root = _dataset(tmp_path / "out", clip("a", "a.mp4"), clip("b", "b.mp4"))
    with pytest.raises(VideoNotFoundError, match="is no folder"):
        _probe(root, tmp_path / "none")
    with pytest.raises(VideoNotFoundError, match=r"'a\.mp4' are relative"):
        _probe(root, None)
    (tmp_path / "empty").mkdir()
    assert _probe(root, tmp_path / "empty").first_are_missing == 2
    assert _probe(_dataset(tmp_path / "absolute", clip("a", str(videos / "a.mp4"))), None).statuses == {"ok": 1}


def test_unfinished_runs_collide_with_nothing(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _dataset(tmp_path / "out", clip("a", "a.mp4"))
    with only_builder(root / dataset.WORK), pytest.raises(OutputError, match="another process"):
        _probe(root, videos)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "probe", _out_of_memory)
        with pytest.raises(MemoryError):
            _probe(root, videos)
    with pytest.raises(OutputError, match="differs in hash"):
        _probe(root, videos, with_sha256=True)
    # Other annotations: what was found of the old ones is of no use.
    _dataset(root, clip("b", "b.mp4"))
    _probe(root, videos, with_sha256=True)
    assert list(_rows(root)) == ["b"]
    assert not (root / dataset.WORK).exists()


def _out_of_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError


def test_clips_in_the_datasets_own_shards_have_a_place(tmp_path: Path, originals: Path) -> None:
    root = _dataset(tmp_path / "out", clip("a", "videos:a"), clip("c", "videos:c"), clip("x", "videos:x"))
    contents = {"a": (originals / "a.mp4").read_bytes(), "c": (originals / "c.mkv").read_bytes()}
    write_video_shard(root / "videos/train-00000-of-00001.parquet", contents.items())
    _probe(root, None)
    again = _probe(root, None)
    rows = _rows(root)
    assert again.num_unchanged == 2
    assert [rows[name]["status"] for name in "acx"] == ["ok", "ok", "missing"]
    for name, content in contents.items():
        start = rows[name]["byte_offset"]
        shard = (root / rows[name]["shard"]).read_bytes()
        assert shard[start : start + rows[name]["num_bytes"]] == content


def test_stock_datasets_loads_the_layer_and_inspect_counts_it(tmp_path: Path, videos: Path) -> None:
    root = _dataset(tmp_path / "out", clip("a", "a.mp4"), clip("b", "b.mp4"), test=[clip("c", "c.mkv")])
    (root / "README.md").write_text(
        "---\nlicense: other\n---\n# Mine\n\n| config | split | rows |\n|---|---|---|\n| a | b | 1 |\n"
    )
    for _ in range(2):
        _probe(root, videos)
    assert load_dataset(str(root), split="train").num_rows == 2
    media = load_dataset(str(root), "media")
    assert {split: rows["clip_id"][:] for split, rows in media.items()} == {"train": ["a", "b"], "test": ["c"]}
    assert media["test"].features["packet_index"].dtype == "binary"
    card = (root / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert "| a | b | 1 |\n| media | train | 2 |\n| media | test | 1 |\n" in card
    assert card.count("| media |") == 2
    from civid_loader.inspection import inspect

    assert inspect(root).counts["media train"] == 2


def test_the_report_sums_up_and_the_picture_shows_it(tmp_path: Path, videos: Path) -> None:
    root = _dataset(
        tmp_path / "out", clip("a", "a.mp4"), clip("b", "b.mp4"), clip("c", "c.mkv"), clip("s", "sound.m4a")
    )
    report = _probe(root, videos)
    assert report.histograms == {
        "short side, px": {"< 240": 3},
        "codec": {"h264": 3},
        "frames per second": {"< 24": 1, "24": 0, "25": 1, "26-29": 0, "30": 1},
        "clip duration, s": {"< 2": 2, "2-5": 1},
    }
    assert report.num_vfr == 1
    with Image.open(report.picture) as picture:
        assert picture.width > 1000
        assert len(picture.getcolors(1 << 20) or ()) > 10
    assert json.dumps(report.statuses)


def test_the_command_prints_tables_or_json(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from civid_loader.cli import app

    monkeypatch.setenv("COLUMNS", "200")
    root = _dataset(tmp_path / "out", clip("a", "a.mp4"), clip("g", "gone.mp4"))
    app(["probe", str(root), "--videos", str(videos)], standalone_mode=False)
    text = capsys.readouterr().out
    for word in ("ok", "missing", "no file '…' in the video root", "h264", "media.png", '"media")'):
        assert word in text
    (videos / "a.mp4").unlink()
    app(["probe", str(root), "--videos", str(videos), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["changes"] == {"newly missing": {"num_files": 1, "first": ["a.mp4"]}}
    app(["probe", str(root), "--videos", str(videos)], standalone_mode=False)
    assert "Every one of the first 2 files is missing" in " ".join(capsys.readouterr().out.split())
