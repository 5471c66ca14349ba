"""Answers are kept, and given again; a server that is gone ends the run."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from civid_loader.errors import CaptionerError, OutputError
from civid_loader.processing.answers import Answers, Usage
from civid_loader.processing.captioner import CaptionerSpec, Film, Part, Picture, Request, Response, choice_schema

BLACK = np.zeros((2, 3, 3), np.uint8)


@dataclass(kw_only=True)
class Counting:
    """Answers by a function, and counts."""

    answer: Callable[[Request], Response]
    asked: list[str] = field(default_factory=list)
    identity: Mapping[str, Any] = field(default_factory=dict)
    max_in_flight: int = 1
    num_slots: int = 1

    def check(self) -> None: ...

    def load(self) -> None: ...

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        self.asked += [request.id for request in requests]
        return [self.answer(request) for request in requests]

    def close(self) -> None: ...


def request(*parts: Part, id: str = "c/s/q", **more: Any) -> Request:
    return Request(id=id, parts=parts or ("What?",), **more)


def fine(asked: Request) -> Response:
    return Response(id=asked.id, text="ä", finish_reason="stop", prompt_tokens=5, completion_tokens=2, seconds=0.5)


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    captioner, path = Counting(answer=fine), tmp_path / "answers.sqlite"
    answers = Answers(captioner=captioner, path=path)
    first = answers.ask(request())
    answers.ask(request(id="other"))
    assert answers.take_usage() == Usage(num_requests=2, prompt_tokens=10, completion_tokens=4, request_seconds=1.0)
    assert answers.take_usage() == Usage()
    again = Answers(captioner=captioner, path=path)
    assert again.ask(request()) == first
    assert again.take_usage() == Usage(num_known=1)
    again.ask(request(id="third"))
    answers.close()
    again.close()
    third = Answers(captioner=captioner, path=path)
    third.ask(request(id="third"))
    third.close()
    assert captioner.asked == ["c/s/q", "other", "third"]


def test_a_file_of_answers_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_bytes(b"something else " * 99)
    with pytest.raises(OutputError, match=r"answers.sqlite cannot be read: .*; delete it, and its questions are asked"):
        Answers(captioner=Counting(answer=fine), path=tmp_path / "answers.sqlite")


def test_errors_are_asked_again(tmp_path: Path) -> None:
    captioner = Counting(answer=lambda one: Response(id=one.id, error="too long"))
    for _ in range(2):
        answers = Answers(captioner=captioner, path=tmp_path / "answers.sqlite")
        assert answers.ask(request()).error == "too long"
        answers.close()
    assert len(captioner.asked) == 2


def test_a_server_that_is_gone_ends_the_run() -> None:
    down = [True]
    captioner = Counting(
        answer=lambda one: Response(id=one.id, error="refused", is_server_error=True) if down[0] else fine(one)
    )
    answers = Answers(captioner=captioner)
    for _ in range(19):
        assert answers.ask(request()).error == "refused"
    down[0] = False
    answers.ask(request())
    down[0] = True
    for _ in range(19):
        answers.ask(request())
    with pytest.raises(CaptionerError, match="20 requests one after the other failed, the last with refused; when the"):
        answers.ask(request())


def test_a_model_that_refuses_everything_ends_the_run() -> None:
    captioner = Counting(answer=lambda one: Response(id=one.id, error="too many pictures", is_refused=True))
    answers = Answers(captioner=captioner)
    for _ in range(19):
        assert answers.ask(request()).is_refused
    with pytest.raises(CaptionerError, match=r"20 requests .* were refused, the last because too many pictures; check"):
        answers.ask(request())
    with pytest.raises(CaptionerError, match="were refused"):
        answers.ask(request())
    assert len(captioner.asked) == 20


def test_refusals_that_are_quicker_than_answers_do_not_end_the_run() -> None:
    """The first request is answered when 30 after it were refused."""
    refused = threading.Event()
    num_refused = 0

    def answer(one: Request) -> Response:
        if one.id == "good":
            assert refused.wait(20)
            return fine(one)
        return Response(id=one.id, error="too long", is_refused=True)

    captioner = Counting(answer=answer)
    answers = Answers(captioner=captioner)
    with ThreadPoolExecutor(1) as pool:
        good = pool.submit(answers.ask, request(id="good"))
        while not captioner.asked:
            time.sleep(0.001)
        for _ in range(30):
            num_refused += answers.ask(request()).is_refused
        refused.set()
        assert good.result().error is None
    assert num_refused == 30
    for _ in range(19):
        answers.ask(request())
    with pytest.raises(CaptionerError, match="were refused"):
        answers.ask(request())


def test_an_answer_to_another_question_ends_the_run() -> None:
    answers = Answers(captioner=Counting(answer=lambda one: Response(id="c2/s/q", text="of another clip")))
    with pytest.raises(CaptionerError, match="asked c/s/q, and c2/s/q was answered"):
        answers.ask(request())


def test_the_key_is_of_all_that_decides_the_answer() -> None:
    times = np.array([0.0, 1.0])
    different = [
        request(),
        request(id="c2/s/q"),
        request("Who?"),
        request("What?", "Who?"),
        request(schema=choice_schema("yes", "no")),
        request(max_tokens=7),
        request(wants_probabilities=True),
        request(Picture(pixels_HWC=BLACK)),
        request(Picture(pixels_HWC=BLACK + 1)),
        request(Picture(pixels_HWC=BLACK.reshape(3, 2, 3))),
        request(Film(frames_THWC=np.stack([BLACK, BLACK]), times_seconds=times)),
        request(Film(frames_THWC=np.stack([BLACK, BLACK]), times_seconds=times + 1)),
    ]
    assert len({one.key for one in different}) == len(different)
    assert request(Picture(pixels_HWC=BLACK[::-1])).key == request(Picture(pixels_HWC=BLACK.copy())).key


def test_backends_that_are_none() -> None:
    with pytest.raises(CaptionerError, match="backend 'opeani' must be one of openai, transformers, vllm, echo"):
        CaptionerSpec(backend="opeani", model="m").make(device="cpu")  # type: ignore[arg-type] # on purpose
    with pytest.raises(CaptionerError, match=r"backend echo: there is no option 'temprature'; there are max_in_flight"):
        CaptionerSpec(backend="echo", model="m", options={"temprature": 1}).make(device="cpu")


def test_workers_share_what_a_server_takes() -> None:
    spec = CaptionerSpec(backend="openai", model="m", options={"max_in_flight": 9})
    assert spec.shared_by(1).options["max_in_flight"] == 9
    assert spec.shared_by(2).options["max_in_flight"] == 4
    assert spec.shared_by(20).options["max_in_flight"] == 1
    assert CaptionerSpec(backend="openai", model="m").shared_by(4).options["max_in_flight"] == 16
    assert CaptionerSpec(backend="echo", model="m").shared_by(4).options == {}
