"""Which caption a clip is trained on: kinds in order of preference, or a mix of them drawn per sample.

Legend: N clips of a sample, T frames.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from civid_loader.captions import Alternative, Wanted, check_kinds, clips_of, seen_between, text_of
from civid_loader.schema import SINGLE_CAPTION_KINDS
from civid_loader.transforms.decode_clips import DEFAULT_CAPTIONS

Choice: TypeAlias = Wanted | Sequence[Wanted]
"""A kind, several joined, or a list of these in order of preference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChooseCaptions:
    """Set `texts`, list of N, from the captions of the row; None where a clip has none of the kinds.

    The prompts of MiraDiT, a third each of short, dense and all that describes the picture (Mira, `mira/data/mira.py`;
    the tag it puts in front is in no release):

        parts = ("dense", "main_object", "background", "style", "camera")
        template = "{dense} Main object: {main_object} Background: {background} Style: {style} Camera: {camera}"
        full = Alternative(kinds=parts, template=template)
        ChooseCaptions(kinds=("short", "dense", full), probabilities=(1 / 3, 1 / 3, 1 / 3))

    A caption with a window is used where the frames of the sample see any of it: of raw captions of 0-30, 30-60 and
    60-90 s, a sample with frames from 35 to 70 s gets the second and the third, in this order. So it comes after the
    transforms that pick frames. A clip without frames keeps them all. A kind of which nothing is left is a kind the
    clip does not have.

    Raises, when called:
        ValueError: the sample does not carry its row; its text has been dropped already.
    """

    kinds: Sequence[Choice] = DEFAULT_CAPTIONS
    """Of `schema.SINGLE_CAPTION_KINDS`. The first that a clip has is taken."""
    probabilities: Sequence[float] | None = None
    """How often each of `kinds` is asked for first, sum 1; one draw for all clips of a sample. A clip that has none of
    what was drawn falls back to the others in their order. None: always in their order."""

    def __post_init__(self) -> None:
        if isinstance(self.kinds, (str, Alternative)) or not self.kinds:
            raise ValueError(f"kinds={self.kinds!r}: give a list of at least one kind, ['dense']")
        for choice in self.kinds:
            if not (ways := _ways(choice)):
                raise ValueError(f"kinds={self.kinds!r}: {choice!r} names no kind; leave it out")
            check_kinds(ways, name="kinds", of="a clip", allowed=SINGLE_CAPTION_KINDS)
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if self.probabilities is not None:
            self._check_probabilities(self.probabilities)
            object.__setattr__(self, "probabilities", tuple(self.probabilities))

    def _check_probabilities(self, given: Sequence[float]) -> None:
        if len(given) != len(self.kinds):
            raise ValueError(f"probabilities={given!r}: {len(given)} for {len(self.kinds)} kinds; give one for each")
        if not all(math.isfinite(p) and p >= 0 for p in given) or not math.isclose(sum(given), 1.0, abs_tol=1e-6):
            raise ValueError(f"probabilities={given!r}: each must be from 0 to 1, with sum 1; it is {sum(given)}")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its `texts` chosen anew."""
        if "is_text_dropped" in sample:
            raise ValueError(
                f"sample {sample['sample_id']}: ChooseCaptions would undo DropText; put it in front of DropText"
            )
        ways = [way for choice in self._in_order(rng) for way in _ways(choice)]
        clips = enumerate(clips_of(sample))
        return {**sample, "texts": [text_of(_seen(sample, n, clip["captions"] or []), ways) for n, clip in clips]}

    def _in_order(self, rng: np.random.Generator) -> list[Choice]:
        if self.probabilities is None:
            return list(self.kinds)
        weights = np.asarray(self.probabilities, np.float64)
        drawn = int(rng.choice(len(self.kinds), p=weights / weights.sum()))
        return [self.kinds[drawn], *self.kinds[:drawn], *self.kinds[drawn + 1 :]]


def _ways(choice: Choice) -> Sequence[Wanted]:
    return (choice,) if isinstance(choice, (str, Alternative)) else choice


def _seen(sample: Mapping[str, Any], n: int, captions: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The captions of clip n that are about anything its frames show."""
    moments = sample["pts_seconds_NT"][n][sample["mask_NT"][n]].tolist()
    return seen_between(captions, min(moments), max(moments)) if moments else captions
