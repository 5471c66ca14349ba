"""The vLLM backend against a stand-in for vLLM, see `support.fake_vllm`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from civid_loader.errors import CaptionerError, MissingDependencyError
from civid_loader.processing.captioner import CaptionerSpec, Film, Picture, Request, choice_schema
from support import fake_vllm, tiny_vlms

_BACKEND = "civid_loader.processing.backends.vllm"
PICTURE = Picture(pixels_HWC=np.full((8, 8, 3), 99, np.uint8))
FILM = Film(frames_THWC=np.zeros((2, 8, 8, 3), np.uint8), times_seconds=np.array([0.25, 1.5]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlms.save_llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture
def _vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, module in fake_vllm.installed().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield
    sys.modules.pop(_BACKEND, None)


def made(folder: Path, **options: Any) -> Any:
    return CaptionerSpec(backend="vllm", model=str(folder), options=options).make(device="cuda")


@pytest.mark.usefixtures("_vllm")
def test_requests_and_answers(folder: Path) -> None:
    asked = made(folder, batch_size=3, engine={"max_model_len": 4096})
    asked.check()
    asked.load()
    assert asked._llm.made_with == {"model": str(folder), "dtype": "bfloat16", "seed": 0, "max_model_len": 4096}
    schema = choice_schema("BAD", "GOOD")
    requests = [
        Request(id="text", parts=("one two three", PICTURE), max_tokens=3),
        Request(id="film", parts=(FILM, "what?")),
        Request(id="choice", parts=(PICTURE,), schema=schema, wants_probabilities=True),
        Request(id="plain", parts=(PICTURE,), schema=schema),
    ]
    text, film, choice, plain = asked.generate(requests)
    assert asked._llm.calls == [3, 1]
    assert [one.id for one in (text, film, choice, plain)] == [one.id for one in requests]
    assert (text.text, text.finish_reason, text.completion_tokens) == ("one two three", "length", 3)
    assert film.text == "<0.2 seconds> image_url <1.5 seconds> image_url what?"
    assert (film.finish_reason, film.prompt_tokens) == ("stop", 5)
    assert choice.text == plain.text == '{"choice": "GOOD"}'
    assert choice.probabilities == pytest.approx({"BAD": 0.25, "GOOD": 0.75})
    assert plain.probabilities is None
    asked.close()
    asked.close()


@pytest.mark.usefixtures("_vllm")
def test_an_answer_that_was_given_up_is_none(folder: Path) -> None:
    asked = made(folder)
    asked.load()
    (found,) = asked.generate([Request(id="a", parts=("abort",))])
    asked.close()
    assert (found.finish_reason, found.error) == (None, "vLLM ended the answer: abort")
    assert found.seconds > 0


@pytest.mark.usefixtures("_vllm")
def test_thinking_is_switched_off_unless_said_otherwise(folder: Path) -> None:
    for options, variables in (({}, {"enable_thinking": False}), ({"chat_template_kwargs": {}}, {})):
        asked = made(folder, **options)
        asked.load()
        asked.generate([Request(id="a", parts=("x",))])
        assert asked._llm.variables == asked.identity["chat_template_kwargs"] == variables
        asked.close()


@pytest.mark.usefixtures("_vllm")
def test_one_that_is_too_long_fails_alone(folder: Path) -> None:
    asked = made(folder)
    asked.load()
    requests = [Request(id=str(i), parts=("x",) * (9 if i == 1 else 2)) for i in range(4)]
    found = asked.generate(requests)
    asked.close()
    assert [one.error is None for one in found] == [True, False, True, True]
    assert "longer than the maximum" in (found[1].error or "")
    assert [one.is_refused for one in found] == [False, True, False, False]


@pytest.mark.usefixtures("_vllm")
def test_identity_says_what_not_how_fast(folder: Path, tmp_path: Path) -> None:
    first = made(folder).identity
    assert first["version"] == "0.12.0"
    assert made(folder, batch_size=9, engine={"tensor_parallel_size": 4}).identity == first
    assert made(folder, engine={"quantization": "fp8"}).identity != first
    assert made(folder, seed=1).identity != first


@pytest.mark.usefixtures("_vllm")
def test_what_it_cannot_load_is_an_error_of_ours(folder: Path) -> None:
    with pytest.raises(CaptionerError, match="vLLM cannot load it: Unknown quantization"):
        made(folder, engine={"quantization": "none_such"}).load()


def test_without_the_package_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    sys.modules.pop(_BACKEND, None)
    with pytest.raises(MissingDependencyError, match=r"backend vllm needs vllm: pip install 'civid_loader\[vllm\]'"):
        made(folder)
