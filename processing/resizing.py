"""Frames at the size that a stage asks for.

Legend: C = 3 channels (RGB), H height, W width; images are uint8.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

from civid_loader.processing.stage import FrameRequest, Interpolation, Resize

cv2.setNumThreads(1)  # clips are decoded in parallel already


@dataclass(frozen=True, kw_only=True, slots=True)
class ResizeTo:
    """What a request does to an image; equal ones share the result."""

    size: tuple[int, int] | None
    """See `FrameRequest`."""
    resize: Resize
    interpolation: Interpolation

    @classmethod
    def of(cls, request: FrameRequest) -> "ResizeTo":
        """That of a request."""
        return cls(size=request.size, resize=request.resize, interpolation=request.interpolation)

    def __call__(self, image_CHW: torch.Tensor) -> torch.Tensor:
        """The image at its new size."""
        height, width = image_CHW.shape[1:]
        target = self._target(height, width)
        if target == (height, width):
            return image_CHW
        if self.interpolation == "bicubic":
            return interpolate(image_CHW[None], size=target, mode="bicubic", antialias=True)[0]
        shrinks = target[0] * target[1] < height * width
        how = cv2.INTER_AREA if self.interpolation == "area_or_linear" and shrinks else cv2.INTER_LINEAR
        image_HWC = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())
        resized_HWC = np.asarray(cv2.resize(image_HWC, target[::-1], interpolation=how))
        return torch.from_numpy(resized_HWC).permute(2, 0, 1)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.size is None or self.resize == "stretch":
            return self.size or (height, width)
        side = min(height, width) if self.resize == "short_side" else max(height, width)
        if self.resize == "long_side_at_most" and side <= self.size[0]:
            return height, width
        # The product first: 256/1080 would be rounded before it is used, and halves would fall to the wrong side.
        return max(1, round(height * self.size[0] / side)), max(1, round(width * self.size[0] / side))
