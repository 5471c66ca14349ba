"""Small datasets to train on, and the proof that a loader never loses its place."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from civid_loader import schema
from civid_loader.collation import Batch
from civid_loader.loader import SequenceLoader
from support.media import write_video

MakeLoader = Callable[..., SequenceLoader]
"""Keyword arguments `rank`, `world_size` and `num_workers` to a loader."""


def clip(number: int, video: str | None) -> dict[str, Any]:
    """A trimmed clip of the schema with a caption."""
    return {
        **dict.fromkeys(schema.CLIP),
        **{"clip_id": f"c{number}", "index": 0, "video": video, "trimmed": True, "characters": [], "scores": []},
        **{"source": dict.fromkeys(schema.SOURCE), "captions": [schema.caption("dense", f"clip {number}", "a")]},
    }


def dataset_of(videos: list[list[str | None]]) -> Dataset:
    """One row per list of videos, s0, s1, ..."""
    numbers = iter(range(10_000))
    rows = [
        {
            **schema.empty_sample(),
            **{"sample_id": f"s{i}", "dataset": "civid", "subset": "full", "level": "sequence"},
            **{"clips": [clip(next(numbers), video) for video in names]},
        }
        for i, names in enumerate(videos)
    ]
    return Dataset.from_list(rows, features=schema.SAMPLE_FEATURES)


def write_videos(folder: Path, count: int) -> list[list[str | None]]:
    """Videos 0.mp4, 1.mp4, ... of 8 frames and more, one per row."""
    for number in range(count):
        write_video(folder / f"{number}.mp4", num_frames=8 + number % 5, gop=4, size=(32, 48))
    return [[f"{number}.mp4"] for number in range(count)]


def digest(batch: Batch) -> str:
    """Equal for batches that are equal bit for bit."""
    told = [batch.sample_ids, batch.clip_ids, batch.texts, batch.weights_B.tolist(), batch.pts_seconds_BNT.tolist()]
    pixels = hashlib.sha256(batch.frames_BNTCHW.numpy().tobytes()).hexdigest()
    return json.dumps([*told, batch.mask_BNT.tolist(), pixels])


def run(
    make: MakeLoader, *, epochs: int, state: Any = None, stop_after: int | None = None, **settings: Any
) -> Iterator[Any]:
    """Digests of one rank's batches until the end of epoch number `epochs` - 1; then its state."""
    loader = make(**settings)
    if state is not None:
        loader.load_state_dict(state)
    num_batches = 0
    while loader.state_dict()["epoch"] < epochs:
        for batch in loader:
            yield digest(batch)
            num_batches += 1
            if num_batches == stop_after:
                yield loader.state_dict()
                return
    yield loader.state_dict()


def samples_of(digests: list[str]) -> list[tuple[str, float]]:
    """(sample id, weight) in order."""
    return [pair for one in digests for pair in zip(json.loads(one)[0], json.loads(one)[3], strict=True)]


def prove_resume(
    make: MakeLoader, *, epochs: int, stop_after: int, before: dict[str, int], after: dict[str, int]
) -> dict[str, int]:
    """Stop after some batches and go on with other workers and ranks; how many samples are lost and repeated.

    Raises AssertionError where batches are not the same, bit for bit (ranks equal), or samples (ranks changed).
    """
    ranks_before, ranks_after = before.get("world_size", 1), after.get("world_size", 1)
    whole = [[*run(make, epochs=epochs, rank=rank, **before)][:-1] for rank in range(ranks_before)]
    firsts, states = [], []
    for rank in range(ranks_before):
        *first, state = run(make, epochs=epochs, stop_after=stop_after, rank=rank, **before)
        firsts.append(first)
        states.append(json.loads(json.dumps(state)))
    assert all(state == states[0] for state in states), "the state is the same for every rank"
    seconds = [[*run(make, epochs=epochs, state=states[0], rank=rank, **after)][:-1] for rank in range(ranks_after)]
    if ranks_before == ranks_after:
        assert [[*a, *b] for a, b in zip(firsts, seconds, strict=True)] == whole, "the same batches, bit for bit"

    def seen(ranks: list[list[str]]) -> list[list[tuple[str, float]]]:
        """Samples of each global batch."""
        return [samples_of(list(shares)) for shares in zip(*ranks, strict=True)]

    expected, found = seen(whole), [*seen(firsts), *seen(seconds)]
    if ranks_before != ranks_after:  # a short tail is filled up to a multiple of the ranks: other ranks, other fillers
        expected, found = ([[one for one in batch if one[1]] for batch in of] for of in (expected, found))
    assert found == expected, "the same samples in every global batch, in order"
    expected_real, found_real = ([one for batch in of for one in batch if one[1]] for of in (expected, found))
    return {
        "lost": len(expected_real) - len(found_real),
        "repeated": len(found_real) - len(expected_real) if len(found_real) > len(expected_real) else 0,
    }
