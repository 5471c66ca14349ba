"""How captions are written: words, worn phrases, repetition."""

from typing import Any

import numpy as np
import pytest

from civid_loader.processing.scores.caption_check import CaptionCheck, CaptionCheckParams, repetition
from support.scripted_captioner import caption
from support.stages import clip_of


def row_of(params: CaptionCheckParams, *captions: dict[str, Any]) -> dict[str, Any]:
    clip = clip_of(np.zeros((1, 2, 2, 3), np.uint8), {}, row={"clip_id": "c", "captions": list(captions)})
    (row,) = CaptionCheck(params).run([clip])
    return row


def test_words_of_each_kind() -> None:
    row = row_of(CaptionCheckParams(), caption("short", "A dog."), caption("dense", "A brown dog runs\n over grass."))
    assert row["caption_kinds"] == ["dense", "short"]
    assert row["caption_words"] == [6, 2]
    assert row["caption_min_words"] == 2
    assert (row["caption_phrases"], row["caption_num_phrases"], row["caption_repetition"]) == ([], 0, 0.0)


def test_captions_of_a_kind_are_those_of_the_first_author_and_all_of_theirs() -> None:
    pieces = [caption("raw", "three words here", window=(t, t + 30.0)) for t in (30.0, 0.0)]
    row = row_of(CaptionCheckParams(), *pieces, caption("raw", "from somebody else", annotator="b"))
    assert row["caption_words"] == [6]


def test_only_the_kinds_asked_for() -> None:
    asked = CaptionCheckParams(kinds=("dense", "style"))
    assert row_of(asked, caption("dense", "A dog."), caption("short", "No."))["caption_kinds"] == ["dense"]
    assert row_of(asked, caption("short", "No.")) == {"not_computable": "no captions of kinds dense, style"}
    assert "not_computable" in row_of(CaptionCheckParams(), caption("dense", "  "))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("In the first frame a dog runs; in the First Frame it stops.", ["first frame"]),
        ("He appears to be tired, which suggests a walk.", ["appears to be", "suggests"]),
        ("This video shows a pier. I'm sorry.", ["this video shows", "i'm sorry"]),
        ("As an AI I can't. I cannot.", ["as an ai", "i can't", "i cannot"]),
        ("A film crew shows the video to a friend; a framed picture hangs there.", []),
        ("The unimplied and the implicit; a resort appears.", []),
    ],
)
def test_worn_phrases(text: str, expected: list[str]) -> None:
    row = row_of(CaptionCheckParams(), caption("dense", text))
    assert row["caption_phrases"] == expected
    assert row["caption_num_phrases"] == len(expected) + ("first" in text)


def test_phrases_of_ones_own() -> None:
    row = row_of(
        CaptionCheckParams(phrases=("stunning", "a testament to")), caption("dense", "Stunning. Appears to be.")
    )
    assert row["caption_phrases"] == ["stunning"]
    assert row_of(CaptionCheckParams(phrases=()), caption("dense", "Appears to be."))["caption_num_phrases"] == 0


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("a dog runs a dog runs", 2, 0.8),
        ("a dog runs", 4, 0.0),
        ("", 1, 0.0),
        ("no, no; NO!", 1, 1.0),
        ("one two three four one two three four", 4, 0.4),
    ],
)
def test_repetition(text: str, words: int, expected: float) -> None:
    assert repetition(text, words) == pytest.approx(expected)


def test_parameters_that_are_none() -> None:
    with pytest.raises(ValueError, match="kinds has 'dens'; there are short, dense"):
        CaptionCheckParams(kinds=("dens",))
    with pytest.raises(ValueError, match=r"phrase '\(' is no regular expression"):
        CaptionCheckParams(phrases=("(",))
    with pytest.raises(ValueError, match="at least 1"):
        CaptionCheckParams(ngram_words=0)
