"""How far apart two sets of videos or images lie, by their features: Fréchet distance and kernel distance.

With features of Inception-v3 they are called FID and KID, with those of I3D FVD and KVD. Features are handed in, so any
encoder will do; distances of different encoders cannot be compared.

Legend: N, M features, D dimensions of one, S features in a subset.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating]
_Floats = npt.NDArray[np.float64]


class FeatureMoments:
    """Mean and covariance of features that come batch by batch, or shard by shard: n, sum x and sum x x^T in float64.

    Its size depends on D only: D^2 numbers, 34 MB for 2048 dimensions.
    """

    def __init__(self, num_dimensions: int) -> None:
        """Of no features yet.

        Raises:
            ValueError: `num_dimensions` below 1.
        """
        if num_dimensions < 1:
            raise ValueError(f"FeatureMoments: num_dimensions={num_dimensions}: at least 1")
        self.num_dimensions = num_dimensions
        self.num_features = 0
        self._sum_D = np.zeros(num_dimensions)
        self._sum_DD = np.zeros((num_dimensions, num_dimensions))

    def update(self, features_ND: Features) -> None:
        """Add features.

        Raises:
            ValueError: they are no [N, D], have another D, or are not finite.
        """
        checked_ND = _checked(features_ND, num_dimensions=self.num_dimensions)
        self.num_features += len(checked_ND)
        self._sum_D += checked_ND.sum(axis=0)
        self._sum_DD += checked_ND.T @ checked_ND

    def merge(self, other: "FeatureMoments") -> None:
        """Add all features that `other` has got.

        Raises:
            ValueError: it has another D.
        """
        if other.num_dimensions != self.num_dimensions:
            raise ValueError(
                f"FeatureMoments: of {self.num_dimensions} dimensions and of {other.num_dimensions}: only features of "
                "one encoder can be taken together"
            )
        self.num_features += other.num_features
        self._sum_D += other._sum_D
        self._sum_DD += other._sum_DD

    def compute(self) -> tuple[_Floats, _Floats]:
        """Mean [D] and unbiased covariance [D, D]; a warning where features are too few for all dimensions.

        Raises:
            ValueError: fewer than 2 features.
        """
        num = self.num_features
        if num < 2:
            raise ValueError(f"FeatureMoments: {num} features; a covariance takes 2, and a distance thousands")
        if num <= self.num_dimensions:
            warnings.warn(
                f"{num} features of {self.num_dimensions} dimensions: their covariance is singular and the Fréchet "
                f"distance biased; take more than {self.num_dimensions}",
                stacklevel=2,
            )
        mean_D = self._sum_D / num
        return mean_D, (self._sum_DD - num * np.outer(mean_D, mean_D)) / (num - 1)


def frechet_distance(one: FeatureMoments, other: FeatureMoments) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of means m and covariances S (Heusel et al., NeurIPS 2017, sec. 4).

    The trace of the root is the sum of the roots of the eigenvalues of R S2 R, R = S1^(1/2): that matrix is symmetric,
    which S1 S2 is not, and so are all roots real.

    Raises:
        ValueError: one of them has fewer than 2 features, or they differ in their dimensions.
    """
    if one.num_dimensions != other.num_dimensions:
        raise ValueError(
            f"frechet_distance: {one.num_dimensions} and {other.num_dimensions} dimensions; take the same encoder for "
            "both sets"
        )
    (mean1_D, cov1_DD), (mean2_D, cov2_DD) = one.compute(), other.compute()
    values_D, vectors_DD = np.linalg.eigh(cov1_DD)
    root_DD = (vectors_DD * np.sqrt(values_D.clip(min=0))) @ vectors_DD.T
    trace_of_root = np.sqrt(np.linalg.eigvalsh(root_DD @ cov2_DD @ root_DD).clip(min=0)).sum()
    distance = ((mean1_D - mean2_D) ** 2).sum() + np.trace(cov1_DD) + np.trace(cov2_DD) - 2 * trace_of_root
    return max(0.0, float(distance))  # of equal sets, rounding may lead below


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelDistance:
    """What `kernel_distance` finds."""

    mean: float
    """Over the subsets; of sets of one distribution about 0, and as often below as above."""
    std: float
    """Of the subsets' values, their number the divisor."""


def kernel_distance(
    one_ND: Features,
    other_MD: Features,
    *,
    rng: np.random.Generator,
    num_subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """Unbiased squared MMD with kernel (x.y / D + 1)^3, over random subsets (Bińkowski et al., ICLR 2018, section 4).

    Args:
        one_ND: features of one set.
        other_MD: of the other, by the same encoder.
        rng: draws the subsets, each without repetition.
        num_subsets: how many.
        subset_size: features of each set in a subset, >= 2; MiraBench takes 100.

    Raises:
        ValueError: features of the wrong shape or not finite, or fewer than `subset_size`.
    """
    one_ND = _checked(one_ND)
    other_MD = _checked(other_MD, num_dimensions=one_ND.shape[1])
    fewest = min(len(one_ND), len(other_MD))
    if num_subsets < 1 or not 2 <= subset_size <= fewest:
        raise ValueError(
            f"kernel_distance: num_subsets={num_subsets}, subset_size={subset_size}: at least 1 subset, of 2 to "
            f"{fewest} features, as there are {len(one_ND)} and {len(other_MD)}"
        )
    values = [
        _squared_mmd(
            one_ND[rng.choice(len(one_ND), subset_size, replace=False)],
            other_MD[rng.choice(len(other_MD), subset_size, replace=False)],
        )
        for _ in range(num_subsets)
    ]
    return KernelDistance(mean=float(np.mean(values)), std=float(np.std(values)))


def _squared_mmd(one_SD: _Floats, other_SD: _Floats) -> float:
    """Unbiased: no feature is compared with itself."""
    size = len(one_SD)
    within = sum((kernel.sum() - np.trace(kernel)) for kernel in (_kernel(one_SD, one_SD), _kernel(other_SD, other_SD)))
    return float(within / (size * (size - 1)) - 2 * _kernel(one_SD, other_SD).mean())


def _kernel(one_SD: _Floats, other_SD: _Floats) -> _Floats:
    kernel_SS: _Floats = (one_SD @ other_SD.T / one_SD.shape[1] + 1) ** 3
    return kernel_SS


def _checked(features_ND: Features, *, num_dimensions: int | None = None) -> _Floats:
    """In float64."""
    if features_ND.ndim != 2 or num_dimensions not in (None, features_ND.shape[1]) or features_ND.shape[1] < 1:
        wanted = "[N, D]" if num_dimensions is None else f"[N, {num_dimensions}]"
        raise ValueError(f"features of shape {features_ND.shape}: must be {wanted}, a row for each image or video")
    in_double_ND = features_ND.astype(np.float64)
    if bad := int((~np.isfinite(in_double_ND).all(axis=1)).sum()):
        raise ValueError(
            f"{bad} of {len(features_ND)} features are not finite; leave them out, or run the encoder in fp32"
        )
    return in_double_ND
