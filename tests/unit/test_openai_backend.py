"""The client of model servers: what it sends, what it reads, what it tries again, and what it never tells."""

import base64
import gc
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import cv2
import numpy as np
import pytest

from civid_loader.errors import CaptionerError
from civid_loader.processing.asking import texts_schema
from civid_loader.processing.backends.openai import OpenaiCaptioner
from civid_loader.processing.backends.openai_messages import probabilities_of
from civid_loader.processing.captioner import CaptionerSpec, Film, Picture, Request, Response, choice_schema
from support.model_server import ALWAYS, MODEL, Fault, FaultKind, ModelServer, logprobs_of, serve_model

KEY = "sk-very-secret-0123456789"
TEXTS = texts_schema("what", "where")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIVID_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serve_model(api_key=KEY, keeps=True) as running:
        yield running


def captioner(server: ModelServer, **options: Any) -> OpenaiCaptioner:
    usual = {"base_url": server.base_url, "backoff_seconds": 0.01}
    made = CaptionerSpec(backend="openai", model=MODEL, options=usual | options).make(device="cpu")
    assert isinstance(made, OpenaiCaptioner)
    return made


def ask(server: ModelServer, *requests: Request, **options: Any) -> list[Response]:
    one = captioner(server, **options)
    one.load()
    try:
        return one.generate(requests)
    finally:
        one.close()


def picture(number: int) -> Picture:
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 255, (3, 4, 3)).astype(np.uint8)
    return Picture(pixels_HWC=np.kron(blocks, np.ones((16, 16, 1), np.uint8)))


def request(number: int = 0, **settings: Any) -> Request:
    return Request(id=f"clip{number}/f/q", parts=("Look.", picture(number)), schema=TEXTS, **settings)


def film() -> Film:
    frames = np.stack([picture(i).pixels_HWC for i in range(5)])
    return Film(frames_THWC=frames, times_seconds=np.arange(5) / 2.0)


def test_what_a_request_holds(server: ModelServer) -> None:
    (response,) = ask(server, request(max_tokens=77), seed=5, temperature=0.5)
    (asked,) = server.asked
    assert asked.key == request(max_tokens=77).key
    told = {name: asked.body[name] for name in asked.body if name not in ("messages", "response_format")}
    assert told == {
        "model": MODEL,
        "temperature": 0.5,
        "seed": 5,
        "max_tokens": 77,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    form = asked.body["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    plain = {name: {"type": "string"} for name in ("what", "where")}
    assert form["json_schema"]["schema"] == TEXTS | {"properties": plain}, "strict services refuse minLength"
    assert asked.content[0] == {"type": "text", "text": "Look."}
    pixels = cv2.imdecode(np.frombuffer(asked.pictures[0], np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None
    assert np.abs(pixels.astype(int) - picture(0).pixels_HWC).mean() < 6, "the colours are in order"
    assert json.loads(response.text)["what"] == f"what: {asked.digest} {asked.key}"
    assert (response.finish_reason, response.prompt_tokens, response.completion_tokens) == ("stop", 150, 8)
    assert response.error is None
    assert 0 < response.seconds < 5


def test_the_limit_has_the_name_that_the_server_knows(server: ModelServer) -> None:
    ask(server, request(max_tokens=77), limit="max_completion_tokens")
    (asked,) = server.asked
    assert asked.body["max_completion_tokens"] == 77
    assert "max_tokens" not in asked.body
    with pytest.raises(CaptionerError, match="limit 'tokens' must be one of max_tokens, max_completion_tokens"):
        OpenaiCaptioner(model=MODEL, base_url=server.base_url, limit="tokens")  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize("pictures", ["images", "video"])
def test_a_film_as_images_and_as_a_video(server: ModelServer, pictures: str) -> None:
    ask(server, Request(id="a", parts=(film(), "What happens?")), pictures=pictures, chat_template_kwargs={})
    (asked,) = server.asked
    assert len(asked.pictures) == 5
    assert "chat_template_kwargs" not in asked.body
    assert "response_format" not in asked.body
    kinds = [part["type"] for part in asked.content]
    if pictures == "video":
        assert kinds == ["video_url", "text"]
        assert asked.content[0]["video_url"]["url"].startswith("data:video/jpeg;base64,")
        assert asked.body["media_io_kwargs"] == {"video": {"num_frames": -1, "fps": 2.0}}
    else:
        assert kinds == ["text", "image_url"] * 5 + ["text"]
        assert [part["text"] for part in asked.content[:4:2]] == ["<0.0 seconds>", "<0.5 seconds>"]
        assert "media_io_kwargs" not in asked.body


def test_many_threads_keep_to_the_limit_and_each_gets_its_own(server: ModelServer) -> None:
    server.delay_seconds = 0.02
    one = captioner(server, max_in_flight=5)
    one.load()
    requests = [request(i) for i in range(80)]
    with ThreadPoolExecutor(20) as pool:
        responses = [found for (found,) in pool.map(lambda each: one.generate([each]), requests)]
    responses += one.generate(requests[:10])
    one.close()
    assert server.max_parallel == 5
    for each, response in zip([*requests, *requests[:10]], responses, strict=True):
        assert response.id == each.id
        assert response.text.endswith(f'{each.key}"}}')


FAULTS: list[tuple[FaultKind, dict[str, Any]]] = [
    *[("status", {"status": status}) for status in (408, 409, 429, 500, 503)],
    ("closed", {}),
    ("broken_body", {}),
    ("swapped", {}),
]


@pytest.mark.parametrize(("kind", "settings"), FAULTS)
def test_what_passes_is_tried_again(server: ModelServer, kind: FaultKind, settings: dict[str, Any]) -> None:
    server.faults.append(Fault(kind=kind, times=4, **settings))
    requests = [request(0), request(1)]
    responses = ask(server, *requests)
    assert [response.error for response in responses] == [None, None]
    for each, response in zip(requests, responses, strict=True):
        assert each.key in response.text
    assert sum(server.sent.values()) == 6


@pytest.mark.parametrize("fault", [Fault(kind="status", times=ALWAYS, status=503), Fault(kind="closed", times=ALWAYS)])
def test_what_does_not_pass_is_the_error_of_the_server(server: ModelServer, fault: Fault) -> None:
    server.faults.append(fault)
    (response,) = ask(server, request(), max_tries=3)
    assert response.is_server_error
    assert response.text == ""
    assert "(the last of 3 tries)" in (response.error or "")
    assert list(server.sent.values()) == [3]
    assert server.base_url not in (response.error or ""), "rows are published"


def test_a_server_that_is_silent_is_given_up(server: ModelServer) -> None:
    server.faults.append(Fault(kind="slow", seconds=30))
    (response,) = ask(server, request(), timeout_seconds=0.3)
    assert response.error is None
    assert list(server.sent.values()) == [2]


@pytest.mark.parametrize("is_date", [False, True])
def test_a_server_says_when(server: ModelServer, is_date: bool) -> None:
    """Then nobody asks it before."""
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True) if is_date else "1"
    server.faults.append(Fault(kind="status", status=429, headers={"Retry-After": when}))
    one = captioner(server)
    one.load()
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.generate, [request(0)])
        while not server.sent:
            time.sleep(0.005)
        time.sleep(0.1)  # until the refusal has come
        one.generate([request(1)])
        other_seconds = time.perf_counter() - start
        assert first.result()[0].error is None
    one.close()
    assert time.perf_counter() - start >= 0.95
    assert other_seconds >= 0.95


def test_what_one_request_is_refused_for_is_its_own_error(server: ModelServer) -> None:
    message = "This model's maximum context length is 4096 tokens. " + "However, " * 100
    server.faults.append(Fault(kind="status", status=400, message=message, match=lambda asked: asked.key == bad.key))
    bad = request(1)
    good, refused = ask(server, request(0), bad)
    assert good.error is None
    assert not refused.is_server_error
    assert "HTTP 400 This model's maximum context length is 4096 tokens." in (refused.error or "")
    assert "(the model takes 4,096 tokens)" in (refused.error or "")
    assert len(refused.error or "") < 450
    assert server.sent[bad.key] == 1


@pytest.mark.parametrize(
    ("kind", "finish_reason", "error"),
    [
        ("length", "length", None),
        ("no_json", "stop", None),
        ("ended", None, "the server ended the answer: content_filter"),
        ("empty", "stop", "the answer is empty: no reason told"),
    ],
)
def test_odd_answers(server: ModelServer, kind: FaultKind, finish_reason: str | None, error: str | None) -> None:
    server.faults.append(Fault(kind=kind, times=ALWAYS))
    (response,) = ask(server, request())
    assert (response.finish_reason, response.error, response.is_server_error) == (finish_reason, error, False)
    assert response.completion_tokens
    assert list(server.sent.values()) == [1]


@pytest.mark.parametrize("status", [401, 403, 404, 302, 405])
def test_what_no_request_gets_past_ends_the_run(server: ModelServer, status: int) -> None:
    server.faults.append(Fault(kind="status", status=status, times=ALWAYS, message=f"no: {KEY}"))
    cure = "set CIVID_API_KEY or OPENAI_API_KEY" if status in (401, 403) else "check base_url"
    with pytest.raises(CaptionerError, match=rf"{server.base_url} answers HTTP {status}.*{cure}") as raised:
        ask(server, request())
    assert KEY not in str(raised.value)
    assert sum(server.sent.values()) == 1
    with pytest.raises(CaptionerError, match=f"answers HTTP {status}"):
        ask(server, *map(request, range(4)))


def test_how_likely_each_choice_was(server: ModelServer) -> None:
    server.probabilities = {"yes": 0.72, "no": 0.08}
    asked = Request(
        id="a", parts=("Is it?", picture(0)), schema=choice_schema("yes", "no", "perhaps"), wants_probabilities=True
    )
    (response,) = ask(server, asked)
    assert json.loads(response.text) == {"choice": "yes"}
    assert response.probabilities == pytest.approx({"yes": 0.9, "no": 0.1, "perhaps": 0.0})
    assert server.asked[0].body["top_logprobs"] == 20


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        # (token, its probability, other candidates); what is before the choice and after what decides does not count.
        ([('{"choice', 0.1, {}), ('": "', 1, {"x": 0.5}), ("good", 0.6, {"bad": 0.2})], (0.75, 0.25, 0)),
        ([('{"choice":"', 1, {}), ("good", 0.8, {"b": 0.1, "ba": 0.1}), (' day"', 0.5, {'"}': 0.5})], (0.4, 0.2, 0.4)),
        ([('{"choice": ', 1, {}), ('"ba', 0.5, {'"goo': 0.5}), ("d", 1, {})], (0, 1, 0)),
        ([("Well", 1, {})], None),
        ([('{"choice": "', 1, {}), ("odd", 1, {})], None),
    ],
)
def test_choices_of_several_tokens(tokens: list[tuple[str, float, dict[str, float]]], expected: Any) -> None:
    choices = ("good", "bad", "good day")
    if expected is not None and tokens[-1][0] == "good":
        choices = ("good", "bad", "fair")
    content = [
        {
            "token": token,
            "logprob": float(np.log(share)),
            "top_logprobs": [{"token": one, "logprob": float(np.log(of))} for one, of in others.items()],
        }
        for token, share, others in tokens
    ]
    found = probabilities_of(choices, {"content": content})
    assert found == (None if expected is None else pytest.approx(dict(zip(choices, expected, strict=True))))


def test_a_server_that_tells_no_probabilities() -> None:
    assert probabilities_of(("a", "b"), None) is None
    assert probabilities_of(("a",), {"content": logprobs_of('{"choice": "a"}', {})}) == {"a": 1.0}


def test_check(server: ModelServer) -> None:
    one = captioner(server, revision="abc123")
    before = one.identity
    one.check()
    one.close()
    assert one.max_model_tokens == 4096
    assert one.identity == {**before, "root": "org/See-8B-FP8"}
    assert one.identity["revision"] == "abc123"
    assert server.base_url not in json.dumps(one.identity)
    server.models = [{"id": MODEL, "root": "/data/secret/see-8b"}]
    one.check()
    assert one.identity["root"] == "see-8b", "no path of the server's machine"
    one.close()
    one.close()
    with pytest.raises(CaptionerError, match="is not loaded, or was closed"):
        one.generate([request()])


def test_check_finds_what_is_wrong(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptionerError, match=r"has no model 'see-8b'; it has org/see-8b\. Did you mean 'org/see-8b'"):
        OpenaiCaptioner(model="see-8b", base_url=server.base_url).check()
    monkeypatch.setenv("CIVID_API_KEY", "sk-another")
    with pytest.raises(CaptionerError, match="it refuses the key that was sent; set CIVID_API_KEY") as raised:
        captioner(server).check()
    assert "sk-another" not in str(raised.value)
    monkeypatch.delenv("CIVID_API_KEY")
    with pytest.raises(CaptionerError, match="it refuses requests without a key, and none was sent"):
        captioner(server).check()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    accepted = captioner(server)
    accepted.check()
    accepted.close()
    monkeypatch.setenv("CIVID_API_KEY", "schlüssel")
    with pytest.raises(CaptionerError, match="the key in CIVID_API_KEY holds characters") as raised:
        captioner(server).check()
    assert "schl" not in str(raised.value)


def test_check_of_a_server_that_is_not_there(server: ModelServer) -> None:
    gone = server.base_url.replace("127.0.0.1", "127.0.0.2").rsplit(":", 1)[0] + ":9/v1"
    with pytest.raises(CaptionerError, match=r"127.0.0.2:9/v1 does not tell its models: no answer: ConnectError"):
        captioner(server, base_url=gone).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "must be like http://host:8000/v1"),
        ({"base_url": "http://me:sk-hidden@host/v1"}, "must not hold a password"),
        ({"base_url": "http://host/v1?key=sk-hidden"}, "must not hold a password"),
        ({"base_url": "http://host/v1", "pictures": "film"}, "pictures='film': must be one of images, video"),
        ({"base_url": "http://host/v1", "max_in_flight": 0}, "must be 1 or more"),
        ({"base_url": "http://host/v1", "colour": 1}, "openai: there is no option 'colour'; there are backoff_seconds"),
        ({"base_url": "http://host/v1", "max_in_flght": 3}, "did you mean 'max_in_flight'"),
        ({"base_url": "http://host/v1", "timeout_seconds": "abc"}, "timeout_seconds='abc': must be a number"),
        ({"base_url": "http://host/v1", "timeout_seconds": 0}, "timeout_seconds must be more than 0"),
        ({"base_url": "http://host/v1", "max_tries": 1.5}, "max_tries=1.5: must be a whole number"),
        ({"base_url": "http://host/v1", "chat_template_kwargs": [1]}, "must be a mapping of names or null"),
        ({}, "it needs base_url"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptionerError, match=message) as raised:
        CaptionerSpec(backend="openai", model=MODEL, options=options).make(device="cpu")
    assert "sk-hidden" not in str(raised.value)


def test_the_key_is_told_to_nobody_but_the_server(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults.append(Fault(kind="status", status=400, message=f"{base64.b64encode(b'x')!r} {KEY} {KEY}"))
    one = captioner(server)
    one.load()
    (response,) = one.generate([request()])
    assert "*** ***" in (response.error or "")
    assert caplog.records, "the libraries below do log"
    for text in (caplog.text, repr(response), repr(one), str(vars(one)), json.dumps(one.identity)):
        assert KEY not in text
    one.close()


def test_closing_ends_what_is_under_way(server: ModelServer) -> None:
    server.delay_seconds = 60.0
    one = captioner(server)
    one.load()
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(one.generate, [request(i)]) for i in range(3)]
        while len(server.sent) < 3:
            time.sleep(0.005)
        one.close()
        for each in asking:
            with pytest.raises(CaptionerError, match="was closed before it answered"):
                each.result(timeout=10)
    assert not [thread for thread in threading.enumerate() if thread.name == "civid-openai"]


def test_closing_while_connections_are_being_made(server: ModelServer) -> None:
    """What the HTTP library leaves behind when somebody else ends its tasks is a warning, and so an error here."""
    server.faults.append(Fault(kind="closed", times=ALWAYS))
    for _ in range(8):
        one = captioner(server, backoff_seconds=0.0005, max_tries=1000)
        one.load()
        sent = sum(server.sent.values())
        with ThreadPoolExecutor(64) as pool:
            asking = [pool.submit(one.generate, [request(i)]) for i in range(64)]
            while sum(server.sent.values()) < sent + 150:
                time.sleep(0.001)
            one.close()
        assert {type(each.exception()) for each in asking} == {CaptionerError}
        gc.collect()
