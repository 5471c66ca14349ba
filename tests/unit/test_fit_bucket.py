import numpy as np
import pytest
import torch

from civid_loader.buckets import Bucket
from civid_loader.collation import collate
from civid_loader.pixels import covering
from civid_loader.sampling import ClipTimes, Uniform
from civid_loader.transforms.fit_bucket import FitBucket
from support.samples import a_sample, frame_numbers, hide

RNG = np.random.default_rng(0)


def fitted_frames(num_frames: int, *lengths: int) -> list[list[int | None]]:
    """Which frames stay, of a picture that has the bucket's size already."""
    sample = a_sample(*lengths)
    changed = FitBucket(bucket=Bucket(num_frames=num_frames, height=4, width=6))(sample, RNG)
    return [frame_numbers(changed, n, of=sample) for n in range(len(lengths))]


def test_frames_stay_evenly_or_are_padded() -> None:
    assert fitted_frames(8, 100, 8, 3, 0) == [
        [6, 18, 31, 43, 56, 68, 81, 93],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, None, None, None, None, None],
        [None] * 8,
    ]
    assert fitted_frames(1, 9) == [[4]]


@pytest.mark.parametrize("length", [9, 10, 33, 100])
def test_they_are_the_frames_that_uniform_decodes(length: int) -> None:
    pts_seconds = np.arange(length) / 25
    clip = ClipTimes(pts_seconds=pts_seconds, is_key=np.zeros(length, bool), duration_seconds=length / 25)
    moments = Uniform(8).times_seconds(clip)
    assert fitted_frames(8, length) == [[int(np.searchsorted(pts_seconds, t + 1e-9, "right")) - 1 for t in moments]]


def test_damaged_frames_are_passed_over() -> None:
    sample = hide(a_sample(6), 0, 0, 3)
    changed = FitBucket(bucket=Bucket(num_frames=4, height=4, width=6))(sample, RNG)
    assert frame_numbers(changed, 0, of=sample) == [1, 2, 4, 5]
    assert changed["pts_seconds_NT"][0].tolist() == pytest.approx([0.04, 0.08, 0.16, 0.2])


def test_the_picture_is_covered_and_cropped() -> None:
    sample = a_sample(3, 2, size=(45, 80))
    changed = FitBucket(bucket=Bucket(num_frames=3, height=16, width=20))(sample, RNG)
    assert changed["frames_NTCHW"].shape == (2, 3, 3, 16, 20)
    assert torch.equal(changed["frames_NTCHW"][1, 1], covering(sample["frames_NTCHW"][1, 1], (16, 20)))
    random = FitBucket(bucket=Bucket(num_frames=3, height=16, width=20), place="random")
    different = {random(sample, np.random.default_rng(seed))["frames_NTCHW"].numpy().tobytes() for seed in range(30)}
    assert len(different) > 3


def test_samples_of_any_size_make_one_batch() -> None:
    fit = FitBucket(bucket=Bucket(num_frames=4, height=8, width=8))
    given = [a_sample(9, size=(30, 20)), a_sample(2, 5, size=(5, 11)), a_sample(4, size=(8, 8))]
    assert collate([fit(sample, RNG) for sample in given]).frames_BNTCHW.shape == (3, 2, 4, 3, 8, 8)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"give a Bucket\(num_frames=\.\.\., height"):
        FitBucket(bucket=(8, 4, 6))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be one of centre, random"):
        FitBucket(bucket=Bucket(num_frames=4, height=8, width=8), place="left")  # type: ignore[arg-type]
