"""What holds for every stage that asks a model, found by walking the registry."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
import pytest

from civid_loader.processing import asking, prompts, registry
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.captioner import Film, Picture, Request, Response
from civid_loader.processing.prompts import load_prompt
from civid_loader.processing.stage import ClipInput, Row
from civid_loader.processing.stage_rows import CAPTIONS, features_of_work, table_of
from civid_loader.schema import SINGLE_CAPTION_KINDS, TRANSITION_CAPTION_KINDS, arrow_schema_of, check_rows
from support.scripted_captioner import Script, asked_clip, caption, connected, echoed, failing

STAGES: Final = {
    name: kind for name in registry.names() if issubclass(kind := registry.find(name), AskingStage)
}  # fmt: skip
NAMES: Final = sorted(STAGES)
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {}
"""Other values of parameters that cannot take just any; see `other_value`."""

GOLDEN: Final[Mapping[str, str]] = {
    "civid_joint": "f335f12c7265f1dd",
    "civid_single": "82cf0eef6a1b51c7",
    "lvd2m_raw": "dcfb16d625134145",
    "lvd2m_refine": "1b9e3908d13ca549",
    "lvd2m_rewrite": "3c3c56dcf6234916",
    "miradata_structured": "67939d9f344d7296",
    "moviebench_scenes": "cd81a3507f66d230",
    "moviebench_shot": "8d6d8a9a1278aada",
    "quality_judge": "1667895281dce52f",
}
"""Stage -> its fingerprint at its defaults. Another one without a new `version` says that it asks something else."""

FILMS: Final[Mapping[str, tuple[int, float]]] = {
    "usual": (30, 8.0),
    "one": (1, 25.0),
    "short": (4, 4 / 0.18),
    "half_a_minute_and_more": (41, 1.0),
    "last": (12, 8.0),
}
"""Clip id -> how many frames, and how many per second; all of one sample."""


def made(name: str, script: Script = echoed) -> tuple[AskingStage[Any], list[Request]]:
    """A stage, and what it asks."""
    stage = registry.make(name)
    assert isinstance(stage, AskingStage)
    return stage, connected(stage, script).requests


def clips_of(stage: AskingStage[Any]) -> list[ClipInput]:
    """With everything that a dataset may say of a clip."""
    rows = {
        clip_id: {
            "index": i,
            "sample_id": "s",
            "movie_id": "m",
            "dataset": "civid",
            "subset": "full",
            "captions": [caption(kind, f"{kind} of {clip_id}") for kind in SINGLE_CAPTION_KINDS],
            "characters": [{"name": "Wren", "description": "In a red coat."}],
            "bank": [{"name": "Wren", "aliases": [], "portraits": ["wren/best.png"]}],
        }
        for i, clip_id in enumerate(FILMS)
    }
    return [
        asked_clip(stage, clip_id=clip_id, num_frames=num_frames, fps=fps, row=rows[clip_id])
        for clip_id, (num_frames, fps) in FILMS.items()
    ]


def found(stage: AskingStage[Any], clips: Sequence[ClipInput]) -> dict[str, Row]:
    return {clip.id: row for clip, row in zip(clips, stage.run(clips), strict=True)}


def captions_in(row: Row) -> list[Any]:
    return [one for name in CAPTIONS for one in row.get(name) or ()]


def was_asked(name: str, row: Row) -> bool:
    return bool(row[f"{name}_num_requests"])


def test_every_setting_is_of_a_stage() -> None:
    assert {*SETTINGS, *GOLDEN} <= set(NAMES)


def test_every_instruction_is_used() -> None:
    """By a stage that asks about clips, or by another module here that names it."""
    room = Path(prompts.__file__).parent
    there = {path.stem for path in room.glob("captions/prompts/*.md")}
    code = "".join(path.read_text("utf-8") for path in room.rglob("*.py"))
    assert {prompt for kind in STAGES.values() for prompt in kind.prompts} <= there
    assert {prompt for prompt in there if f'"{prompt}"' not in code} == set()
    for prompt in there:
        text = load_prompt(prompt).text
        assert text, prompt
        assert not text.startswith("#"), f"{prompt}: a model reads all of it"


@pytest.mark.parametrize("name", NAMES)
def test_its_captions_are_of_the_vocabulary(name: str) -> None:
    kind = STAGES[name]
    for field in kind.fields:
        assert field.kind in (TRANSITION_CAPTION_KINDS if field.is_transition else SINGLE_CAPTION_KINDS), field
    assert len({field.name for field in kind.fields}) == len(kind.fields)
    assert all(column.doc.endswith(".") for column in kind.columns)
    assert kind.fields or kind.findings, "it finds something"
    assert kind.prompts


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_what_it_declares(name: str) -> None:
    """Of clips of one frame and of 0.18 s too."""
    stage, asked = made(name)
    rows = found(stage, clips_of(stage))
    kinds = {field.kind: field.is_transition for field in stage.fields}
    for clip_id, row in rows.items():
        assert "reason" not in row, clip_id
        if was_asked(name, row):
            assert {column.name for column in stage.columns} <= set(row), clip_id
        assert all(not kinds[one["kind"]] for one in row.get("captions") or ())
        assert all(kinds[one["kind"]] for one in row.get("transition_captions") or ())
    assert {one["kind"] for row in rows.values() for one in captions_in(row)} == set(kinds)
    features = features_of_work([stage])
    empty = dict.fromkeys(features) | {caption: [] for caption in CAPTIONS if caption in features}
    whole = [
        empty | {"clip_id": clip_id} | {key: row[key] for key in row if key in features}
        for clip_id, row in rows.items()
    ]
    schema = arrow_schema_of(features)
    table = table_of(whole, schema)
    check_rows(table, schema, name=name)
    for column in stage.columns:
        wanted = {row.get(column.name) is None for row in rows.values()}
        assert table.schema.field(column.name).type == schema.field(column.name).type
        assert False in wanted or column.name == f"{name}_raw_text", f"{column.name} has no value for any clip"
        assert_exact(table[column.name], [row.get(column.name) for row in rows.values()])
    assert asked
    assert len({request.id for request in asked}) == len(asked), "no two questions have the same id"


def assert_exact(column: pa.ChunkedArray, values: Sequence[Any]) -> None:
    """Nothing was rounded or cast on the way to Arrow, but to fewer digits."""
    for told, value in zip(column.to_pylist(), values, strict=True):
        assert type(told) is type(value)
        assert told == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_whole(name: str) -> None:
    """It says something, has no empty text, and what is shown is a picture."""
    stage, asked = made(name)
    stage.run(clips_of(stage))
    for request in asked:
        texts = [part for part in request.parts if isinstance(part, str)]
        assert texts
        assert all(text.strip() for text in texts)
        for part in request.parts:
            if isinstance(part, Picture):
                assert part.pixels_HWC.ndim == 3
                assert part.pixels_HWC.dtype == "uint8"
            if isinstance(part, Film):
                assert len(part.frames_THWC) == len(part.times_seconds) >= 1
                assert (part.times_seconds[1:] > part.times_seconds[:-1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_answers_give_the_same_rows(name: str) -> None:
    stage, asked = made(name)
    clips = clips_of(stage)
    rows = found(stage, clips)
    keys = [request.key for request in asked]
    again, asked_again = made(name)
    assert found(again, clips_of(again)) == rows
    assert [request.key for request in asked_again] == keys
    if stage.unit == "clip":
        assert {clip.id: stage.run([clip])[0] for clip in clips} == rows
        random.Random(0).shuffle(clips)
        assert found(stage, clips) == rows


@pytest.mark.parametrize("name", NAMES)
def test_without_an_answer_there_is_a_reason(name: str) -> None:
    """An error of the model, an answer that is no JSON, and one that is cut off twice."""

    def cut_off(request: Request) -> Response:
        return Response(id=request.id, text='{"a": "', finish_reason="length")

    for script, text in ((failing, "I would say"), (cut_off, '{"a": "'), (lambda request: "no JSON", "no JSON")):
        stage, asked = made(name, script)
        if script not in (failing, cut_off) and any(request.schema is None for request in asked):
            continue  # any text is an answer
        rows = found(stage, clips_of(stage))
        assert any(was_asked(name, row) for row in rows.values())
        for clip_id, row in rows.items():
            if was_asked(name, row):
                assert row["reason"], clip_id
                assert row[f"{name}_raw_text"] == text
                assert not captions_in(row)
                assert all(row.get(column.name) is None for column in stage.findings)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_which_nothing_is_written_is_no_accident(name: str) -> None:
    """Neither captions nor characters: it is asked about all the same, or has a reason."""
    stage, _ = made(name)
    clips = [
        dataclasses.replace(clip, row={**clip.row, "captions": [], "characters": [], "bank": []})
        for clip in clips_of(stage)
    ]
    for clip_id, row in list(found(stage, clips).items())[1:]:
        assert was_asked(name, row) or row["reason"], clip_id


@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_changes_who_it_is(name: str) -> None:
    kind = STAGES[name]
    hints = get_type_hints(kind.Params)
    seen = {kind(kind.Params()).fingerprint()}
    for field in dataclasses.fields(kind.Params):
        other = other_value(name, field.name, hints[field.name], getattr(kind.Params(), field.name))
        seen.add(kind(kind.Params(**{field.name: other})).fingerprint())
    assert len(seen) == 1 + len(dataclasses.fields(kind.Params))


def other_value(name: str, field: str, kind: Any, value: Any) -> Any:
    """A value that the parameter could have instead."""
    if field in SETTINGS.get(name, {}):
        return SETTINGS[name][field]
    options = [one for one in get_args(kind) if one is not NoneType] if NoneType in get_args(kind) else [kind]
    if value is None or get_origin(options[0]) is Literal:
        usual: dict[Any, Any] = {int: 5, float: 1.5, str: "other", bool: True}
        choices = get_args(options[0]) or (usual[options[0]],)
        return next(one for one in choices if one != value)
    if isinstance(value, tuple):
        return value[:-1]
    if isinstance(value, bool):
        return not value
    return f"{value}x" if isinstance(value, str) else value + 1 if isinstance(value, int) else value * 0.8 + 0.1


@pytest.mark.parametrize("name", NAMES)
def test_another_instruction_is_another_stage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {registry.make(name).fingerprint()}
    for changed in STAGES[name].prompts:

        def with_another(prompt_id: str, changed: str = changed) -> prompts.Prompt:
            prompt = load_prompt(prompt_id)
            return dataclasses.replace(prompt, sha256="0" * 64) if prompt_id == changed else prompt

        monkeypatch.setattr(asking, "load_prompt", with_another)
        stage, asked = made(name)
        seen.add(stage.fingerprint())
        rows = found(stage, clips_of(stage))
        authors = {one["annotator"] for row in rows.values() for one in captions_in(row)}
        assert len(authors) == bool(stage.fields)
        assert all(f"/{stage.fingerprint()}/" in request.id for request in asked)
    assert len(seen) == 1 + len(STAGES[name].prompts)


@pytest.mark.parametrize("name", NAMES)
def test_its_fingerprint_is_the_one_it_had(name: str) -> None:
    """So it depends neither on the process nor on the machine."""
    fingerprint = registry.make(name).fingerprint()
    assert name in GOLDEN, f'put into GOLDEN of this file: "{name}": "{fingerprint}",'
    assert fingerprint == GOLDEN[name]
