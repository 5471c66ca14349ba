"""A dataset of training copies: the same rows, each clip once, failures kept with their reasons, resumable."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

import civid_loader as cl
from civid_loader.demo.release import make_release
from civid_loader.errors import AnnotationError, OutputError, TooManyFailedError, VideoNotFoundError
from civid_loader.reencoding import chunks, tables
from civid_loader.reencoding.encoding import encode_proxy
from civid_loader.schema import SAMPLE_FEATURES, VIDEO_FEATURES
from civid_loader.storage import read_manifest, read_table
from civid_loader.video_shards import write_video_shard
from support.built import clip, write_dataset
from support.media import read_numbers, write_sound, write_video
from support.trees import tree_bytes

SIZE = (48, 64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(dataset, videos): 7 clips in 5 samples of 2 splits; one occurs twice, three cannot be read."""
    folder = tmp_path_factory.mktemp("made")
    videos = folder / "videos"
    videos.mkdir()
    write_video(videos / "a.mp4", num_frames=20, num_b_frames=2)
    write_video(videos / "movie.mkv", num_frames=60, num_b_frames=2)
    write_video(videos / "turned.mp4", num_frames=10, rotation_degrees=90)
    (videos / "page.mp4").write_text("<html>not found</html>")
    write_sound(videos / "sound.mp4")
    samples = {
        "train": [
            [clip("a", "a.mp4"), clip("m/1", "movie.mkv", span=(0.5, 1.2))],
            [clip("a", "a.mp4"), clip("gone", "gone.mp4")],
            [clip("page", "page.mp4"), clip("t", "turned.mp4")],
        ],
        "test": [[clip("s", "sound.mp4")], [clip("m/2", "movie.mkv", span=(2.0, None)), clip("a", "a.mp4")]],
    }
    return write_dataset(folder / "dataset", samples), videos


def proxies(made: tuple[Path, Path], output: Path, **changes: Any) -> cl.ProxyReport:
    dataset, videos = made
    return cl.proxies(dataset, **{"videos": videos, "output": output, "max_failed": 0.5, "quiet": True, **changes})


def clips_of(root: Path) -> dict[str, dict[str, Any]]:
    return {one["clip_id"]: one for row in read_table(root).to_pylist() for one in row["clips"]}


def test_rows_point_to_copies_and_nothing_else_changes(made: tuple[Path, Path], tmp_path: Path) -> None:
    report = proxies(made, tmp_path / "out")
    assert (report.num_clips, report.num_encoded) == (7, 4)
    assert report.failed == {"missing": 1, "unreadable": 1, "no_video": 1}
    before, after = (read_table(root).to_pylist() for root in (made[0], tmp_path / "out"))
    for old, new in zip(before, after, strict=True):
        has_failed = False
        for one in old["clips"]:
            if one["clip_id"] in ("gone", "page", "s"):
                has_failed = True
            else:
                one |= {"video": f"videos:{one['clip_id']}", "trimmed": True}
        assert new == old | {"flags": [*old["flags"], *["proxy_failed"][:has_failed]]}
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected/proxies.jsonl").read_text().splitlines()]
    assert [(row["clip_id"], row["sample_id"], row["reason"]) for row in rejected] == [
        ("gone", "lvd2m/ytb/train-1", "missing"),
        ("page", "lvd2m/ytb/train-2", "unreadable"),
        ("s", "lvd2m/ytb/test-0", "no_video"),
    ]
    assert "gone.mp4" in report.examples[0]
    assert report.num_bytes == sum(
        len(video["bytes"]) for video in read_table(tmp_path / "out", "videos")["video"].to_pylist()
    )


def test_the_manifest_names_the_parent_and_no_path(made: tuple[Path, Path], tmp_path: Path) -> None:
    proxies(made, tmp_path / "out", gop=8, crf=30)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["parent"]["folder"] == "dataset"
    assert manifest["parent"]["num_rows"] == {"annotations": {"train": 3, "test": 2}}
    assert manifest["num_rows"]["videos"] == {"train": 3, "test": 1}
    settings = manifest["proxies"]
    assert (settings["codec"], settings["gop"], settings["short_side_px"], settings["crf"]) == ("h264", 8, 256, 30)
    assert "keyint=8" in settings["encoder_options"]["x264-params"]
    assert manifest["counts"]["flags"] == {"odd": 1, "proxy_failed": 3}
    assert str(tmp_path) not in json.dumps(manifest)
    assert str(made[0].parent) not in json.dumps(manifest)


def test_stock_datasets_loads_rows_and_copies(made: tuple[Path, Path], tmp_path: Path) -> None:
    proxies(made, tmp_path / "out")
    rows = datasets.load_dataset(str(tmp_path / "out"))
    assert {split: len(part) for split, part in rows.items()} == {"train": 3, "test": 2}
    assert rows["train"].features == SAMPLE_FEATURES
    copies = datasets.load_dataset(str(tmp_path / "out"), "videos")
    assert copies["train"].features == VIDEO_FEATURES
    assert copies["train"]["clip_id"] == ["a", "m/1", "t"]
    assert copies["test"]["clip_id"] == ["m/2"]
    data = copies["train"].cast_column("video", datasets.Video(decode=False))[1]["video"]["bytes"]
    assert data[4:8] == b"ftyp"
    assert "training copies: h264" in (tmp_path / "out/README.md").read_text()


def test_the_loader_sees_the_same_frames(made: tuple[Path, Path], tmp_path: Path) -> None:
    proxies(made, tmp_path / "out")
    copies = {row["clip_id"]: row["video"]["bytes"] for row in read_table(tmp_path / "out", "videos").to_pylist()}
    clips = (("a", "a.mp4", None), ("m/1", "movie.mkv", (0.5, 1.2)), ("m/2", "movie.mkv", (2.0, None)))
    for at in (cl.Uniform(7), cl.Fps(11), cl.Times((0.0, 0.3, 0.41))):
        for name, file, span in clips:
            direct = cl.read_frames(str(made[1] / file), at, span=span)
            copy = cl.read_frames(copies[name], at)
            assert read_numbers(copy.frames_TCHW) == read_numbers(direct.frames_TCHW)


def test_the_result_depends_neither_on_processes_nor_on_chunks(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SHARD_BYTES", 5_000)
    proxies(made, tmp_path / "one")
    assert len(list((tmp_path / "one/videos").glob("train-*-of-00002.parquet"))) == 2
    proxies(made, tmp_path / "two", num_proc=2)
    assert tree_bytes(tmp_path / "one") == tree_bytes(tmp_path / "two")
    monkeypatch.delattr(chunks, "encode_proxy")
    assert proxies(made, tmp_path / "one") == proxies(made, tmp_path / "one"), "finished: nothing is encoded again"
    with pytest.raises(OutputError, match=r"differs in proxies; choose another --output, or replace"):
        proxies(made, tmp_path / "one", gop=4)


def test_too_many_failures_keep_the_work_and_are_tried_again(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = Path(shutil.copytree(made[1], tmp_path / "videos"))
    with pytest.raises(
        TooManyFailedError, match=r"3 of 7 clips failed \(1 missing, 1 unreadable, 1 no_video\)"
    ) as caught:
        proxies((made[0], videos), tmp_path / "out", max_failed=0.4)
    assert "gone: no file 'gone.mp4'" in str(caught.value)
    assert not (tmp_path / "out/manifest.json").exists()
    shutil.copy(videos / "a.mp4", videos / "gone.mp4")
    encoded = []

    def counted(*arguments: Any, **settings: Any) -> None:
        encoded.append(settings)
        encode_proxy(*arguments, **settings)

    monkeypatch.setattr(chunks, "encode_proxy", counted)
    report = proxies((made[0], videos), tmp_path / "out", max_failed=0.4)
    assert len(encoded) == 3, "only those that had failed"
    assert (report.num_encoded, report.failed) == (5, {"unreadable": 1, "no_video": 1})
    monkeypatch.undo()
    proxies((made[0], videos), tmp_path / "at_once")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "at_once")


def test_sealing_goes_on_where_it_was_cut_off(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SHARD_BYTES", 5_000)
    proxies(made, tmp_path / "undisturbed")
    for num_allowed in (0, 1, 1):
        written: list[Path] = []

        def cut_off(path: Path, items: Any, *, allowed: int = num_allowed, written: list[Path] = written) -> Any:
            if len(written) == allowed:
                raise KeyboardInterrupt
            written.append(path)
            return write_video_shard(path, items)

        monkeypatch.setattr(tables, "write_video_shard", cut_off)
        with pytest.raises(KeyboardInterrupt):
            proxies(made, tmp_path / "out")
    monkeypatch.setattr(tables, "write_video_shard", write_video_shard)
    monkeypatch.delattr(chunks, "encode_proxy")
    proxies(made, tmp_path / "out")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "undisturbed")


def test_copies_of_copies(made: tuple[Path, Path], tmp_path: Path) -> None:
    proxies(made, tmp_path / "out")
    report = cl.proxies(tmp_path / "out", videos=made[1], output=tmp_path / "small", short_side_px=32, max_failed=0.5)
    assert report.num_encoded == 4
    assert clips_of(tmp_path / "small")["a"]["video"] == "videos:a"


def test_movies_and_characters_come_along(tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", render=False)["moviebench"]
    built = cl.build(
        release.name, annotations=release.annotations, output=tmp_path / "built", max_rejected=0.2, quiet=True
    )
    report = cl.proxies(built.output, videos=tmp_path, output=tmp_path / "out", max_failed=1.0, quiet=True)
    assert report.num_encoded == 0
    for table in built.num_rows.keys() - {"annotations"}:
        assert tree_bytes(tmp_path / "built" / table) == tree_bytes(tmp_path / "out" / table)
    assert "videos" not in read_manifest(tmp_path / "out")["shards"]
    rows = datasets.load_dataset(str(tmp_path / "out"))
    assert all("proxy_failed" in flags for part in rows.values() for flags in part["flags"])


def test_what_is_wrong_with_every_clip_is_an_error_at_once(made: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(VideoNotFoundError, match=r"clip a: pointer 'a.mp4' is relative: pass the folder"):
        proxies(made, output, videos=None)
    with pytest.raises(VideoNotFoundError, match="is not a folder"):
        proxies(made, output, videos=tmp_path / "nowhere")
    with pytest.raises(AnnotationError, match=r"no manifest.json, so no built dataset"):
        cl.proxies(made[1], videos=made[1], output=output)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("!")
    with pytest.raises(OutputError, match="is not empty and no civid_loader dataset"):
        proxies(made, tmp_path / "mine")
    with pytest.raises(OutputError, match="lies inside"):
        proxies(made, made[0] / "proxies")
    with pytest.raises(ValueError, match="num_proc must be >= 1"):
        proxies(made, output, num_proc=0)
    assert not output.exists()


def test_overwrite_replaces(made: tuple[Path, Path], tmp_path: Path) -> None:
    proxies(made, tmp_path / "out")
    proxies(made, tmp_path / "out", gop=4, overwrite=True)
    proxies(made, tmp_path / "other", gop=4)
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "other")
    assert pq.read_metadata(tmp_path / "out/videos/train-00000-of-00001.parquet").num_rows == 3
