"""What holds for every stage that asks no model clip by clip: all of `scores` and of `segments`."""

import ast
import dataclasses
import inspect
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pytest
import torch

from civid_loader.processing import registry
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.stage import ClipInput, Column, CorpusStage, FrameRequest, Row, Stage
from civid_loader.schema import CAPTION_KINDS
from support.media import colourful_image, write_video
from support.rows import captions
from support.stages import clip_of, makers

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FPS: Final = 8
SIZE: Final = (64, 96)
KINDS: Final = {name: registry.find(name) for name in registry.names()}
NAMES: Final = [
    name for name, kind in KINDS.items() if kind.kind in ("clip", "corpus") and not issubclass(kind, AskingStage)
]
SEQUENCES: Final = [
    name for name, kind in KINDS.items() if kind.kind == "sequence" and not issubclass(kind, AskingStage)
]
"""Stages of whole films; how their rows come about is in `test_segments_contract.py`."""
DTYPES: Final = {"float32": float, "int32": int, "bool": bool, "string": str}

TEXT_ONLY: Final = ("caption_check",)
"""Stages that look at no frames."""

SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "caption_check": {"kinds": ("dense",), "phrases": ("a dog",)},
    "clip_similarity": {"caption_kind": "dense"},
    "duplicates": {"min_clip_cosine": 0.9},
    "optical_flow": {"size": (128, 128)},
}
"""Other values of parameters that cannot take just any; see `other_value`."""

GOLDEN: Final[Mapping[str, tuple[str, str, Any]]] = {
    "aesthetic": ("e5dddba1468a89b8", "aesthetic_v1", 4.58662),
    "audio_transcript": ("68c5a49e78e3cd21", "speech_lines", 1),
    "caption_check": ("9318e54c4bf9f017", "caption_words", [3, 2]),
    "clip_similarity": ("6f142c1350ddacb2", "clip_similarity", -0.0948137),
    "codec_motion": ("c93ace094d8e0215", "codec_motion_mean", 0.0245956),
    "colour": ("46620f6c4a400d65", "luma_bright80", 121.692367),
    "duplicates": ("fac8250ec05f7c50", "phash", "d267676767449898e86a95ea146beb14e86a95ea146beb14"),
    "nsfw": ("49a4bb30aed999a8", "nsfw_score", 0.437),
    "optical_flow": ("79dc235b9790f5a0", "flow_mean_px", 1.43153),
    "scene_cuts": ("230b1a80fd2bfb64", "cut_max", 92.52653),
    "split": ("ee44c774d2fcfc02", "scene_starts", [0.0]),
    "technical_quality": ("e3ae6b628e087a84", "blockiness", 0.8916513),
    "temporal_consistency": ("fb7a445ddc120536", "tc_dino_vbench", 0.9909876),
    "text_area": ("63a2eedf091b6d06", "text_area_mean", 0.0),
    "tracking_strength": ("111531018aa16507", "tracking_strength", 17.921797),
    "transnet_cuts": ("2175f22bb06868d6", "transnet_max", 0.907923),
}
"""Stage -> its fingerprint without weights, at its defaults; a column; and its value for the clip `cut`, with the
stage as it is made here. Another one without a new `version` says that results are not what they were."""


def made(name: str, folder: Path) -> Stage[Any]:
    """A stage ready to run, with tiny weights if it needs some."""
    if name in makers():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            stage = makers()[name](folder)
    else:
        stage = registry.make(name)
    missing = set(stage.weights_needed()) - set(stage.weights)
    assert not missing, f"{name} needs weights {missing}: write make_{name} in tests/support/stages_*.py"
    stage.setup(device="cpu")
    return stage


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stage[Any]]]:
    """Name -> stage, made when first asked for."""

    class Made(dict[str, Stage[Any]]):
        def __missing__(self, name: str) -> Stage[Any]:
            self[name] = made(name, tmp_path_factory.mktemp(name))
            return self[name]

    everything = Made()
    yield everything
    for stage in everything.values():
        stage.teardown()


@pytest.fixture
def stage(name: str, stages: dict[str, Stage[Any]]) -> Stage[Any]:
    return stages[name]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray[Any, np.dtype[np.uint8]], bytes]]:
    """Clip id -> images [N, H, W, C] and the file they are in."""
    pictures = {
        "moving": [colourful_image(n, size=SIZE) for n in range(16)],
        "cut": [colourful_image(n, size=SIZE) for n in range(9)] + [colourful_image(90, size=SIZE)[::-1, ::-1]] * 9,
        "still": [colourful_image(5, size=SIZE)] * 12,
        "upright": [colourful_image(3 * n, size=SIZE[::-1]) for n in range(10)],
        "one": [colourful_image(1, size=SIZE)],
    }
    folder = tmp_path_factory.mktemp("videos")
    found = {}
    for clip_id, images in pictures.items():
        path = folder / f"{clip_id}.mp4"
        write_video(
            path, num_frames=len(images), fps=FPS, size=images[0].shape[:2], image=images.__getitem__, sound=True
        )
        found[clip_id] = (np.stack(images), path.read_bytes())
    return found


@pytest.fixture
def clips(videos: Mapping[str, Any], stage: Stage[Any]) -> list[ClipInput]:
    return [a_clip(stage, clip_id, *found) for clip_id, found in videos.items()]


def a_clip(stage: Stage[Any], clip_id: str, images: Any, video: bytes) -> ClipInput:
    told = {"clip_id": clip_id, "captions": captions(short=f"clip {clip_id}", dense=f"{clip_id} and more")}
    file = video if stage.needs_video else None
    return clip_of(images, stage.requests(), fps=FPS, clip_id=clip_id, video=file, row=told)


def a_bad_clip(stage: Stage[Any]) -> ClipInput:
    """Tiny, of one frame, without captions, its file no video."""
    clip = a_clip(stage, "bad", np.full((1, 2, 2, 3), 7, np.uint8), b"no video" * 99)
    return dataclasses.replace(clip, row={"clip_id": "bad", "captions": []})


def run(stage: Stage[Any], clips: Sequence[ClipInput], *, batch_size: int = 100) -> dict[str, Row]:
    """Clip id -> row; nothing is shared with another run."""
    fresh = [dataclasses.replace(clip, shared={}) for clip in clips]
    rows: dict[str, Row] = {}
    for start in range(0, len(fresh), batch_size):
        batch = fresh[start : start + batch_size]
        found = stage.run(batch)
        assert len(found) == len(batch)
        rows |= {clip.id: row for clip, row in zip(batch, found, strict=True)}
    return rows


def given_by(stage: Stage[Any]) -> Sequence[Column]:
    """What `run` gives."""
    return stage.parts if isinstance(stage, CorpusStage) else stage.columns


def assert_same(one: Any, other: Any) -> None:
    """Equal, but for the rounding of float32 in models, whose kernels depend on the size of a batch."""
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    else:
        assert one == other


def assert_is_a(value: Any, dtype: str) -> None:
    """A value of a row is what its column says, or None."""
    if value is None:
        return
    if dtype.startswith("list<"):
        assert isinstance(value, list)
        for one in value:
            assert one is not None
            assert_is_a(one, dtype[5:-1])
        return
    assert type(value) is DTYPES[dtype], (value, dtype)
    assert not isinstance(value, float) or math.isfinite(value)


def arrow_type(dtype: str) -> pa.DataType:
    if dtype.startswith("list<"):
        return pa.list_(arrow_type(dtype[5:-1]))
    return {"float32": pa.float32(), "int32": pa.int32(), "bool": pa.bool_(), "string": pa.string()}[dtype]


def other_value(name: str, field: str, kind: Any, value: Any) -> Any:
    """A value that the parameter could have instead."""
    if field in SETTINGS.get(name, {}):
        return SETTINGS[name][field]
    options = [one for one in get_args(kind) if one is not NoneType] if NoneType in get_args(kind) else [kind]
    if value is None or get_origin(options[0]) is Literal:
        usual: dict[Any, Any] = {int: 5, float: 1.5, str: "other", bool: True}
        choices = get_args(options[0]) or (usual[options[0]],)
        return next(one for one in choices if one != value)
    if isinstance(value, tuple) and get_origin(get_args(kind)[0]) is Literal:
        missing = [one for one in get_args(get_args(kind)[0]) if one not in value]
        return (*value, *missing) if missing else value[:1]
    if isinstance(value, tuple):
        return tuple(2 * one for one in value)
    if isinstance(value, bool):
        return not value
    return f"{value}x" if isinstance(value, str) else value + 1 if isinstance(value, int) else value * 0.8


def documented_fields(kind: type[Any]) -> set[str]:
    """Fields of a dataclass with a docstring below."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        one.target.id
        for one, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


def test_every_setting_is_of_a_stage() -> None:
    assert {*SETTINGS, *GOLDEN} <= {*NAMES, *SEQUENCES}


def test_no_column_is_of_two_stages() -> None:
    columns = [(column.name, name) for name in NAMES for column in registry.find(name).columns]
    assert len({column for column, _ in columns}) == len(columns), sorted(columns)


@pytest.mark.parametrize("name", [*NAMES, *SEQUENCES])
def test_its_file_is_one_stage(name: str) -> None:
    kind = registry.find(name)
    module = sys.modules[kind.__module__]
    assert Path(inspect.getfile(kind)).stem == kind.name == name
    own = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    assert [one for one in own if issubclass(one, Stage)] == [kind]
    assert module.__doc__
    assert kind.__doc__
    assert kind.cost
    assert kind.version >= 1


@pytest.mark.parametrize("name", [*NAMES, *SEQUENCES])
def test_its_parameters_are_plain_values_with_defaults(name: str) -> None:
    kind = registry.find(name).Params
    assert kind.__dataclass_params__.frozen
    assert not hasattr(kind(), "__dict__"), "slots"
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert documented_fields(kind) == {field.name for field in dataclasses.fields(kind)}
    params = dataclasses.asdict(kind())
    as_json = json.loads(json.dumps(params, allow_nan=False))
    assert registry.make(name, as_json).params == kind()


@pytest.mark.parametrize("name", [*NAMES, *SEQUENCES])
def test_its_columns_say_what_they_are(name: str) -> None:
    kind = registry.find(name)
    columns = [*kind.columns, *(kind.parts if issubclass(kind, CorpusStage) else ())]
    for column in columns:
        assert arrow_type(column.dtype), column
        assert column.doc.endswith("."), column
    assert len({column.name for column in kind.columns}) == len(kind.columns) > 0


@pytest.mark.parametrize("name", NAMES)
def test_its_requests_are_values(name: str, stage: Stage[Any]) -> None:
    requests = stage.requests()
    assert requests == stage.requests()
    assert all(isinstance(one, FrameRequest) for one in requests.values())
    assert len({hash(one) for one in requests.values()}) == len(set(requests.values()))
    assert requests or stage.needs_video or name in TEXT_ONLY


@pytest.mark.parametrize("name", NAMES)
def test_rows_have_the_columns_it_declares(name: str, stage: Stage[Any], clips: list[ClipInput]) -> None:
    columns = given_by(stage)
    rows = run(stage, [*clips, a_bad_clip(stage)])
    for clip_id, row in rows.items():
        if why := {"reason", "not_computable"} & row.keys():
            assert len(why) == 1, clip_id
            assert all(row[name] for name in why), clip_id
            assert set(row) <= why | {column.name for column in columns}
            continue
        texts = {"captions"} if stage.caption_kinds else set()
        assert set(row) == {column.name for column in columns} | texts, clip_id
        assert {one["kind"] for one in row.get("captions", ())} <= {*stage.caption_kinds} <= set(CAPTION_KINDS)
        for column in columns:
            assert_is_a(row[column.name], column.dtype)
    for column in columns:
        values = [row.get(column.name) for row in rows.values()]
        assert len(pa.array(values, arrow_type(column.dtype))) == len(rows)
        assert any(value is not None for value in values), f"{column.name} has no value for any clip"
    assert "reason" not in rows["moving"]


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_value_says_why(name: str, stage: Stage[Any], clips: list[ClipInput]) -> None:
    """Null plus a reason: a row without a single value is never silent."""
    for clip_id, row in run(stage, [*clips, a_bad_clip(stage)]).items():
        is_empty = all(row.get(column.name) is None for column in given_by(stage))
        assert not is_empty or row.get("reason") or row.get("not_computable"), clip_id


@pytest.mark.parametrize("name", NAMES)
def test_a_row_depends_on_its_clip_alone(name: str, stage: Stage[Any], clips: list[ClipInput]) -> None:
    """Not on the size of the batch, nor on the order, nor on the neighbours, nor on what ran before."""
    rows = run(stage, clips)
    assert_same(run(stage, clips), rows)
    assert_same(run(stage, clips, batch_size=1), rows)
    mixed = [a_bad_clip(stage), *clips]
    for batch_size in (3, len(mixed)):
        np.random.default_rng(batch_size).shuffle(mixed)
        found = run(stage, mixed, batch_size=batch_size)
        found.pop("bad")
        assert_same(found, rows)
    assert run(stage, []) == {}


@pytest.mark.parametrize("name", NAMES)
def test_its_input_stays_as_it_was(name: str, stage: Stage[Any], clips: list[ClipInput]) -> None:
    before = [{key: frames.copy() for key, frames in clip.frames.items()} for clip in clips]
    run(stage, clips)
    for clip, frames in zip(clips, before, strict=True):
        assert all(np.array_equal(clip.frames[key], frames[key]) for key in frames)


@pytest.mark.parametrize("name", [name for name in NAMES if issubclass(registry.find(name), CorpusStage)])
def test_what_it_finds_in_all_does_not_depend_on_their_order(
    name: str, stage: Stage[Any], clips: list[ClipInput]
) -> None:
    assert isinstance(stage, CorpusStage)
    rows = run(stage, clips) | {"bad": {"reason": "gone"}, "copy": run(stage, clips[:1])["moving"]}
    finished = []
    for ids in (list(rows), sorted(rows), list(rows)[::-1]):
        columns = {part.name: [rows[one].get(part.name) for one in ids] for part in stage.parts}
        arrays = {part.name: pa.array(columns[part.name], arrow_type(part.dtype)) for part in stage.parts}
        found = stage.finish(pa.table({"clip_id": ids, **arrays}))
        finished.append(dict(zip(ids, found, strict=True)))
    assert finished[0] == finished[1] == finished[2]
    for row in finished[0].values():
        assert set(row) == {column.name for column in stage.columns}
        for column in stage.columns:
            assert_is_a(row[column.name], column.dtype)


@pytest.mark.parametrize("name", [*NAMES, *SEQUENCES])
def test_each_parameter_changes_who_it_is(name: str) -> None:
    kind = registry.find(name)
    hints = get_type_hints(kind.Params)
    seen = {kind(kind.Params()).fingerprint()}
    for field in dataclasses.fields(kind.Params):
        other = other_value(name, field.name, hints[field.name], getattr(kind.Params(), field.name))
        try:
            params = kind.Params(**{field.name: other})
        except ValueError as error:
            raise AssertionError(
                f"{name}: put a value that {field.name} can take into SETTINGS of this file"
            ) from error
        seen.add(kind(params).fingerprint())
    assert len(seen) == 1 + len(dataclasses.fields(kind.Params))


@pytest.mark.parametrize("name", NAMES)
def test_its_results_are_those_it_had(name: str, stage: Stage[Any], clips: list[ClipInput]) -> None:
    """The fingerprint too, so it depends neither on the process nor on the machine."""
    row = run(stage, [clip for clip in clips if clip.id == "cut"])["cut"]
    found = registry.make(name).fingerprint()
    assert name in GOLDEN, f'put into GOLDEN of this file, with one column: "{name}": ("{found}", {row})'
    fingerprint, column, value = GOLDEN[name]
    assert found == fingerprint
    assert row[column] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)
