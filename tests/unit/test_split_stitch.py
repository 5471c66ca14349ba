"""Scenes joined: the vote, the chain, and that no second is lost."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from civid_loader.processing.registry import make
from civid_loader.processing.segments.split import Span
from civid_loader.processing.segments.split_stitch import Votes, chain_groups, cosine, is_at_least, join, stitch
from civid_loader.processing.stage import ClipInput

YES, NO = Votes(imagebind=True, dino=True), Votes(qwen=True, imagebind=True)


@pytest.mark.parametrize("votes", list(product((False, True), repeat=4)))
def test_two_of_a_pair_join(votes: tuple[bool, bool, bool, bool]) -> None:
    # The 7 of 16 that join: both language models (4), both embeddings (4), counted once where both are so.
    assert join(*votes) == (votes[:2] == (True, True) or votes[2:] == (True, True))


def test_how_many_of_sixteen() -> None:
    assert sum(join(*votes) for votes in product((False, True), repeat=4)) == 7


@pytest.mark.parametrize(
    ("joins", "groups"),
    [
        ("", [[0]]),
        ("000", [[0], [1], [2], [3]]),
        ("111", [[0, 1, 2, 3]]),
        ("101", [[0, 1], [2, 3]]),
        ("010", [[0], [1, 2], [3]]),
    ],
)
def test_chains(joins: str, groups: list[list[int]]) -> None:
    asked: list[int] = []

    def ask(scene: int) -> Votes:
        asked.append(scene)
        return YES if joins[scene] == "1" else NO

    assert chain_groups(len(joins) + 1, ask) == groups
    assert asked == list(range(len(joins)))
    assert chain_groups(0, ask) == []


def test_joined_pieces_are_contiguous_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(5)
    edges = [0, *np.cumsum(rng.integers(15, 400, 60)).tolist()]
    spans = [
        Span(start_seconds=first / 25, end_seconds=last / 25, start_frame=first, end_frame=last)
        for first, last in pairwise(edges)
    ]
    votes = [Votes(qwen=a, llava=b, imagebind=c, dino=d) for a, b, c, d in rng.integers(0, 2, (60, 4)) > 0]
    joined = stitch(spans, lambda scene: votes[scene])
    assert 1 < len(joined) < len(spans)
    assert len(spans) - len(joined) == sum(join(v.qwen, v.llava, v.imagebind, v.dino) for v in votes[:-1])
    for one, after in pairwise(joined):
        assert (one.end_seconds, one.end_frame) == (after.start_seconds, after.start_frame)
    assert joined[0].start_frame == 0
    assert joined[-1].end_frame == edges[-1]
    assert sum(span.duration_seconds for span in joined) == pytest.approx(edges[-1] / 25)


def test_a_vote_needs_a_value_and_a_threshold() -> None:
    assert is_at_least(0.5, 0.5)
    assert not is_at_least(0.49, 0.5)
    assert not is_at_least(None, 0.5)
    assert not is_at_least(1.0, None)
    assert cosine([3, 4], [6, 8]) == pytest.approx(1)
    assert cosine([0, 0], [1, 0]) == 0


def _clip(index: int, degrees: tuple[float, float], seconds: float = 15.0, **more: Any) -> ClipInput:
    """A scene whose first and last frame point so far around a circle, for both embeddings."""
    ends = np.array([[np.cos(turn), np.sin(turn)] for turn in np.radians(degrees)])
    row = {"video": "a", "index": index, "ends_imagebind": ends, "ends_dino": ends, **more}
    return ClipInput(id=f"a{index}", frames={}, times_seconds={}, fps=24.0, duration_seconds=seconds, row=row)


def test_stage_joins_and_keeps_what_is_long_enough() -> None:
    stage = make("split_stitch", {"imagebind_at_least": 0.9, "dino_at_least": 0.9})
    clips = [
        _clip(0, (0, 10)),
        _clip(1, (12, 40)),
        _clip(2, (45, 60)),
        _clip(3, (150, 160)),
        _clip(4, (250, 251), 50.0),
    ]
    rows = stage.run(clips[::-1])[::-1]
    assert [row["joined_id"] for row in rows] == ["a0", "a0", "a0", None, "a4"]
    assert rows[1] == {"joined_id": "a0", "joined_clip_ids": ["a0", "a1", "a2"], "joined_seconds": 45.0}
    # A scene between them is missing: no neighbours, whatever they look like.
    assert [row["joined_id"] for row in stage.run([clips[0], clips[2]])] == [None, None]


def test_language_models_may_vote_for_it() -> None:
    stage = make("split_stitch", {"min_seconds": 20.0})
    clips = [_clip(0, (0, 0), votes=(True, True)), _clip(1, (0, 0), votes=(True, False)), _clip(2, (0, 0))]
    assert [row["joined_id"] for row in stage.run(clips)] == ["a0", "a0", None]
    nothing = ClipInput(
        id="b", frames={}, times_seconds={}, fps=24.0, duration_seconds=9.0, row={"video": "b", "index": 0}
    )
    assert "nothing is known" in stage.run([nothing])[0]["reason"]
