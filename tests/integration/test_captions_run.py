"""Runs in which a stage asks a model: what is written where, and what is asked again."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

from civid_loader.cli import app
from civid_loader.errors import CaptionerError, LayerError, StageError
from civid_loader.hub.loading import load
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.chunks import plan_chunks
from civid_loader.processing.delivery import deliver
from civid_loader.processing.process_report import ProcessReport
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.schema import caption
from civid_loader.storage import read_manifest, read_table, write_json
from support.built import clip, write_dataset
from support.media import write_video

SINGLE = StageSpec(name="civid_single", params={}, weights={})
ECHO = CaptionerSpec(backend="echo", model="echo-1")
KINDS = ["content", "camera_angle", "camera_movement", "background"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(5):
        write_video(folder / f"{i}.mp4", num_frames=10 + i, gop=5, size=(48, 64))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    train = [[clip("c0", "0.mp4"), clip("c1", "1.mp4")], [clip("c2", "2.mp4")], [clip("c3", "3.mp4")]]
    return write_dataset(tmp_path / "set", {"train": train, "test": [[clip("late", "late.mp4"), clip("c4", "4.mp4")]]})


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("civid_loader.processing.chunks.CHUNK_CLIPS", 2)


def run(root: Path, videos: Path, **more: Any) -> ProcessReport:
    return process(
        root, [SINGLE], videos=videos, quiet=True, **{"captioner": ECHO, "layer": "captions-x", "num_proc": 0, **more}
    )


def test_captions_and_what_they_cost(root: Path, videos: Path) -> None:
    report = run(root, videos)
    rows = {row["clip_id"]: row for row in read_table(root, "captions/x").to_pylist()}
    told = {row["clip_id"]: row for row in read_table(root, "scores/x").to_pylist()}
    assert list(rows) == list(told) == ["c0", "c1", "c2", "c3", "late", "c4"]
    assert [one["kind"] for one in rows["c0"]["captions"]] == KINDS
    assert rows["late"]["captions"] == rows["late"]["transition_captions"] == []
    assert rows["late"]["reason"] == told["late"]["reason"]
    assert rows["late"]["reason"].startswith("VideoNotFoundError")
    assert told["c1"]["civid_single_num_requests"] == 1
    assert told["c1"]["civid_single_words_over_limit"] == []
    assert told["late"]["civid_single_prompt_tokens"] is None
    assert report.usage is not None
    assert report.usage.num_requests == 5
    assert report.usage.completion_tokens == sum(row["civid_single_completion_tokens"] or 0 for row in told.values())
    assert report.captions["content"] == {"num_texts": 5, "mean_words": 3.0}
    assert report.reasons == {"VideoNotFoundError": 1}
    made = read_manifest(root)["layers"]["captions-x"]
    assert made["made_by"]["captioner"] == {"backend": "echo", "model": "echo-1"}
    assert made["fingerprint"] == report.fingerprint
    assert [[one["id"] for one in stage["models"]] for stage in made["stages"]] == [["echo-1"]], "the card names it"
    joined = load(root, layers=["captions-x", "scores-x"])
    assert [one["text"] for one in joined[0]["clips"][1]["captions"][:4]] == [
        one["text"] for one in rows["c1"]["captions"]
    ]
    assert joined[0]["scores-x"][1]["civid_single_finish_reason"] == "stop"


def test_every_engine_writes_the_same(root: Path, videos: Path) -> None:
    run(root, videos, layer="captions-here")
    run(root, videos, layer="captions-two", num_proc=2)
    run(root, videos, layer="captions-ray", engine="ray", num_proc=1)
    for name in ("two", "ray"):
        for room in ("captions", "scores"):
            assert read_table(root, f"{room}/{name}").equals(read_table(root, f"{room}/here"))


def test_another_model_or_instruction_is_another_run(root: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(root, videos)
    assert run(root, videos).num_chunks_run == 0
    other = run(root, videos, captioner=CaptionerSpec(backend="echo", model="echo-2"))
    assert other.fingerprint != first.fingerprint
    assert other.num_chunks_run > 0
    annotators = {one["annotator"] for one in read_table(root, "captions/x").to_pylist()[0]["captions"]}
    assert len(annotators) == 1
    run(root, videos)
    assert {one["annotator"] for one in read_table(root, "captions/x").to_pylist()[0]["captions"]} != annotators


def test_only_what_failed_is_asked_again(root: Path, videos: Path) -> None:
    own = root.parent / "own"
    own.mkdir()
    for path in videos.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    run(root, own)
    before = read_table(root, "captions/x").to_pylist()
    (own / "late.mp4").write_bytes((own / "0.mp4").read_bytes())
    again = run(root, own, retry_errors=True)
    assert again.usage is not None
    assert again.usage.num_requests == 1
    after = read_table(root, "captions/x").to_pylist()
    assert [row for row in after if row["clip_id"] != "late"] == [row for row in before if row["clip_id"] != "late"]
    assert [one["kind"] for one in after[4]["captions"]] == KINDS
    assert read_table(root, "scores/x").to_pylist()[4]["civid_single_num_requests"] == 1


def test_progress_tells_where_the_time_goes(root: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, str]] = []

    @contextmanager
    def track(**options: Any) -> Iterator[Any]:
        yield lambda num_more, text="": told.append((num_more, text))

    monkeypatch.setattr("civid_loader.processing.run.track_units", track)
    run(root, videos)
    assert sum(num_more for num_more, _ in told) == 6
    assert re.fullmatch(r"decoding \d+%, [\d,]+ tokens/s, 1 without values", told[-1][1])


def test_what_does_not_fit(root: Path, videos: Path) -> None:
    with pytest.raises(LayerError, match="layer scores-x: what civid_single find goes into a layer captions-<name>"):
        run(root, videos, layer="scores-x")
    with pytest.raises(StageError, match="stage civid_single asks a model: name a --backend and its --model"):
        run(root, videos, captioner=None)
    with pytest.raises(CaptionerError, match="must be one of"):
        run(root, videos, captioner=CaptionerSpec(backend="none", model="m"))  # type: ignore[arg-type] # on purpose


def test_texts_alone_need_no_video(root: Path, tmp_path: Path) -> None:
    stages = [StageSpec(name=name, params={}, weights={}) for name in ("lvd2m_rewrite", "caption_check")]
    arguments: dict[str, Any] = {"layer": "captions-x", "videos": None, "captioner": ECHO, "num_proc": 0, "quiet": True}
    process(root, stages, **arguments)
    rows = read_table(root, "captions/x").to_pylist()
    assert [[one["kind"] for one in row["captions"]] for row in rows] == [["rewritten"]] * 6
    assert {row["reason"] for row in rows} == {None}, "though the video of one is not there"
    assert read_table(root, "scores/x").to_pylist()[0]["caption_kinds"] == ["refined", "rewritten"]
    assert process(root, stages, **arguments).num_chunks_run == 0
    other = [[clip("c0", "0.mp4") | {"captions": [caption("refined", "Other words.", "upstream:human")]}]]
    write_dataset(tmp_path / "other", {"train": other})
    write_dataset(tmp_path / "first", {"train": [[clip("c0", "0.mp4")]]})
    first, second = (tmp_path / name for name in ("first", "other"))
    assert plan_chunks(first).fingerprint == plan_chunks(second).fingerprint
    assert plan_chunks(first, unit="clip").fingerprint != plan_chunks(second, unit="clip").fingerprint, "read by models"


def test_copied_to_where_others_find_it(root: Path, videos: Path, tmp_path: Path) -> None:
    run(root, videos, output="memory://bucket/out")
    memory = fsspec.filesystem("memory")
    names = ["captions/x/test", "captions/x/train", "scores/x/test", "scores/x/train"]
    shards = [f"{name}-00000-of-00001.parquet" for name in names]
    assert sorted(memory.find("/bucket/out")) == [f"/bucket/out/{name}" for name in shards]
    assert memory.cat_file(f"/bucket/out/{shards[1]}") == (root / shards[1]).read_bytes()
    copy = tmp_path / "copy"
    (copy / "captions" / "x").mkdir(parents=True)
    (copy / "captions" / "x" / "train-00001-of-00002.parquet").touch()
    write_json(copy / "manifest.json", {"name": "lvd2m", "shards": {"annotations": ["a"]}})
    assert sorted(deliver(root, ["captions-x"], copy)) == [str(copy / name) for name in shards[:2]]
    assert not (copy / "captions" / "x" / "train-00001-of-00002.parquet").exists()
    manifest = read_manifest(copy)
    assert manifest["shards"] == {"annotations": ["a"], "captions/x": [shards[1], shards[0]]}
    assert manifest["layers"]["captions-x"]["stages"][0]["stage"] == "civid_single"
    memory.rm("/bucket", recursive=True)


def test_commands(root: Path, videos: Path) -> None:
    def told(*arguments: str) -> str:
        ended = CliRunner().invoke(app, [*arguments, "--videos", str(videos)])
        return " ".join(ended.output.split()) if ended.exit_code == 0 else f"{ended.exit_code}: {ended.output}"

    echo = ["--backend", "echo", "--model", "e", "--num-proc", "0"]
    report = json.loads(told("caption", str(root), "--stage", "civid_single", *echo, "--json"))
    assert (report["layer"], report["usage"]["num_requests"]) == ("captions-civid-single", 5)
    assert report["captions"]["background"]["num_texts"] == 5
    shown = told("process", str(root), "--stage", "civid_single", *echo, "--layer", "captions-y")
    assert "0 questions (5 answered before)" in shown, "by the same model, for another layer"
    assert "captions-y: 6 clips" in shown
    assert "tokens in all" in told("caption", str(root), "--stage", "civid_single", *echo, "--dry-run")
    assert "who is to write? name a --backend" in told("caption", str(root), "--stage", "civid_single")
    assert "--base-url goes with --backend openai" in told(
        "caption", str(root), "--stage", "civid_single", "--backend", "openai", "--model", "m"
    )
    assert "2: " in told("caption", str(root), "--stage", 'civid_single:{"x"', *echo)
    assert "--only chooses among the stages of a --recipe" in told(
        "caption", str(root), "--stage", "civid_single", "--only", "civid_joint", *echo
    )
    shown = CliRunner().invoke(app, ["stages", "civid_single"]).output
    assert "caption camera_angle (from 'camera_angle' of the answer, asked for in at most 30 words)" in " ".join(
        shown.split()
    )
    assert "You describe one clip of a longer film" in shown
