from typing import Any

import pytest

from civid_loader.captions import Alternative, clips_of, seen_between, text_of
from civid_loader.schema import caption
from support.rows import captions, with_row
from support.samples import a_sample

LABELLED = "{dense} Camera: {camera}. Style: {style}"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"dense": "A dog runs.", "camera": "still", "style": "noir"}, "A dog runs. Camera: still. Style: noir"),
        ({"dense": "A dog runs", "style": "noir"}, "A dog runs. Style: noir"),
        ({"dense": "A dog runs.", "camera": "still"}, "A dog runs. Camera: still"),
        ({"camera": "still", "style": "noir"}, "Camera: still. Style: noir"),
        ({"style": "noir"}, "Style: noir"),
        ({"short": "A dog."}, None),
    ],
)
def test_a_missing_kind_leaves_no_gap(given: dict[str, str], text: str | None) -> None:
    full = Alternative(kinds=("dense", "camera", "style"), template=LABELLED)
    assert full.text(captions(**given)) == text


def test_words_of_the_template_stay_as_they_are() -> None:
    full = Alternative(kinds=("dense", "style"), template=" .{{{dense}}} {style}!")
    assert full.text(captions(dense="D", style="S")) == " .{D} S!"
    assert Alternative(kinds=("style", "dense")).text(captions(dense="D", style="S")) == "S D", "in order of kinds"
    assert Alternative(kinds=("style", "dense")).text(captions(dense="D")) == "D"


def test_braces_in_a_caption_are_only_text() -> None:
    odd = captions(dense="{style} {0.__class__} %s", style="noir")
    assert Alternative(kinds=("dense", "style")).text(odd) == "{style} {0.__class__} %s noir"


@pytest.mark.parametrize(
    "template",
    ["{dense}", "{dense} {style} {style}", "{dense} {style} {}", "{dense} {style!r}", "{dense} {style:>3}", "no kind"],
)
def test_a_template_names_each_kind_once(template: str) -> None:
    with pytest.raises(ValueError, match=r"name each of its kinds once and nothing else, as in '\{dense\} \{style\}'"):
        Alternative(kinds=("dense", "style"), template=template)


def test_what_an_alternative_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"write \{\{ for a brace"):
        Alternative(kinds=("dense",), template="{dense} {")
    with pytest.raises(ValueError, match=r"no kind 'main_objects' \(did you mean 'main_object'\?\)"):
        Alternative(kinds=("main_objects",))
    with pytest.raises(ValueError, match=r"'dense'.*give a list of kinds"):
        Alternative(kinds="dense")
    with pytest.raises(ValueError, match="give at least one kind"):
        Alternative(kinds=())


def test_the_first_there_is() -> None:
    both = Alternative(kinds=("camera", "style"))
    assert text_of(captions(style="noir", dense="D"), [both, "dense"]) == "noir"
    assert text_of(captions(dense="D"), [both, "dense"]) == "D"
    assert text_of([], [both, "dense"]) is None
    assert text_of(captions(dense="D"), []) is None


@pytest.mark.parametrize(
    ("first", "last", "texts"),
    [(0, 29.9, "a all"), (0, 30, "a b all"), (30, 59, "b all"), (30, 60, "b tail all"), (29, 99, "a b tail all")],
)
def test_windows_are_half_open(first: float, last: float, texts: str) -> None:
    windows: list[Any] = [("a", 0.0, 30.0), ("b", 30.0, 60.0), ("tail", 60.0, None), ("all", None, None)]
    given = [caption("raw", text, "x", start_seconds=start, end_seconds=end) for text, start, end in windows]
    assert " ".join(c["text"] for c in seen_between(given, first, last)) == texts


def test_clips_are_found_by_id() -> None:
    """A sample may show fewer clips than its row has, and in another order."""
    sample = with_row(a_sample(1, 1, 1))
    assert [clip["index"] for clip in clips_of({**sample, "clip_ids": ["c2", "c0"]})] == [2, 0]
    with pytest.raises(ValueError, match="sample s0: its row has no clip c9; it is the row of s0"):
        clips_of({**sample, "clip_ids": ["c0", "c9"]})
    with pytest.raises(ValueError, match="sample s0 does not carry its dataset row; add it"):
        clips_of(a_sample(1))
