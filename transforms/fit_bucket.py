"""A sample in the shape of its bucket."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from civid_loader.buckets import Bucket
from civid_loader.picking import pick_frames, shown_places
from civid_loader.transforms.crop_frames import CropFrames, Place
from civid_loader.transforms.resize_frames import ResizeFrames


@dataclass(frozen=True, kw_only=True, slots=True)
class FitBucket:
    """Scale frames to cover the bucket's picture, crop them to it, and bring each clip to the bucket's frames.

    Of a clip with more frames than the bucket, those in the middle of equal parts stay: int((i + 1/2) K/n) of its K
    shown frames, 8 of 100: 6 18 31 43 56 68 81 93. A clip with fewer keeps them all, at the front, and is padded.
    """

    bucket: Bucket
    """Frames of a clip, height and width in px."""
    place: Place = "centre"
    """Where to crop, see `CropFrames`; one draw for all clips."""

    def __post_init__(self) -> None:
        if not isinstance(self.bucket, Bucket):
            raise ValueError(
                f"FitBucket(bucket={self.bucket!r}): give a Bucket(num_frames=..., height=..., width=...), as "
                "fit_buckets and batch plans do"
            )
        self._crop()  # which checks `place`

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with `frames_NTCHW` of [N, num_frames, 3, height, width]."""
        places = [_evenly(of_clip, self.bucket.num_frames) for of_clip in shown_places(sample)]
        # Time first: frames that are left out need no scaling.
        picked = pick_frames(sample, places, num_frames=self.bucket.num_frames)
        resize = ResizeFrames(size=(self.bucket.height, self.bucket.width), mode="cover")
        return self._crop()(resize(picked, rng), rng)

    def _crop(self) -> CropFrames:
        return CropFrames(size=(self.bucket.height, self.bucket.width), place=self.place)


def _evenly(places: torch.Tensor, num_frames: int) -> torch.Tensor:
    """At most `num_frames` of `places`, in the middle of equal parts; in whole numbers, so that nothing is rounded."""
    count = len(places)
    if count <= num_frames:
        return places
    return places[(2 * torch.arange(num_frames) + 1) * count // (2 * num_frames)]
