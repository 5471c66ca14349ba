"""Scenes of a film joined to sequences by how alike neighbours are (CI-VID, by its released operator).

s_i is the cosine of the embeddings of scenes i - 1 and i; s_0 is 0. Too alike is a repeat, too different another topic.
The paper's embedding is ImageBind, for which its thresholds 0.6 and 0.8 were chosen; any other needs others.

Legend: T frames, D dimensions.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from civid_loader.processing.films import rows_by_film
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage

Pooling = Literal["mean", "middle"]
Embedding = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SimilaritySegmentParams:
    """Of `SimilaritySegment`."""

    lower: float = 0.6
    """Up to this, a scene begins another sequence."""
    upper: float = 0.8
    """Above this, a scene is skipped as a repeat of the one before."""
    max_clips: int = 10
    """A sequence of so many is closed."""
    min_clips: int = 2
    """Shorter ones are dropped."""
    max_gap: int = 5
    """Neighbours whose scene numbers are further apart are parted (5 in the released code, 3 in a digest of the
    paper)."""
    pooling: Pooling = "mean"
    """mean: of the embeddings of the 3 frames, each of length 1 (recommended). middle: that of the middle frame, whose
    centre is all that the released code's preprocessing leaves (parity)."""

    def __post_init__(self) -> None:
        if not -1 <= self.lower <= self.upper <= 1 or not 1 <= self.min_clips <= self.max_clips or self.max_gap < 1:
            raise ValueError(f"{self}: -1 <= lower <= upper <= 1, 1 <= min_clips <= max_clips and max_gap >= 1")
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling={self.pooling!r}: must be one of {', '.join(get_args(Pooling))}")


class SimilaritySegment(Stage[SimilaritySegmentParams]):
    """Sequences of scenes. A batch is all scenes of some films, in any order.

    Read of a clip: `row["video"]`, the film; `row["index"]`, the scene's number in it; `row["embeddings"]`, float
    [T, D] of its frames, or [D].
    """

    name = "similarity_segment"
    version = 1
    kind = "sequence"
    Params = SimilaritySegmentParams
    cost = "CPU, nothing; the embeddings are made elsewhere"
    columns = (
        Column(name="seq_id", dtype="string", doc="Of the sequence; None: the scene is in none."),
        Column(name="clip_ids", dtype="list<string>", doc="Scenes of the sequence, in order."),
        Column(name="similarities", dtype="list<float32>", doc="Of each of them to the scene before it in the film."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`; embeddings are given, no frames are looked at."""
        return {}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return rows_by_film(
            batch,
            self._rows,
            is_known=lambda clip: clip.row.get("embeddings") is not None,
            reason="no embedding of the scene is given",
        )

    def _rows(self, clips: Sequence[ClipInput]) -> list[Row]:
        pooled_ND = np.stack([pooled(clip.row["embeddings"], self.params.pooling) for clip in clips])
        alike = similarities(pooled_ND)
        rows: list[Row] = [dict.fromkeys(column.name for column in self.columns) for _ in clips]
        for run in segment(alike, [int(clip.row["index"]) for clip in clips], self.params):
            ids = [clips[i].id for i in run]
            for i in run:
                rows[i] = {"seq_id": ids[0], "clip_ids": ids, "similarities": [alike[j] for j in run]}
        return rows


def pooled(embeddings_TD: npt.ArrayLike, pooling: Pooling) -> Embedding:
    """One embedding of length 1 for a clip, float64 [D], of those of its frames [T, D]."""
    vectors_TD = np.atleast_2d(np.asarray(embeddings_TD, np.float64))
    vectors_TD = vectors_TD / np.maximum(np.linalg.norm(vectors_TD, axis=1, keepdims=True), 1e-12)
    one_D = vectors_TD.mean(axis=0) if pooling == "mean" else vectors_TD[len(vectors_TD) // 2]
    return np.asarray(one_D / max(float(np.linalg.norm(one_D)), 1e-12))


def similarities(pooled_ND: Embedding) -> list[float]:
    """s_i of N clips in order; s_0 is 0."""
    return [0.0, *np.einsum("nd,nd->n", pooled_ND[:-1], pooled_ND[1:]).tolist()][: len(pooled_ND)]


def segment(similarities: Sequence[float], indices: Sequence[int], params: SimilaritySegmentParams) -> list[list[int]]:
    """Sequences, as positions in `similarities`; `indices` are scene numbers. Both passes, see there."""
    return second_pass(first_pass(similarities, params), indices, params)


def first_pass(similarities: Sequence[float], params: SimilaritySegmentParams) -> list[list[int]]:
    """Runs of positions whose scenes are alike, but not too much.

    [0, .7, .9, .9, .7, .5, .7] -> [0, 1, 4], [5, 6]: 2 and 3 repeat 1; 4 is compared with 3, which was skipped.
    After a run is full, the next scene above `lower` begins one although nothing is said of what it is like.
    """
    runs: list[list[int]] = []
    current: list[int] = []
    for position, similarity in enumerate(similarities):
        if similarity > params.upper:
            continue
        if similarity > params.lower:
            current.append(position)
            if len(current) == params.max_clips:
                runs.append(current)
                current = []
        else:
            runs += [current] if current else []
            current = [position]
    return runs + ([current] if current else [])


def second_pass(
    runs: Sequence[Sequence[int]], indices: Sequence[int], params: SimilaritySegmentParams
) -> list[list[int]]:
    """Runs parted where scene numbers are more than `max_gap` apart; those that are too short then are dropped.

    A full run is kept whatever `min_clips` says; here as in the released code the next scene begins a new one.
    """
    kept: list[list[int]] = []
    for run in runs:
        current: list[int] = []
        for position in run:
            if current and indices[position] - indices[current[-1]] > params.max_gap:
                kept += [current] if len(current) >= params.min_clips else []
                current = []
            current.append(position)
            if len(current) == params.max_clips:
                kept.append(current)
                current = []
        kept += [current] if len(current) >= max(1, params.min_clips) else []
    return kept
