"""Questions about what a sequence is about: what is shown, what is asked together, what an answer says."""

from collections.abc import Callable

import numpy as np
import pytest

from civid_loader.errors import CaptionerError
from civid_loader.processing.captioner import Request, Response
from civid_loader.processing.entity_asker import CaptionerAsker, side_by_side
from civid_loader.processing.segments.entity_segment import Entity, Image, Kept, segment
from support.scripted_captioner import Script, ScriptedCaptioner, pictures_of, texts_of

COOK = Entity(name="the cook", is_person=True)


def asker(script: Script) -> tuple[CaptionerAsker, ScriptedCaptioner]:
    captioner = ScriptedCaptioner(script=script)
    return CaptionerAsker.of(captioner), captioner


def frames(*values: int, size: tuple[int, int] = (18, 32)) -> list[Image]:
    return [np.full((*size, 3), value, np.uint8) for value in values]


def kind_of(request: Request) -> str:
    return request.id.partition("/")[0]


def test_middle_frames_are_below_each_other() -> None:
    asked, captioner = asker(lambda _: {"entity": " a brown\n dog ", "is_person": False})
    assert asked.main_entity(frames(10, 20, 30)) == Entity(name="a brown dog", is_person=False)
    (picture,) = pictures_of(captioner.requests[0])
    assert picture.shape == (3 * 18 + 2 * 10, 32, 3)
    assert [int(picture[y, 0, 0]) for y in (0, 17, 18, 27, 28, 45, 56, 73)] == [10, 10, 255, 255, 20, 20, 30, 30]
    assert "3 scenes" in texts_of(captioner.requests[0])
    asked.main_entity(frames(1, 2, size=(1080, 1920)))
    assert pictures_of(captioner.requests[1])[0].shape == (2 * 360 + 10, 640, 3)


@pytest.mark.parametrize(
    "answer",
    [
        {"entity": None, "is_person": False},
        {"entity": " None ", "is_person": True},
        {"entity": "a dog"},
        "I see a dog.",
        {"entity": "a dog", "is_person": "no"},
    ],
)
def test_no_entity_and_no_answer(answer: object) -> None:
    assert asker(lambda _: answer)[0].main_entity(frames(1)) is None


def test_yes_and_no_in_order_and_together() -> None:
    def script(request: Request) -> object:
        value = int(pictures_of(request)[0][0, 0, 0])
        return {1: {"choice": "yes"}, 2: {"choice": "no"}, 3: "Yes, it is.", 4: {"choice": "maybe"}}[value]

    asked, captioner = asker(script)
    sent: list[int] = []
    generate = captioner.generate

    def counted(requests: list[Request]) -> list[Response]:
        sent.append(len(requests))
        return generate(requests)

    captioner.generate = counted  # type: ignore[method-assign, assignment]
    assert asked.are_seen(COOK, frames(2, 1, 3, 4, 1)) == [False, True, None, None, True]
    assert asked.are_several(COOK, frames(1, 2)) == [True, False]
    assert asked.are_several(COOK, []) == []
    assert asked.is_same(COOK, frames(1, 1)) is True
    assert sent == [5, 2, 1]
    assert all("the cook" in texts_of(one) for one in captioner.requests)
    assert len({one.id for one in captioner.requests}) == 7  # a question that was asked twice has its name twice


def test_what_was_cut_off_is_asked_once_more_with_more_tokens() -> None:
    def script(request: Request) -> Response:
        value, is_longer = int(pictures_of(request)[0][0, 0, 0]), request.max_tokens > 128
        is_whole = value == 1 or (value == 2 and is_longer)
        return Response(
            id=request.id, text='{"choice": "yes"}' if is_whole else '{"choice": "yes"',
            finish_reason="stop" if is_whole else "length", prompt_tokens=10, completion_tokens=3,
        )  # fmt: skip

    asked, captioner = asker(script)
    assert asked.are_seen(COOK, frames(3, 1, 2)) == [None, True, True]
    assert [one.max_tokens for one in captioner.requests] == [128, 128, 128, 192, 192]
    usage = asked.answers.take_usage()
    assert (usage.num_requests, usage.prompt_tokens, usage.completion_tokens) == (5, 50, 15)


def test_words_around_an_answer_do_no_harm() -> None:
    assert asker(lambda _: "Yes.")[0].are_seen(COOK, frames(1)) == [True]
    fenced = '```json\n{"entity": "a dog", "is_person": false}\n```'
    assert asker(lambda _: fenced)[0].main_entity(frames(1)) == Entity(name="a dog", is_person=False)


def test_an_error_is_no_answer_and_a_server_that_is_down_ends_it() -> None:
    def failing(is_server_error: bool) -> Callable[[Request], Response]:
        return lambda request: Response(id=request.id, error="too long", is_server_error=is_server_error)

    assert asker(failing(False))[0].are_seen(COOK, frames(1)) == [None]
    with pytest.raises(CaptionerError, match="too long; when the server answers again"):
        asker(failing(True))[0].are_seen(COOK, frames(1))


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (5, (90, 160), (3 * 90, 2 * 160)),
        (5, (160, 90), (2 * 160, 3 * 90)),
        (1, (90, 160), (90, 160)),
        (4, (1080, 1920), (1200, 2 * 1067)),
        (10, (1080, 1920), (1200, 3 * 533)),
    ],
)
def test_persons_are_side_by_side(count: int, size: tuple[int, int], expected: tuple[int, int]) -> None:
    values = [10 * (n + 1) for n in range(count)]
    picture = side_by_side(frames(*values, size=size))
    assert picture.shape[:2] == expected
    assert {*np.unique(picture)} - {255} == {*values}


def test_a_whole_sequence() -> None:
    """Clip 1 does not show the cook, clip 2 shows several."""

    def script(request: Request) -> object:
        kind, value = kind_of(request), int(pictures_of(request)[0][0, 0, 0])
        if kind == "entity_main":
            return {"entity": "the cook", "is_person": True}
        yes = {"entity_seen": value not in (10, 11, 12, 30), "entity_several": value == 20, "entity_same": True}[kind]
        return {"choice": "yes" if yes else "no"}

    asked, captioner = asker(script)
    clips = [frames(*range(10 * n, 10 * n + 3)) for n in range(4)]
    assert segment(clips, asked) == Kept(entity=COOK, clips=(0, 3), frames=(0, 1))
    kinds = [kind_of(one) for one in captioner.requests]
    assert kinds == ["entity_main", *["entity_seen"] * 7, *["entity_several"] * 3, "entity_same"]
    (last,) = pictures_of(captioner.requests[-1])
    assert {*np.unique(last)} == {0, 31}


def test_identity_changes_with_the_model() -> None:
    asked, captioner = asker(lambda _: "")
    assert asked.identity["captioner"] == captioner.identity
    assert set(asked.identity["prompts"]) == {"entity_main", "entity_seen", "entity_several", "entity_same"}
