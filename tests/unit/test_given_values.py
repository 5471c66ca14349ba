"""Values for a dataclass that somebody typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from civid_loader.errors import StageError
from civid_loader.processing import registry
from civid_loader.processing.given_values import wrong_with


@dataclass(kw_only=True)
class Settings:
    size_px: int
    rate: float = 1.0
    way: Literal["up", "down"] = "up"
    name: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = ()
    is_on: bool = False
    made: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"size_px": 1, "rate": 2, "way": "down", "name": None, "more": {"a": 1}, "steps": (1,), "is_on": True}, None),
        ({"rate": 1.0}, "it needs size_px"),
        ({"size_px": 1.5}, "size_px=1.5: must be a whole number"),
        ({"size_px": True}, "size_px=True: must be a whole number"),
        ({"size_px": 1, "rate": "1"}, "rate='1': must be a number"),
        ({"size_px": 1, "way": "left"}, "way='left': must be one of up, down"),
        ({"size_px": 1, "name": 3}, "name=3: must be a text or null"),
        ({"size_px": 1, "more": "x"}, "more='x': must be a mapping of names"),
        ({"size_px": 1, "steps": 1}, "steps=1: must be a list"),
        ({"size_px": 1, "is_on": 1}, "is_on=1: must be true or false"),
        (
            {"size_pixels": 1},
            "there is no setting 'size_pixels'; there are is_on, more, name, rate, size_px, steps, way; did you mean "
            "'size_px'?",
        ),
        ({"made": 1}, "there is no setting 'made'; there are is_on, more, name, rate, size_px, steps, way"),
    ],
)
def test_what_is_wrong(given: dict[str, Any], wrong: str | None) -> None:
    assert wrong_with(Settings, given, noun="setting") == wrong


@pytest.mark.parametrize(
    ("stage", "params", "message"),
    [
        ("miradata_structured", {"pictures": "foo"}, "miradata_structured: pictures='foo': must be one of film"),
        ("civid_single", {"long_side_px": "big"}, "civid_single: long_side_px='big': must be a whole number"),
        ("civid_single", {"long_side": 5}, "there is no parameter 'long_side'.*did you mean 'long_side_px'"),
        ("lvd2m_raw", {"piece_seconds": 0.0}, r"lvd2m_raw: pieces of 0\.0 s.*`civid stages lvd2m_raw`"),
        ("quality_judge", {"num_frames": 0}, "quality_judge: .*`civid stages quality_judge`"),
    ],
)
def test_parameters_of_stages_that_cannot_be(stage: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError, match=message):
        registry.make(stage, params)
