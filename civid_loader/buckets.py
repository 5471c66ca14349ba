"""Buckets: the few shapes that batches have, and which of them fits a sample.

A size is (frames, height in px, width in px). A sample that goes into a bucket is scaled to cover it and cropped at the
centre, as `read_frames(size=)` does; frames it lacks are padding, frames it has beyond are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Bucket:
    """One shape of batches."""

    num_frames: int
    """Frames of a clip, >= 1."""
    height: int
    """px."""
    width: int
    """px."""

    def __post_init__(self) -> None:
        if min(self.num_frames, self.height, self.width) < 1:
            raise ValueError(f"{self}: frames, height and width are at least 1")

    @property
    def num_pixels(self) -> int:
        """Of one clip."""
        return self.num_frames * self.height * self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a bucket does to samples."""

    scale: npt.NDArray[np.float64]
    """[...], by which the picture is scaled; above 1 it gets larger."""
    crop_share: npt.NDArray[np.float64]
    """[...], of the scaled picture that the crop takes away."""
    padding_share: npt.NDArray[np.float64]
    """[...], of the bucket's frames that the sample does not have."""


def fit(sizes: Longs, buckets: Sequence[Bucket]) -> Fit:
    """What each of `buckets` does to each of `sizes` [N, 3]; arrays are [N, buckets]."""
    frames, height, width = (sizes[:, None, i].astype(np.float64) for i in range(3))
    shape = np.array([(one.num_frames, one.height, one.width) for one in buckets], np.float64)
    scale = np.maximum(shape[:, 1] / height, shape[:, 2] / width)
    return Fit(
        scale=scale,
        crop_share=1 - shape[:, 1] * shape[:, 2] / (height * width * scale**2),
        padding_share=np.maximum(0.0, 1 - frames / shape[:, 0]),
    )


def assign(sizes: Longs, buckets: Sequence[Bucket]) -> Longs:
    """The bucket of each sample [N].

    First the longest that the sample can fill, or the shortest if it fills none; of those the one that loses least: the
    share cropped away, and as much again for every doubling of size. Equal ones: the first.

    16:9 goes to 16:9 rather than to 1:1 of the same height, and 720 rows to 720 rather than to 360.
    """
    kinds, inverse = unique_sizes(sizes)
    # Block by block: millions of videos may have as many sizes.
    blocks = [_assign(kinds[at : at + _BLOCK], buckets) for at in range(0, len(kinds), _BLOCK)]
    chosen: Longs = np.concatenate(blocks)[inverse]
    return chosen


def _assign(kinds: Longs, buckets: Sequence[Bucket]) -> Longs:
    of = fit(kinds, buckets)
    lengths = np.array([one.num_frames for one in buckets])
    can_fill = kinds[:, :1] >= lengths
    longest = np.where(can_fill, lengths, 0).max(axis=1)
    wanted = np.where(longest > 0, longest, lengths.min())
    loss = of.crop_share + np.abs(np.log2(of.scale)) * np.where(of.scale > 1, 1.0, 0.25)
    loss[lengths != wanted[:, None]] = np.inf
    best: Longs = loss.argmin(axis=1)
    return best


def unique_sizes(sizes: Longs) -> tuple[Longs, Longs]:
    """(the different sizes [K, 3], which of them each sample has [N])."""
    packed = (sizes[:, 0] << 40) | (sizes[:, 1] << 20) | sizes[:, 2]
    order = np.argsort(packed, kind="stable")
    is_new = np.append(True, packed[order][1:] != packed[order][:-1])
    inverse = np.empty(len(packed), np.int64)
    inverse[order] = np.cumsum(is_new) - 1
    return sizes[order[is_new]], inverse


def fit_buckets(
    sizes: npt.ArrayLike,
    *,
    num_frames: int | Sequence[int],
    pixels_per_frame: int,
    max_shapes: int = 8,
    multiple_of: int = 16,
) -> list[Bucket]:
    """Buckets of equal area in the shapes that the data has: a batch holds one resolution, as MiraDiT trains.

    Every sample asks for the shape of its own aspect ratio at that area, rounded to `multiple_of` px; the shapes asked
    for most often are kept, each at every length.

    Args:
        sizes: [N, 3], (frames, height, width) of each sample, a `SampleSizes` too.
        num_frames: lengths of batches, one or several.
        pixels_per_frame: height times width, about: 256 * 256 for 16:9 gives 192x336.
        max_shapes: as many shapes at most.
        multiple_of: px; what the model's patches and the codec's stride need.

    Raises:
        ValueError: no samples, or a number below 1.
    """
    given = np.ascontiguousarray(sizes, np.int64)
    lengths = [num_frames] if isinstance(num_frames, int) else list(num_frames)
    if not lengths or not len(given) or min(*lengths, pixels_per_frame, max_shapes, multiple_of) < 1 or given.min() < 1:
        raise ValueError("fit_buckets needs samples, and lengths, pixels, shapes and multiples of at least 1")
    height, width = given[:, 1].astype(np.float64), given[:, 2].astype(np.float64)
    exact = np.stack([np.sqrt(pixels_per_frame * height / width), np.sqrt(pixels_per_frame * width / height)], axis=1)
    rounded = np.maximum(1, np.round(exact / multiple_of)).astype(np.int64) * multiple_of
    kinds, inverse = unique_sizes(np.column_stack([np.ones(len(given), np.int64), rounded]))
    counts = np.bincount(inverse)
    common = kinds[np.argsort(-counts, kind="stable")[:max_shapes], 1:].tolist()
    return sorted(
        Bucket(num_frames=length, height=rows, width=columns) for length in lengths for rows, columns in common
    )
