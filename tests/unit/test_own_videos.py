"""Clips decoded out of a dataset's own `videos` config, in a folder and on the Hub."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from civid_loader.decoding import read_frames
from civid_loader.errors import UnsafePathError, VideoNotFoundError
from civid_loader.hub.video_config import write_video_config
from civid_loader.layers import Layer, join_layers
from civid_loader.probing.dataset import probe_dataset
from civid_loader.sampling import Uniform
from civid_loader.storage import read_table
from civid_loader.transforms import decode_clips
from civid_loader.transforms.decode_clips import DecodeClips
from civid_loader.video_shards import has_videos
from civid_loader.videos import open_video
from support.built import clip, write_dataset
from support.hub_server import HubServer
from support.media import colourful_image, read_numbers, write_video
from support.servers import serve

REPO = "org/clips"
LENGTHS = {"a": 30, "b": 40, "c": 20, "d": 50}
SLACK_BYTES = 16
"""Beyond the bytes of a clip that may be fetched with it."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with videos inside and a media layer; its rows point to files that are gone."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "files").mkdir()
    for name, num_frames in LENGTHS.items():
        write_video(folder / "files" / f"{name}.mp4", num_frames=num_frames, image=colourful_image, size=(96, 128))
    rows = [[clip("a", "a.mp4"), clip("b", "b.mp4")], [clip("c", "c.mp4")], [clip("d", "d.mp4")], [clip("x", "x.mp4")]]
    dataset = write_dataset(folder / "data", {"train": rows})
    probe_dataset(dataset, videos=folder / "files", quiet=True)
    write_video_config(dataset, video_root=folder / "files", quiet=True)
    shutil.rmtree(folder / "files")
    return dataset


def joined(root: Path) -> list[dict[str, Any]]:
    """The rows with their media layer."""
    layer = Layer(name="media", rows=read_table(root, "media"))
    found: list[dict[str, Any]] = join_layers(read_table(root), [layer]).to_pylist()
    return found


def decode(rows: Sequence[Mapping[str, Any]], videos: Path, **options: Any) -> list[list[int]]:
    """The numbers in the frames of each clip."""
    batch = {name: [row[name] for row in rows] for name in ("sample_id", "clips", "media") if name in rows[0]}
    samples = DecodeClips(videos=str(videos), frames=Uniform(2), **options)(batch)
    return [read_numbers(clip_TCHW) for frames_NTCHW in samples["frames_NTCHW"] for clip_TCHW in frames_NTCHW]


def middles(*names: str) -> list[list[int]]:
    """What `decode` gives of these clips."""
    return [[int(LENGTHS[name] * share) for share in (0.25, 0.75)] for name in names]


def test_clips_are_found_by_id_whatever_their_pointers_say(root: Path) -> None:
    rows = read_table(root).to_pylist()[:3]
    rows[1]["clips"][0]["video"] = None
    span = {"start_seconds": 100.0, "end_seconds": 101.0}
    rows[2]["clips"][0] |= {"trimmed": False, "source": rows[2]["clips"][0]["source"] | span}
    assert decode(rows, root) == middles("a", "b", "c", "d"), "the shards hold each clip alone"
    joined_rows = joined(root)[:3]
    assert decode(joined_rows, root) == middles("a", "b", "c", "d")


def test_a_place_in_the_media_layer_spares_the_footers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_footers(*given: Any, **options: Any) -> Any:
        raise AssertionError("looked for")

    monkeypatch.setattr(decode_clips, "open_video", no_footers)
    assert decode(joined(root)[:3], root) == middles("a", "b", "c", "d")


@pytest.mark.parametrize("shard", ["../secret.parquet", "/etc/passwd", "videos/../../x.parquet", "file:///x.parquet"])
def test_a_layer_cannot_name_other_files(shard: str, root: Path) -> None:
    rows = joined(root)[:1]
    for facts in rows[0]["media"]:
        facts["shard"] = shard
    assert decode(rows, root) == middles("a", "b"), "the footers tell then"


def test_clips_that_are_not_inside(root: Path, tmp_path: Path) -> None:
    rows = joined(root)[3:]
    with pytest.raises(VideoNotFoundError, match=r"sample lvd2m/ytb/train-3, clip x: no file 'x.mp4'"):
        decode(rows, root)
    assert decode(rows, root, missing="mask", size=(24, 32)) == [[0, 0]]
    rows[0]["clips"][0]["video"] = str(write_video(tmp_path / "original.mp4", num_frames=20))
    assert decode(rows, root) == [[5, 15]], "a pointer to elsewhere still holds"
    rows[0]["clips"][0]["video"] = None
    with pytest.raises(VideoNotFoundError, match="no such clip in the 1 shards"):
        decode(rows, root)


def test_a_folder_of_files_is_read_as_before(root: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "a.mp4", num_frames=10)
    rows = joined(root)[1:2]
    rows[0]["clips"][0]["video"] = "a.mp4"
    assert decode(rows, tmp_path) == [[2, 7]], "places are of another dataset, and its packet index does not fit"
    assert not has_videos(str(tmp_path))
    assert not has_videos(str(tmp_path / "gone"))
    assert has_videos(str(root))


TESTS = Path(__file__).parents[1]
REMOTE = """
import json, sys
sys.path.insert(0, sys.argv[2])
import pyarrow.parquet as pq
from civid_loader.decoding import read_frames
from civid_loader.errors import UnsafePathError, VideoNotFoundError
from civid_loader.sampling import Uniform
from civid_loader.transforms.decode_clips import DecodeClips
from support.media import read_numbers
rows = pq.read_table(sys.argv[1]).to_pylist()
decode = DecodeClips(videos="hf://datasets/org/clips", frames=Uniform(2))
told = []
for row in rows:
    try:
        sample = decode({name: [row[name]] for name in row})
        told.append([read_numbers(one) for one in sample["frames_NTCHW"][0]])
        told[-1].append(sample["num_bytes_read"][0])
    except VideoNotFoundError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def on_the_hub(tmp_path: Path, root: Path, rows: list[dict[str, Any]]) -> tuple[list[Any], list[tuple[int, int]], int]:
    """Decode rows in a client of a Hub: what it told; status and length of each range it fetched; other requests."""
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with HubServer(tmp_path / "store") as hub:
        hub.create(REPO)
        hub.write(REPO, files)
        told = hub.run(REMOTE, str(tmp_path / "rows.parquet"), str(TESTS), home=tmp_path / "home")
        gets = [request for request in hub.select("resolve") if request.method == "GET"]
        return told, [(one.status, one.num_bytes_sent) for one in gets], len(hub.requests) - len(gets)


def test_one_ranged_request_per_clip_of_a_dataset_on_the_hub(root: Path, tmp_path: Path) -> None:
    rows = joined(root)[:3]
    told, gets, num_others = on_the_hub(
        tmp_path, root, [{n: row[n] for n in ("sample_id", "clips", "media")} for row in rows]
    )
    assert [told[0][:2], told[1][:1], told[2][:1]] == [middles("a", "b"), middles("c"), middles("d")]
    sizes = [facts["num_bytes"] for row in rows for facts in row["media"]]
    assert [status for status, _ in gets] == [206] * 4
    for (_, num_bytes), size in zip(gets, sizes, strict=True):
        assert size <= num_bytes + SLACK_BYTES
        assert num_bytes <= size + SLACK_BYTES
    assert num_others <= 6, "once for the folder, not for each clip"


def test_without_the_layer_the_footers_tell(root: Path, tmp_path: Path) -> None:
    rows = [{name: row[name] for name in ("sample_id", "clips")} for row in read_table(root).to_pylist()]
    told, _, _ = on_the_hub(tmp_path, root, rows)
    assert [told[0][:2], told[1][:1], told[2][:1]] == [middles("a", "b"), middles("c"), middles("d")]
    assert "clip x: videos:x: no such clip in the 1 shards of hf://datasets/org/clips" in told[3]


def test_a_root_may_be_a_url_or_an_archive(tmp_path: Path) -> None:
    (tmp_path / "videos" / "a").mkdir(parents=True)
    path = tmp_path / "videos" / "a" / "0.mp4"
    write_video(path, num_frames=8, gop=4, size=(32, 48))
    for name, mode in (("all.tar", "tar"), ("all.zip", "zip")):
        shutil.make_archive(str(tmp_path / name.partition(".")[0]), mode, tmp_path / "videos")
        assert (tmp_path / name).is_file()
    expected = read_frames(path, Uniform(2)).frames_TCHW
    row: dict[str, list[Any]] = {"sample_id": ["s"], "clips": [[clip("c", "a/0.mp4")]]}
    with serve({"clips/a/0.mp4": path.read_bytes()}) as server:
        for root in (
            f"{server.url}/clips",
            f"{server.url}/clips/",
            str(tmp_path / "all.tar"),
            str(tmp_path / "all.zip"),
        ):
            found = DecodeClips(videos=root, frames=Uniform(2))(row)
            assert torch.equal(found["frames_NTCHW"][0][0], expected), root
        gone: dict[str, list[Any]] = {"sample_id": ["s"], "clips": [[clip("c", "b.mp4")]]}
        with pytest.raises(VideoNotFoundError, match=r"no file at http.*clips/b\.mp4"):
            DecodeClips(videos=f"{server.url}/clips", frames=Uniform(2))(gone)
    for root in ("s3://bucket/videos", str(tmp_path / "all.tar")):
        with pytest.raises((UnsafePathError, VideoNotFoundError)):
            open_video("../a/0.mp4", root=root)
