from collections import Counter
from typing import Any

import numpy as np
import pytest

from civid_loader.captions import Alternative
from civid_loader.schema import caption
from civid_loader.transforms.choose_captions import ChooseCaptions
from civid_loader.transforms.drop_text import DropText
from civid_loader.transforms.window_frames import WindowFrames
from support.rows import captions, with_row
from support.samples import a_sample

SIX = ("short", "dense", "main_object", "background", "camera", "style")
FULL = Alternative(kinds=SIX)
MIRADIT = ChooseCaptions(kinds=("short", "dense", FULL), probabilities=(1 / 3, 1 / 3, 1 / 3))


def texts(choose: ChooseCaptions, sample: dict[str, Any], seed: int = 0) -> list[str | None]:
    chosen: list[str | None] = choose(sample, np.random.default_rng(seed))["texts"]
    return chosen


def parts(raw: list[tuple[float, float]], annotator: str = "a") -> list[dict[str, Any]]:
    """Captions of windows, each saying its own."""
    return [caption("raw", f"{start:g}-{end:g}", annotator, start_seconds=start, end_seconds=end) for start, end in raw]


def test_in_order_of_preference_for_each_clip() -> None:
    sample = with_row(a_sample(1, 1, 1), captions(short="s0", dense="d0"), captions(short="s1"), captions(plot="p2"))
    assert texts(ChooseCaptions(kinds=["dense", "short"]), sample) == ["d0", "s1", None]
    assert texts(ChooseCaptions(), sample) == ["d0", "s1", "p2"], "of every dataset its fullest"
    assert texts(ChooseCaptions(kinds=(("plot", "dense"), "short")), sample) == ["d0", "s1", "p2"]


def test_kinds_joined_by_a_template() -> None:
    pair = Alternative(kinds=("main_object", "background"), template="{main_object} in {background}")
    sample = with_row(
        a_sample(1, 1, 1), captions(main_object="a dog", background="snow"), captions(main_object="a cat")
    )
    assert texts(ChooseCaptions(kinds=[pair, "dense"]), sample) == ["a dog in snow", "a cat", None]


def test_a_mix_is_drawn_once_per_sample() -> None:
    """Each a third of the time, as MiraDiT mixes; never two of them in one sample."""
    whole = captions(**{kind: kind for kind in SIX})
    sample = with_row(a_sample(1, 1, 1), whole, whole, whole)
    counts = Counter(tuple(texts(MIRADIT, sample, seed)) for seed in range(600))
    assert set(counts) == {(text,) * 3 for text in ("short", "dense", " ".join(SIX))}
    # 200 expected, standard deviation 11.5.
    assert all(abs(count - 200) < 50 for count in counts.values())


def test_a_clip_without_what_was_drawn_falls_back() -> None:
    sample = with_row(a_sample(1, 1), captions(raw="r0", short="s0"), captions(dense="d1", plot="p1"))
    only_raw = ChooseCaptions(kinds=("dense", "short", "raw"), probabilities=(0, 0, 1))
    assert texts(only_raw, sample) == ["r0", "d1"], "drawn, then the others in order"
    own = ChooseCaptions(kinds=("dense", ("raw", "plot")), probabilities=(0, 1))
    assert texts(own, sample) == ["r0", "p1"], "what was drawn has a second choice of its own"


def test_windows_are_cut_to_what_the_frames_show() -> None:
    of_clip = parts([(30, 60), (60, 90), (0, 30)])
    for first, last, expected in ((35, 70, "30-60 60-90"), (0, 95, "0-30 30-60 60-90"), (3, 3, "0-30")):
        sample = with_row(a_sample(2, num_frames=4), of_clip)
        sample["pts_seconds_NT"][0, :2] = sample["pts_seconds_NT"].new_tensor([first, last])
        assert texts(ChooseCaptions(kinds=["raw"]), sample) == [expected], "padding, at 0 s, shows nothing"


def test_windows_follow_the_frames_picked_before() -> None:
    sample = with_row(a_sample(100, fps=1.0), parts([(0, 30), (30, 60), (60, 90), (90, 100)]))
    for seed in range(5):
        window = WindowFrames(n=10)(sample, np.random.default_rng(seed))
        first, last = window["pts_seconds_NT"][0, 0].item(), window["pts_seconds_NT"][0, -1].item()
        expected = [f"{a}-{b}" for a, b in ((0, 30), (30, 60), (60, 90), (90, 100)) if a <= last and first < b]
        assert texts(ChooseCaptions(kinds=["raw"]), window) == [" ".join(expected)]


def test_where_no_window_is_seen_the_next_kind_is_asked_for() -> None:
    late = parts([(50, 60)])
    sample = with_row(a_sample(2, 2, 0), [*late, *captions(short="s")], late, late)
    assert texts(ChooseCaptions(kinds=["raw", "short"]), sample) == ["s", None, "50-60"], "the last has no frames"


def test_one_annotator_never_a_mix() -> None:
    of_clip = [*parts([(0, 1)]), *parts([(0, 2), (2, 4)], "b"), *parts([(1, 2)])]
    sample = with_row(a_sample(10, fps=2.0), of_clip)
    assert texts(ChooseCaptions(kinds=["raw"]), sample) == ["0-1 1-2"]


def test_it_does_not_undo_dropping() -> None:
    dropped = DropText(probability=1)(with_row(a_sample(1)), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"sample s0: .*in front of DropText"):
        ChooseCaptions()(dropped, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kinds": ["raw", "contents"]}, r"a clip has no kind 'contents' \(did you mean 'content'\?\); the kinds are "),
        ({"kinds": [("raw", "contents")]}, "no kind 'contents'"),
        ({"kinds": [Alternative(kinds=("dense", "change_content"))]}, "a clip has no kind 'change_content'"),
        ({"kinds": "dense"}, r"give a list of at least one kind, \['dense'\]"),
        ({"kinds": FULL}, "give a list of at least one kind"),
        ({"kinds": []}, "give a list of at least one kind"),
        ({"kinds": ["dense", ()]}, r"\(\) names no kind; leave it out"),
        ({"kinds": ["raw", "dense"], "probabilities": [1.0]}, "1 for 2 kinds; give one for each"),
        ({"kinds": ["raw", "dense"], "probabilities": [0.5, 0.4]}, "from 0 to 1, with sum 1; it is 0.9"),
        ({"kinds": ["raw", "dense"], "probabilities": [1.5, -0.5]}, "from 0 to 1"),
        ({"kinds": ["raw", "dense"], "probabilities": [float("nan"), 1]}, "from 0 to 1"),
    ],
)
def test_settings_are_checked_when_given(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChooseCaptions(**given)
