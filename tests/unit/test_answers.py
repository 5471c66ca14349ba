"""Texts out of model answers: raw ones are decoded once, what upstream's parser left is cleaned."""

import json
from typing import Any

import pytest

from civid_loader.errors import AnnotationError
from civid_loader.upstream.answers import UnreadableError, read_answer
from support.reading import rows_of

ITEM = {"video_content": "A screen shows C:\\new.", "video_background": "A wall."}
RAW = json.dumps(ITEM)


@pytest.mark.parametrize(
    "answer",
    [f"```json\n{RAW}\n```", f"```\n{RAW}\n```", f"Here you are:\n```json\n{RAW}\n```\nAnything else?", f"Sure! {RAW}"],
    ids=["fence", "bare fence", "prose around a fence", "prose before"],
)
def test_raw_answer_is_known_by_what_stands_before_the_object(answer: str) -> None:
    flags: dict[str, None] = {}
    assert read_answer(answer, is_raw=False, flags=flags) == ITEM
    assert not flags


def test_raw_answer_without_a_fence_is_known_by_its_key() -> None:
    assert read_answer(RAW, is_raw=True, flags={}) == ITEM
    flags: dict[str, None] = {}
    assert read_answer(RAW, is_raw=False, flags=flags)["video_content"] == "A screen shows C:\new."
    assert list(flags) == ["escapes_decoded"]


@pytest.mark.parametrize("answer", ["", "I cannot see the clip.", "```json\n```", '{"video_content": "A wa', "[1]"])
def test_answer_without_an_object_is_unreadable(answer: Any) -> None:
    with pytest.raises(UnreadableError, match="a caption is"):
        read_answer(answer, is_raw=False, flags={})


def test_csv_given_as_civid_is_refused_by_its_columns(tmp_path: Any) -> None:
    (tmp_path / "ytb.csv").write_text("key,refined_caption\na,b\n")
    with pytest.raises(AnnotationError, match=r"ytb\.csv: CI-VID ships JSON"):
        rows_of("civid", tmp_path / "ytb.csv")


@pytest.mark.parametrize("name", ["lvd2m", "miradata"])
def test_json_given_as_a_table_is_refused(tmp_path: Any, name: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"single_captions": []}\n')
    with pytest.raises(AnnotationError, match=r"a\.jsonl: .* ships CSV tables"):
        rows_of(name, tmp_path / "a.jsonl")


def test_field_map_to_a_column_no_file_has_is_refused(tmp_path: Any) -> None:
    (tmp_path / "ytb.csv").write_text("key,refined_caption\na,b\n")
    with pytest.raises(AnnotationError, match="no file has a column 'flow'"):
        rows_of("lvd2m", tmp_path / "ytb.csv", field_map={"total score": "flow"})
