"""Samples -> one batch of tensors, padded.

Legend: B samples, N clips, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N803, N806, N815 - tensors carry their shape.

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import torch
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import TypeVar

Sample: TypeAlias = dict[str, Any]
"""As `DecodeClips` makes it; the loader adds `weight`, and transforms what they like."""

_OWN: Final = {
    "frames_NTCHW",
    "mask_NT",
    "pts_seconds_NT",
    "texts",
    "sample_id",
    "clip_ids",
    "weight",
    "num_bytes_read",
}


class Movable:
    """A dataclass whose tensors move together, however deep they lie."""

    __slots__ = ()

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Self:
        """The batch with its tensors on `device`."""
        moved: Self = _each_tensor(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return moved

    def pin_memory(self) -> Self:
        """The batch in page-locked memory; `DataLoader(pin_memory=True)` calls it."""
        pinned: Self = _each_tensor(self, torch.Tensor.pin_memory)
        return pinned


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch(Movable):
    """What the training loop gets. Where the mask is False there is no frame: frames and times are 0 there."""

    frames_BNTCHW: torch.Tensor
    """uint8, RGB."""
    mask_BNT: torch.Tensor
    """bool: a frame is there."""
    pts_seconds_BNT: torch.Tensor
    """float64: when each frame appears, in seconds from its clip's start."""
    fps_BN: torch.Tensor
    """float64: rate of the frames given, see `frame_rates`; NaN where a clip has no two that differ in time."""
    texts: list[list[str | None]]
    """B lists of N captions; None where there is none or no clip."""
    sample_ids: list[str]
    """B."""
    clip_ids: list[list[str | None]]
    """B lists of N; None where there is no clip."""
    weights_B: torch.Tensor
    """float32: 0 for samples that only fill up the batch, or could not be read; else 1."""
    extras: Mapping[str, Any]
    """What transforms added, see `stack_extras`."""

    @property
    def padding_share(self) -> float:
        """Of all places for frames, those without one, from 0 to 1."""
        return 1 - float(self.mask_BNT.float().mean())


B = TypeVar("B", default=Batch)
"""A kind of batch."""


def collate(samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack samples as `DecodeClips` makes them; fewer clips or frames than the largest sample are padded.

    Raises:
        ValueError: no samples, or samples whose frames differ in height, width or type.
    """
    check_alike(samples)
    num_clips = max(len(sample["clip_ids"]) for sample in samples)
    mask_BNT = _padded([sample["mask_NT"] for sample in samples])
    pts_seconds_BNT = _padded([sample["pts_seconds_NT"] for sample in samples])
    return Batch(
        frames_BNTCHW=_padded([sample["frames_NTCHW"] for sample in samples]),
        mask_BNT=mask_BNT,
        pts_seconds_BNT=pts_seconds_BNT,
        fps_BN=frame_rates(pts_seconds_BNT, mask_BNT),
        texts=[[*sample["texts"], *[None] * (num_clips - len(sample["texts"]))] for sample in samples],
        sample_ids=[sample["sample_id"] for sample in samples],
        clip_ids=[[*sample["clip_ids"], *[None] * (num_clips - len(sample["clip_ids"]))] for sample in samples],
        weights_B=torch.tensor([sample.get("weight", 1.0) for sample in samples]),
        extras=stack_extras(samples),
    )


def check_alike(samples: Sequence[Mapping[str, Any]]) -> None:
    """Refuse samples that cannot share a tensor."""
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


def frame_rates(pts_seconds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Frames per second of clips [..., T]: one less than there are, by the time from the first to the last; or NaN.

    Frames at 0, 0.5 and 1 s: 2. Uniform samples of a long clip have a low rate, whatever that of its file is.
    """
    last = pts_seconds.masked_fill(~mask, -torch.inf).amax(dim=-1)
    first = pts_seconds.masked_fill(~mask, torch.inf).amin(dim=-1)
    rates = (mask.sum(dim=-1) - 1) / (last - first)
    return rates.where(last > first, torch.nan)


def stack_extras(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What transforms added, by name: tensors as one [B, ...], mappings of tensors likewise, all else as a list of B.

    Tensors whose first axis differs, as that of clips does, are padded with 0 to the longest; if another one does, they
    stay a list too.
    """
    names = sorted({name for sample in samples for name in sample} - _OWN)
    return {name: _stacked([sample.get(name) for sample in samples]) for name in names}


def _stacked(values: Sequence[Any]) -> Any:
    first = values[0]
    kinds = {
        (value.ndim, value.dtype, value.shape[1:]) if isinstance(value, torch.Tensor) else type(value)
        for value in values
    }
    if isinstance(first, torch.Tensor) and len(kinds) == 1:
        return pad_sequence(list(values), batch_first=True) if first.ndim else torch.stack(list(values))
    if isinstance(first, Mapping) and all(isinstance(one, Mapping) and one.keys() == first.keys() for one in values):
        return {key: _stacked([value[key] for value in values]) for key in first}
    return list(values)


def blank_like(sample: Mapping[str, Any] | None, *, sample_id: str) -> Sample:
    """A sample without a frame, that keeps the place of one that could not be read.

    Args:
        sample: another of its batch: what transforms added is there too, as zeros where it is a tensor, else as None.
        sample_id: of the one that could not be read.

    Raises:
        ValueError: there is no other sample.
    """
    if sample is None:
        raise ValueError(
            f"sample {sample_id} and all others of its batch cannot be read, so nobody knows their size; pass size="
        )
    return {
        **{name: _blank(value) for name, value in sample.items() if name not in _OWN},
        "sample_id": sample_id,
        "clip_ids": [None],
        "frames_NTCHW": torch.zeros_like(sample["frames_NTCHW"][:1]),
        "mask_NT": torch.zeros_like(sample["mask_NT"][:1]),
        "pts_seconds_NT": torch.zeros_like(sample["pts_seconds_NT"][:1]),
        "texts": [None],
        "num_bytes_read": 0,
    }


def _blank(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value[:1] if value.ndim else value)
    return {key: _blank(one) for key, one in value.items()} if isinstance(value, Mapping) else None


def _padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors [N, T, ...] as one [B, N, T, ...] with 0 where one has fewer clips or frames than the largest."""
    if len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(list(tensors))
    num_clips, num_frames = (max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1))
    padded = tensors[0].new_zeros((len(tensors), num_clips, num_frames, *tensors[0].shape[2:]))
    for row, tensor in zip(padded, tensors, strict=True):
        row[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded


def _each_tensor(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same value with all tensors in it changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: _each_tensor(one, change) for name, one in fields.items()})
    if isinstance(value, Mapping):
        return {key: _each_tensor(one, change) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named one is made of its fields
        return type(value)(*(_each_tensor(one, change) for one in value))
    if isinstance(value, list | tuple):
        return type(value)(_each_tensor(one, change) for one in value)
    return value


def _described(frames_NTCHW: torch.Tensor) -> str:
    channels, height, width = frames_NTCHW.shape[2:]
    return f"{height}x{width} px, {channels} channels, {frames_NTCHW.dtype}"
