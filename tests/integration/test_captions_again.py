"""Runs after runs: what was answered is not asked again, captions of one run are read by the next, errors are told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from civid_loader.cli import app, main
from civid_loader.errors import LayerError, StageError, VideoRootError
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.process_report import ProcessReport
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.stage_options import print_report
from civid_loader.storage import read_manifest, read_table
from support.built import clip, write_dataset
from support.media import write_video
from support.model_server import ALWAYS, MODEL, Asked, Fault, ModelServer, serve_model


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("civid_loader.processing.chunks.CHUNK_CLIPS", 2)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0 to 3: of half a second; one: a single frame; short: 0.18 s; long: 250 s of one frame each."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(4):
        write_video(folder / f"{i}.mp4", num_frames=12 + i, gop=5)
    write_video(folder / "one.mp4", num_frames=1)
    write_video(folder / "short.mp4", num_frames=9, fps=50)
    write_video(folder / "long.mp4", num_frames=250, fps=1)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return dataset(tmp_path / "set", "0", "1", "2", "3")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serve_model(keeps=True) as running:
        yield running


def dataset(root: Path, *names: str) -> Path:
    return write_dataset(root, {"train": [[clip(f"c{name}", f"{name}.mp4")] for name in names]})


def run(server: ModelServer, root: Path, videos: Path, *names: str, **more: Any) -> ProcessReport:
    spec = CaptionerSpec(backend="openai", model=MODEL, options={"base_url": server.base_url, "backoff_seconds": 0.01})
    stages = [StageSpec(name=name, params={}, weights={}) for name in names]
    usual = {"layer": "captions-x", "captioner": spec, "videos": videos, "quiet": True}
    return process(root, stages, **usual | more)  # type: ignore[arg-type] # as each test has them


def captions(root: Path, name: str = "captions/x") -> dict[str, list[dict[str, Any]]]:
    return {row["clip_id"]: row["captions"] for row in read_table(root, name).to_pylist()}


def test_a_few_clips_and_then_all(server: ModelServer, root: Path, videos: Path) -> None:
    run(server, root, videos, "civid_single", limit=2)
    assert len(server.sent) == 2
    report = run(server, root, videos, "civid_single")
    assert report.usage is not None
    assert (report.usage.num_requests, report.usage.num_known) == (2, 2)
    assert set(server.sent.values()) == {1}
    (kept,) = root.glob(".answers-*")
    assert kept.name.endswith(".sqlite"), "its journal is gone"
    assert kept.name not in json.dumps(read_manifest(root))


def test_an_answer_that_could_not_be_used_is_asked_for_again(
    server: ModelServer, root: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults += [Fault(kind="no_json"), Fault(kind="status", status=400, message="[/red] too long")]
    report = run(server, root, videos, "civid_single")
    assert report.reasons == {
        "civid_single: single: the answer is no JSON: Expecting value: line 1 column 1 (char 0)": 1,
        "civid_single: the server does not take the request: HTTP 400 [/red] too long": 1,
    }
    print_report(report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 clips lack values: civid_single: single: the answer is no JSON" in shown
    assert "[/red] too long" in shown, "nothing of it is taken for markup"
    again = run(server, root, videos, "civid_single", retry_errors=True)
    assert again.reasons == {}
    assert again.usage is not None
    assert (again.usage.num_requests, again.usage.num_known) == (2, 0)
    assert sum(server.sent.values()) == 6


def test_reasons_are_counted_by_what_they_say(server: ModelServer, root: Path, videos: Path) -> None:
    server.faults += [Fault(kind="status", status=422, message="no " * 90, times=3), Fault(kind="empty")]
    root = dataset(root.parent / "more", "0", "1", "2", "3", "gone")
    reasons = run(server, root, videos, "civid_single").reasons
    told = "civid_single: " + f"the server does not take the request: HTTP 422 {'no ' * 90}"[:100]
    empty = "civid_single: the answer is empty: no reason told"
    assert next(iter(reasons.items())) == (told, 3), "the commonest first"
    assert reasons == {told: 3, empty: 1, "VideoNotFoundError": 1}


def test_captions_of_an_earlier_run_are_read(server: ModelServer, root: Path, videos: Path) -> None:
    run(server, root, videos, "lvd2m_raw", layer="captions-raw")
    raw = {clip_id: one["text"] for clip_id, (one,) in captions(root, "captions/raw").items()}
    server.asked.clear()
    first = run(server, root, videos, "lvd2m_refine", captions_from="captions-raw")
    for asked in server.asked:
        (text,) = (part["text"] for part in asked.content)
        assert text.rpartition("\n")[2] in raw.values()
    assert {one["kind"] for found in captions(root).values() for one in found} == {"refined"}
    made = read_manifest(root)["layers"]["captions-x"]["made_by"]
    assert made["captions_from"]["layer"] == "captions-raw"
    assert run(server, root, videos, "lvd2m_refine", captions_from="captions-raw").num_chunks_run == 0
    server.describe = lambda asked: "other words"
    run(server, root, videos, "lvd2m_raw", layer="captions-raw", captioner=CaptionerSpec(backend="echo", model="e"))
    second = run(server, root, videos, "lvd2m_refine", captions_from="captions-raw")
    assert second.fingerprint != first.fingerprint
    assert second.num_chunks_run > 0
    checked = run(server, root, videos, "caption_check", layer="scores-c", captions_from="captions-x", captioner=None)
    assert checked.usage is None
    assert read_table(root, "scores/c").to_pylist()[0]["caption_kinds"] == ["refined"], "of both, counted once"
    with pytest.raises(LayerError, match="captions-x cannot be read and written by one run"):
        run(server, root, videos, "lvd2m_refine", captions_from="captions-x")
    with pytest.raises(LayerError, match="has no captions 'captions-y' to read; it has captions-raw, captions-x"):
        run(server, root, videos, "lvd2m_refine", captions_from="captions-y")


def test_windows_of_long_clips(server: ModelServer, root: Path, videos: Path) -> None:
    root = dataset(root.parent / "long", "long", "0")
    run(server, root, videos, "miradata_structured", "lvd2m_raw")
    found = captions(root)
    spans = {
        kind: [(one["start_seconds"], one["end_seconds"]) for one in found["clong"] if one["kind"] == kind]
        for kind in ("dense", "raw")
    }
    assert spans["dense"] == [(0.0, 120.0), (120.0, 240.0), (240.0, 250.0)]
    assert spans["raw"] == [(30.0 * i, min(30.0 * (i + 1), 250.0)) for i in range(9)]
    assert {(one["start_seconds"], one["end_seconds"]) for one in found["c0"]} == {(None, None)}
    dense = [one["text"] for one in found["clong"] if one["kind"] == "dense"]
    assert len(set(dense)) == 3, "each window has its own answer"


def test_one_frame_and_a_fifth_of_a_second(server: ModelServer, root: Path, videos: Path) -> None:
    root = dataset(root.parent / "short", "one", "short")
    names = ("civid_single", "miradata_structured", "lvd2m_raw", "moviebench_shot", "moviebench_scenes")
    report = run(server, root, videos, *names, "quality_judge")
    assert report.reasons == {}
    assert {len(found) for found in captions(root).values()} == {4 + 6 + 1 + 4 + 1}
    assert all(asked.pictures for asked in server.asked)
    assert any("Moments that you see: 1." in str(asked.content) for asked in server.asked)


def test_a_question_that_fails_does_not_cost_the_other(server: ModelServer, root: Path, videos: Path) -> None:
    def about_text(asked: Asked) -> bool:
        return "mostly writing" in str(asked.content)

    server.faults.append(Fault(kind="no_json", match=about_text, times=ALWAYS))
    run(server, root, videos, "quality_judge", layer="scores-x")
    for row in read_table(root, "scores/x").to_pylist():
        assert row["mllm_variation"] is not None
        assert row["mllm_diversity"] is None
        assert row["reason"] == (
            "quality_judge: quality_diversity: the answer is neither GOOD nor BAD, or more than one of them"
        )


def test_tokens_that_nobody_tells_are_not_none(server: ModelServer, root: Path, videos: Path) -> None:
    server.tells_usage = False
    report = run(server, root, videos, "civid_single")
    row = read_table(root, "scores/x").to_pylist()[0]
    assert row["civid_single_num_requests"] == 1
    assert row["civid_single_prompt_tokens"] is row["civid_single_completion_tokens"] is None
    assert report.usage is not None
    assert report.usage.prompt_tokens is report.usage.completion_tokens is None
    assert report.server_share is not None
    assert 0 < report.server_share <= 1


def invoke(*arguments: str) -> str:
    ended = CliRunner().invoke(app, arguments)
    return " ".join(ended.output.split()) if ended.exit_code == 0 else f"{ended.exit_code}: {ended.output}"


def test_commands(server: ModelServer, root: Path, videos: Path) -> None:
    asking = ["--backend", "openai", "--base-url", server.base_url, "--model", MODEL, "--videos", str(videos)]
    only = ["--only", "quality_judge", "--only", "scene_cuts"]
    told = json.loads(invoke("process", str(root), "--recipe", "lvd2m", *only, *asking, "--json"))
    assert told["layer"] == "scores-lvd2m"
    assert told["usage"]["num_requests"] == 8
    assert all(row["mllm_variation"] is not None for row in read_table(root, "scores/lvd2m").to_pylist())
    command = [str(root), "--recipe", "lvd2m", *asking, "--max-in-flight", "2", "--json"]
    captioned = json.loads(invoke("process", *command, "--captions"))
    assert captioned["layer"] == "captions-lvd2m"
    assert server.max_parallel <= 8
    assert json.loads(invoke("caption", *command))["num_chunks_run"] == 0, "the very same run"
    checking = ["process", str(root), "--stage", "caption_check", "--captions-from", "captions-lvd2m"]
    assert "clips" in invoke(*checking)
    row = read_table(root, "scores/caption-check").to_pylist()[0]
    assert row["caption_kinds"] == ["raw", "refined", "rewritten"], "of the new ones"
    shown = invoke("process", str(root), "--stage", "civid_single", *asking)
    assert "Of the requests that the model works on at one time, it had" in shown
    assert "0 questions (4 answered before)" not in shown
    assert "4 questions (0 answered before)" in shown
    echoed = invoke("caption", str(root), "--stage", "civid_single", "--backend", "echo", "--videos", str(videos))
    assert "captions-civid-single: 4 clips" in echoed
    assert "who is to write the captions" in invoke("process", str(root), "--recipe", "lvd2m", "--captions")
    assert "--captions chooses among" in invoke("process", str(root), "--stage", "colour", "--captions")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--stage", "civid_single"], VideoRootError, "pointer '0.mp4' is relative: pass the folder .*--videos"),
        (["--stage", "civid_single", "--videos", "/nowhere"], VideoRootError, "'/nowhere' is not a folder"),
        (["--stage", 'miradata_structured:{"pictures":"foo"}'], StageError, "pictures='foo': must be one of film"),
    ],
)
def test_what_is_wrong_is_a_message(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], kind: type[Exception], message: str
) -> None:
    command = ["caption", str(root), "--backend", "echo", *arguments]
    ended = CliRunner().invoke(app, command)
    assert isinstance(ended.exception, kind)
    with pytest.raises(kind, match=message):
        raise ended.exception
    assert not list(root.glob(".incomplete*")), "nothing was begun"
    monkeypatch.setattr("sys.argv", ["civid", *command])
    with pytest.raises(SystemExit):
        main()
