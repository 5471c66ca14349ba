"""Which clips of a dataset are the same, or nearly the same.

Exact ones have equal pixels in three frames, at 1/4, 1/2 and 3/4. Near ones have perceptual hashes of these frames that
differ little, each of the three: 32x32 px of luma, the 8x8 lowest frequencies of its discrete cosine transform, and for
each whether it is above their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010). A hash survives encoding, scaling and brightness; neither cropping nor mirroring.

In the order of their ids, a clip is kept, or is a duplicate of the first kept clip near it: what is left out is always
near something that stays, and no chain of small steps makes one group of all.

Legend: N clips, F = 3 frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803 - arrays carry their shape.

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from civid_loader.processing.hamming import Hashes, distances, near_pairs
from civid_loader.processing.stage import ClipInput, Column, CorpusStage, FrameRequest, Row

_NUM_FRAMES: Final = 3
_HASH_SIDE: Final = 8
_FLAT_LUMA_STD: Final = 2.0
"""Below it, a frame's frequencies are noise, and so would be their hash."""
_HEX_DIGITS: Final = 16
_BIT_VALUES: Final = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicatesParams:
    """Of `Duplicates`."""

    max_bits: int = 6
    """Out of 64, by which the hash of each frame of near duplicates may differ; at most 7."""


class Duplicates(CorpusStage[DuplicatesParams]):
    """Exact and near duplicates."""

    name = "duplicates"
    version = 1
    Params = DuplicatesParams
    cost = "CPU, 5 ms per clip; then 15 s for a million clips, a minute for two"
    parts = (
        Column(name="pixels_sha256", dtype="string", doc="Of the three frames as stored."),
        Column(name="phash", dtype="string", doc="64 bits in hex for each frame; null for frames without contrast."),
    )
    columns = (
        Column(name="duplicate_of", dtype="string", doc="Clip that this one repeats; null: none, it is kept."),
        Column(name="duplicate_group", dtype="string", doc="Id of the kept clip, for it and its duplicates."),
        Column(name="is_exact_duplicate", dtype="bool", doc="An earlier clip of its group has equal pixels."),
        Column(name="phash", dtype="string", doc="64 bits in hex for each of three frames."),
        Column(name="phash_distance", dtype="int32", unit="bit", doc="To `duplicate_of`, of the most different frame."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {
            "native": FrameRequest(mode="thirds", value=_NUM_FRAMES),
            "small": FrameRequest(mode="thirds", value=_NUM_FRAMES, size=(32, 32)),
        }

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [
            {"pixels_sha256": _sha256(clip.frames["native"]), "phash": _phash(clip.frames["small"])} for clip in batch
        ]

    def finish(self, found: pa.Table) -> list[Row]:
        """See `CorpusStage`."""
        ids, digests, hashes = (found.column(name).to_pylist() for name in ("clip_id", "pixels_sha256", "phash"))
        order = sorted((number for number, digest in enumerate(digests) if digest is not None), key=ids.__getitem__)
        twins = _first_equal([digests[number] for number in order])
        kept = _first_kept([hashes[number] for number in order], twins, max_bits=self.params.max_bits)
        followed = {into for number, into in enumerate(kept) if into != number}
        rows: list[Row] = [dict.fromkeys(column.name for column in self.columns) for _ in ids]
        for number, into in enumerate(kept):
            own, other = order[number], order[into]
            is_kept = number == into
            distance = None
            if not is_kept and hashes[own] is not None and hashes[other] is not None:
                distance = int(distances(_as_numbers([hashes[own]]), _as_numbers([hashes[other]]))[0])
            rows[own] = {
                "duplicate_of": None if is_kept else ids[other],
                "duplicate_group": ids[other] if not is_kept or number in followed else None,
                "is_exact_duplicate": twins[number] != number,
                "phash": hashes[own],
                "phash_distance": distance,
            }
        return rows


def _sha256(frames_FHWC: npt.NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(str(frames_FHWC.shape).encode())
    digest.update(np.ascontiguousarray(frames_FHWC).data)
    return digest.hexdigest()


def _phash(frames_FHWC: npt.NDArray[np.uint8]) -> str | None:
    """None: none of the frames has anything to see in it. A single one without has a hash of zeros."""
    hashes = [_image_hash(cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)) for frame_HWC in frames_FHWC]
    return "".join(f"{one:0{_HEX_DIGITS}x}" for one in hashes) if any(hashes) else None


def _image_hash(luma_HW: npt.NDArray[np.integer]) -> int:
    if luma_HW.std() < _FLAT_LUMA_STD:
        return 0
    low = cv2.dct(luma_HW.astype(np.float32))[:_HASH_SIDE, :_HASH_SIDE].ravel()
    # The first is the brightness: it takes no part in the median, and is above it in nearly every picture.
    return int(_BIT_VALUES[low > np.median(low[1:])].sum())


def _as_numbers(hashes: Sequence[str]) -> Hashes:
    """[N, F], the middle frame first: titles and fades, alike in many clips, are at the ends."""
    starts = (_HEX_DIGITS, 0, 2 * _HEX_DIGITS)
    return np.array([[int(one[at : at + _HEX_DIGITS], 16) for at in starts] for one in hashes], np.uint64)


def _first_equal(digests: Sequence[str]) -> list[int]:
    """For each, the number of the first that is equal: its own where it is new."""
    first: dict[str, int] = {}
    return [first.setdefault(digest, number) for number, digest in enumerate(digests)]


def _first_kept(hashes: Sequence[str | None], twins: Sequence[int], *, max_bits: int) -> list[int]:
    """For each clip, in order, the number of the one that is kept instead; its own for those that are kept."""
    into = list(twins)
    firsts: dict[str, int] = {}
    for number, one in enumerate(hashes):
        if one is not None:
            firsts.setdefault(one, number)
    # Equal hashes count as one: a thousand black openings would be half a million pairs.
    numbers = list(firsts.values())
    for one, other in near_pairs(_as_numbers(list(firsts)), max_bits=max_bits).tolist() if numbers else ():
        # In ascending order of the later clip's candidates: the first that is kept wins.
        first, later = numbers[one], numbers[other]
        if into[first] == first and into[later] == later:
            into[later] = first
    for number, one in enumerate(hashes):
        if one is not None:
            into[number] = into[firsts[one]]
    return into
