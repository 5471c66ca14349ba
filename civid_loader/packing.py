"""Clips of different lengths in packs of one length, so that little of a batch is padding (MiraDiT, Frame N' Pack).

Legend: P packs, T = max_frames places of a pack, S clips in them, B samples, C channels, H height, W width.
"""
# ruff: noqa: N802, N803, N806, N815 - tensors carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from civid_loader.collation import Movable, check_alike, frame_rates, stack_extras


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedFrames(Movable):
    """Clips one after the other in packs. Where the mask is False there is no frame, and all the rest is 0."""

    frames_PTCHW: torch.Tensor
    """Frames of the clips, of their dtype."""
    mask_PT: torch.Tensor
    """bool: a frame is there."""
    segment_PT: torch.Tensor
    """int64: which clip it is of, its index among those given."""
    position_PT: torch.Tensor
    """int64: which frame of its clip it is, from 0; for position embeddings."""
    lengths: tuple[int, ...]
    """Frames of each clip."""
    place: tuple[tuple[int, int], ...]
    """Of each clip (pack, place of its first frame)."""

    @property
    def padding_share(self) -> float:
        """Of all places, those without a frame, from 0 to 1."""
        return 1 - sum(self.lengths) / self.mask_PT.numel()

    @property
    def attention_mask_PTT(self) -> torch.Tensor:
        """bool: both places have a frame, of the same clip; True means may attend, as in torch's attention.

        Rows of places without a frame are all False: leave their results out by `mask_PT`.
        """
        is_same_PTT = self.segment_PT[:, :, None] == self.segment_PT[:, None, :]
        return is_same_PTT & self.mask_PT[:, :, None] & self.mask_PT[:, None, :]

    def unpack(self, values_PT: torch.Tensor) -> list[torch.Tensor]:
        """Each clip's part of a tensor [P, T, ...], as a view: of the frames, or of what a model made of them."""
        return [
            values_PT[pack, start : start + length]
            for (pack, start), length in zip(self.place, self.lengths, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedBatch(Movable):
    """What the training loop gets where batches are packed: the clips of all samples, but for those without a frame."""

    packed: PackedFrames
    """The frames, and which clip each is of: a number below S."""
    pts_seconds_PT: torch.Tensor
    """float64: when each frame appears, in seconds from its clip's start; 0 where there is none."""
    fps_S: torch.Tensor
    """float64: rate of the frames given, see `frame_rates`; NaN where a clip has no two that differ in time."""
    texts: list[str | None]
    """S captions; None where there is none."""
    clip_ids: list[str]
    """S."""
    samples_S: torch.Tensor
    """int64: which sample each clip is of, below B."""
    weights_S: torch.Tensor
    """float32: 0 for clips of samples that only fill up the batch; else 1."""
    sample_ids: list[str]
    """B, those without a frame too."""
    extras: Mapping[str, Any]
    """What transforms added to the samples, see `stack_extras`."""

    @property
    def padding_share(self) -> float:
        """Of all places for frames, those without one, from 0 to 1."""
        return self.packed.padding_share


@dataclass(frozen=True, kw_only=True, slots=True)
class PackClips:
    """Samples in, `PackedBatch` out; for `SequenceLoader(collate=)` or a `DataLoader`.

    P is what first-fit decreasing needs for the clips of the batch, so it differs from batch to batch. A budget of
    tokens is one of frames: 4,096 tokens at 16 x 16 per frame are `max_frames=16`. A batch in which no clip has a frame
    has one empty pack.

    Raises, when called:
        ValueError: no samples; samples that differ in height, width or type; a clip with more than `max_frames`.
    """

    max_frames: int
    """Places of a pack, T, >= 1."""

    def __post_init__(self) -> None:
        if not isinstance(self.max_frames, int) or self.max_frames < 1:
            raise ValueError(f"PackClips(max_frames={self.max_frames!r}): a whole number of frames of at least 1")

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> PackedBatch:
        """Samples as `DecodeClips` makes them."""
        check_alike(samples)
        shown = [
            (b, n, mask_T)
            for b, sample in enumerate(samples)
            for n, mask_T in enumerate(sample["mask_NT"])
            if mask_T.any()
        ]
        clips = [samples[b]["frames_NTCHW"][n][mask_T] for b, n, mask_T in shown]
        packed = (
            pack_frames(clips, max_frames=self.max_frames)
            if clips
            else _empty_pack(samples[0]["frames_NTCHW"][0], max_frames=self.max_frames)
        )
        pts_seconds_PT = torch.zeros(packed.mask_PT.shape, dtype=torch.float64)
        for (b, n, mask_T), view in zip(shown, packed.unpack(pts_seconds_PT), strict=True):
            view.copy_(samples[b]["pts_seconds_NT"][n][mask_T])
        rates = [frame_rates(samples[b]["pts_seconds_NT"][n], mask_T) for b, n, mask_T in shown]
        return PackedBatch(
            packed=packed,
            pts_seconds_PT=pts_seconds_PT,
            fps_S=torch.stack(rates) if rates else torch.zeros(0, dtype=torch.float64),
            texts=[samples[b]["texts"][n] for b, n, _ in shown],
            clip_ids=[samples[b]["clip_ids"][n] for b, n, _ in shown],
            samples_S=torch.tensor([b for b, _, _ in shown], dtype=torch.int64),
            weights_S=torch.tensor([samples[b].get("weight", 1.0) for b, _, _ in shown], dtype=torch.float32),
            sample_ids=[sample["sample_id"] for sample in samples],
            extras=stack_extras(samples),
        )


def _empty_pack(like_TCHW: torch.Tensor, *, max_frames: int) -> PackedFrames:
    mask_PT = torch.zeros((1, max_frames), dtype=torch.bool)
    return PackedFrames(
        frames_PTCHW=like_TCHW.new_zeros((1, max_frames, *like_TCHW.shape[1:])),
        mask_PT=mask_PT,
        segment_PT=torch.zeros_like(mask_PT, dtype=torch.int64),
        position_PT=torch.zeros_like(mask_PT, dtype=torch.int64),
        lengths=(),
        place=(),
    )


def pack_frames(clips: Sequence[torch.Tensor], *, max_frames: int) -> PackedFrames:
    """Put clips in as few packs of `max_frames` as first-fit decreasing finds, none of them divided.

    Args:
        clips: tensors [T, C, H, W], alike but for T. Those of a sample:
            `[frames[mask] for frames, mask in zip(sample["frames_NTCHW"], sample["mask_NT"])]`, without empty ones.
        max_frames: places of a pack.

    Raises:
        ValueError: no clips; clips that differ in channels, height, width or type; a clip without frames, or with more
            than `max_frames`.
    """
    _check_clips(clips, max_frames=max_frames)
    lengths = tuple(len(clip) for clip in clips)
    packs = first_fit_decreasing(lengths, capacity=max_frames)
    frames_PTCHW = clips[0].new_zeros((len(packs), max_frames, *clips[0].shape[1:]))
    mask_PT = torch.zeros((len(packs), max_frames), dtype=torch.bool, device=frames_PTCHW.device)
    segment_PT, position_PT = (torch.zeros_like(mask_PT, dtype=torch.int64) for _ in range(2))
    place = _places(packs, lengths)
    for n, (clip, (p, start)) in enumerate(zip(clips, place, strict=True)):
        own = (p, slice(start, start + lengths[n]))
        frames_PTCHW[own], mask_PT[own], segment_PT[own] = clip, True, n
        position_PT[own] = torch.arange(lengths[n], device=position_PT.device)
    return PackedFrames(
        frames_PTCHW=frames_PTCHW,
        mask_PT=mask_PT,
        segment_PT=segment_PT,
        position_PT=position_PT,
        lengths=lengths,
        place=place,
    )


def first_fit_decreasing(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Indices of items, pack by pack: the longest first, each in the first pack that has room for it.

    Equal items keep their order, so the result is a function of the lengths. At most 11/9 of the fewest possible packs,
    plus 6/9 (Dosa, "The Tight Bound of First Fit Decreasing Bin-Packing Algorithm", 2007); O(n log n).

    Lengths 3 5 2 4 in packs of 7: [[1, 2], [3, 0]].

    Raises:
        ValueError: an item is shorter than 1, or longer than `capacity`.
    """
    for i, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            raise ValueError(
                f"item {i} has length {length}: from 1 to the {capacity} that a pack holds; cut it, leave it out or "
                "make packs longer"
            )
    packs: list[list[int]] = []
    room = _Room(num_packs=len(lengths), capacity=capacity)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        pack = room.take(lengths[i])
        if pack == len(packs):
            packs.append([])
        packs[pack].append(i)
    return packs


class _Room:
    """What is free in each pack, as a tree of maxima: node k is the larger of nodes 2k and 2k + 1, its leaves packs."""

    def __init__(self, *, num_packs: int, capacity: int) -> None:
        self._num_leaves = 1 << max(0, num_packs - 1).bit_length()
        self._free = [capacity] * (2 * self._num_leaves)

    def take(self, length: int) -> int:
        """Fill the first pack that has room for `length`; there is one, as there are no more items than packs."""
        free, node = self._free, 1
        while node < self._num_leaves:
            node *= 2
            if free[node] < length:
                node += 1  # nothing on the left has room, so the right has
        pack = node - self._num_leaves
        free[node] -= length
        while node > 1:
            node //= 2
            free[node] = max(free[2 * node], free[2 * node + 1])
        return pack


def _places(packs: Sequence[Sequence[int]], lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Of each clip (pack, place of its first frame)."""
    place = [(0, 0)] * len(lengths)
    for p, pack in enumerate(packs):
        start = 0
        for clip in pack:
            place[clip] = (p, start)
            start += lengths[clip]
    return tuple(place)


def _check_clips(clips: Sequence[torch.Tensor], *, max_frames: int) -> None:
    if not clips:
        raise ValueError("pack_frames got no clips; give at least one")
    first = clips[0]
    for i, clip in enumerate(clips):
        if clip.ndim != 4 or clip.shape[1:] != first.shape[1:] or clip.dtype != first.dtype:
            raise ValueError(
                f"clips 0 and {i} cannot share a pack: they are {tuple(first.shape)} {first.dtype} and "
                f"{tuple(clip.shape)} {clip.dtype}; clips are [T, C, H, W], alike but for T: ResizeFrames makes them so"
            )
        if not 1 <= len(clip) <= max_frames:
            raise ValueError(
                f"clip {i} has {len(clip)} frames: from 1 to max_frames={max_frames}; shorten it with WindowFrames, "
                "leave it out or raise max_frames"
            )
