"""Frames as numbers for a model.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N806 - tensors carry their shape.

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

Channels = tuple[float, float, float]
DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalizeFrames:
    """uint8 to float in [0, 1], then (x - mean) / std per channel; where the mask is False frames stay 0.

    The default gives [-1, 1]; mean=0, std=1 gives [0, 1]. Computed in float32, or float64 for that `dtype`, and
    rounded once.

    Raises, when called:
        ValueError: frames are not uint8, so they have been normalised already.
    """

    mean: float | Channels = 0.5
    """Of all channels or of (red, green, blue), from 0 to 1."""
    std: float | Channels = 0.5
    """Of all channels or of (red, green, blue), above 0, at most 1."""
    dtype: torch.dtype = torch.float32
    """float16, bfloat16, float32 or float64."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _checked("mean", self.mean))
        object.__setattr__(self, "std", _checked("std", self.std))
        if self.dtype not in DTYPES:
            raise ValueError(f"NormalizeFrames(dtype={self.dtype}): must be one of {', '.join(map(str, DTYPES))}")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with `frames_NTCHW` of `dtype`; nothing is drawn."""
        frames = sample["frames_NTCHW"]
        if frames.dtype != torch.uint8:
            raise ValueError(
                f"sample {sample['sample_id']}: its frames are {frames.dtype}, not torch.uint8; NormalizeFrames comes "
                "once, after all transforms of pixels"
            )
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        mean_CHW, std_CHW = (
            torch.tensor(values, dtype=exact, device=frames.device).reshape(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        # `to` copied, so the rest may be in place: a sample of floats is large.
        normalized = frames.to(exact).div_(255).sub_(mean_CHW).div_(std_CHW)
        normalized[~sample["mask_NT"]] = 0
        return {**sample, "frames_NTCHW": normalized.to(self.dtype)}


def _checked(name: str, value: float | Channels) -> float | Channels:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    is_allowed = [isinstance(one, int | float) and 0 <= one <= 1 and (one > 0 or name == "mean") for one in values]
    if len(values) not in (1, 3) or not all(is_allowed):
        above = "from 0" if name == "mean" else "above 0"
        raise ValueError(
            f"NormalizeFrames({name}={value!r}): one number or three (red, green, blue), {above} to 1, of pixels in "
            "[0, 1]; divide those of pixels in [0, 255] by 255"
        )
    return values[0] if len(values) == 1 else (values[0], values[1], values[2])
