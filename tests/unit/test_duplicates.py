"""Duplicates: hashes of known pictures, the search against a look at all pairs, and groups that are planted."""
# ruff: noqa: N803, N806 - arrays carry their shape.

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from civid_loader.processing.hamming import distances, near_pairs
from civid_loader.processing.scores.duplicates import Duplicates, DuplicatesParams
from support.media import write_video
from support.stages import clip_of, decoded_clip

Images = npt.NDArray[np.uint8]
RNG_SEED = 3


def scene(seed: int, *, num_frames: int = 8, size: tuple[int, int] = (72, 128)) -> Images:
    """A smooth random picture that drifts."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    image_HWC = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.stack([np.roll(image_HWC, 2 * number, axis=1) for number in range(num_frames)]).astype(np.uint8)


def found_in(**clips: Images) -> dict[str, dict[str, Any]]:
    """Clip id -> row."""
    return finished({name: part_of(images_NHWC) for name, images_NHWC in clips.items()})


def part_of(images_NHWC: Images) -> dict[str, Any]:
    stage = Duplicates(DuplicatesParams())
    return stage.run([clip_of(images_NHWC, stage.requests())])[0]


def finished(parts: dict[str, dict[str, Any]], **params: Any) -> dict[str, dict[str, Any]]:
    stage = Duplicates(DuplicatesParams(**params))
    columns = {name: [one.get(name) for one in parts.values()] for name in ("pixels_sha256", "phash")}
    table = pa.table({"clip_id": list(parts), **{k: pa.array(v, pa.string()) for k, v in columns.items()}})
    return dict(zip(parts, stage.finish(table), strict=True))


def hashed(*bits: int) -> dict[str, Any]:
    """Parts of a clip whose three hashes have these bits set, beside some that all have."""
    number = 0xF0F0F0F0F0F0F0F0 ^ sum(1 << bit for bit in bits)
    return {"pixels_sha256": f"digest {bits}", "phash": f"{number:016x}" * 3}


@pytest.mark.parametrize("max_bits", range(8))
def test_the_search_finds_what_a_look_at_all_pairs_finds(max_bits: int) -> None:
    rng = np.random.default_rng(max_bits)
    centres_NF = rng.integers(0, 1 << 63, (30, 2), np.uint64)
    flips_NF = np.zeros((300, 2), np.uint64)
    for _ in range(6):
        flips_NF ^= np.uint64(1) << rng.integers(0, 64, (300, 2), np.uint64)
    hashes_NF = centres_NF[rng.integers(0, 30, 300)] ^ (flips_NF * rng.integers(0, 2, (300, 1), np.uint64))
    hashes_NF[7] = hashes_NF[250]
    one, other = np.triu_indices(300, 1)
    is_near = distances(hashes_NF[one], hashes_NF[other]) <= max_bits
    expected = np.stack([one[is_near], other[is_near]], axis=1)
    assert len(expected) > 0
    assert near_pairs(hashes_NF, max_bits=max_bits).tolist() == expected.tolist()


def test_it_does_not_look_at_all_pairs() -> None:
    """200,000 hashes are 20,000,000,000 pairs; the planted ones, up to 6 bits apart, are found in seconds."""
    rng = np.random.default_rng(RNG_SEED)
    hashes_NF = rng.integers(0, 1 << 64, (200_000, 1), np.uint64)
    for pair in range(700):
        bits = rng.choice(64, pair % 7, replace=False).astype(np.uint64)
        hashes_NF[199_999 - pair, 0] = hashes_NF[pair, 0] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=0)
    start = time.perf_counter()
    found = {tuple(pair) for pair in near_pairs(hashes_NF, max_bits=6).tolist()}
    assert time.perf_counter() - start < 30
    assert {(pair, 199_999 - pair) for pair in range(700)} <= found
    assert len(found) < 710


@pytest.mark.parametrize("max_bits", [-1, 8])
def test_more_bits_than_it_can_search_are_refused(max_bits: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 7"):
        near_pairs(np.zeros((1, 1), np.uint64), max_bits=max_bits)


def test_a_hash_is_of_the_lowest_frequencies() -> None:
    """A wave along the width, k half periods, is the k-th frequency alone: the one bit of the first row."""
    across = np.cos(np.pi * 3 * (np.arange(32) + 0.5) / 32)
    wave = np.broadcast_to((128 + 100 * across).round().astype(np.uint8)[None, :, None], (32, 32, 3))
    number = int(part_of(np.stack([wave] * 4))["phash"][:16], 16)
    assert number >> 63 & 1, "the brightness"
    assert number >> 60 & 1, "the third frequency"


def test_encoding_scaling_and_brightness_leave_the_hash_alone(tmp_path: Path) -> None:
    images_NHWC = scene(1)
    larger = np.stack([cv2.resize(one, (256, 144), interpolation=cv2.INTER_CUBIC) for one in images_NHWC])
    darker = (images_NHWC * 0.7).astype(np.uint8)
    path = write_video(tmp_path / "a.mp4", num_frames=8, size=(72, 128), image=lambda number: images_NHWC[number])
    stage = Duplicates(DuplicatesParams())
    parts = {"a": part_of(images_NHWC), "b": part_of(larger.astype(np.uint8)), "c": part_of(darker)}
    parts["d"] = stage.run([decoded_clip(path, stage.requests(), fps=25, duration_seconds=0.32)])[0]
    parts["e"] = part_of(scene(2))
    rows = finished(parts)
    assert [rows[name]["duplicate_of"] for name in "abcde"] == [None, "a", "a", "a", None]
    assert not any(row["is_exact_duplicate"] for row in rows.values())


def test_equal_pixels_are_an_exact_duplicate() -> None:
    rows = found_in(b=scene(1), a=scene(1), c=scene(2))
    assert rows["a"]["duplicate_of"] is None
    assert rows["b"]["duplicate_of"] == "a"
    assert (rows["b"]["is_exact_duplicate"], rows["b"]["phash_distance"]) == (True, 0)
    assert rows["a"]["duplicate_group"] == rows["b"]["duplicate_group"] == "a"
    assert (rows["c"]["duplicate_group"], rows["c"]["is_exact_duplicate"]) == (None, False)
    assert len(rows["c"]["phash"]) == 48


def test_a_frame_that_differs_makes_another_clip() -> None:
    other = np.concatenate([scene(1)[:5], scene(2)[5:]])
    assert found_in(a=scene(1), b=other)["b"]["duplicate_of"] is None


def test_flat_clips_have_no_hash_and_are_compared_exactly() -> None:
    rows = found_in(a=np.full((4, 8, 8, 3), 9, np.uint8), b=np.full((4, 8, 8, 3), 9, np.uint8), c=scene(1) // 255)
    assert rows["b"] == {
        "duplicate_of": "a",
        "duplicate_group": "a",
        "is_exact_duplicate": True,
        "phash": None,
        "phash_distance": None,
        "clip_cosine": None,
    }
    assert rows["c"]["duplicate_of"] is None


def test_no_chain_makes_one_group() -> None:
    """b is 4 bits from a, c 4 bits from b and 8 from a: c is kept, since nothing kept is near it."""
    rows = finished({"a": hashed(), "b": hashed(0, 1, 2, 3), "c": hashed(*range(8)), "d": hashed(*range(4, 8))})
    assert [rows[name]["duplicate_of"] for name in "abcd"] == [None, "a", None, "a"]
    assert [rows[name]["phash_distance"] for name in "abcd"] == [None, 4, None, 4]
    assert [rows[name]["duplicate_group"] for name in "abcd"] == ["a", "a", None, "a"]


def test_max_bits_is_the_limit() -> None:
    parts = {"a": hashed(), "b": hashed(*range(6)), "c": hashed(*range(30, 37))}
    assert [row["duplicate_of"] for row in finished(parts).values()] == [None, "a", None]
    assert [row["duplicate_of"] for row in finished(parts, max_bits=5).values()] == [None, None, None]


def test_the_order_of_the_table_does_not_matter() -> None:
    rng = np.random.default_rng(RNG_SEED)
    parts = {f"{n:03}": hashed(*sorted(rng.choice(9, 4, replace=False).tolist())) for n in range(200)}
    names = list(parts)
    rng.shuffle(names)
    shuffled = finished({name: parts[name] for name in names})
    assert {name: shuffled[name] for name in parts} == finished(parts)
    assert sum(row["duplicate_of"] is not None for row in shuffled.values()) > 100
    assert all(
        shuffled[row["duplicate_of"]]["duplicate_of"] is None for row in shuffled.values() if row["duplicate_of"]
    )


def test_clips_that_could_not_be_read_stay_so() -> None:
    rows = finished({"a": {"reason": "gone"}, "b": hashed(), "c": hashed()})
    assert set(rows["a"].values()) == {None}
    assert rows["c"]["duplicate_of"] == "b"
    assert finished({}) == {}


@pytest.mark.parametrize("max_bits", [9, -1, 2.5])
def test_bits_that_cannot_be_searched_are_refused_before_a_run(max_bits: Any) -> None:
    with pytest.raises(ValueError, match=r"max_bits=.*a whole number from 0 to 7"):
        DuplicatesParams(max_bits=max_bits)
