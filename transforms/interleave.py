"""A sample as one sequence of texts and videos, in the order a model for interleaved generation reads it.

Legend: N clips of a sample, T frames, C = 3 channels (RGB), H height, W width.
"""
# ruff: noqa: N806, N815 - tensors carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch

from civid_loader.captions import Alternative, Wanted, check_kinds, clips_of, text_of
from civid_loader.schema import SINGLE_CAPTION_KINDS, TRANSITION_CAPTION_KINDS

Missing = Literal["drop", "empty"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextItem:
    """A text at its place in the sequence."""

    text: str
    """May be "" where the text was dropped."""
    kind: Literal["single", "transition", "sample"]
    """About one clip; about the step to a clip from one before it; about the sample as a whole."""
    clip_index: int | None
    """`index` in the row of the clip that follows; None for a text about the sample."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoItem:
    """A clip at its place in the sequence, without the frames that are masked."""

    clip_index: int
    """`index` in the row: never renumbered when another clip is missing."""
    frames_TCHW: torch.Tensor
    """uint8, RGB; T = 0 where the clip is missing."""
    pts_seconds_T: torch.Tensor
    """float64: when each frame appears, in seconds from the clip's start."""


Item: TypeAlias = TextItem | VideoItem


@dataclass(frozen=True, kw_only=True, slots=True)
class Interleave:
    """Set `items`, a tuple of `TextItem` and `VideoItem`, in the order in which CI-VID trains.

    Before each clip stands the text about it, then the text about the step to it. Three clips and two transitions:

        single 0, video 0, single 1, transition 0 -> 1, video 1, single 2, transition 1 -> 2, video 2

    The text about a clip is its one of `texts`. A clip without text has only its video; a dataset without transitions
    gives texts and videos in turn. With clip 1 missing there is no step to or from it left to tell:

        single 0, video 0, single 2, video 2

    Of a sample whose text was dropped (`DropText`), each clip keeps the replacement, and the other texts are left out.

    Raises, when called:
        ValueError: the sample does not carry its row.
    """

    transitions: Sequence[Wanted] = (Alternative(kinds=("continuation_content", "change_content")),)
    """Captions of a step in order of preference, of `schema.TRANSITION_CAPTION_KINDS`; () leaves transitions out."""
    sample_captions: Sequence[Wanted] = ()
    """Captions of the sample as a whole in order of preference, before everything else, of
    `schema.SINGLE_CAPTION_KINDS`: ("synopsis", "scene_title"); () leaves them out."""
    missing: Missing = "drop"
    """A clip without any frame: left out with its texts, or kept, with a video of no frames."""

    def __post_init__(self) -> None:
        check_kinds(self.transitions, name="transitions", of="a transition", allowed=TRANSITION_CAPTION_KINDS)
        check_kinds(self.sample_captions, name="sample_captions", of="a sample", allowed=SINGLE_CAPTION_KINDS)
        if self.missing not in get_args(Missing):
            raise ValueError(f"missing={self.missing!r}: must be one of {', '.join(get_args(Missing))}")
        object.__setattr__(self, "transitions", tuple(self.transitions))
        object.__setattr__(self, "sample_captions", tuple(self.sample_captions))

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its `items`."""
        is_kept = [self.missing == "empty" or bool(mask_T.any()) for mask_T in sample["mask_NT"]]
        shown = {clip["index"]: n for n, clip in enumerate(clips_of(sample)) if is_kept[n]}
        row = sample["row"]
        items: list[Item] = []
        is_text_dropped = sample.get("is_text_dropped", False)
        if not is_text_dropped and (text := text_of(row["captions"] or [], self.sample_captions)) is not None:
            items.append(TextItem(text=text, kind="sample", clip_index=None))
        steps = [] if is_text_dropped else [step for step in row["transitions"] or [] if step["from_index"] in shown]
        for index, n in shown.items():
            if sample["texts"][n] is not None:
                items.append(TextItem(text=sample["texts"][n], kind="single", clip_index=index))
            items += self._steps_to(index, steps)
            items.append(_video(sample, n, index))
        return {**sample, "items": tuple(items)}

    def _steps_to(self, index: int, steps: Sequence[Mapping[str, Any]]) -> list[TextItem]:
        texts = [text_of(step["captions"] or [], self.transitions) for step in steps if step["to_index"] == index]
        return [TextItem(text=text, kind="transition", clip_index=index) for text in texts if text is not None]


def _video(sample: Mapping[str, Any], n: int, index: int) -> VideoItem:
    mask_T = sample["mask_NT"][n]
    return VideoItem(
        clip_index=index,
        frames_TCHW=sample["frames_NTCHW"][n][mask_T],
        pts_seconds_T=sample["pts_seconds_NT"][n][mask_T],
    )
