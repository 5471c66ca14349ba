"""Distances of feature sets: known Gaussians, another way to compute them, and what must not change them."""
# ruff: noqa: N803, N806 - arrays carry their shape.

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg  # type: ignore[import-untyped] # there are no types of it

from civid_loader.processing.distances import FeatureMoments, frechet_distance, kernel_distance

Floats = npt.NDArray[np.float64]


def moments(features_ND: npt.NDArray[Any]) -> FeatureMoments:
    found = FeatureMoments(features_ND.shape[1])
    found.update(features_ND)
    return found


def mixed(seed: int, *, num: int = 300, num_dimensions: int = 12) -> Floats:
    """Features whose dimensions go together."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, num_dimensions)) @ rng.normal(size=(num_dimensions, num_dimensions)) + rng.normal()


def exactly(covariance: Floats, mean: Floats, *, num: int = 50) -> Floats:
    """Features that have just this covariance and mean."""
    drawn_ND = np.random.default_rng(5).normal(size=(num, len(mean)))
    drawn_ND -= drawn_ND.mean(axis=0)
    white_ND = drawn_ND @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn_ND.T))).T
    return white_ND @ np.linalg.cholesky(covariance).T + mean


def test_of_known_gaussians() -> None:
    """Covariances I and 9 I in 3 dimensions: 3 * (1 + 9 - 2 * 3) = 12; means 2 apart: 4 more."""
    one = moments(exactly(np.eye(3), np.zeros(3)))
    other = moments(exactly(9 * np.eye(3), np.array([2.0, 0, 0])))
    assert frechet_distance(one, other) == pytest.approx(16.0)


def test_of_gaussians_that_do_not_commute() -> None:
    """In 2 dimensions the root's trace is sqrt(tr(AB) + 2 sqrt(det(AB))): A = [[2, 1], [1, 2]], B = diag(1, 4)."""
    one = moments(exactly(np.array([[2.0, 1], [1, 2]]), np.zeros(2)))
    other = moments(exactly(np.diag([1.0, 4]), np.zeros(2)))
    assert frechet_distance(one, other) == pytest.approx(4 + 5 - 2 * np.sqrt(10 + 2 * np.sqrt(12)))


def test_the_root_is_that_of_scipy() -> None:
    one_ND, other_ND = mixed(1), mixed(2)
    cov1_DD, cov2_DD = np.cov(one_ND.T), np.cov(other_ND.T)
    root_DD = np.real(scipy.linalg.sqrtm(cov1_DD @ cov2_DD))
    shift = ((one_ND.mean(axis=0) - other_ND.mean(axis=0)) ** 2).sum()
    expected = shift + np.trace(cov1_DD + cov2_DD - 2 * root_DD)
    assert frechet_distance(moments(one_ND), moments(other_ND)) == pytest.approx(expected, rel=1e-5)


def test_what_does_and_does_not_change_it() -> None:
    one_ND, other_ND = mixed(1), mixed(2)
    distance = frechet_distance(moments(one_ND), moments(other_ND))
    assert distance > 1
    assert frechet_distance(moments(other_ND), moments(one_ND)) == pytest.approx(distance)
    rotation_DD = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    assert frechet_distance(moments(one_ND @ rotation_DD), moments(other_ND @ rotation_DD)) == pytest.approx(distance)
    assert frechet_distance(moments(one_ND), moments(one_ND)) == pytest.approx(0, abs=1e-5)
    shift_D = np.arange(12) / 4
    assert frechet_distance(moments(one_ND), moments(one_ND + shift_D)) == pytest.approx((shift_D**2).sum(), abs=1e-5)


def test_shards_merge_to_the_whole() -> None:
    features_ND = mixed(4).astype(np.float32)
    merged = FeatureMoments(12)
    for shard_ND in np.split(features_ND, [1, 100, 250]):
        merged.merge(moments(shard_ND))
    batches = FeatureMoments(12)
    for batch_ND in np.split(features_ND, 10):
        batches.update(batch_ND)
    batches.update(features_ND[:0])
    expected = features_ND.mean(axis=0, dtype=np.float64), np.cov(features_ND.T.astype(np.float64))
    for found in (merged, batches):
        assert found.num_features == 300
        for value, known in zip(found.compute(), expected, strict=True):
            np.testing.assert_allclose(value, known, rtol=1e-9, atol=1e-12)


def test_too_few_features_are_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moments(mixed(1, num=13)).compute()
    with pytest.warns(UserWarning, match="12 features of 12 dimensions.*take more than 12"):
        moments(mixed(1, num=12)).compute()


def test_one_dimension() -> None:
    """1, 3 and 2, 8: means 2 and 5, variances 2 and 18: 9 + (sqrt(18) - sqrt(2))^2 = 17."""
    one, other = (moments(np.array([values], float).T) for values in ((1, 3), (2, 8)))
    assert frechet_distance(one, other) == pytest.approx(17)


def test_kernel_distance_of_a_hand_case() -> None:
    """One dimension, {0, 1} and {1, 2}: k(0, 1) = 1, k(1, 2) = 27; between them 1, 1, 8 and 27, mean 37 / 4."""
    one_ND, other_ND = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    found = kernel_distance(one_ND, other_ND, rng=np.random.default_rng(0), num_subsets=3, subset_size=2)
    assert found.mean == pytest.approx(1 + 27 - 2 * 37 / 4)
    assert found.std == pytest.approx(0)


def test_kernel_distance_divides_by_the_dimensions() -> None:
    """Rows of two equal values have k = (x y + 1)^3, as in one dimension."""
    one_ND, other_ND = np.array([[0.0, 0], [1, 1]]), np.array([[1.0, 1], [2, 2]])
    found = kernel_distance(one_ND, other_ND, rng=np.random.default_rng(0), num_subsets=1, subset_size=2)
    assert found.mean == pytest.approx(9.5)


def test_kernel_distance_is_unbiased() -> None:
    """Sets of one distribution are 0 apart on average; with features compared to themselves it would be 2 (k_ii - k_ij)
    / 20 or so, here above 0.1.
    """
    rng = np.random.default_rng(7)
    values = [
        kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4)), rng=rng, num_subsets=1, subset_size=20).mean
        for _ in range(600)
    ]
    error = float(np.std(values)) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error < 0.05
    assert min(values) < 0 < max(values)


def test_kernel_distance_grows_with_the_shift_and_repeats_with_the_seed() -> None:
    one_ND, other_ND = mixed(1), mixed(1)[::-1]

    def found(shift: float) -> float:
        rng = np.random.default_rng(2)
        return kernel_distance(one_ND, other_ND + shift, rng=rng, num_subsets=20, subset_size=100).mean

    assert found(0) < found(1) < found(2)
    assert found(1) == found(1)
    spread = kernel_distance(one_ND, other_ND, rng=np.random.default_rng(2), num_subsets=20, subset_size=100).std
    assert spread > 0


def test_what_are_no_features() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="num_dimensions=0"):
        FeatureMoments(0)
    twelve = FeatureMoments(12)
    for strange in (np.zeros(12), np.zeros((2, 3, 12)), np.zeros((5, 11))):
        with pytest.raises(ValueError, match=r"features of shape .*: must be \[N, 12\]"):
            twelve.update(strange)
    with pytest.raises(ValueError, match="2 of 5 features are not finite"):
        twelve.update(np.where(np.arange(5)[:, None] < 2, np.nan, np.zeros((5, 12))))
    assert twelve.num_features == 0
    with pytest.raises(ValueError, match="0 features; a covariance takes 2"):
        twelve.compute()
    with pytest.raises(ValueError, match="of 12 dimensions and of 3: only features of one encoder"):
        twelve.merge(FeatureMoments(3))
    with pytest.raises(ValueError, match="12 and 3 dimensions"):
        frechet_distance(twelve, FeatureMoments(3))
    with pytest.raises(ValueError, match=r"must be \[N, 12\]"):
        kernel_distance(mixed(1), mixed(1)[:, :3], rng=rng)
    for settings in ({"subset_size": 31}, {"subset_size": 1}, {"num_subsets": 0, "subset_size": 9}):
        with pytest.raises(ValueError, match="of 2 to 30 features, as there are 300 and 30"):
            kernel_distance(mixed(1), mixed(1, num=30), rng=rng, **settings)
