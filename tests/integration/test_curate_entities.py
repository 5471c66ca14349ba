"""Films to sequences that are about something, by a model whose answers are written down."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from civid_loader.cli import app
from civid_loader.errors import AnnotationError, CaptionerError, OutputError, StageError
from civid_loader.processing.captioner import CaptionerSpec, Request, Response
from civid_loader.processing.curate import curate
from civid_loader.processing.entity_asker import CaptionerAsker
from civid_loader.processing.segments.entity_segment import Entity
from civid_loader.storage import read_table
from support import tiny_vlms
from support.films import Take, pattern, write_film
from support.model_server import MODEL, ModelServer, serve_model
from support.scripted_captioner import ScriptedCaptioner, pictures_of

SIZE = (144, 256)
SPEC = CaptionerSpec(backend="echo", model="m")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of two sequences each, whose second scenes have the first one's pattern mixed in."""
    root = tmp_path_factory.mktemp("films")
    for name, seeds in (("one", (1, 3)), ("two", (7, 4))):
        takes = [
            take
            for seed in seeds
            for take in (
                Take(seed=seed, num_frames=30),
                Take(seed=seed, other=seed + 50, share=0.45, num_frames=30),
            )
        ]
        write_film(root / f"{name}.mp4", takes, size=SIZE)
    return root


def shows(request: Request, seed: int) -> bool:
    """Whether the picture, or the uppermost in it, is the first scene of a pair."""
    (picture,) = pictures_of(request)
    return bool(np.abs(picture[: SIZE[0]] - pattern(seed, SIZE)).mean() < 6)


def script(request: Request) -> Any:
    """Nothing in the sequence of pattern 3; in that of 7 the second clip does not show it."""
    if request.id.startswith("entity_main"):
        return {"entity": None if shows(request, 3) else "a green blot", "is_person": False}
    return {"choice": "yes" if any(shows(request, seed) for seed in (1, 4, 7)) or not seventh(request) else "no"}


def seventh(request: Request) -> bool:
    (picture,) = pictures_of(request)
    mixed = 0.55 * pattern(7, SIZE) + 0.45 * pattern(57, SIZE)
    return bool(np.abs(picture - mixed).mean() < 6)


def spans(output: Path) -> list[tuple[str, list[int]]]:
    rows = read_table(output).to_pylist()
    return [(row["sample_id"], [clip["source"]["start_frame"] for clip in row["clips"]]) for row in rows]


def bytes_of(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_sequences_without_an_entity_are_dropped(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ScriptedCaptioner(script=script)
    monkeypatch.setattr(CaptionerSpec, "make", lambda self, device: made)
    report = curate(films, recipe="civid", output=tmp_path / "out", captioner=SPEC, quiet=True)
    # Of pattern 7 one clip is left, and 2 must be.
    assert spans(tmp_path / "out") == [("one.mp4#0", [0, 30]), ("two.mp4#0", [60, 90])]
    assert report.num_samples == 2
    assert report.usage is not None
    assert report.usage.num_requests == len(made.requests)
    assert report.usage.prompt_tokens == 7 * len(made.requests)
    (first, *_) = read_table(tmp_path / "out").to_pylist()
    assert "entity_not_checked" not in first["flags"]
    assert "| entity_segment |" in (tmp_path / "out" / "README.md").read_text()
    told = [(one["kind"], one["text"], one["annotator"]) for clip in first["clips"] for one in clip["captions"]]
    assert told == [("main_object", "a green blot", "civid_loader:entity_segment")] * 2
    num_asked = len(made.requests)
    curate(films, recipe="civid", output=tmp_path / "out", captioner=SPEC, quiet=True)
    assert len(made.requests) == num_asked
    # Without the model it is another dataset.
    with pytest.raises(OutputError, match="differs in"):
        curate(films, recipe="civid", output=tmp_path / "out", quiet=True)


@contextmanager
def a_server() -> Iterator[ModelServer]:
    """Says of every picture that a thing is in it, and names it by the picture."""
    fields = {
        "entity": lambda asked: f"thing {asked.digest}",
        "is_person": lambda asked: False,
        "choice": lambda asked: "yes",
    }
    with serve_model(fields=fields, delay_seconds=0.05) as server:
        yield server


def test_two_processes_find_the_same(films: Path, tmp_path: Path) -> None:
    with a_server() as server:
        spec = CaptionerSpec(backend="openai", model=MODEL, options={"base_url": server.base_url, "max_in_flight": 4})
        outputs = [tmp_path / str(num_proc) for num_proc in (1, 2)]
        for num_proc, output in enumerate(outputs, 1):
            curate(films, recipe="civid", output=output, captioner=spec, num_proc=num_proc, quiet=True)
    assert bytes_of(outputs[0]) == bytes_of(outputs[1])
    rows = read_table(outputs[0]).to_pylist()
    assert len({row["clips"][0]["captions"][0]["text"] for row in rows}) == 4
    assert 1 < server.max_parallel <= 4


def test_a_server_that_goes_away_ends_the_run(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(request: Request) -> Response:
        return Response(id=request.id, error="502 from the server", is_server_error=True)

    monkeypatch.setattr(CaptionerSpec, "make", lambda self, device: ScriptedCaptioner(script=down))
    with pytest.raises(
        CaptionerError, match="502 from the server; when the server answers again, run the same command"
    ):
        curate(films, recipe="civid", output=tmp_path / "out", captioner=SPEC, quiet=True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.setattr(CaptionerSpec, "make", lambda self, device: ScriptedCaptioner(script=script))
    assert curate(films, recipe="civid", output=tmp_path / "out", captioner=SPEC, quiet=True).num_samples == 2


@pytest.mark.usefixtures("one_torch_thread")
def test_a_tiny_model_is_asked_everything(films: Path, tmp_path: Path) -> None:
    """By the real classes. Random weights choose yes or no, but write no JSON: so they name nothing."""
    folder = tiny_vlms.save_qwen3_vl(tmp_path / "model")
    spec = CaptionerSpec(backend="transformers", model=str(folder), options={"dtype": "float32"})
    made = spec.make(device="cpu")
    made.load()
    asker = CaptionerAsker.of(made)
    pictures = [np.asarray(pattern(seed, SIZE), np.uint8) for seed in (1, 3, 7)]
    entity = Entity(name="a green blot", is_person=True)
    assert asker.main_entity(pictures) is None
    assert set(asker.are_seen(entity, pictures)) <= {True, False}
    assert set(asker.are_several(entity, pictures)) <= {True, False}
    assert asker.is_same(entity, pictures) in (True, False)
    usage = asker.answers.take_usage()
    assert usage.num_requests == 1 + 1 + 3 + 3 + 1, "the first is cut off, and asked once more"
    assert usage.completion_tokens
    made.close()
    with pytest.raises(AnnotationError, match="no sample"):
        curate(films, recipe="civid", output=tmp_path / "out", captioner=spec, quiet=True)


def test_recipes_that_ask_nobody(films: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="recipe lvd2m asks no model when it cuts films"):
        curate(films, recipe="lvd2m", output=tmp_path / "out", captioner=SPEC, quiet=True)


def test_command(films: Path, tmp_path: Path) -> None:
    def run(name: str, *options: str) -> Any:
        output = tmp_path / name
        result = CliRunner().invoke(app, ["curate", str(films), "--recipe", "civid", "-o", str(output), *options])
        assert result.exit_code == 0, result.output
        return output, result

    without, told = run("without")
    assert "left out: entity_segment: it asks a model, and no --backend is named" in told.stderr
    assert "datasets.load_dataset(" in told.stdout
    assert len(spans(without)) == 4
    with a_server() as server:
        asked, told = run("asked", "--backend", "openai", "--model", MODEL, "--base-url", server.base_url)
    assert "left out" not in told.stderr
    assert spans(asked) == spans(without)
    assert all(clip["captions"] for row in read_table(asked).to_pylist() for clip in row["clips"])
