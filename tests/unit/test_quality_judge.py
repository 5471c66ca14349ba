"""The two questions of LVD-2M about a clip."""

from collections.abc import Mapping

import pytest

from civid_loader.processing.captioner import Film, Request, Response, choice_schema
from civid_loader.processing.captions.quality_judge import QualityJudge, QualityJudgeParams
from civid_loader.processing.stage import Row
from support.scripted_captioner import ScriptedCaptioner, asked_clip, connected


def judged(answers: Mapping[str, str], shares: Mapping[str, float] | None = None) -> tuple[Row, ScriptedCaptioner]:
    def script(request: Request) -> Response:
        text = answers[request.id.rpartition("/")[2]]
        return Response(id=request.id, text=text, finish_reason="stop", probabilities=shares)

    stage = QualityJudge(QualityJudgeParams())
    captioner = connected(stage, script)
    (row,) = stage.run([asked_clip(stage, num_frames=40)])
    return row, captioner


def test_good_and_bad() -> None:
    answers = {"quality_variation": '{"choice": "GOOD"}', "quality_diversity": '{"choice": "BAD"}'}
    row, captioner = judged(answers, {"GOOD": 0.75, "BAD": 0.25})
    assert (row["mllm_variation"], row["mllm_diversity"]) == (True, False)
    assert row["mllm_variation_probability"] == row["mllm_diversity_probability"] == 0.75
    assert "captions" not in row
    first, second = captioner.requests
    assert first.schema == second.schema == choice_schema("GOOD", "BAD")
    assert first.wants_probabilities
    # The same frames come first in both, in the middle of 8 equal parts.
    film, question = first.parts
    assert isinstance(film, Film)
    assert isinstance(question, str)
    assert film is second.parts[0]
    assert film.frames_THWC[:, 0, 0, 0].tolist() == [2, 7, 12, 17, 22, 27, 32, 37]
    assert question != second.parts[1]


def test_models_that_tell_no_probabilities() -> None:
    row, _ = judged(dict.fromkeys(("quality_variation", "quality_diversity"), '{"choice": "GOOD"}'))
    assert (row["mllm_variation"], row["mllm_variation_probability"]) == (True, None)


def test_the_word_alone_is_an_answer() -> None:
    row, _ = judged({"quality_variation": "GOOD", "quality_diversity": "Too much text: BAD."})
    assert (row["mllm_variation"], row["mllm_diversity"]) == (True, False)


@pytest.mark.parametrize("text", ["GOOD or BAD", "good enough", '{"choice": "good"}', '{"choice": "GOOD or BAD"}'])
def test_nothing_but_the_two_is_an_answer(text: str) -> None:
    row, _ = judged({"quality_variation": '{"choice": "GOOD"}', "quality_diversity": text})
    assert row["reason"].startswith("quality_diversity: the answer")
    assert row["quality_judge_raw_text"] == text
    assert row.get("mllm_diversity") is None
