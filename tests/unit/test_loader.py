"""The loader never loses its place: whatever stops it, and with whatever workers and ranks it goes on."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from civid_loader.buckets import Bucket
from civid_loader.errors import LoaderStateError
from civid_loader.loader import SequenceLoader
from civid_loader.packing import PackClips
from civid_loader.sampling import All, Uniform
from support.media import read_numbers
from support.resuming import BUCKETS, CHANGES, CONFIGURATIONS, NUM_ROWS, SIZES, loader_of
from support.training import dataset_of, digest, prove_resume, run, samples_of, write_videos

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Any:
    return dataset_of(write_videos(folder, NUM_ROWS))


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize(("before", "after"), CHANGES, ids=str)
def test_nothing_is_lost_or_repeated(
    folder: Path, dataset: Any, name: str, before: dict[str, int], after: dict[str, int]
) -> None:
    def make(**settings: Any) -> SequenceLoader:
        return loader_of(folder, dataset, **CONFIGURATIONS[name], **settings)

    for stop_after in (1, 8):  # within the first epoch, and in the second
        found = prove_resume(make, epochs=2, stop_after=stop_after, before=before, after=after)
        assert found == {"lost": 0, "repeated": 0}


def test_an_epoch_has_every_sample_once_and_each_epoch_its_own_order(folder: Path, dataset: Any) -> None:
    *digests, state = run(lambda **settings: loader_of(folder, dataset, **settings), epochs=2)
    assert state["epoch"] == 2
    half = len(digests) // 2
    first, second = (samples_of(part) for part in (digests[:half], digests[half:]))
    for samples in (first, second):
        assert sorted(name for name, weight in samples if weight) == sorted(f"s{i}" for i in range(NUM_ROWS))
    assert first != second


def test_random_windows_differ_between_epochs_and_not_between_runs(folder: Path, dataset: Any) -> None:
    def starts(epoch: int) -> dict[str, int]:
        loader = loader_of(folder, dataset, batch_size=1)
        loader.set_epoch(epoch)
        return {batch.sample_ids[0]: read_numbers(batch.frames_BNTCHW[0, 0])[0] for batch in loader}

    assert starts(0) == starts(0) != starts(1)
    assert len(set(starts(0).values())) > 3


def test_what_a_batch_holds(folder: Path, dataset: Any) -> None:
    loader = loader_of(folder, dataset, frames=Uniform(4), shuffle=False)
    batch = next(iter(loader))
    assert batch.frames_BNTCHW.shape == (4, 1, 4, 3, 32, 48)
    assert batch.weights_B.tolist() == [1, 1, 1, 1]
    assert batch.texts == [["clip 0"], ["clip 1"], ["clip 2"], ["clip 3"]]
    assert read_numbers(batch.frames_BNTCHW[0, 0]) == [1, 3, 5, 7]
    assert len(loader) == 6
    *_, last = loader
    assert last.weights_B.tolist() == [1, 1, 0, 0], "22 rows in batches of 4"


def test_buckets_decide_size_and_number_of_frames(folder: Path, dataset: Any) -> None:
    loader = loader_of(folder, dataset, buckets=BUCKETS, sizes=SIZES, size=None, frames=Uniform(1))
    shapes = {tuple(batch.frames_BNTCHW.shape[2:]) for batch in loader}
    assert shapes == {(4, 3, 32, 48), (8, 3, 16, 16)}


def test_clips_of_different_lengths_are_packed(folder: Path, dataset: Any) -> None:
    loader = SequenceLoader(
        dataset, videos=folder, frames=All(), size=(16, 16), batch_size=6, collate=PackClips(max_frames=24)
    )
    batches = list(loader)
    lengths = {
        name: length
        for batch in batches
        for name, length, weight in zip(batch.clip_ids, batch.packed.lengths, batch.weights_S.tolist(), strict=True)
        if weight
    }
    assert lengths == {f"c{i}": 8 + i % 5 for i in range(NUM_ROWS)}
    assert all(batch.padding_share < 0.4 for batch in batches)
    assert loader.stats().num_samples == NUM_ROWS


def test_random_crops_lie_anywhere_and_stay_with_seed_epoch_and_sample(folder: Path, dataset: Any) -> None:
    def crops(epoch: int = 0, **settings: Any) -> dict[str, torch.Tensor]:
        loader = loader_of(folder, dataset, frames=Uniform(1), **{"size": (8, 48), "crop": "random"} | settings)
        loader.set_epoch(epoch)
        pairs = (pair for batch in loader for pair in zip(batch.sample_ids, batch.frames_BNTCHW, strict=True))
        return dict(pairs)

    first, again, next_epoch, centre = crops(), crops(num_workers=2), crops(1), crops(crop="centre")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sum(not torch.equal(first[name], next_epoch[name]) for name in first) > 4, (
        "some pictures are alike in several places"
    )
    assert sum(not torch.equal(first[name], centre[name]) for name in first) > 4
    in_bucket = crops(size=None, buckets=[Bucket(num_frames=1, height=8, width=48)], sizes=SIZES)
    assert all(torch.equal(first[name], in_bucket[name]) for name in first), "within a bucket too"


def test_a_bar_on_a_terminal(folder: Path, dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for progress in (True, False):
        shown = Terminal()
        monkeypatch.setattr("sys.stderr", shown)
        list(loader_of(folder, dataset, progress=progress))
        assert ("epoch 0: 100%" in shown.getvalue() and "waiting" in shown.getvalue()) == progress


def test_transforms_get_the_row_and_the_same_randomness_anywhere(folder: Path, dataset: Any) -> None:
    def brighten(sample: dict[str, Any], rng: Any) -> dict[str, Any]:
        assert sample["row"]["sample_id"] == sample["sample_id"]
        return sample | {"gain": float(rng.random())}

    def gains(**settings: Any) -> list[list[float]]:
        return [batch.extras["gain"] for batch in loader_of(folder, dataset, transforms=[brighten], **settings)]

    assert gains() == gains(num_workers=2) == gains(decode_threads=3)
    assert len({gain for batch in gains() for gain in batch}) == NUM_ROWS


def test_the_state_is_small_and_plain(folder: Path, dataset: Any) -> None:
    loader = loader_of(folder, dataset)
    next(iter(loader))
    assert len(json.dumps(loader.state_dict())) < 1000
    assert loader.state_dict()["batch"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"batch_size": 2}, "batch_sizes was"),
        ({"tail": "drop"}, "tail was 'pad', is 'drop'"),
        ({"shuffle": False}, "shuffle was True, is False"),
        ({"dataset": dataset_of([["0.mp4"]] * 22).select(range(21))}, "data was .*; num_rows was 22, is 21"),
    ],
)
def test_a_state_of_another_run_is_refused(folder: Path, dataset: Any, changes: dict[str, Any], message: str) -> None:
    state = loader_of(folder, dataset).state_dict()
    other = changes.pop("dataset", dataset)
    with pytest.raises(LoaderStateError, match=f"the state is of another run: .*{message}"):
        loader_of(folder, other, **changes).load_state_dict(state)
    with pytest.raises(LoaderStateError, match="version 7; this package reads 1"):
        loader_of(folder, dataset).load_state_dict(state | {"version": 7})


def test_statistics(folder: Path, dataset: Any) -> None:
    loader = loader_of(folder, dataset, num_workers=2)
    for _ in loader:
        pass
    stats = loader.stats()
    assert (stats.num_batches, stats.num_samples) == (6, NUM_ROWS)
    assert stats.num_bytes_read > 1000
    assert stats.decode_seconds > 0
    assert stats.samples_per_second > 0
    assert set(stats.workers) == {0, 1}
    assert sum(worker.num_batches for worker in stats.workers.values()) == 6
    assert all(worker.num_bytes_read and worker.decode_seconds for worker in stats.workers.values())


def test_mistakes_are_told_at_once(folder: Path, dataset: Any) -> None:
    for changes, message in (
        ({"on_error": "ignore"}, "must be one of raise, skip, substitute"),
        ({"crop": "left"}, "must be one of centre, random"),
        ({"buckets": BUCKETS, "sizes": [(1, 1, 1)] * 22, "frames": All()}, "a sampler with a number of frames"),
        ({"missing": "mask"}, "must be one of error, drop_clip, skip_sample"),
        ({"buckets": BUCKETS}, "buckets need sizes="),
        ({"rank": 2, "world_size": 2}, "there are 2 ranks, from 0 on"),
        ({"batch_size": 3, "world_size": 2}, "a multiple of world_size=2"),
    ):
        with pytest.raises(ValueError, match=message):
            loader_of(folder, dataset, **changes)
    with pytest.raises(ValueError, match=r"22 samples do not fill one of .*50.*tail='drop'"):
        loader_of(folder, dataset, batch_size=50, tail="drop")
    with pytest.raises(ValueError, match="epochs are counted from 0"):
        loader_of(folder, dataset).set_epoch(-1)


def test_spawned_workers_give_the_same(folder: Path, dataset: Any) -> None:
    own = [digest(batch) for batch in loader_of(folder, dataset)]
    spawned = loader_of(folder, dataset, num_workers=1, multiprocessing_context="spawn")
    assert [digest(batch) for batch in spawned] == own
    assert torch.utils.data.get_worker_info() is None
