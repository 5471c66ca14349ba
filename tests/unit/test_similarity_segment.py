"""Sequences of scenes: both passes on numbers made by hand, and the stage on embeddings made by hand."""
# ruff: noqa: N806 - arrays carry their shape.

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from civid_loader.processing.registry import make
from civid_loader.processing.segments.similarity_segment import (
    SimilaritySegmentParams,
    first_pass,
    pooled,
    second_pass,
    segment,
    similarities,
)
from civid_loader.processing.stage import ClipInput

PARAMS = SimilaritySegmentParams()


def _both(alike: Sequence[float], params: SimilaritySegmentParams = PARAMS) -> list[list[int]]:
    return segment(alike, range(len(alike)), params)


def test_long_runs_are_closed_at_ten() -> None:
    alike = [0.0] + 24 * [0.7]
    assert [len(run) for run in first_pass(alike, PARAMS)] == [10, 10, 5]
    assert [len(run) for run in _both(alike)] == [10, 10, 5]


def test_repeats_are_skipped() -> None:
    alike = [0.0] + 11 * [0.9]
    assert first_pass(alike, PARAMS) == [[0]]
    assert _both(alike) == []
    alike = [0, 0.7, 0.9, 0.9, 0.7, 0.5, 0.7]
    assert first_pass(alike, PARAMS) == [[0, 1, 4], [5, 6]]
    assert _both(alike) == [[0, 1, 4], [5, 6]]


def test_comparisons_are_strict() -> None:
    assert first_pass([0, 0.8, 0.6, 0.8], PARAMS) == [[0, 1], [2, 3]]
    assert first_pass([0, 0.8001, 0.6001], PARAMS) == [[0, 2]]


def test_after_a_full_run_the_next_begins_without_an_anchor() -> None:
    alike = [0.0] + 9 * [0.7] + [0.7, 0.5, 0.7]
    assert first_pass(alike, PARAMS) == [list(range(10)), [10], [11, 12]]
    assert _both(alike) == [list(range(10)), [11, 12]]


def test_gaps_part_a_run() -> None:
    alike = [0, 0.7, *6 * [0.9], 0.7]
    assert first_pass(alike, PARAMS) == [[0, 1, 8]]
    assert _both(alike) == [[0, 1]]  # 8 - 1 = 7 is more than 5, and the lone scene is dropped
    assert _both(alike, SimilaritySegmentParams(max_gap=7)) == [[0, 1, 8]]
    assert _both([0, 0.7, 0.7], SimilaritySegmentParams(max_gap=1)) == [[0, 1, 2]]
    assert segment([0, 0.7, 0.7], [3, 8, 14], PARAMS) == [[0, 1]]  # a gap of 5 joins, one of 6 parts


def test_a_full_run_is_kept_whatever_the_least() -> None:
    params = SimilaritySegmentParams(max_clips=3, min_clips=3)
    assert second_pass([[0, 1, 2]], range(3), params) == [[0, 1, 2]]
    assert second_pass([[0, 1]], range(3), params) == []


def test_nothing() -> None:
    assert first_pass([], PARAMS) == []
    assert _both([]) == []
    assert similarities(np.zeros((0, 4))) == []
    assert similarities(np.ones((1, 4))) == [0.0]


@pytest.mark.parametrize(
    "wrong", [{"lower": 0.9}, {"upper": 2.0}, {"min_clips": 11}, {"max_gap": 0}, {"pooling": "max"}]
)
def test_params_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimilaritySegmentParams(**wrong)


def test_pooling() -> None:
    frames_TD = [[2.0, 0.0], [0.0, 5.0], [0.0, 1.0]]
    assert pooled(frames_TD, "middle").tolist() == [0.0, 1.0]
    np.testing.assert_allclose(pooled(frames_TD, "mean"), np.array([1, 2]) / 5**0.5)
    np.testing.assert_allclose(pooled([3.0, 4.0], "mean"), [0.6, 0.8])
    assert pooled([[0.0, 0.0]], "mean").tolist() == [0.0, 0.0]


def _clip(film: str, index: int, degrees: float | None) -> ClipInput:
    """A scene whose embedding points so far around a circle."""
    row: dict[str, Any] = {"video": film, "index": index}
    if degrees is not None:
        turn = np.radians(degrees)
        row["embeddings"] = np.array([[np.cos(turn), np.sin(turn)]] * 3)
    return ClipInput(id=f"{film}{index}", frames={}, times_seconds={}, fps=24.0, duration_seconds=2.0, row=row)


def test_stage_gives_each_scene_its_sequence() -> None:
    # Steps of 45 degrees: cosine 0.71, neither repeat nor other topic; 10 degrees: a repeat; 90: another topic.
    clips = [_clip("a", i, degrees) for i, degrees in enumerate([0, 45, 55, 100, 190, 235])]
    clips += [_clip("b", 0, 0), _clip("b", 1, 45), _clip("b", 2, None)]
    stage = make("similarity_segment")
    rows = stage.run(clips)
    assert [row.get("seq_id") for row in rows] == ["a0", "a0", None, "a0", "a4", "a4", "b0", "b0", None]
    assert rows[3]["clip_ids"] == ["a0", "a1", "a3"]
    np.testing.assert_allclose(rows[3]["similarities"], [0, 0.7071, 0.7071], atol=1e-3)
    assert rows[2] == {"seq_id": None, "clip_ids": None, "similarities": None}
    assert "embedding" in rows[8]["reason"]
    order = np.random.default_rng(0).permutation(len(clips))
    shuffled = stage.run([clips[i] for i in order])
    assert shuffled == [rows[i] for i in order]


def test_fingerprint_changes_with_the_pooling() -> None:
    prints = {make("similarity_segment", {"pooling": how}).fingerprint() for how in ("mean", "middle")}
    assert len(prints) == 2
