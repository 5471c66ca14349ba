"""Scenes joined by votes: every combination of what two language models and two embeddings may say."""

# ruff: noqa: N803 - arrays carry their shape.

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from civid_loader.cli import app
from civid_loader.errors import CaptionerError, StageError
from civid_loader.processing import curate as curating
from civid_loader.processing.captioner import CaptionerSpec, Request, Response
from civid_loader.processing.curate import curate
from civid_loader.processing.curate_video import Embedders
from civid_loader.processing.recipe import Recipe, load_recipe
from civid_loader.storage import read_table
from support.films import Take, pattern, write_film
from support.scripted_captioner import ScriptedCaptioner, pictures_of

SIZE = (144, 256)
CASES = list(product((False, True), repeat=4))
"""(q, l, i, d) on scene k and the next, for k of 0 to 15."""
LENGTH = 20
FIRST, SECOND = CaptionerSpec(backend="echo", model="q"), CaptionerSpec(backend="echo", model="l")
SEEDS = range(1, len(CASES) + 2)


def scene_of(frame_HWC: npt.NDArray[np.uint8]) -> int:
    """The scene of the film that a frame shows."""
    return int(np.argmin([np.abs(frame_HWC - pattern(seed, SIZE)).mean() for seed in SEEDS]))


@dataclass(frozen=True)
class Planted:
    """An embedder whose scenes go on where a column of `CASES` says so."""

    column: int
    same_scene_at_least: float | None = 0.5

    @property
    def identity(self) -> dict[str, Any]:
        return {"descriptor": "planted", "column": self.column}

    def __call__(self, frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        scene = scene_of(frames_THWC[0])
        axes = np.eye(2 * len(SEEDS), dtype=np.float32)
        goes_on = scene < len(CASES) and CASES[scene][self.column]
        return np.stack([axes[2 * scene], axes[2 * scene + (2 if goes_on else 1)]])


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    write_film(root / "film.mp4", [Take(seed=seed, num_frames=LENGTH) for seed in SEEDS], size=SIZE)
    return root


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, ScriptedCaptioner]:
    """Model -> the captioner that votes as its column of `CASES` says."""

    def vote(column: int) -> Callable[[Request], Any]:
        def answer(request: Request) -> Any:
            last, first = map(scene_of, pictures_of(request))
            assert first == last + 1
            return {"choice": "yes" if CASES[last][column] else "no"}

        return answer

    made = {"q": ScriptedCaptioner(script=vote(0)), "l": ScriptedCaptioner(script=vote(1))}
    monkeypatch.setattr(CaptionerSpec, "make", lambda self, device: made[self.model])
    monkeypatch.setattr(curating, "_embedders", lambda recipe, given: Embedders(first=Planted(2), second=Planted(3)))
    return made


def short() -> Recipe:
    """MiraData's, keeping scenes of any length."""
    made = load_recipe("miradata")
    steps = [
        replace(step, params={"min_seconds": 0.1}) if step.stage == "split_stitch" else step
        for step in made.segmentation
    ]
    return replace(made, segmentation=tuple(steps))


def expected(join: Callable[[bool, bool, bool, bool], bool]) -> list[tuple[int, int]]:
    """(first frame, one past the last) of the joined scenes."""
    ends = [k + 1 for k, case in enumerate(CASES) if not join(*case)] + [len(SEEDS)]
    return [(LENGTH * start, LENGTH * end) for start, end in zip([0, *ends], ends, strict=False)]


def made(films: Path, output: Path, **models: CaptionerSpec) -> tuple[list[tuple[int, int]], set[str]]:
    report = curate(films, recipe=short(), output=output, quiet=True, **models)  # type: ignore[arg-type]
    assert report.num_scenes == len(SEEDS)
    rows = read_table(output).to_pylist()
    sources = [row["clips"][0]["source"] for row in rows]
    return [(one["start_frame"], one["end_frame"]) for one in sources], {flag for row in rows for flag in row["flags"]}


@pytest.mark.usefixtures("asked")
def test_nobody_asked(films: Path, tmp_path: Path) -> None:
    spans, flags = made(films, tmp_path / "out")
    assert spans == expected(lambda q, l, i, d: i and d)  # noqa: E741
    assert flags == {"stitched_by_features_only", "stand_in_embedding"}


def test_two_language_models(films: Path, tmp_path: Path, asked: dict[str, ScriptedCaptioner]) -> None:
    spans, flags = made(films, tmp_path / "out", captioner=FIRST, second_captioner=SECOND)
    assert spans == expected(lambda q, l, i, d: (q and l) or (i and d))  # noqa: E741
    assert flags == {"stand_in_embedding"}
    # Nobody is asked whose answer would change nothing: 12 are not joined by embeddings; of those q says yes to 6.
    assert (len(asked["q"].requests), len(asked["l"].requests)) == (12, 6)


def test_one_language_model_needs_an_embedding_beside_it(
    films: Path, tmp_path: Path, asked: dict[str, ScriptedCaptioner]
) -> None:
    spans, flags = made(films, tmp_path / "out", captioner=FIRST)
    assert spans == expected(lambda q, l, i, d: (q and (i or d)) or (i and d))  # noqa: E741
    assert flags == {"stitched_by_one_language_model", "stand_in_embedding"}
    assert len(asked["q"].requests) == 8, "where one embedding of two says yes"


def _answer_always(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    scripted = ScriptedCaptioner(script=lambda request: answer)
    monkeypatch.setattr(CaptionerSpec, "make", lambda self, device: scripted)


def test_answers_that_are_none(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curating, "_embedders", lambda recipe, given: Embedders(first=Planted(2), second=Planted(3)))
    answers: list[Any] = ["I think so", Response(id="scene_goes_on", error="too long")]
    for number, answer in enumerate(answers):
        _answer_always(monkeypatch, answer)
        spans, _ = made(films, tmp_path / str(number), captioner=FIRST, second_captioner=SECOND)
        assert spans == expected(lambda q, l, i, d: i and d)  # noqa: E741
    _answer_always(monkeypatch, Response(id="scene_goes_on", error="502", is_server_error=True))
    with pytest.raises(CaptionerError, match="scene_goes_on: 502; when the server answers again"):
        made(films, tmp_path / "down", captioner=FIRST)


@pytest.mark.usefixtures("asked")
def test_models_that_nobody_asks(films: Path, tmp_path: Path) -> None:
    for recipe, models, message in (
        ("miradata", {"second_captioner": SECOND}, "a second model needs a first"),
        ("civid", {"captioner": FIRST, "second_captioner": SECOND}, "recipe civid asks one model only"),
        ("lvd2m", {"captioner": FIRST}, "recipe lvd2m asks no model"),
    ):
        with pytest.raises(StageError, match=message):
            curate(films, recipe=recipe, output=tmp_path / "out", quiet=True, **models)  # type: ignore[arg-type]
    result = CliRunner().invoke(
        app,
        ["curate", str(films), "--recipe", "miradata", "-o", str(tmp_path / "out"), "--second-base-url", "http://x"],
    )
    assert "--second-model" in result.output
