"""What a loader is made of: other rows than the sizes, several datasets, places that were saved; and clear refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets

from civid_loader.buckets import Bucket
from civid_loader.errors import LoaderStateError
from civid_loader.loader import SequenceLoader
from civid_loader.ordering import Mix
from civid_loader.sample_sizes import SampleSizes, read_sizes
from civid_loader.sampling import RandomWindow, Uniform
from support.media import read_numbers
from support.training import dataset_of, write_videos

NUM_ROWS = 12
BUCKETS = (Bucket(num_frames=4, height=32, width=48), Bucket(num_frames=8, height=16, width=16))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_videos(root, NUM_ROWS)
    return root


@pytest.fixture(scope="module")
def dataset() -> Any:
    return dataset_of([[f"{number}.mp4"] for number in range(NUM_ROWS)])


def loader_of(folder: Any, dataset: Any, **changes: Any) -> SequenceLoader:
    settings: dict[str, Any] = {"frames": Uniform(2), "size": (32, 48), "batch_size": 4} | changes
    return SequenceLoader(dataset, videos=folder, **settings)


def sizes_of(num_rows: int, *, num_clips: int = 1) -> SampleSizes:
    return SampleSizes(
        sizes=np.tile([8, 32, 48], (num_rows, 1)),
        num_clips=np.full(num_rows, num_clips),
        num_measured=num_rows,
        num_unknown=0,
    )


def test_sizes_of_other_rows_are_refused(folder: Path, dataset: Any) -> None:
    for count in (NUM_ROWS - 1, NUM_ROWS + 1):
        with pytest.raises(ValueError, match=f"sizes are of {count} rows, the dataset has {NUM_ROWS}: read"):
            loader_of(folder, dataset, sizes=sizes_of(count), buckets=BUCKETS, size=None)
    loader = loader_of(folder, dataset, sizes=sizes_of(NUM_ROWS), buckets=BUCKETS, size=None)
    assert sum(int((batch.weights_B > 0).sum()) for batch in loader) == NUM_ROWS


def test_sizes_know_how_many_clips_there_are(folder: Path, dataset: Any) -> None:
    settings: dict[str, Any] = {"buckets": BUCKETS, "size": None, "batch_size": None, "max_frames": 48}
    one, three = (loader_of(folder, dataset, sizes=sizes_of(NUM_ROWS, num_clips=count), **settings) for count in (1, 3))
    assert one.plan.batch_sizes == (12, 6)
    assert three.plan.batch_sizes[1] == 2


def test_sizes_of_rows_that_were_filtered(dataset: Any) -> None:
    def sized(row: dict[str, Any], number: int) -> dict[str, Any]:
        media = {"width": 48 + number, "height": 32, "fps": 25.0, "num_frames": 8, "duration_seconds": None}
        return {"clips": [{**clip, "media": media} for clip in row["clips"]]}

    rows = dataset.map(sized, with_indices=True, features=dataset.features)
    found = read_sizes(rows.select([5, 2]))
    assert found.sizes.tolist() == [[8, 32, 53], [8, 32, 50]]
    assert found.num_clips.tolist() == [1, 1]
    assert (len(found), found.num_measured, np.asarray(found).shape) == (2, 0, (2, 3))


def test_model_randomness_is_left_alone(folder: Path, dataset: Any) -> None:
    for num_workers in (0, 1):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        list(loader_of(folder, dataset, num_workers=num_workers))
        assert torch.equal(torch.get_rng_state(), before)


def test_several_datasets_have_their_own_roots(folder: Path, tmp_path: Path, dataset: Any) -> None:
    write_videos(tmp_path, 2)
    (tmp_path / "0.mp4").rename(tmp_path / "other.mp4")
    other = dataset_of([["other.mp4"], ["1.mp4"]])
    renamed = other.map(lambda row: {"dataset": "miradata", "sample_id": f"m{row['sample_id']}"})
    both = concatenate_datasets([dataset, renamed])
    mix = Mix(num_rows=(NUM_ROWS, 2), weights=(1.0, 1.0), rows_per_epoch=8)
    loader = loader_of({"civid": folder, "miradata": tmp_path}, both, mix=mix)
    ids = [name for batch in loader for name in batch.sample_ids]
    assert sum(name.startswith("m") for name in ids) == 4
    with pytest.raises(ValueError, match=r"is of dataset 'miradata', and videos= has roots of civid only"):
        list(loader_of({"civid": folder}, both, mix=mix))


def test_a_row_that_comes_often_is_not_always_the_same(folder: Path, dataset: Any) -> None:
    mix = Mix(num_rows=(1, NUM_ROWS - 1), weights=(1.0, 1.0), rows_per_epoch=16)
    loader = loader_of(folder, dataset, mix=mix, frames=RandomWindow(2), batch_size=2)
    starts = [
        read_numbers(frames_NTCHW[0])[0]
        for batch in loader
        for name, frames_NTCHW in zip(batch.sample_ids, batch.frames_BNTCHW, strict=True)
        if name == "s0"
    ]
    assert len(starts) == 8
    assert len(set(starts)) > 2


def test_an_epoch_without_a_batch_is_passed_over(folder: Path, dataset: Any) -> None:
    """Six rows of two buckets in a mix of four: some epochs fill no batch of three."""
    rows = dataset.select(range(6))
    mix = Mix(num_rows=(6,), weights=(1.0,), rows_per_epoch=4)
    sizes = np.array([[4, 32, 48]] * 3 + [[8, 16, 16]] * 3)
    loader = loader_of(
        folder, rows, mix=mix, buckets=BUCKETS, sizes=sizes, size=None, batch_size=3, tail="drop", seed=4
    )
    counts = [loader.plan.num_batches(epoch) for epoch in range(12)]
    assert 0 in counts
    seen = []
    while (epoch := loader.state_dict()["epoch"]) < 12:
        seen.append(len(list(loader)))
        assert loader.state_dict()["epoch"] == epoch + 1
    assert seen == counts


def test_going_to_the_epoch_that_is_current_keeps_the_place(folder: Path, dataset: Any) -> None:
    first = loader_of(folder, dataset)
    whole = [batch.sample_ids for batch in first]
    other = loader_of(folder, dataset)
    next(iter(other))
    state = json.loads(json.dumps(other.state_dict()))
    resumed = loader_of(folder, dataset)
    resumed.load_state_dict(state)
    resumed.set_epoch(state["epoch"])
    assert [batch.sample_ids for batch in resumed] == whole[1:]
    resumed.set_epoch(0)
    assert [batch.sample_ids for batch in resumed] == whole


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 2}, "batch_sizes was '4', is '2'"),
        ({"mix": Mix(num_rows=(2, 10), weights=(1, 1))}, "mix was '', is '6/2 6/10'"),
        ({"buckets": BUCKETS, "sizes": sizes_of(NUM_ROWS)}, "buckets was '', is '4x32x48 8x16x16'"),
    ],
)
def test_the_state_says_what_differs(folder: Path, dataset: Any, changes: dict[str, Any], told: str) -> None:
    state = loader_of(folder, dataset).state_dict()
    with pytest.raises(LoaderStateError) as raised:
        loader_of(folder, dataset, **changes).load_state_dict(state)
    assert told in str(raised.value)


def test_numbers_of_any_kind_are_the_same_plan(folder: Path, dataset: Any) -> None:
    mixes = [Mix(num_rows=(2, 10), weights=weights) for weights in ((1, 2), (1.0, 2.0))]
    states = [
        loader_of(folder, dataset, mix=mix, seed=seed).state_dict()
        for mix, seed in zip(mixes, (3, np.int64(3)), strict=True)
    ]
    assert json.dumps(states[0]) == json.dumps(states[1])


def test_a_state_with_many_buckets_stays_small(folder: Path, dataset: Any) -> None:
    buckets = [Bucket(num_frames=4, height=16 * i, width=16) for i in range(1, 200)]
    loader = loader_of(folder, dataset, buckets=buckets, sizes=sizes_of(NUM_ROWS), size=None)
    assert len(json.dumps(loader.state_dict())) < 1000


@pytest.mark.parametrize("wrong", [{"batch": 99}, {"batch": -3}, {"epoch": -1}])
def test_a_place_that_is_none_is_refused(folder: Path, dataset: Any, wrong: dict[str, int]) -> None:
    loader = loader_of(folder, dataset)
    with pytest.raises(LoaderStateError, match="which there is not: it was edited"):
        loader.load_state_dict(loader.state_dict() | wrong)
    with pytest.raises(LoaderStateError, match="not NoneType"):
        loader.load_state_dict(None)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"size": 256}, ValueError, r"DecodeClips\(size=256\): size is \(height, width\)"),
        ({"frames": 16}, ValueError, r"frames=16: give a sampler, such as Uniform\(16\)"),
        ({"dataset": "out/civid"}, TypeError, r"give rows, such as load_dataset\('out/civid', split='train'\)"),
        ({"dataset": {"train": [], "test": []}}, TypeError, "divided into train, test: give the rows of one"),
        ({"dataset": iter([])}, TypeError, "cannot be read by row number: load it with streaming=False"),
        ({"buckets": []}, ValueError, "buckets need sizes="),
        ({"max_consecutive_failures": 0}, ValueError, "max_consecutive_failures=0: a whole number of at least 1"),
        ({"decode_timeout_seconds": -5}, ValueError, "decode_timeout_seconds=-5: above 0"),
        ({"prefetch": 0}, ValueError, "prefetch=0: a whole number of at least 1"),
        ({"decode_threads": 0}, ValueError, "decode_threads=0: a whole number of at least 1"),
        ({"num_workers": -1}, ValueError, "num_workers=-1: a whole number of at least 0"),
        ({"batch_size": 4.0}, TypeError, "'float' object cannot be interpreted as an integer"),
    ],
)
def test_mistakes(folder: Path, dataset: Any, changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    rows = changes.pop("dataset", dataset)
    with pytest.raises(kind, match=message):
        loader_of(folder, rows, **changes)
