"""Reasons of several stages in one row, and what another try is worth."""

import pytest

from civid_loader.processing.planner import DecodedClip
from civid_loader.processing.registry import make
from civid_loader.processing.stage import Row
from civid_loader.processing.stage_rows import _with_reason, is_error, rows_of_batch


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, False),
        ("UnreadableVideoError: a.mp4: not computable: by anyone", True),
        ("optical_flow: the flow is not finite", True),
        ("not computable: scene_cuts: one frame", False),
    ],
)
def test_errors_are_tried_again(reason: str | None, expected: bool) -> None:
    assert is_error(reason) is expected


def test_what_went_wrong_comes_first() -> None:
    nothing, wrong = "not computable: a: one frame", "b: not finite"
    for order in ((nothing, wrong), (wrong, nothing)):
        joined = _with_reason(_with_reason(None, order[0]), order[1])
        assert joined == f"{wrong}; {nothing}"
        assert is_error(joined)
    both = _with_reason(nothing, "not computable: c: no text")
    assert both == f"{nothing}; not computable: c: no text"
    assert not is_error(both)


def test_a_clip_that_was_not_decoded_has_its_reason_and_no_stage_sees_it() -> None:
    clip = DecodedClip(
        row={"clip_id": "a"}, frames={}, fps=0.0, duration_seconds=0.0, video=None, reason="VideoNotFoundError: gone"
    )
    (row,) = rows_of_batch([make("colour")], [clip])
    assert row.pop("clip_id") == "a"
    assert row.pop("reason") == "VideoNotFoundError: gone"
    empty: Row = dict.fromkeys(row)
    assert row == empty != {}
