from typing import Any

import numpy as np
import pytest

from civid_loader.transforms.drop_text import DropText
from support.samples import a_sample


def test_all_texts_of_a_sample_or_none() -> None:
    sample = {**a_sample(1, 1, 1), "texts": ["a", None, "c"]}
    rng = np.random.default_rng(0)
    dropped = [DropText(probability=0.25)(sample, rng) for _ in range(2000)]
    assert {(tuple(s["texts"]), s["is_text_dropped"]) for s in dropped} == {
        (("a", None, "c"), False),
        (("", "", ""), True),
    }
    # 500 expected, standard deviation 19.4.
    assert abs(sum(s["is_text_dropped"] for s in dropped) - 500) < 80


def test_always_and_never() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        assert DropText(probability=1, replacement="?")(a_sample(1, 1), rng)["texts"] == ["?", "?"]
        assert DropText(probability=0)(a_sample(1, 1), rng)["texts"] == ["text 0", "text 1"]


@pytest.mark.parametrize("column", ["items", "tokens"])
def test_it_comes_before_what_uses_the_texts(column: str) -> None:
    with pytest.raises(ValueError, match=rf"sample s0: its text is in '{column}' already; put DropText in front"):
        DropText()({**a_sample(1), column: ()}, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probability": 10}, "probability=10: the share of samples to drop, from 0 to 1"),
        ({"probability": -0.1}, "from 0 to 1"),
        ({"probability": float("nan")}, "from 0 to 1"),
        ({"replacement": None}, "replacement=None: must be a text"),
    ],
)
def test_settings_are_checked_when_given(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DropText(**given)
