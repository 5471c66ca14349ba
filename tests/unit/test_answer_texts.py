"""What an answer says, with thoughts, fences and words around it."""

import json
from typing import Any

import pytest

from civid_loader.processing.answer_texts import read_answer, without_thoughts
from civid_loader.processing.asking import texts_schema
from civid_loader.processing.captioner import choice_schema

TEXT = texts_schema("a")
WITH_FENCE = {"a": "a sign reads ```json\n{1}\n``` </think> and more"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(WITH_FENCE), WITH_FENCE),
        (f"```json\n{json.dumps(WITH_FENCE)}\n```", WITH_FENCE),
        (f"<think>Is {{'a': 2}} right? ```x```</think>\n{json.dumps({'a': 'b'})}", {"a": "b"}),
        ('It was {1}.</think>\n\n```\n{"a": "b"}\n```', {"a": "b"}),
        ('Here it is:\n```json\n{"a": "b"}\n```\nAnything else?', {"a": "b"}),
        ('Sure! {"a": "{b}"} Well.', {"a": "{b}"}),
        (' {"a": "b"}\n', {"a": "b"}),
    ],
)
def test_json_in_an_answer(text: str, expected: Any) -> None:
    assert read_answer(text, TEXT) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("I cannot say.", "no JSON"),
        ('a cut off ```json\n{"a": "', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"a": ""}', "breaks its schema"),
        ('{"b": "c"}', "breaks its schema"),
        ('"a"', "breaks its schema"),
        (r'{"a": "half \ud800"}', "half a character"),
    ],
)
def test_answers_that_say_nothing(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_answer(text, TEXT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"choice": "BAD"}', "BAD"),
        ('```json\n{"choice": "GOOD"}\n```', "GOOD"),
        ("GOOD", "GOOD"),
        ('"bad"', "BAD"),
        (" good.\n", "GOOD"),
        ("It is GOOD, as GOOD as can be.", "GOOD"),
        ("<think>GOOD or BAD? It might be GOOD.</think> BAD", "BAD"),
        ("Neither GOOD nor BAD.", None),
        ("It is so good.", None),
        ("GOODNESS", None),
        ("{}", None),
        ("", None),
    ],
)
def test_a_choice(text: str, expected: str | None) -> None:
    schema = choice_schema("GOOD", "BAD")
    if expected is None:
        with pytest.raises(ValueError, match=r"neither GOOD nor BAD, or more than one|breaks its schema"):
            read_answer(text, schema)
    else:
        assert read_answer(text, schema) == {"choice": expected}


def test_thoughts_are_no_answer() -> None:
    assert [without_thoughts(text) for text in ("a", "<think>b</think> c", "b</think>c")] == ["a", "c", "c"]
