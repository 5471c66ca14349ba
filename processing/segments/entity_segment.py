"""Clips of a sequence that show its main entity (CI-VID, by its released operator).

A language model that sees is asked, a rule decides; the questions' words and pictures are the asker's. The steps:
1 what is in more than 60 % of the middle frames, if anything; 2 whether that is a person; 3 in which of a clip's 3
frames it is seen; of persons: 4 whether there are several such in that frame, and 6 whether it is one person in all of
them; 5 two clips at least must be left.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803 - arrays carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import Weights

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    """What a sequence is about."""

    name: str
    """In a few words."""
    is_person: bool
    """Whether it names one."""


class Asker(Protocol):
    """A model that sees. Answers are values, not texts; None where the model gave none that can be read."""

    def main_entity(self, middle_frames: Sequence[Image]) -> Entity | None:
        """What is the main thing in more than 60 % of these pictures, [H, W, C] each; None: nothing is."""

    def are_seen(self, entity: Entity, frames: Sequence[Image]) -> list[bool | None]:
        """Of each of these pictures: is it in there? They may be asked about together."""

    def are_several(self, entity: Entity, frames: Sequence[Image]) -> list[bool | None]:
        """Of each of these pictures: is more than one such person in there?"""

    def is_same(self, entity: Entity, frames: Sequence[Image]) -> bool | None:
        """Is it the same person in all of these pictures?"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntitySegmentParams:
    """Of `EntitySegment`."""

    min_clips: int = 2
    """So many must be left of a sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is left of a sequence."""

    entity: Entity
    """What it is about."""
    clips: tuple[int, ...]
    """Positions of the clips that show it, ascending."""
    frames: tuple[int, ...]
    """Which frame of each does, 0 to 2."""


class EntitySegment(Stage[EntitySegmentParams]):
    """Sequences by what they are about. A batch is all clips of some sequences, in any order.

    Read of a clip: `row["seq_id"]`, its sequence; `row["index"]`, its place in it.
    """

    name = "entity_segment"
    version = 1
    kind = "sequence"
    Params = EntitySegmentParams
    needs = ("similarity_segment",)
    asks_model = True
    cost = "a model that sees, 1 to 4 questions per clip"
    columns = (
        Column(name="entity", dtype="string", doc="What its sequence is about; None: nothing, or not kept."),
        Column(name="good_clips", dtype="list<string>", doc="Clips of its sequence that are kept, in order."),
        Column(name="good_clip_idx", dtype="list<int32>", doc="Their places in it."),
    )

    def __init__(
        self,
        params: EntitySegmentParams,
        *,
        weights: Mapping[str, Weights] | None = None,
        asker: Asker | None = None,
    ) -> None:
        """See `Stage`; `asker`: whom to ask."""
        super().__init__(params, weights=weights)
        self.asker = asker

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {"frames": FrameRequest(mode="thirds", value=3)}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        if self.asker is None:
            return [{"reason": "there is no model to ask: pass an asker"} for _ in batch]
        rows: list[Row] = [{"reason": "it is in no sequence"} for _ in batch]
        sequences: dict[str, list[int]] = {}
        for i, clip in enumerate(batch):
            if (seq_id := clip.row.get("seq_id")) is not None:
                sequences.setdefault(str(seq_id), []).append(i)
        for places in sequences.values():
            places.sort(key=lambda i: int(batch[i].row["index"]))
            clips = [batch[i] for i in places]
            kept = segment([clip.frames["frames"] for clip in clips], self.asker, min_clips=self.params.min_clips)
            row = self._row(clips, kept)
            for i in places:
                rows[i] = dict(row)
        return rows

    def _row(self, clips: Sequence[ClipInput], kept: Kept | None) -> Row:
        if kept is None:
            return dict.fromkeys(column.name for column in self.columns)
        ids = [clips[i].id for i in kept.clips]
        return {"entity": kept.entity.name, "good_clips": ids, "good_clip_idx": list(kept.clips)}


def segment(clips_THWC: Sequence[Sequence[Image] | Image], asker: Asker, *, min_clips: int = 2) -> Kept | None:
    """The clips of a sequence that show its main entity; None: none, or too few.

    Args:
        clips_THWC: of each clip its 3 frames, uint8 [T, H, W, C].
        asker: whom to ask.
        min_clips: so many must be left.
    """
    entity = asker.main_entity([frames[len(frames) // 2] for frames in clips_THWC])
    if entity is None:
        return None
    good = good_frames(asker, entity, clips_THWC)
    found = {i: k for i, k in enumerate(good) if k is not None}
    several: list[bool | None] = [False] * len(good)
    if entity.is_person:
        answers = asker.are_several(entity, [clips_THWC[i][k] for i, k in found.items()])
        for i, answer in zip(found, answers, strict=True):
            several[i] = answer
    clips = kept_clips(good, several, min_clips=min_clips)
    if not clips:
        return None
    frames = [clips_THWC[i][found[i]] for i in clips]
    if not is_kept(entity, asker.is_same(entity, frames) if entity.is_person else None):
        return None
    return Kept(entity=entity, clips=tuple(clips), frames=tuple(found[i] for i in clips))


def good_frames(asker: Asker, entity: Entity, clips_THWC: Sequence[Sequence[Image] | Image]) -> list[int | None]:
    """Of each clip the first frame that shows the entity (step 3); None: not one does.

    Later frames of a clip are not asked about; the same ones of all clips are, together.
    """
    found: list[int | None] = [None] * len(clips_THWC)
    for k in range(max(map(len, clips_THWC), default=0)):
        open_clips = [i for i, frames in enumerate(clips_THWC) if found[i] is None and k < len(frames)]
        answers = asker.are_seen(entity, [clips_THWC[i][k] for i in open_clips])
        for i, is_seen in zip(open_clips, answers, strict=True):
            if is_seen:
                found[i] = k
    return found


def kept_clips(good_frames: Sequence[int | None], several: Sequence[bool | None], *, min_clips: int) -> list[int]:
    """Positions of clips that show the entity once (steps 3 to 5); none where too few are left.

    A clip is dropped for a yes to "several" only: a model that gave no answer said nothing against it.
    """
    clips = [i for i, k in enumerate(good_frames) if k is not None and several[i] is not True]
    return clips if len(clips) >= min_clips else []


def is_kept(entity: Entity, is_same: bool | None) -> bool:
    """Whether the sequence is (step 6): of a person, only if it is the same one in all clips."""
    return not entity.is_person or is_same is True
