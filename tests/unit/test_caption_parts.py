"""Questions of which some are not answered: the others are kept, and the row says which and why."""

import json
from functools import partial
from typing import Any

from civid_loader.processing.captioner import Request, Response
from civid_loader.processing.captions.civid_single import CividSingle, CividSingleParams
from civid_loader.processing.captions.lvd2m_raw import Lvd2mRaw, Lvd2mRawParams
from civid_loader.processing.captions.miradata_structured import MiradataStructured, MiradataStructuredParams
from civid_loader.processing.captions.quality_judge import QualityJudge, QualityJudgeParams
from support.scripted_captioner import asked_clip, connected, echoed, failing

LONG = 250
"""Seconds, of a clip of 1 frame per second: windows of 120, 120 and 10 s."""


def test_a_piece_without_an_answer_does_not_cost_the_others() -> None:
    answers: dict[str, Any] = {"piece-0": {"caption": "x"}, "piece-1": failing, "piece-2": {"caption": " \n"}}
    stage = Lvd2mRaw(Lvd2mRawParams())
    connected(stage, lambda asked: one(asked) if callable(one := answers[asked.id.rpartition("/")[2]]) else one)
    row = stage.run([asked_clip(stage, num_frames=900, fps=10.0)])[0]
    assert row["reason"] == "piece-1: no memory left; piece-2: caption: empty"
    assert row["lvd2m_raw_raw_text"] == '{"caption": " \\n"}'
    assert [(one["text"], one["start_seconds"]) for one in row["captions"]] == [("x", 0.0)]
    assert row["lvd2m_raw_num_requests"] == 3


def test_a_window_without_an_answer_does_not_cost_the_others() -> None:
    stage = MiradataStructured(MiradataStructuredParams())
    connected(stage, lambda asked: "cannot say" if asked.id.endswith("window-1") else echoed(asked))
    row = stage.run([asked_clip(stage, num_frames=LONG, fps=1.0)])[0]
    assert row["reason"].startswith("window-1: the answer is no JSON")
    assert [one["start_seconds"] for one in row["captions"]] == [0.0] * 6 + [240.0] * 6


def test_a_text_that_says_nothing_is_no_caption() -> None:
    stage = CividSingle(CividSingleParams())
    connected(stage, lambda asked: json.loads(echoed(asked).text) | {"camera_angle": "  "})
    row = stage.run([asked_clip(stage)])[0]
    assert row["reason"] == "camera_angle: empty"
    assert '"camera_angle": "  "' in row["civid_single_raw_text"]
    assert not row.get("captions")


def test_one_of_two_judgements_is_kept() -> None:
    stage = QualityJudge(QualityJudgeParams())
    answers = {"quality_variation": "I think that it is BAD.", "quality_diversity": "GOOD or BAD, who knows."}
    connected(stage, lambda asked: answers[asked.id.rpartition("/")[2]])
    row = stage.run([asked_clip(stage)])[0]
    assert row["mllm_variation"] is False
    assert row.get("mllm_diversity") is None
    assert row["reason"] == "quality_diversity: the answer is neither GOOD nor BAD, or more than one of them"
    assert row["quality_judge_raw_text"] == answers["quality_diversity"]
    assert row["quality_judge_num_requests"] == 2


def test_tokens_that_are_not_told_are_not_zero() -> None:
    stage = CividSingle(CividSingleParams())
    text = '{"video_content": "a", "camera_angle": "b", "camera_movement": "c", "video_background": "d"}'
    answers: list[tuple[dict[str, Any], int | None]] = [
        ({"text": text, "finish_reason": "stop", "prompt_tokens": 5}, 5),
        ({"text": text, "finish_reason": "stop"}, None),
        ({"error": "no answer", "is_server_error": True}, None),
        ({"error": "too long", "is_refused": True}, 0),
    ]
    for answer, expected in answers:
        connected(stage, partial(answered, answer))
        row = stage.run([asked_clip(stage)])[0]
        assert row["civid_single_prompt_tokens"] == expected
        assert row["civid_single_completion_tokens"] == (None if expected != 0 else 0)


def answered(answer: dict[str, Any], asked: Request) -> Response:
    return Response(id=asked.id, **answer)
