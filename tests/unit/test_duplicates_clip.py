"""Near duplicates by CLIP embedding: against a look at all pairs, and with a tiny CLIP from picture to group."""
# ruff: noqa: N806 - arrays carry their shape.

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from civid_loader.processing.cosine import keep_unlike
from civid_loader.processing.scores.duplicates import Duplicates, DuplicatesParams
from support import tiny_models
from support.stages import clip_of

Images = npt.NDArray[np.uint8]


def on_a_circle(*degrees: float) -> npt.NDArray[np.float32]:
    """Vectors whose angles to each other are known."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def near_vectors(num: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Around a few centres."""
    rng = np.random.default_rng(seed)
    vectors_ND = rng.normal(size=(12, 6))[rng.integers(0, 12, num)] + 0.25 * rng.normal(size=(num, 6))
    unit_ND: npt.NDArray[np.float64] = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return unit_ND.astype(np.float32)


def part(vector: npt.NDArray[np.float32], *bits: int, digest: str | None = None) -> dict[str, Any]:
    """Of a clip: its embedding, the bits set in its hashes; `digest` where it is not the only one with these pixels."""
    number = 0xF0F0F0F0F0F0F0F0 ^ sum(1 << bit for bit in bits)
    return {"pixels_sha256": digest, "phash": f"{number:016x}" * 3, "clip_embedding": vector.tolist()}


def finished(parts: dict[str, dict[str, Any]], *, at_least: float | None, chunks: int = 1) -> dict[str, dict[str, Any]]:
    stage = Duplicates(DuplicatesParams(min_clip_cosine=at_least))
    types = {"pixels_sha256": pa.string(), "phash": pa.string(), "clip_embedding": pa.list_(pa.float32())}
    digests = {name: {"pixels_sha256": name} | {k: v for k, v in one.items() if v} for name, one in parts.items()}
    known = {name: digests[name] if one.get("phash") else {} for name, one in parts.items()}
    columns = {name: pa.array([one.get(name) for one in known.values()], kind) for name, kind in types.items()}
    table = pa.table({"clip_id": list(parts), **columns})
    size = -(-len(parts) // chunks)
    cut = pa.concat_tables([table.slice(start, size) for start in range(0, len(parts), size)])
    return dict(zip(parts, stage.finish(cut), strict=True))


def greedy(num: int, is_near: npt.NDArray[np.bool_]) -> list[int]:
    """For each the first kept one near it, by looking at all pairs."""
    into = list(range(num))
    for number in range(num):
        into[number] = next((one for one in range(number) if into[one] == one and is_near[one, number]), number)
    return into


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_find_what_a_look_at_all_pairs_finds(block: int) -> None:
    vectors_ND = near_vectors(300, seed=0)
    into: dict[int, int] = {}

    def decide(number: int, like: int | None) -> bool:
        into[number] = number if like is None else like
        return like is None

    keep_unlike(vectors_ND, decide, at_least=0.8, block=block)
    expected = greedy(300, vectors_ND @ vectors_ND.T >= 0.8)
    assert [into[number] for number in range(300)] == expected
    assert 20 < len(set(expected)) < 200


def test_who_is_not_kept_for_another_reason_is_nobodys_original() -> None:
    kept: list[int | None] = []

    def decide(number: int, like: int | None) -> bool:
        kept.append(like)
        return number != 0

    keep_unlike(on_a_circle(0, 1, 2, 90), decide, at_least=0.9)
    assert kept == [None, None, 1, None]


@pytest.mark.parametrize("chunks", [1, 5])
def test_hashes_and_embeddings_together_find_what_all_pairs_show(chunks: int) -> None:
    """Near is a clip by either; the first kept one counts, whichever it is near by."""
    rng = np.random.default_rng(1)
    vectors_ND = near_vectors(200, seed=2)
    bits = [rng.choice(12, rng.integers(0, 9), replace=False).tolist() for _ in range(200)]
    parts = {f"{n:03}": part(vectors_ND[n], *bits[n]) for n in range(200)}
    differing = np.array([[len({*one} ^ {*other}) for other in bits] for one in bits])
    for at_least, by_clip in ((0.9, vectors_ND @ vectors_ND.T >= 0.9), (None, np.zeros((200, 200), bool))):
        expected = greedy(200, by_clip | (differing <= 6))
        shuffled = dict(sorted(parts.items(), key=lambda one: hash_of(one[0])))
        rows = finished(shuffled, at_least=at_least, chunks=chunks)
        found = [rows[name]["duplicate_of"] for name in parts]
        assert found == [None if into == n else f"{into:03}" for n, into in enumerate(expected)]
        assert all(
            (row["clip_cosine"] is None) == (at_least is None or not row["duplicate_of"]) for row in rows.values()
        )


def hash_of(name: str) -> int:
    """Another order."""
    return int(name) * 37 % 200


def test_no_chain_makes_one_group_and_the_cosine_is_told() -> None:
    """20 degrees are near, cos 0.94: b is near a; c is near b, 40 degrees from a, and kept. Hashes are far apart."""
    hashes = ((), range(16), range(16, 32))
    names = "abc"
    parts = {
        name: part(vector, *bits) for name, vector, bits in zip(names, on_a_circle(0, 20, 40), hashes, strict=True)
    }
    rows = finished(parts, at_least=0.9)
    assert [rows[name]["duplicate_of"] for name in names] == [None, "a", None]
    assert rows["b"]["clip_cosine"] == pytest.approx(math.cos(math.radians(20)))
    assert rows["b"]["phash_distance"] == 16
    assert [row["duplicate_of"] for row in finished(parts, at_least=0.95).values()] == [None] * 3
    assert [row["duplicate_of"] for row in finished(parts, at_least=None).values()] == [None] * 3


def test_a_hash_that_comes_back_is_compared_with_later_ones() -> None:
    """b goes to a by CLIP, c is kept; d has the hash of b, which is near that of c, and nothing else is near it."""
    parts = {
        name: part(vector, *bits)
        for name, vector, bits in zip(
            "abcd", on_a_circle(0, 5, 90, 180), (range(16), (20, 21), (20, 21, 22), (20, 21)), strict=True
        )
    }
    rows = finished(parts, at_least=0.9)
    assert [row["duplicate_of"] for row in rows.values()] == [None, "a", None, "c"]
    assert (rows["d"]["phash_distance"], rows["d"]["is_exact_duplicate"]) == (1, False)


def test_equal_pixels_stay_together_and_unread_clips_out() -> None:
    """c has the pixels of b, whose embedding is near a; its own, of other frames, is near nothing."""
    a, b, c = on_a_circle(0, 5, 90)
    far = tuple(range(16))
    parts = {
        "a": part(a),
        "b": part(b, *far, digest="same"),
        "bad": {"phash": None},
        "c": part(c, *far, digest="same"),
    }
    rows = finished(parts, at_least=0.9, chunks=2)
    assert [row["duplicate_of"] for row in rows.values()] == [None, "a", None, "a"]
    assert rows["c"]["is_exact_duplicate"]
    assert rows["c"]["clip_cosine"] == pytest.approx(0, abs=1e-6)
    assert set(rows["bad"].values()) == {None}


def test_pictures_through_a_tiny_clip(tmp_path: Path) -> None:
    """Another crop of a picture is far by its hashes; by CLIP it is nearer than another picture."""
    clip = tiny_models.as_weights(tiny_models.save_clip(tmp_path / "clip"))
    images = {"a": scene(1), "b": scene(1)[:, :, 10:], "c": scene(2), "d": 255 - scene(3)}

    def run(at_least: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
        weights = {} if at_least is None else {"clip": clip}
        stage = Duplicates(DuplicatesParams(min_clip_cosine=at_least), weights=weights)
        stage.setup(device="cpu")
        rows = stage.run([clip_of(one, stage.requests(), clip_id=name) for name, one in images.items()])
        found = dict(zip(images, rows, strict=True))
        stage.teardown()
        return found, finished(found, at_least=at_least)

    parts, _ = run(0.5)
    vectors = {name: np.array(one["clip_embedding"]) for name, one in parts.items()}
    assert all(np.linalg.norm(one) == pytest.approx(1, abs=1e-5) for one in vectors.values())
    like = float(vectors["a"] @ vectors["b"])
    unlike = max(float(vectors["c"] @ vectors[name]) for name in "abd")
    assert unlike < like < 1
    _, rows = run((unlike + like) / 2)
    assert rows["b"]["duplicate_of"] == "a"
    assert rows["b"]["clip_cosine"] == pytest.approx(like, abs=1e-5)
    assert rows["c"]["duplicate_of"] is None
    without, plain = run(None)
    assert plain["b"]["duplicate_of"] is None, "the hashes alone do not see it"
    assert {one["clip_embedding"] for one in without.values()} == {None}


def scene(seed: int) -> Images:
    """A picture of coloured squares that stands still."""
    squares = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.repeat(squares.repeat(12, axis=0).repeat(12, axis=1)[None], 6, axis=0)


def test_it_needs_weights_only_when_asked() -> None:
    off, on = (Duplicates(DuplicatesParams(min_clip_cosine=one)) for one in (None, 0.9))
    assert (off.weights_needed(), set(off.requests())) == ({}, {"native", "small"})
    assert on.weights_needed()["clip"].id == "openai/clip-vit-large-patch14"
    assert set(on.requests()) == {"native", "small", "clip"}
    for value in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="above 0 and below 1; None leaves CLIP out"):
            DuplicatesParams(min_clip_cosine=value)
