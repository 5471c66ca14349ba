"""What a server does not take: too many requests, a field that it does not know, or a request that is too long."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from civid_loader.errors import CaptionerError
from civid_loader.processing.answers import Answers
from civid_loader.processing.asking import texts_schema
from civid_loader.processing.backends.openai import OpenaiCaptioner
from civid_loader.processing.captioner import CaptionerSpec, Picture, Request, Response, choice_schema
from support.model_server import ALWAYS, MODEL, Asked, Fault, ModelServer, serve_model


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serve_model(keeps=True) as running:
        yield running


def captioner(server: ModelServer, **options: Any) -> OpenaiCaptioner:
    usual = {"base_url": server.base_url, "backoff_seconds": 0.01}
    made = CaptionerSpec(backend="openai", model=MODEL, options=usual | options).make(device="cpu")
    assert isinstance(made, OpenaiCaptioner)
    made.load()
    return made


def request(number: int = 0, **settings: Any) -> Request:
    picture = Picture(pixels_HWC=np.full((16, 16, 3), number % 256, np.uint8))
    return Request(id=f"clip{number}/f/q", parts=(f"Look {number}.", picture), **settings)


def ask(server: ModelServer, requests: Sequence[Request], **options: Any) -> list[Response]:
    one = captioner(server, **options)
    try:
        with ThreadPoolExecutor(100) as pool:
            return [found for (found,) in pool.map(lambda each: one.generate([each]), requests)]
    finally:
        one.close()


def has(name: str, asked: Asked) -> bool:
    return name in asked.body


def test_a_server_with_few_slots_costs_no_request(server: ModelServer) -> None:
    """64 at once come to a server that answers 8; with half as many after each wave it is soon left in peace."""
    server.max_slots, server.delay_seconds = 8, 0.05
    requests = [request(i) for i in range(300)]
    responses = ask(server, requests)
    assert [one.error for one in responses] == [None] * 300
    assert {server.answered[one.key] for one in requests} == {1}
    num_sent = sum(server.sent.values())
    assert 300 < num_sent < 500, "64, 32 and 16 at once are tried, and then a little more than 8 now and then"
    assert server.max_parallel <= 64


def test_a_server_that_has_too_many_for_ever_is_given_up(server: ModelServer) -> None:
    server.faults.append(Fault(kind="status", status=429, times=ALWAYS))
    (response,) = ask(server, [request()], max_tries=3, busy_seconds=0.3)
    assert response.is_server_error
    assert "HTTP 429 something went wrong (and so for 0 s)" in (response.error or "")
    assert sum(server.sent.values()) > 3, "which is no matter of tries"


def test_a_busy_server_does_not_use_up_the_tries(server: ModelServer) -> None:
    server.faults += [Fault(kind="status", status=429, times=7), Fault(kind="status", status=503, times=1)]
    (response,) = ask(server, [request()], max_tries=2)
    assert response.error is None
    assert sum(server.sent.values()) == 9


@pytest.mark.parametrize(
    ("message", "is_told"),
    [
        ("This model's maximum context length is exceeded", True),
        ("prompt has 9000 Tokens", True),
        ("At most 4 images may be provided in one prompt.", False),
    ],
)
def test_the_models_limit_is_told_where_it_is_the_reason(server: ModelServer, message: str, is_told: bool) -> None:
    server.faults.append(Fault(kind="status", status=400, message=message))
    (response,) = ask(server, [request()])
    assert response.is_refused
    assert ("(the model takes 4,096 tokens)" in (response.error or "")) == is_told


def test_a_server_that_refuses_everything_ends_the_run(server: ModelServer) -> None:
    message = "At most 0 images may be provided in one prompt."
    server.faults.append(Fault(kind="status", status=400, message=message, times=ALWAYS, after=1))
    one = captioner(server)
    answers = Answers(captioner=one)
    try:
        assert answers.ask(request()).error is None
        for i in range(1, 20):
            assert answers.ask(request(i)).is_refused
        with pytest.raises(CaptionerError, match=f"20 requests one after the other were refused, .*{message}; check"):
            answers.ask(request(20))
        with pytest.raises(CaptionerError, match="were refused"):
            answers.ask(request(21))
    finally:
        one.close()
    assert sum(server.sent.values()) == 21, "nobody goes on asking"


FIELDS = [
    ("logprobs", "Unrecognized request argument: logprobs"),
    ("chat_template_kwargs", "chat_template_kwargs: Extra inputs are not permitted"),
    ("response_format", "This response_format type is unavailable now"),
]


@pytest.mark.parametrize(("name", "message"), FIELDS)
def test_a_field_that_a_server_does_not_know_is_left_out(
    server: ModelServer, caplog: pytest.LogCaptureFixture, name: str, message: str
) -> None:
    has_field = partial(has, name)
    server.faults.append(Fault(kind="status", status=400, message=message, times=ALWAYS, match=has_field))
    server.probabilities = {"yes": 0.8, "no": 0.2}
    how: dict[str, Any] = {"schema": choice_schema("yes", "no"), "wants_probabilities": True}
    one = captioner(server, max_in_flight=1)
    with caplog.at_level(logging.WARNING):
        responses = one.generate([request(i, **how) for i in range(3)])
    one.close()
    assert [response.error for response in responses] == [None] * 3
    assert sum(server.sent.values()) <= 6
    assert not has_field(server.asked[-1])
    assert ("top_logprobs" in server.asked[-1].body) == (name != "logprobs")
    assert [record.message.count(f"does not take {name}, which is left out") for record in caplog.records] == [1]
    assert (responses[-1].probabilities is None) == (name in ("logprobs", "response_format"))
    sent = sum(server.sent.values())
    one.load()
    assert one.generate([request(9, **how)])[0].error is None
    one.close()
    assert sum(server.sent.values()) == sent + 1, "it is left out from the start"


def test_all_three_are_left_out_one_after_the_other(server: ModelServer) -> None:
    for name, message in FIELDS:
        server.faults.append(Fault(kind="status", status=422, message=message, times=ALWAYS, match=partial(has, name)))
    (response,) = ask(server, [request(schema=choice_schema("a", "b"), wants_probabilities=True)])
    assert response.error is None
    assert not {"logprobs", "top_logprobs", "chat_template_kwargs", "response_format"} & server.asked[-1].body.keys()


def test_answers_that_are_swapped_without_an_id_in_the_header(server: ModelServer) -> None:
    server.faults.append(Fault(kind="no_id", times=2))
    requests = [request(i, schema=texts_schema("what")) for i in range(2)]
    for one, response in zip(requests, ask(server, requests), strict=True):
        assert one.key in response.text
    assert sum(server.sent.values()) == 4


def test_half_characters_are_no_trouble(server: ModelServer) -> None:
    server.describe = lambda asked: "half \ud800"
    (response,) = ask(server, [request()])
    assert response.text == "half ?"
