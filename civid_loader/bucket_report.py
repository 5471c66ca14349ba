"""What a plan does to the samples of a bucket: told before training starts."""

from dataclasses import dataclass

import numpy as np

from civid_loader.buckets import Bucket, Longs, fit
from civid_loader.epoch import Epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketReport:
    """What becomes of one bucket's samples in an epoch."""

    bucket: Bucket | None
    batch_size: int
    """Of all ranks together."""
    num_samples: int
    num_batches: int
    """Steps of each rank."""
    num_filling: int
    """Rows with weight 0, that fill up the last batch."""
    num_dropped: int
    scale: float
    """Mean factor of height and width; above 1 pictures get larger."""
    crop_share: float
    """Mean share of the scaled picture that is cropped away."""
    upscaled_share: float
    """Share of samples whose picture is smaller than the bucket."""
    padding_share: float
    """Of all places for frames in its batches, those without one: frames that a sample does not have, and clips that it
    has fewer of than the largest sample beside it."""


def report_on(
    epoch: Epoch,
    number: int,
    *,
    bucket: Bucket | None,
    batch_size: int,
    drawn: Longs,
    sizes: Longs,
    num_clips: Longs,
    world_size: int,
) -> BucketReport:
    """Of bucket `number`; `drawn`: its rows in the epoch; `sizes` and `num_clips`: of all rows."""
    scale, crop, upscaled = 1.0, 0.0, 0.0
    if bucket is not None and len(drawn):
        change = fit(sizes[drawn], [bucket])
        scale, crop = float(change.scale.mean()), float(change.crop_share.mean())
        upscaled = float((change.scale > 1).mean())
    batches = np.flatnonzero(epoch.buckets == number)
    num_real = int(epoch.num_real[batches].sum())
    return BucketReport(
        bucket=bucket,
        batch_size=batch_size,
        num_samples=len(drawn),
        num_batches=len(batches),
        num_filling=int(epoch.lengths[batches].sum()) - num_real,
        num_dropped=len(drawn) - num_real,
        scale=scale,
        crop_share=crop,
        upscaled_share=upscaled,
        padding_share=_padding_share(epoch, batches, bucket, sizes, num_clips, world_size=world_size),
    )


def _padding_share(
    epoch: Epoch, batches: Longs, bucket: Bucket | None, sizes: Longs, num_clips: Longs, *, world_size: int
) -> float:
    """Ranks stack their shares each by itself, so what pads is the sample with the most clips of a share."""
    if not len(batches):
        return 0.0
    length = epoch.lengths[batches] // world_size
    starts = np.sort(np.concatenate([epoch.starts[batches] + rank * length for rank in range(world_size)]))
    stop = int((epoch.starts[batches] + epoch.lengths[batches]).max())
    rows = epoch.rows[starts[0] : stop]  # of one bucket: they lie side by side
    most_clips = np.maximum.reduceat(num_clips[rows], starts - starts[0])
    num_frames = 1 if bucket is None else bucket.num_frames
    shown = np.ones(len(rows), np.int64) if bucket is None else np.minimum(sizes[rows, 0], num_frames)
    places = int((most_clips * np.diff(starts, append=stop)).sum()) * num_frames
    return 1 - float((num_clips[rows] * shown).sum()) / places
