"""What the numbers of a card say against counts in plain Python."""

import io
import random
import re
import statistics as naive
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Value
from PIL import Image

from civid_loader.errors import AnnotationError
from civid_loader.hub.numbers import NumberStatistics, Tally, as_text
from civid_loader.hub.plots import WIDTH_PX, plots
from civid_loader.hub.statistics import dataset_statistics
from civid_loader.layers import write_layer
from civid_loader.schema import caption
from civid_loader.storage import read_table
from support.built import clip, write_dataset

SCORES = Features(
    {"clip_id": Value("string"), "flow_px": Value("float32"), "cuts": Value("int32"), "ok": Value("bool")}
)


def _random_dataset(root: Path, *, num_samples: int) -> Path:
    rng = random.Random(0)
    samples: list[list[dict[str, Any]]] = []
    for number in range(num_samples):
        clips = []
        for i in range(rng.randint(1, 4)):
            end = rng.choice([None, rng.uniform(1, 400)])
            one = clip(f"c{number}-{i}", None, span=(0.5, end) if end else None)
            words = [" ".join("word" for _ in range(rng.randint(1, 60))) for _ in range(rng.randint(0, 3))]
            one["captions"] = [caption(rng.choice(["short", "dense"]), text, "a") for text in words]
            one["media"] = {"duration_seconds": rng.choice([None, 7.25])}
            clips.append(one)
        samples.append(clips)
    return write_dataset(root, {"train": samples[: num_samples // 2], "test": samples[num_samples // 2 :]})


def _add_scores(root: Path, values: list[tuple[float | None, int | None, bool | None]]) -> list[str]:
    rows = {split: read_table(root, split=split)["clips"].to_pylist() for split in ("train", "test")}
    ids = {split: [one["clip_id"] for clips in lists for one in clips] for split, lists in rows.items()}
    chosen = iter(values)
    tables = {}
    for split, of_split in ids.items():
        cells = [dict(zip(SCORES, (one, *next(chosen)), strict=True)) for one in of_split]
        tables[split] = [pa.Table.from_pylist(cells, schema=SCORES.arrow_schema)]
    write_layer(root, "scores-a", tables, features=SCORES, provenance={"fingerprint": "0" * 16})
    return [one for of_split in ids.values() for one in of_split]


def _agrees(found: NumberStatistics, values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    assert (found.num_values, found.num_missing) == (len(known), len(values) - len(known))
    assert found.minimum == pytest.approx(min(known))
    assert found.maximum == pytest.approx(max(known))
    assert found.median == pytest.approx(naive.median(known))
    assert found.mean == pytest.approx(naive.mean(known))
    assert sum(found.histogram.values()) == len(known)


def test_samples_are_counted(tmp_path: Path) -> None:
    root = _random_dataset(tmp_path, num_samples=40)
    found = dataset_statistics(root)
    rows = read_table(root).to_pylist()
    clips = [one for row in rows for one in row["clips"]]
    assert found.num_rows == {"default": {"train": 20, "test": 20}}
    assert found.num_clips == len(clips)
    _agrees(found.clips_per_sample, [len(row["clips"]) for row in rows])
    assert not found.durations_are_measured
    stated = [
        one["media"]["duration_seconds"]
        or (one["source"]["end_seconds"] - one["source"]["start_seconds"] if one["source"]["end_seconds"] else None)
        for one in clips
    ]
    _agrees(found.durations, stated)
    texts = [text for one in clips for text in one["captions"]]
    for kind, numbers in found.words["default"].items():
        _agrees(numbers, [len(one["text"].split()) for one in texts if one["kind"] == kind])
    assert sum(one.num_values for one in found.words["default"].values()) == len(texts)
    assert found.flags == {"odd": 2}
    assert found.missing["default"]["clips[].video"] == 1
    assert found.missing["default"]["clips[].clip_id"] == 0
    of_end = [one["source"]["end_seconds"] is None for one in clips]
    assert found.missing["default"]["clips[].source.end_seconds"] == pytest.approx(naive.mean(of_end))


def test_texts_of_samples_and_steps_count_too(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, {"train": [[clip("a", None)]]})
    (path,) = (root / "annotations").glob("*.parquet")
    data = pq.read_table(path)
    row = data.to_pylist()[0]
    row["captions"] = [caption("synopsis", "one two three", "a")]
    row["transitions"] = [{"from_index": 0, "to_index": 1, "captions": [caption("change_content", "x  y", "a")]}]
    pq.write_table(pa.Table.from_pylist([row], schema=data.schema), path)
    words = dataset_statistics(root).words["default"]
    assert {kind: one.mean for kind, one in words.items()} == {"change_content": 2, "refined": 2, "synopsis": 3}


def test_scores_are_counted(tmp_path: Path) -> None:
    root = _random_dataset(tmp_path, num_samples=30)
    rng = random.Random(1)
    values = [
        (rng.choice([None, rng.lognormvariate(1, 1)]), rng.choice([None, rng.randint(0, 3)]), rng.choice([None, True]))
        for _ in range(200)
    ]
    ids = _add_scores(root, values)
    found = dataset_statistics(root).scores["scores-a"]
    assert list(found) == ["flow_px", "cuts", "ok"]
    for place, name in enumerate(found):
        column = [None if row[place] is None else float(row[place] or 0) for row in values[: len(ids)]]
        _agrees(found[name], column)
    assert found["ok"].histogram == {"1": found["ok"].num_values}
    cuts = [row[1] for row in values[: len(ids)]]
    assert found["cuts"].histogram == {str(n): cuts.count(n) for n in range(4)}


def test_measured_lengths_win(tmp_path: Path) -> None:
    from civid_loader.schema import arrow_schema
    from civid_loader.storage import read_manifest, write_json, write_shard

    root = write_dataset(tmp_path, {"train": [[clip("a", None, span=(0.0, 9.0)), clip("b", None, span=(0.0, 9.0))]]})
    rows = [{"clip_id": "a", "status": "ok", "clip_duration_seconds": 3.0}, {"clip_id": "b", "status": "missing"}]
    name = "media/train-00000-of-00001.parquet"
    write_shard(root / name, [pa.Table.from_pylist(rows, schema=arrow_schema("media"))], table="media")
    manifest = read_manifest(root)
    manifest["shards"]["media"] = [name]
    write_json(root / "manifest.json", manifest)
    found = dataset_statistics(root)
    assert found.durations_are_measured
    assert (found.durations.num_values, found.durations.num_missing, found.durations.maximum) == (1, 1, 3.0)
    assert not dataset_statistics(root, tables=["annotations"]).durations_are_measured


def test_only_a_dataset_is_counted(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError):
        dataset_statistics(tmp_path)


@pytest.mark.parametrize(
    ("values", "are_whole", "histogram"),
    [
        ([1.0, 1.5, 2.0, 4.9, 5.0, 700.0], False, {"1-2": 2, "2-5": 2, "5+": 2}),
        ([1, 2, 4, 5], True, {"1": 1, "2-4": 2, "5+": 1}),
        ([0.5, 3.0], False, {"< 1": 1, "1-2": 0, "2-5": 1}),
    ],
)
def test_buckets(values: list[float], are_whole: bool, histogram: dict[str, int]) -> None:
    tally = Tally(are_whole=are_whole)
    tally.add(pa.array(values, pa.float64()))
    assert tally.result([1, 2, 5]).histogram == histogram


@pytest.mark.parametrize(
    "values",
    [[0.25] * 7, [0.0, 1.0], [-3.0, 2.0, 8.0], [1e-9, 2e-9], [1.0] * 300 + [1e12], [float(n) for n in range(1000)]],
)
@pytest.mark.parametrize("are_whole", [True, False])
def test_buckets_that_fit_the_numbers_hold_all_of_them(values: list[float], are_whole: bool) -> None:
    if are_whole:
        values = [float(round(value)) for value in values]
    tally = Tally(are_whole=are_whole)
    tally.add(pa.array(values))
    found = tally.result()
    assert sum(found.histogram.values()) == len(values)
    assert len(found.histogram) <= 13
    assert all(re.fullmatch(r"(< )?-?[\d.e+-]+?( to -?[\d.e+-]+?|-[\d.e-]+|\+)?", label) for label in found.histogram)


def test_no_numbers_and_numbers_that_are_none() -> None:
    tally = Tally()
    tally.add(pa.array([None, float("nan"), float("inf")], pa.float64()))
    found = tally.result()
    assert (found.num_values, found.num_missing, found.median, found.histogram) == (0, 3, None, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (3.0, "3"), (0.01234567, "0.01235"), (1234.56, "1,234.6"), (2e6, "2,000,000"), (-1.5, "-1.5")],
)
def test_numbers_as_text(value: float | None, text: str) -> None:
    assert as_text(value) == text


def test_pictures(tmp_path: Path) -> None:
    root = _random_dataset(tmp_path, num_samples=20)
    _add_scores(root, [(1.0, None, True)] * 200)
    pictures = plots(dataset_statistics(root))
    assert set(pictures) == {"durations", "clips_per_sample", "captions_default", "words_default", "scores-a"}
    for png in pictures.values():
        with Image.open(io.BytesIO(png)) as image:
            assert (image.format, image.width) == ("PNG", WIDTH_PX)
            assert (34, 110, 128) in {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or ()}
    assert plots(dataset_statistics(root)) == pictures
