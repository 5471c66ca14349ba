"""Scenes of a film that show one thing joined again (MiraData): two pairs of voters, both of one pair.

Two language models (QwenVL, LLaVA) say whether a scene goes on in the next, shown the end of one and the start of the
other; two embeddings (ImageBind, DINOv2) say it by a cosine of at least tau. Which frames, and the taus, are not
published. Joined are neighbours only, so that a joined scene is one span of the film.

Legend: T frames, D dimensions.
"""
# ruff: noqa: N803 - arrays carry their shape.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from civid_loader.processing.films import rows_by_film
from civid_loader.processing.segments.split import Span
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage

Embedding = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Votes:
    """What four say to "does this scene go on in the next?"; False where one was not asked."""

    qwen: bool = False
    """q: the first language model."""
    llava: bool = False
    """l: the second."""
    imagebind: bool = False
    """i: the first embedding."""
    dino: bool = False
    """d: the second."""


Ask: TypeAlias = Callable[[int], Votes]
"""Number of a scene -> the votes on it and the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitStitchParams:
    """Of `SplitStitch`."""

    imagebind_at_least: float | None = None
    """tau_i: cosine of the first embedding. Not published; None: it votes no."""
    dino_at_least: float | None = None
    """tau_d, of the second. Not published either."""
    min_seconds: float = 40.0
    """Shorter scenes are dropped, after joining: 40 s for YouTube and HD-VILA films, 10 s for stock videos."""


class SplitStitch(Stage[SplitStitchParams]):
    """Scenes joined. A batch is all scenes of some films, in any order.

    Read of a clip: `row["video"]`, the film; `row["index"]`, the scene's number in it; `row["ends_imagebind"]` and
    `row["ends_dino"]`, float [2, D], embeddings of its first and its last frame; `row["votes"]`, the (q, l) of language
    models on it and the next scene, where they were asked.
    """

    name = "split_stitch"
    version = 1
    kind = "sequence"
    Params = SplitStitchParams
    asks_model = True
    cost = "CPU, nothing; embeddings and answers are made elsewhere (`civid curate`)"
    columns = (
        Column(name="joined_id", dtype="string", doc="First scene of those joined; None: too short even so."),
        Column(name="joined_clip_ids", dtype="list<string>", doc="Scenes joined, in order."),
        Column(name="joined_seconds", dtype="float32", unit="s", doc="How long they are together."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`; embeddings are given, no frames are looked at."""
        return {}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return rows_by_film(
            batch,
            self._rows,
            is_known=lambda clip: bool({"ends_imagebind", "ends_dino", "votes"} & clip.row.keys()),
            reason="nothing is known of its ends: neither embeddings nor votes",
        )

    def _rows(self, clips: Sequence[ClipInput]) -> list[Row]:
        rows: list[Row] = [dict.fromkeys(column.name for column in self.columns) for _ in clips]
        for group in chain_groups(len(clips), lambda i: self._votes(clips[i], clips[i + 1])):
            seconds = sum(clips[i].duration_seconds for i in group)
            ids = [clips[i].id for i in group]
            for i in group if seconds >= self.params.min_seconds else ():
                rows[i] = {"joined_id": ids[0], "joined_clip_ids": ids, "joined_seconds": seconds}
        return rows

    def _votes(self, clip: ClipInput, after: ClipInput) -> Votes:
        if int(after.row["index"]) != int(clip.row["index"]) + 1:
            return Votes()  # a scene between them is missing: they are no neighbours
        said = clip.row.get("votes") or (False, False)
        pairs = [(clip.row.get(name), after.row.get(name)) for name in ("ends_imagebind", "ends_dino")]
        alike = [None if a is None or b is None else cosine(a[-1], b[0]) for a, b in pairs]
        taus = self.params.imagebind_at_least, self.params.dino_at_least
        votes = [is_at_least(value, tau) for value, tau in zip(alike, taus, strict=True)]
        return Votes(qwen=bool(said[0]), llava=bool(said[1]), imagebind=votes[0], dino=votes[1])


def join(q: bool, l: bool, i: bool, d: bool) -> bool:  # noqa: E741 - the paper's letters
    """Whether scenes are joined: both language models say so, or both embeddings."""
    return (q and l) or (i and d)


def cosine(first_D: npt.ArrayLike, second_D: npt.ArrayLike) -> float:
    """Of two embeddings; 0 where one has no length."""
    first, second = np.asarray(first_D, np.float64), np.asarray(second_D, np.float64)
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else 0.0


def is_at_least(value: float | None, tau: float | None) -> bool:
    """The vote of an embedding; no where it cannot be computed or no tau is known."""
    return value is not None and tau is not None and value >= tau


def chain_groups(num_scenes: int, ask: Ask) -> list[list[int]]:
    """Scenes that belong together, in order: neighbours that are joined, and theirs, by union-find.

    `ask` is called once for each scene but the last.
    """
    parents = list(range(num_scenes))

    def root(scene: int) -> int:
        while parents[scene] != scene:
            parents[scene] = parents[parents[scene]]
            scene = parents[scene]
        return scene

    for scene in range(num_scenes - 1):
        votes = ask(scene)
        if join(votes.qwen, votes.llava, votes.imagebind, votes.dino):
            parents[root(scene + 1)] = root(scene)
    return [list(group) for _, group in groupby(range(num_scenes), key=root)]


def stitch(spans: Sequence[Span], ask: Ask) -> list[Span]:
    """The scenes of a film joined: as many seconds as before, without gaps where there were none."""
    return [
        Span(
            start_seconds=spans[group[0]].start_seconds,
            end_seconds=spans[group[-1]].end_seconds,
            start_frame=spans[group[0]].start_frame,
            end_frame=spans[group[-1]].end_frame,
        )
        for group in chain_groups(len(spans), ask)
    ]
