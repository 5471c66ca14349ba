from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from civid_loader.captions import Alternative, Wanted
from civid_loader.transforms.drop_text import DropText
from civid_loader.transforms.interleave import Interleave, TextItem, VideoItem
from support.rows import captions, with_row
from support.samples import a_sample, hide

STEPS = {
    (0, 1): captions(change_content="c01", continuation_content="k01", change_camera_angle="a01"),
    (1, 2): captions(continuation_content="k12"),
}
BOTH = Alternative(kinds=("continuation_content", "change_content"))


def items(interleave: Interleave, sample: dict[str, Any]) -> tuple[TextItem | VideoItem, ...]:
    made: tuple[TextItem | VideoItem, ...] = interleave(sample, np.random.default_rng(0))["items"]
    return made


def order(interleave: Interleave, sample: dict[str, Any]) -> list[str]:
    """Texts as they are, videos as <clip index: number of frames>."""
    return [
        item.text if isinstance(item, TextItem) else f"<{item.clip_index}: {len(item.frames_TCHW)}>"
        for item in items(interleave, sample)
    ]


def test_the_order_of_ci_vid() -> None:
    sample = with_row(a_sample(2, 2, 2), steps=STEPS)
    expected = ["text 0", "<0: 2>", "text 1", "k01 c01", "<1: 2>", "text 2", "k12", "<2: 2>"]
    assert order(Interleave(), sample) == expected
    places = [(item.kind, item.clip_index) for item in items(Interleave(), sample) if isinstance(item, TextItem)]
    assert places == [("single", 0), ("single", 1), ("transition", 1), ("single", 2), ("transition", 2)]


def test_a_video_has_its_frames_without_the_masked() -> None:
    sample = hide(with_row(a_sample(4, 2)), 0, 1)
    first, second = (item for item in items(Interleave(), sample) if isinstance(item, VideoItem))
    assert torch.equal(first.frames_TCHW, sample["frames_NTCHW"][0, [0, 2, 3]])
    assert first.pts_seconds_T.tolist() == pytest.approx([0, 0.08, 0.12])
    assert torch.equal(second.frames_TCHW, sample["frames_NTCHW"][1, :2]), "without the padding"


def test_missing_clips_are_left_out_or_empty() -> None:
    sample = with_row(a_sample(2, 0, 2), steps=STEPS)
    assert order(Interleave(), sample) == ["text 0", "<0: 2>", "text 2", "<2: 2>"], "no step to it or from it"
    expected = ["text 0", "<0: 2>", "text 1", "k01 c01", "<1: 0>", "text 2", "k12", "<2: 2>"]
    assert order(Interleave(missing="empty"), sample) == expected
    nothing = with_row(a_sample(0, 0, num_frames=1), steps=STEPS)
    assert order(Interleave(), nothing) == []


def test_clips_that_the_sample_does_not_show() -> None:
    """Clip 0 of the row is not in the sample: the others keep their index, the step from it is left out."""
    whole = with_row(a_sample(2, 2, 2), steps=STEPS)
    rest = {name: whole[name][1:] for name in ("clip_ids", "frames_NTCHW", "mask_NT", "pts_seconds_NT", "texts")}
    assert order(Interleave(), {**whole, **rest}) == ["text 1", "<1: 2>", "text 2", "k12", "<2: 2>"]


def test_any_dataset_gives_texts_and_videos_in_turn() -> None:
    sample = {**with_row(a_sample(1, 1)), "texts": ["a", None]}
    assert order(Interleave(), sample) == ["a", "<0: 1>", "<1: 1>"]
    sample["row"] = {**sample["row"], "transitions": None, "captions": None}
    assert order(Interleave(), sample) == ["a", "<0: 1>", "<1: 1>"]


def test_kinds_of_transition_in_order_of_preference() -> None:
    sample = with_row(a_sample(1, 1, 1), steps=STEPS)
    transitions: list[tuple[Sequence[Wanted], list[str]]] = [
        (["change_camera_angle", BOTH], ["a01", "k12"]),
        (["change_content"], ["c01"]),
        ((), []),
    ]
    for kinds, expected in transitions:
        made = items(Interleave(transitions=kinds), sample)
        assert [item.text for item in made if isinstance(item, TextItem) and item.kind == "transition"] == expected


def test_texts_about_the_sample_come_first() -> None:
    sample = with_row(a_sample(1), about_all=captions(scene_title="Title", synopsis="Long"))
    assert order(Interleave(sample_captions=("synopsis", "scene_title")), sample) == ["Long", "text 0", "<0: 1>"]
    first = items(Interleave(sample_captions=("scene_title",)), sample)[0]
    assert first == TextItem(text="Title", kind="sample", clip_index=None)
    assert order(Interleave(), sample) == ["text 0", "<0: 1>"]


def test_dropped_text_comes_in_by_no_other_way() -> None:
    sample = with_row(a_sample(1, 1), steps=STEPS, about_all=captions(synopsis="Long"))
    dropped = DropText(probability=1)(sample, np.random.default_rng(0))
    assert order(Interleave(sample_captions=["synopsis"]), dropped) == ["", "<0: 1>", "", "<1: 1>"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"transitions": ["change_contents"]}, r"a transition has no kind .*\(did you mean 'change_content'\?\)"),
        ({"transitions": ["content"]}, r"transitions: a transition has no kind 'content'.*; the kinds are contin"),
        ({"transitions": BOTH}, "give a list of kinds"),
        ({"sample_captions": ["synopses"]}, r"a sample has no kind 'synopses' \(did you mean 'synopsis'\?\)"),
        ({"sample_captions": "synopsis"}, r"give a list of kinds, \['synopsis'\]"),
        ({"missing": "mask"}, "missing='mask': must be one of drop, empty"),
    ],
)
def test_settings_are_checked_when_given(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Interleave(**given)
