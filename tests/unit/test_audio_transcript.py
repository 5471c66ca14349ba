"""What is said: sound of the right span, lines on the clip's own time, and what is told where there is none.

Legend: S samples.
"""
# ruff: noqa: N806 - arrays carry their shape.

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from civid_loader.errors import ModelError, UnreadableVideoError
from civid_loader.processing.captions.audio_transcript import AudioTranscript, AudioTranscriptParams
from civid_loader.processing.run import process
from civid_loader.processing.stage import ClipInput
from civid_loader.processing.work import StageSpec
from civid_loader.sound import read_sound
from civid_loader.storage import read_table
from civid_loader.videos import bytes_source
from support.built import clip, write_dataset
from support.media import SAMPLE_RATE_HZ, write_video
from support.stages_sound import make_audio_transcript
from support.tiny_models import as_weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AudioTranscript]:
    made = make_audio_transcript(tmp_path_factory.mktemp("whisper"))
    made.setup(device="cpu")
    yield made
    made.teardown()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`loud.mp4` and `late.mkv`, which begins at 5 s, have four seconds of noise; `silent.mp4` has no sound."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "loud.mp4", num_frames=100, sound=True)
    write_video(folder / "late.mkv", num_frames=100, sound=True, start_seconds=5.0)
    write_video(folder / "silent.mp4", num_frames=50)
    return folder


def a_clip(path: Path, *, span: tuple[float, float] = (0.0, 4.0)) -> ClipInput:
    return ClipInput(
        id="a",
        frames={},
        times_seconds={},
        fps=25.0,
        duration_seconds=span[1] - span[0],
        video=bytes_source(path.read_bytes(), name=f"secret/{path.name}"),
        span_seconds=span,
    )


def noise(second: int) -> Any:
    """As `write_video` puts it into a file."""
    return np.random.default_rng(second).normal(0, 0.1, (1, SAMPLE_RATE_HZ)).astype(np.float32)[0]


@pytest.mark.parametrize("second", [0, 1, 3])
def test_the_sound_is_that_of_the_span(videos: Path, second: int) -> None:
    source = bytes_source((videos / "loud.mp4").read_bytes())
    found_S = read_sound(source, rate_hz=SAMPLE_RATE_HZ, start_seconds=second, duration_seconds=1.0)
    assert found_S is not None
    assert found_S.dtype == np.float32
    assert found_S.shape == (SAMPLE_RATE_HZ,)
    middle = slice(2000, 14000)  # the codec smears the rest over its neighbours
    alike = [float(np.corrcoef(found_S[middle], noise(other)[middle])[0, 1]) for other in range(4)]
    assert int(np.argmax(alike)) == second
    assert alike[second] > 0.5


def test_another_rate_and_a_span_beyond_the_end(videos: Path) -> None:
    source = bytes_source((videos / "loud.mp4").read_bytes())
    found_S = read_sound(source, rate_hz=8000, start_seconds=3.0, duration_seconds=2.0)
    assert found_S is not None
    assert found_S.shape == (16_000,)
    assert np.abs(found_S[1000:7000]).mean() > 0.01
    assert not found_S[9000:].any(), "silence where there is none"


def test_a_video_without_sound(videos: Path, stage: AudioTranscript) -> None:
    source = bytes_source((videos / "silent.mp4").read_bytes())
    assert read_sound(source, rate_hz=SAMPLE_RATE_HZ, start_seconds=0.0, duration_seconds=1.0) is None
    assert stage.run([a_clip(videos / "silent.mp4")]) == [{"not_computable": "the file has no sound"}]
    with pytest.raises(UnreadableVideoError, match="its sound cannot be read"):
        read_sound(bytes_source(b"no video" * 99), rate_hz=SAMPLE_RATE_HZ, start_seconds=0.0, duration_seconds=1.0)
    assert stage.run([replace(a_clip(videos / "loud.mp4"), video=None)])[0]["reason"].startswith("there is no video")


@pytest.mark.parametrize("span", [(0.0, 4.0), (1.0, 2.5)])
def test_lines_are_subtitles_within_the_clip(videos: Path, stage: AudioTranscript, span: tuple[float, float]) -> None:
    (row,) = stage.run([a_clip(videos / "loud.mp4", span=span)])
    assert row["speech_lines"] == len(row["captions"]) > 0
    assert row["speech_language"] in ("en", "de")
    for line in row["captions"]:
        assert line["kind"] == "subtitle"
        assert line["text"].strip() == line["text"] != ""
        assert 0 <= line["start_seconds"] < line["end_seconds"] <= span[1] - span[0]
        assert line["annotator"] == f"civid_loader:audio_transcript@{stage.fingerprint()}"
    assert row["speech_seconds"] == pytest.approx(
        sum(line["end_seconds"] - line["start_seconds"] for line in row["captions"])
    )


def test_where_nobody_speaks(videos: Path, stage: AudioTranscript) -> None:
    """Noise is no voice."""
    listening = AudioTranscript(AudioTranscriptParams(), weights=stage.weights)
    listening.setup(device="cpu")
    (row,) = listening.run([a_clip(videos / "loud.mp4")])
    assert row == {
        "captions": [],
        "speech_language": None,
        "speech_language_probability": None,
        "speech_lines": 0,
        "speech_seconds": 0.0,
    }


def test_a_layer_of_subtitles(videos: Path, stage: AudioTranscript, tmp_path: Path) -> None:
    clips = [clip("one", "loud.mp4", span=(0.0, 2.0)), clip("two", "silent.mp4"), clip("three", "gone.mp4")]
    root = write_dataset(tmp_path / "set", {"train": [[one] for one in clips]})
    spec = StageSpec(name="audio_transcript", params={"skips_silence": False, "beam_size": 1}, weights=stage.weights)
    process(root, [spec], layer="captions-said", videos=videos, num_proc=0, quiet=True)
    said = {row["clip_id"]: row["captions"] for row in read_table(root, "captions/said").to_pylist()}
    told = {row["clip_id"]: row for row in read_table(root, "scores/said").to_pylist()}
    assert [line["kind"] for line in said["one"]] == ["subtitle"] * told["one"]["speech_lines"] != []
    assert said["two"] == said["three"] == []
    assert told["two"]["reason"] == "not computable: audio_transcript: the file has no sound"
    assert told["three"]["reason"].startswith("VideoNotFoundError")


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.bin"])
def test_weights_that_are_none(stage: AudioTranscript, tmp_path: Path, missing: str) -> None:
    for path in stage.weights["whisper"].path.iterdir():
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = AudioTranscript(AudioTranscriptParams(), weights={"whisper": as_weights(tmp_path)})
    with pytest.raises(ModelError, match=r"\(whisper\): .* --model whisper=PATH"):
        broken.setup(device="cpu")
