"""Rows with their layers, from a folder."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, Features, Value

from civid_loader.errors import AnnotationError, LayerError
from civid_loader.hub.loading import load
from civid_loader.layers import write_layer
from civid_loader.schema import CAPTION_LAYER_FEATURES, SAMPLE_FEATURES, arrow_schema_of, caption
from support.built import clip, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore:layer .* knows nothing of:UserWarning")
SCORES = Features({"clip_id": Value("string"), "flow_mean_px": Value("float64"), "reason": Value("string")})
SAMPLES = {"train": [[clip("c1", "1.mp4")], [clip("c2", None), clip("c3", None)]], "test": [[clip("c4", None)]]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_dataset(tmp_path / "set", SAMPLES)
    scores = [{"clip_id": f"c{i}", "flow_mean_px": float(i), "reason": None} for i in (3, 1, 4)]
    put(root, "scores-x", SCORES, {"train": scores[:2], "test": scores[2:]})
    texts = [
        {"clip_id": "c1", "captions": [caption("refined", "new", "me")], "transition_captions": [], "reason": None}
    ]
    put(root, "captions-y", CAPTION_LAYER_FEATURES, {"train": texts})
    return root


def put(root: Path, name: str, features: Features, rows: dict[str, list[dict[str, Any]]]) -> None:
    tables = {split: [pa.Table.from_pylist(part, schema=arrow_schema_of(features))] for split, part in rows.items()}
    write_layer(root, name, tables, features=features, provenance={"fingerprint": "0" * 16})


def test_rows_alone_are_those_of_the_files(root: Path) -> None:
    ds = load(root)
    assert ds.features == SAMPLE_FEATURES
    assert [row["sample_id"] for row in ds] == ["lvd2m/ytb/train-0", "lvd2m/ytb/train-1"]
    assert [one["clip_id"] for one in load(root, "test")[0]["clips"]] == ["c4"]


def test_layers_come_with_them(root: Path) -> None:
    ds = load(root, layers=["scores-x", "captions-y"])
    assert ds["scores-x"][:] == [
        [{"flow_mean_px": 1.0, "reason": None}],
        [None, {"flow_mean_px": 3.0, "reason": None}],
    ]
    assert [one["text"] for one in ds[0]["clips"][0]["captions"]] == ["new", "About c1."]
    assert ds.features["clips"] == SAMPLE_FEATURES["clips"]


def test_rows_are_memory_mapped_and_written_once(root: Path, tmp_path: Path) -> None:
    ds = load(root, layers=["scores-x"])
    (file,) = ds.cache_files
    assert file["filename"].startswith(str(tmp_path / "cache"))
    assert len(pickle.dumps(ds)) < 20_000, "a worker gets the file's name, not the rows"
    written = Path(file["filename"]).stat().st_mtime_ns
    assert load(root, layers=["scores-x"]).cache_files == ds.cache_files
    assert Path(file["filename"]).stat().st_mtime_ns == written
    put(root, "scores-x", SCORES, {"train": [{"clip_id": "c1", "flow_mean_px": 9.0, "reason": None}]})
    assert load(root, layers=["scores-x"])[0]["scores-x"] == [{"flow_mean_px": 9.0, "reason": None}]


def test_some_columns(root: Path) -> None:
    ds = load(root, columns=["sample_id", "clips.captions"])
    texts = {"start_seconds": 0.5, "end_seconds": 1.0}
    clips = [{"captions": [caption("refined", f"About {c}.", "upstream:human", **texts)]} for c in ("c2", "c3")]
    assert ds[1] == {"sample_id": "lvd2m/ytb/train-1", "clips": clips}
    joined = load(root, columns=["sample_id"], layers=["scores-x"])
    assert set(joined.column_names) == {"clips", "sample_id", "scores-x"}
    assert isinstance(joined, Dataset)


def test_clips_a_layer_does_not_know_are_told_each_time(root: Path) -> None:
    for _ in range(2):  # joined, then from the cache
        with pytest.warns(UserWarning, match="layer") as told:
            load(root, layers=["scores-x", "captions-y"])
        assert [str(one.message).partition(f" of {root}: ")[::2] for one in told] == [
            (
                "layer scores-x knows nothing of 1 of the 3 clips",
                "they have null there; make the layer for all, or filter them out",
            ),
            (
                "layer captions-y knows nothing of 2 of the 3 clips",
                "they have no captions of it; make the layer for all, or filter them out",
            ),
        ]
        assert {one.filename for one in told} == {__file__}, "at the line that loads"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(root, "test", layers=["scores-x"])
        load(root)


def test_one_name_is_enough(root: Path) -> None:
    assert load(root, layers="scores-x")[:] == load(root, layers=["scores-x"])[:]
    assert load(root, columns="sample_id").column_names == ["sample_id"]


def test_some_columns_of_a_layer(root: Path) -> None:
    ds = load(root, columns=["sample_id", "scores-x.flow_mean_px"], layers=["scores-x", "captions-y"])
    assert ds["scores-x"][:] == [[{"flow_mean_px": 1.0}], [None, {"flow_mean_px": 3.0}]]
    assert [one["text"] for one in ds[0]["clips"][0]["captions"]] == ["new", "About c1."]
    for columns in (["sample_id"], ["sample_id", "scores-x"], ["sample_id", "scores-x", "scores-x.reason"]):
        ds = load(root, columns=columns, layers=["scores-x"])
        assert ds["scores-x"][0] == [{"flow_mean_px": 1.0, "reason": None}], columns
    for column, message in (
        (
            "scores-x.flow",
            r"scores/x/train-00000-of-00001.parquet: no column 'flow'; there are clip_id, flow_mean_px, r",
        ),
        ("captions-y.captions", "of captions no columns are chosen"),
    ):
        with pytest.raises(AnnotationError, match=message):
            load(root, columns=[column], layers=["scores-x", "captions-y"])


def test_mistakes(root: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"split": "dev"}, "no shards of split 'dev'; there is test, train"),
        ({"layers": ["scores-z"]}, "has no table 'scores/z'; it has annotations, captions/y, scores/x"),
        ({"columns": ["captoins"]}, "there is no column 'captoins'; there are captions, clips"),
    ):
        with pytest.raises(AnnotationError, match=message):
            load(root, **settings)
    with pytest.raises(AnnotationError, match="no such folder, and no name of a dataset on the Hub"):
        load(tmp_path / "nothing" / "here" / "at all")
    with pytest.raises(ValueError, match="a folder has none"):
        load(root, revision="main")
    other: dict[str, Any] = {"clip_id": "c1", "captions": [], "transition_captions": [], "reason": None}
    put(root, "captions-y", CAPTION_LAYER_FEATURES, {"test": [other]})
    with pytest.raises(LayerError, match="captions-y knows none of the 1 clips"):
        load(root, "test", layers=["captions-y"])
    with pytest.raises(LayerError, match="a layer is media, scores-<name> or captions-<name>"):
        load(root, layers=["videos"])
