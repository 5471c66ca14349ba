"""Samples -> one batch of tensors, padded.

Legend: B samples, N clips, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N803, N815 - tensors carry their shape.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

_OWN: Final = {"frames_NTCHW", "mask_NT", "pts_seconds_NT", "texts", "sample_id", "clip_ids", "weight"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What the training loop gets. Where the mask is False there is no frame: frames and times are 0 there."""

    frames_BNTCHW: torch.Tensor
    """uint8, RGB."""
    mask_BNT: torch.Tensor
    """bool: a frame is there."""
    pts_seconds_BNT: torch.Tensor
    """float64: when each frame appears, in seconds from its clip's start."""
    texts: list[list[str | None]]
    """B lists of N captions; None where there is none or no clip."""
    sample_ids: list[str]
    """B."""
    clip_ids: list[list[str | None]]
    """B lists of N; None where there is no clip."""
    weights_B: torch.Tensor
    """float32: 0 for samples that only fill up the batch, or could not be read; else 1."""
    extras: Mapping[str, list[Any]]
    """What transforms added: B values of each."""

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> "Batch":
        """The batch with its tensors on `device`."""
        return self._with_each_tensor(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; `DataLoader(pin_memory=True)` calls it."""
        return self._with_each_tensor(torch.Tensor.pin_memory)

    def _with_each_tensor(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return replace(
            self,
            frames_BNTCHW=change(self.frames_BNTCHW),
            mask_BNT=change(self.mask_BNT),
            pts_seconds_BNT=change(self.pts_seconds_BNT),
            weights_B=change(self.weights_B),
        )


def collate(samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack samples as `DecodeClips` makes them; fewer clips or frames than the largest sample are padded.

    Raises:
        ValueError: no samples, or samples whose frames differ in height, width or type.
    """
    if not samples:
        raise ValueError("collate got no samples; a batch has at least one")
    first = samples[0]["frames_NTCHW"]
    for sample in samples:
        frames = sample["frames_NTCHW"]
        if frames.shape[2:] != first.shape[2:] or frames.dtype != first.dtype:
            raise ValueError(
                f"samples {samples[0]['sample_id']} and {sample['sample_id']} cannot be stacked: their frames are "
                f"{_described(first)} and {_described(frames)}; pass size=(height, width) to DecodeClips"
            )
    num_clips = max(len(sample["clip_ids"]) for sample in samples)
    return Batch(
        frames_BNTCHW=_padded([sample["frames_NTCHW"] for sample in samples]),
        mask_BNT=_padded([sample["mask_NT"] for sample in samples]),
        pts_seconds_BNT=_padded([sample["pts_seconds_NT"] for sample in samples]),
        texts=[[*sample["texts"], *[None] * (num_clips - len(sample["texts"]))] for sample in samples],
        sample_ids=[sample["sample_id"] for sample in samples],
        clip_ids=[[*sample["clip_ids"], *[None] * (num_clips - len(sample["clip_ids"]))] for sample in samples],
        weights_B=torch.tensor([sample.get("weight", 1.0) for sample in samples]),
        extras={
            name: [sample.get(name) for sample in samples]
            for name in sorted({name for sample in samples for name in sample} - _OWN)
        },
    )


def _padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors [N, T, ...] as one [B, N, T, ...] with 0 where one has fewer clips or frames than the largest."""
    if len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(list(tensors))
    num_clips, num_frames = (max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1))
    padded = tensors[0].new_zeros((len(tensors), num_clips, num_frames, *tensors[0].shape[2:]))
    for row, tensor in zip(padded, tensors, strict=True):
        row[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded


def _described(frames_NTCHW: torch.Tensor) -> str:
    channels, height, width = frames_NTCHW.shape[2:]
    return f"{height}x{width} px, {channels} channels, {frames_NTCHW.dtype}"
