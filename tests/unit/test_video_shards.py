from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Value, Video

from civid_loader import schema, video_shards
from civid_loader.errors import SchemaError, UnreadableVideoError, VideoError, VideoNotFoundError
from civid_loader.video_shards import OFFSETS_KEY, write_video_shard
from civid_loader.videos import open_video
from support.servers import serve

RANDOM = np.random.default_rng(1)
CLIPS = {
    **{f"clip-{i}": RANDOM.bytes(int(RANDOM.integers(1, 300_000))) for i in range(60)},
    "ünï/ço:de": b"x",
    "zeros": bytes(3 << 20),
    "again": bytes(3 << 20),
    "large": RANDOM.bytes(9 << 20),
}


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_shards, "ROW_GROUP_BYTES", 2 << 20)
    monkeypatch.setattr(video_shards, "MAX_ROW_GROUP_BYTES", 4 << 20)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    clips = list(CLIPS.items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_shards, "ROW_GROUP_BYTES", 2 << 20)
        patch.setattr(video_shards, "MAX_ROW_GROUP_BYTES", 4 << 20)
        for i, part in enumerate((clips[:30], clips[30:])):
            write_video_shard(root / "videos" / f"train-0000{i}-of-00002.parquet", part)
    return root


def read(clip_id: str, dataset: Path | str) -> bytes:
    source = open_video(f"videos:{clip_id}", root=None, dataset=str(dataset))
    return source.read_ranges([(0, source.size() + 10)])[0]


def must_not_be_called(*_: Any, **__: Any) -> None:
    raise AssertionError("the shard was searched")


def test_every_clip_lies_where_the_footer_says(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_shards, "_searched", must_not_be_called)
    for clip_id, data in CLIPS.items():
        assert read(clip_id, dataset) == data
    source = open_video("videos:large", root=None, dataset=str(dataset))
    assert source.read_ranges([(5_000_000, 10), (0, 4)]) == [CLIPS["large"][5_000_000:5_000_010], CLIPS["large"][:4]]


def test_what_is_returned_is_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    offsets = write_video_shard(path, CLIPS.items())
    content = path.read_bytes()
    assert {clip_id: content[at : at + n] for clip_id, (at, n) in offsets.items()} == CLIPS
    groups = pq.ParquetFile(path).metadata
    sizes = [groups.row_group(i).total_byte_size for i in range(groups.num_row_groups)]
    assert len(sizes) > 5
    assert sorted(sizes)[-2] < 5 << 20, "only the clip that is larger has a row group beyond the limit"
    assert write_video_shard(tmp_path / "none.parquet", []) == {}


def test_stock_datasets_reads_a_shard(dataset: Path, tmp_path: Path) -> None:
    files = sorted(str(path) for path in (dataset / "videos").glob("*.parquet"))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert rows.features == schema.VIDEO_FEATURES
    rows = rows.cast_column("video", Video(decode=False))
    assert {row["clip_id"]: row["video"]["bytes"] for row in rows} == CLIPS


def test_shards_written_by_stock_datasets(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"clip_id": clip_id, "video": {"bytes": data, "path": None}} for clip_id, data in CLIPS.items()
    ]
    rows.append({"clip_id": "null", "video": None})
    features = Features({"video": Video(decode=False), "clip_id": Value("string")})
    (tmp_path / "videos").mkdir()
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    Dataset(datasets.table.InMemoryTable(table)).to_parquet(tmp_path / "videos" / "train-00000-of-00001.parquet")
    for clip_id, data in CLIPS.items():
        assert read(clip_id, tmp_path) == data
    with pytest.raises(VideoNotFoundError, match="videos:null: no such clip in the 1 shards of"):
        read("null", tmp_path)


@pytest.mark.parametrize(
    ("options", "is_readable"),
    [
        ({"compression": "none", "use_dictionary": False, "row_group_size": 7}, True),
        ({"compression": "none", "use_dictionary": True}, True),
        ({"compression": "snappy", "use_dictionary": False}, False),
        ({"compression": "zstd", "use_dictionary": True}, False),
    ],
)
def test_a_shard_that_was_written_again(
    dataset: Path, tmp_path: Path, options: dict[str, Any], is_readable: bool
) -> None:
    """Whoever copies the footer's metadata copies offsets that are wrong now."""
    first = sorted((dataset / "videos").glob("*.parquet"))[0]
    table = pq.read_table(first).sort_by([("clip_id", "descending")])
    table = table.replace_schema_metadata({OFFSETS_KEY: pq.read_metadata(first).metadata[OFFSETS_KEY]})
    (tmp_path / "videos").mkdir()
    path = tmp_path / "videos" / "train-00000-of-00001.parquet"
    pq.write_table(table, path, **options)
    if is_readable:
        assert {clip_id: read(clip_id, tmp_path) for clip_id in list(CLIPS)[:30]} == dict(list(CLIPS.items())[:30])
    else:
        with pytest.raises(UnreadableVideoError, match=r"do not lie in one piece each.*uncompressed"):
            read("clip-0", tmp_path)


def test_offsets_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "train-00000-of-00001.parquet"
    write_video_shard(path, [("a", b"A" * 5000), ("b", b"B" * 6000)])
    table = pq.read_table(path)
    for lie in (b"", b"noise", video_shards._packed({"a": (-4, 9), "b": (1 << 60, 9)}), video_shards._packed({})):
        kept = {**(table.schema.metadata or {}), OFFSETS_KEY: lie}
        pq.write_table(table.replace_schema_metadata(kept), path, compression="none", use_dictionary=False)
        assert read("b", tmp_path) == b"B" * 6000


def test_a_shard_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "train-00000-of-00001.parquet"
    write_video_shard(path, [("a", b"old")])
    assert read("a", tmp_path) == b"old"
    write_video_shard(path, [("b", b"other"), ("a", b"newer")])
    assert read("a", tmp_path) == b"newer"


def test_what_is_not_there(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError, match=r"videos:no: no such clip in the 2 shards of"):
        read("no", dataset)
    with pytest.raises(VideoNotFoundError, match="ships no `videos` config"):
        read("clip-0", tmp_path)
    with pytest.raises(ValueError, match=r"pass its folder \(dataset=") as caught:
        open_video("videos:clip-0", root=None)
    assert not isinstance(caught.value, VideoError)
    for name, content in (("half", b"PAR1" + bytes(100)), ("empty", b"")):
        path = tmp_path / name / "videos" / "train-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        with pytest.raises(UnreadableVideoError, match="not a whole Parquet file"):
            read("clip-0", tmp_path / name)
    other = tmp_path / "other" / "videos" / "x.parquet"
    other.parent.mkdir(parents=True)
    pq.write_table(pa.table({"clip_id": ["a"]}), other)
    with pytest.raises(UnreadableVideoError, match=r"no column video\.bytes"):
        read("a", tmp_path / "other")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(ValueError, match="clip a comes twice"):
        write_video_shard(path, [("a", b"1"), ("b", b"2"), ("a", b"3")])
    with pytest.raises(ValueError, match="clip a: 0 bytes"):
        write_video_shard(path, [("a", b"")])
    with pytest.raises(SchemaError, match="clip_id"):
        write_video_shard(path, [("", b"1")])
    assert not path.exists()


def test_one_request_gives_one_clip_of_a_remote_dataset(dataset: Path) -> None:
    import fsspec

    shard = sorted((dataset / "videos").glob("*.parquet"))[0]
    index = '<a href="train-00000-of-00001.parquet">x</a>'
    with serve({"d/videos/train-00000-of-00001.parquet": shard.read_bytes(), "d/videos/": index.encode()}) as server:
        source = open_video("videos:clip-7", root=None, dataset=server.address("d"))
        assert source.size() == len(CLIPS["clip-7"])
        server.reset()
        assert source.read_ranges([(0, 10), (500, 100)]) == [CLIPS["clip-7"][:10], CLIPS["clip-7"][500:600]]
        assert len(server.requests) == 1
        assert server.num_bytes == len(CLIPS["clip-7"])
    memory = fsspec.filesystem("memory")
    memory.pipe("/set/videos/train-00000-of-00001.parquet", shard.read_bytes())
    try:
        assert read("clip-7", "memory://set") == CLIPS["clip-7"]
        with pytest.raises(VideoNotFoundError, match="ships no `videos` config"):
            read("clip-7", "memory://nowhere")
    finally:
        memory.rm("/set", recursive=True)
