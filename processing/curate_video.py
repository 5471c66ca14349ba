"""One film to sample rows: cut into scenes, described, joined as a recipe says.

Legend: T frames, H height, W width, C = 3 channels (RGB), N scenes, D dimensions.
"""
# ruff: noqa: N806 - arrays carry their shape.

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from civid_loader.decoding import read_frames
from civid_loader.errors import StageError
from civid_loader.media import VideoFacts, probe
from civid_loader.processing.curate_rows import FilmRows
from civid_loader.processing.frame_descriptors import Embedder, Frames, Vectors
from civid_loader.processing.recipe import Recipe
from civid_loader.processing.segments import entity_segment
from civid_loader.processing.segments.entity_segment import Asker, EntitySegmentParams, Kept
from civid_loader.processing.segments.similarity_segment import (
    SimilaritySegmentParams,
    pooled,
    segment,
    similarities,
)
from civid_loader.processing.segments.split import Span, SplitParams, find_cuts, split_video
from civid_loader.processing.segments.split_stitch import (
    SplitStitchParams,
    Votes,
    cosine,
    is_at_least,
    stitch,
)
from civid_loader.processing.stitch_asker import StitchAsker
from civid_loader.sampling import ClipTimes, Fps, Sampler, Thirds, UniformEnds
from civid_loader.videos import ByteSource, open_video

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NO_LANGUAGE_MODEL: Final = "stitched_by_features_only"
"""Flag of samples for which the recipe's language models were not asked."""
ONE_LANGUAGE_MODEL: Final = "stitched_by_one_language_model"
"""Flag of samples for which one was asked in the place of two."""
NOT_CHECKED: Final = "entity_not_checked"
"""Flag of sequences of which nobody said that they are about one thing."""
STAND_IN: Final = "stand_in_embedding"
"""Flag of samples made with another embedding than the paper's."""
_FRAMES_AT_ONCE: Final = 32
"""Of a scene that is searched for cuts, in memory: 57 MB at 576x1024 px."""
_ASKED_PX: Final = 1024
"""Long side of the frames that a model is asked about."""
_SEQUENCES_AT_ONCE: Final = 4
"""That it is asked about: of one, most questions wait for the answer to the one before."""
P = TypeVar("P", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepParams:
    """Which scenes become clips: step `keep` of a recipe's segmentation."""

    min_seconds: float = 0.0
    max_seconds: float | None = None
    """None: any."""
    cut_threshold: float | None = None
    """A scene with a cut among frames at `cut_fps` is dropped; None: not looked for."""
    cut_fps: float = 0.5

    def is_long_enough(self, span: Span) -> bool:
        """Neither too short nor too long."""
        return self.min_seconds <= span.duration_seconds <= (self.max_seconds or math.inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedders:
    """What frames are compared by."""

    first: Embedder
    """Of the scenes of a sequence (civid); votes in the place of ImageBind (miradata)."""
    second: Embedder
    """Votes in the place of DINOv2 (miradata)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a film gave."""

    rows: list[dict[str, Any]]
    """Samples, see `schema.SAMPLE_FEATURES`."""
    num_scenes: int
    """That it was cut into."""
    duration_seconds: float
    """Of the film."""


def params_of(recipe: Recipe, stage: str, kind: type[P]) -> P | None:
    """The parameters of a step of the recipe's segmentation; None: it has no such step.

    Raises:
        StageError: a parameter that the step has not, or a value that is none.
    """
    step = recipe.step(stage)
    if step is None:
        return None
    known = {one.name for one in fields(kind)}
    if strange := sorted(step.params.keys() - known):
        raise StageError(f"recipe {recipe.name}: {stage} has no parameter {strange[0]!r}; it has {', '.join(known)}")
    try:
        return kind(**step.params)
    except (TypeError, ValueError) as error:
        raise StageError(f"recipe {recipe.name}: {stage}: {error}") from error


def curate_video(
    pointer: str,
    *,
    root: str,
    recipe: Recipe,
    embedders: Embedders,
    asker: Asker | StitchAsker | None = None,
    timeout_seconds: float | None,
) -> Found:
    """The samples of one film.

    Args:
        pointer: of the film, relative to `root`.
        root: of the films.
        recipe: of dataset civid, lvd2m or miradata.
        embedders: see there.
        asker: says what sequences are about (civid, step `entity_segment`), or whether scenes go on (miradata, step
            `split_stitch`); None: nobody does, and samples are flagged.
        timeout_seconds: for every reading of the film; None: without.

    Raises:
        VideoError: it is missing, unreadable or damaged.
        StageError: the recipe says nothing of how to cut films.
    """
    split = params_of(recipe, "split", SplitParams)
    if split is None:
        raise StageError(f"recipe {recipe.name} has no step `split`: it does not say how films are cut")
    source = open_video(pointer, root=root)
    facts = probe(source, timeout_seconds=timeout_seconds)
    spans = split_video(source, split, index=facts.index, timeout_seconds=timeout_seconds)
    film = _Film(
        pointer=pointer, source=source, facts=facts, spans=spans, recipe=recipe, embedders=embedders, asker=asker
    )
    find = {"civid": film.sequences, "lvd2m": film.takes, "miradata": film.stitched}[recipe.dataset]
    return Found(rows=find(), num_scenes=len(spans), duration_seconds=facts.duration_seconds)


@dataclass(slots=True)
class _Part:
    """A few of the times of another sampler."""

    sampler: Sampler
    first: int
    num_times: int = 0
    """That the other has, once it was asked."""

    def times_seconds(self, clip: ClipTimes) -> list[float]:
        """See `Sampler`."""
        times = self.sampler.times_seconds(clip)
        self.num_times = len(times)
        return times[self.first : self.first + _FRAMES_AT_ONCE]


@dataclass(frozen=True, kw_only=True)
class _Film:
    pointer: str
    source: ByteSource
    facts: VideoFacts
    spans: list[Span]
    recipe: Recipe
    embedders: Embedders
    asker: Asker | StitchAsker | None

    @cached_property
    def _rows(self) -> FilmRows:
        identity: Mapping[str, Any] = self.embedders.first.identity
        annotator = f"civid_loader:{identity.get('descriptor') or identity.get('model') or 'embedding'}"
        return FilmRows(pointer=self.pointer, facts=self.facts, recipe=self.recipe, annotator=annotator)

    def sequences(self) -> list[dict[str, Any]]:
        """CI-VID: scenes that are alike, but not too much, in sequences."""
        params = params_of(self.recipe, "similarity_segment", SimilaritySegmentParams) or SimilaritySegmentParams()
        keep = params_of(self.recipe, "keep", KeepParams) or KeepParams()
        # Scenes keep their numbers in the film: how far apart they may be counts those left out too.
        numbers = [i for i, span in enumerate(self.spans) if keep.is_long_enough(span) and not self._cuts(span, keep)]
        if not numbers:
            return []
        each = [self._described(self.spans[i], Thirds(3), self.embedders.first) for i in numbers]
        alike = similarities(np.stack([pooled(vectors_TD, params.pooling) for vectors_TD in each]))
        before = {number: alike[place] if place else None for place, number in enumerate(numbers)}
        runs = [[numbers[place] for place in run] for run in segment(alike, numbers, params)]
        flags = [STAND_IN] if self._is_checked else [STAND_IN, NOT_CHECKED]
        return [
            self._rows.sample(
                number,
                [self.spans[i] for i in run],
                flags=flags,
                alike=[before[i] for i in run],
                entity=entity,
            )
            for number, (run, entity) in enumerate(self._about(runs))
        ]

    @property
    def _is_checked(self) -> bool:
        """Somebody says what sequences are about, or the recipe does not want to know."""
        return self.asker is not None or self.recipe.step("entity_segment") is None

    def _about(self, runs: Sequence[Sequence[int]]) -> list[tuple[Sequence[int], str | None]]:
        """Sequences that are about something, of each the scenes that show it, and what it is called."""
        params = params_of(self.recipe, "entity_segment", EntitySegmentParams)
        asker = self.asker
        if asker is None or params is None or isinstance(asker, StitchAsker):
            return [(run, None) for run in runs]

        def kept(run: Sequence[int]) -> Kept | None:
            frames = [self._frames(self.spans[i], Thirds(3), long_side_px=_ASKED_PX) for i in run]
            return entity_segment.segment(frames, asker, min_clips=params.min_clips)

        with ThreadPoolExecutor(_SEQUENCES_AT_ONCE, "civid-entities") as pool:
            found = zip(runs, pool.map(kept, runs), strict=True)
            return [([run[k] for k in one.clips], one.entity.name) for run, one in found if one is not None]

    def takes(self) -> list[dict[str, Any]]:
        """LVD-2M: long scenes without a cut."""
        keep = params_of(self.recipe, "keep", KeepParams) or KeepParams()
        kept = [span for span in self.spans if keep.is_long_enough(span) and not self._cuts(span, keep)]
        return [self._rows.sample(number, [span], flags=[]) for number, span in enumerate(kept)]

    def stitched(self) -> list[dict[str, Any]]:
        """MiraData: scenes joined where both language models or both embeddings say so, and long enough then."""
        params = params_of(self.recipe, "split_stitch", SplitStitchParams) or SplitStitchParams()
        known = self.embedders.first.same_scene_at_least, self.embedders.second.same_scene_at_least
        told = params.imagebind_at_least, params.dino_at_least
        taus = known[0] if told[0] is None else told[0], known[1] if told[1] is None else told[1]
        assert self._ends  # before threads want them
        with ThreadPoolExecutor(_SEQUENCES_AT_ONCE, "civid-votes") as pool:
            votes = list(pool.map(lambda scene: self._votes(scene, taus), range(len(self.spans) - 1)))
        kept = [span for span in stitch(self.spans, votes.__getitem__) if span.duration_seconds >= params.min_seconds]
        num_asked = len(self.asker.models) if isinstance(self.asker, StitchAsker) else 0
        flags = [*{0: [NO_LANGUAGE_MODEL], 1: [ONE_LANGUAGE_MODEL]}.get(num_asked, []), STAND_IN]
        return [self._rows.sample(number, [span], flags=flags) for number, span in enumerate(kept)]

    def _votes(self, scene: int, taus: tuple[float | None, float | None]) -> Votes:
        (first_A, second_A), (first_B, second_B) = self._ends[scene], self._ends[scene + 1]
        i = is_at_least(cosine(first_A[-1], first_B[0]), taus[0])
        d = is_at_least(cosine(second_A[-1], second_B[0]), taus[1])
        if not isinstance(self.asker, StitchAsker):
            return Votes(imagebind=i, dino=d)
        last_HWC, first_HWC = (
            self._frames(self.spans[one], UniformEnds(2), long_side_px=_ASKED_PX)[place]
            for one, place in ((scene, -1), (scene + 1, 0))
        )
        q, l = self.asker.votes(last_HWC, first_HWC, alike=(i, d))  # noqa: E741 - the paper's letters
        return Votes(qwen=q, llava=l, imagebind=i, dino=d)

    @cached_property
    def _ends(self) -> list[tuple[Vectors, Vectors]]:
        """Of each scene, its first and last frame described by both embedders: two of [2, D]."""
        ends = (self._frames(span, UniformEnds(2)) for span in self.spans)
        return [(self.embedders.first(frames_THWC), self.embedders.second(frames_THWC)) for frames_THWC in ends]

    def _cuts(self, span: Span, keep: KeepParams) -> list[int]:
        if keep.cut_threshold is None:
            return []
        frames_HWC = self._one_by_one(span, Fps(keep.cut_fps), long_side_px=1024)
        params = SplitParams(threshold=keep.cut_threshold, min_scene_len_frames=0)
        return find_cuts((np.ascontiguousarray(frame_HWC[..., ::-1]) for frame_HWC in frames_HWC), params)

    def _one_by_one(self, span: Span, at: Sampler, *, long_side_px: int) -> Iterator[Frames]:
        """uint8 [H, W, C] each; a scene may last for hours, so a few are read at a time."""
        part = _Part(at, 0, num_times=1)
        while part.first < part.num_times:
            yield from self._frames(span, part, long_side_px=long_side_px)
            part.first += _FRAMES_AT_ONCE

    def _described(self, span: Span, at: Sampler, embedder: Embedder) -> Vectors:
        return embedder(self._frames(span, at))

    def _frames(self, span: Span, at: Sampler, *, long_side_px: int | None = None) -> Frames:
        """uint8 [T, H, W, C]; with `long_side_px`, not larger than that."""
        height, width = self.facts.height, self.facts.width
        factor = max(height, width) / long_side_px if long_side_px else 1.0
        size = (max(1, round(height / factor)), max(1, round(width / factor))) if factor > 1 else None
        found = read_frames(
            self.source, at, span=(span.start_seconds, span.end_seconds), size=size, index=self.facts.index
        )
        frames_THWC: Frames = found.frames_TCHW.permute(0, 2, 3, 1).numpy()
        return frames_THWC
