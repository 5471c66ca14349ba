"""Which clips of a dataset are the same, or nearly the same.

Exact ones have equal pixels in three frames, at 1/4, 1/2 and 3/4. Near ones have perceptual hashes of these frames that
differ little, each of the three: 32x32 px of luma, the 8x8 lowest frequencies of its discrete cosine transform, and for
each whether it is above their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010). A hash survives encoding, scaling and brightness; neither cropping nor mirroring.

With `min_clip_cosine` clips are near too where their CLIP embeddings are, each the mean over frames of embeddings of
length 1: the same content cropped, mirrored or filmed again (SemDeDup, Abbas et al. 2023, which looks within clusters;
here no pair is left out).

In the order of their ids, a clip is kept, or is a duplicate of the first kept clip near it: what is left out is always
near something that stays, and no chain of small steps makes one group of all. Only clips of equal pixels stay together
whatever else they are near.

Legend: N clips, F = 3 frames, T frames that CLIP looks at, H height, W width, C = 3 channels (RGB), D dimensions.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from civid_loader.processing.cosine import Vectors, keep_unlike
from civid_loader.processing.embeddings import ImageEncoder, encoder_frames, load_image_encoder
from civid_loader.processing.hamming import MAX_BITS, Hashes, distances, near_pairs
from civid_loader.processing.stage import ClipInput, Column, CorpusStage, FrameRequest, Row
from civid_loader.processing.weights import ModelNeed

_NUM_FRAMES: Final = 3
_HASH_SIDE: Final = 8
_FLAT_LUMA_STD: Final = 2.0
"""Below it, a frame's frequencies are noise, and so would be their hash."""
_HEX_DIGITS: Final = 16
_CLIP_FPS: Final = 2.0
"""As stages `aesthetic` and `clip_similarity` have it, so that embeddings are computed once for all."""
_BIT_VALUES: Final = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicatesParams:
    """Of `Duplicates`."""

    max_bits: int = 6
    """Out of 64, by which the hash of each frame of near duplicates may differ; see `MAX_BITS`."""
    min_clip_cosine: float | None = None
    """Of the CLIP embeddings of near duplicates, above 0 and below 1; None: no embeddings, and no weights needed."""

    def __post_init__(self) -> None:
        if not isinstance(self.max_bits, int) or not 0 <= self.max_bits <= MAX_BITS:
            raise ValueError(f"duplicates: max_bits={self.max_bits!r}: a whole number from 0 to {MAX_BITS}")
        if self.min_clip_cosine is not None and not 0 < self.min_clip_cosine < 1:
            raise ValueError(
                f"duplicates: min_clip_cosine={self.min_clip_cosine}: above 0 and below 1; None leaves CLIP out"
            )


class Duplicates(CorpusStage[DuplicatesParams]):
    """Exact and near duplicates."""

    name = "duplicates"
    version = 1
    Params = DuplicatesParams
    cost = "CPU, 5 ms per clip; then 15 s for a million clips, a minute for two; CLIP only with min_clip_cosine"
    parts = (
        Column(name="pixels_sha256", dtype="string", doc="Of the three frames as stored."),
        Column(name="phash", dtype="string", doc="64 bits in hex for each frame; null for frames without contrast."),
        Column(name="clip_embedding", dtype="list<float32>", doc="By CLIP, of length 1; null without min_clip_cosine."),
    )
    columns = (
        Column(name="duplicate_of", dtype="string", doc="Clip that this one repeats; null: none, it is kept."),
        Column(name="duplicate_group", dtype="string", doc="Id of the kept clip, for it and its duplicates."),
        Column(name="is_exact_duplicate", dtype="bool", doc="An earlier clip of its group has equal pixels."),
        Column(name="phash", dtype="string", doc="64 bits in hex for each of three frames."),
        Column(name="phash_distance", dtype="int32", unit="bit", doc="To `duplicate_of`, of the most different frame."),
        Column(name="clip_cosine", dtype="float32", doc="To `duplicate_of`, by CLIP; null without min_clip_cosine."),
    )

    _images: ImageEncoder | None = None

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        of_pixels = {
            "native": FrameRequest(mode="thirds", value=_NUM_FRAMES),
            "small": FrameRequest(mode="thirds", value=_NUM_FRAMES, size=(32, 32)),
        }
        return of_pixels if self.params.min_clip_cosine is None else {**of_pixels, "clip": encoder_frames(_CLIP_FPS)}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        if self.params.min_clip_cosine is None:
            return {}
        return {"clip": ModelNeed(id="openai/clip-vit-large-patch14", license="MIT")}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        if self.params.min_clip_cosine is not None:
            self._images = load_image_encoder(self.weights["clip"], role="clip", device=device)

    def teardown(self) -> None:
        """See `Stage`."""
        self._images = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [
            {
                "pixels_sha256": _sha256(clip.frames["native"]),
                "phash": _phash(clip.frames["small"]),
                "clip_embedding": embedding,
            }
            for clip, embedding in zip(batch, self._embeddings(batch), strict=True)
        ]

    def _embeddings(self, batch: Sequence[ClipInput]) -> Sequence[list[float] | None]:
        if self.params.min_clip_cosine is None:
            return [None] * len(batch)
        assert self._images is not None, "run() comes after setup()"
        normalize = torch.nn.functional.normalize
        each = self._images.embed(batch, name="clip", request=self.requests()["clip"])
        return [normalize(normalize(embedded_TD, dim=1).mean(dim=0), dim=0).tolist() for embedded_TD in each]

    def finish(self, found: pa.Table) -> list[Row]:
        """See `CorpusStage`."""
        ids, digests, hashes = (found.column(name).to_pylist() for name in ("clip_id", "pixels_sha256", "phash"))
        order = sorted((number for number, digest in enumerate(digests) if digest is not None), key=ids.__getitem__)
        twins = _first_equal([digests[number] for number in order])
        vectors_ND = self._vectors(found, order)
        kept = _first_kept(
            [hashes[number] for number in order],
            twins,
            vectors_ND,
            max_bits=self.params.max_bits,
            min_cosine=self.params.min_clip_cosine,
        )
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
                "clip_cosine": None if is_kept or vectors_ND is None else float(vectors_ND[number] @ vectors_ND[into]),
            }
        return rows

    def _vectors(self, found: pa.Table, order: Sequence[int]) -> Vectors | None:
        """[N, D], in this order."""
        if self.params.min_clip_cosine is None or not order:
            return None
        # One chunk of all would end at 2^31 numbers, 2.8 million clips of 768. Who has a digest has an embedding.
        chunks = (chunk.drop_null().flatten().to_numpy() for chunk in found.column("clip_embedding").chunks)
        as_found_ND = np.concatenate(list(chunks)).reshape(len(order), -1)
        vectors_ND: Vectors = as_found_ND[np.searchsorted(np.sort(order), order)]
        return vectors_ND


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


def _first_kept(
    hashes: Sequence[str | None],
    twins: Sequence[int],
    vectors_ND: Vectors | None,
    *,
    max_bits: int,
    min_cosine: float | None,
) -> list[int]:
    """For each clip, in order, the number of the one that is kept instead; its own for those that are kept."""
    into = list(twins)
    # Equal hashes count as one: a thousand black openings would be half a million pairs.
    places = {one: place for place, one in enumerate(dict.fromkeys(one for one in hashes if one is not None))}
    near = _neighbours(list(places), max_bits=max_bits)
    first_with: dict[int, int] = {}
    """Place of a hash -> the first kept clip that has it."""

    def decide(number: int, like: int | None) -> bool:
        if twins[number] != number:
            into[number] = into[twins[number]]
            return False
        place = places.get(hashes[number] or "")
        candidates = [] if like is None else [like]
        if place is not None:
            candidates += [first_with[one] for one in (place, *near.get(place, ())) if one in first_with]
        into[number] = min(candidates, default=number)
        if not candidates and place is not None:
            first_with[place] = number
        return not candidates

    if vectors_ND is None or min_cosine is None:
        for number in range(len(hashes)):
            decide(number, None)
    else:
        keep_unlike(vectors_ND, decide, at_least=min_cosine)
    return into


def _neighbours(hashes: Sequence[str], *, max_bits: int) -> dict[int, list[int]]:
    """Place of a hash -> places of those near it."""
    near: dict[int, list[int]] = {}
    for one, other in near_pairs(_as_numbers(hashes), max_bits=max_bits).tolist() if hashes else ():
        near.setdefault(one, []).append(other)
        near.setdefault(other, []).append(one)
    return near
