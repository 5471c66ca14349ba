"""The renderer of the made-up release: what comes out is what was asked for, frame for frame."""

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from civid_loader.demo.render import Shot, VideoFile, draw_shot, render_video
from civid_loader.demo.scene import Backdrop, Camera, Motion, Scene, make_scenes, make_sequence

SIZE = (90, 160)


def scenes(count: int = 3) -> list[Scene]:
    return make_scenes(np.random.default_rng(7), count=count)


@pytest.mark.parametrize(
    ("suffix", "codec", "audio"), [("mp4", "h264", "aac"), ("avi", "h264", "mp3"), ("avi", "mpeg4", "mp3")]
)
def test_frames_rate_cuts_and_sound(tmp_path: Path, suffix: str, codec: str, audio: str) -> None:
    path = tmp_path / f"made up.{suffix}"
    shots = [Shot(scene=scene, duration_seconds=0.5) for scene in scenes()]
    assert codec in ("h264", "mpeg4")
    file = VideoFile(path=path, shots=tuple(shots), size=SIZE, fps=Fraction(30000, 1001), codec=codec)  # type: ignore[arg-type]
    file.write()
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, sound.codec_context.name.removesuffix("float")) == (codec, audio)
        assert (video.height, video.width) == SIZE
        assert video.average_rate == Fraction(30000, 1001)
        frames = list(container.decode(video))
    assert len(frames) == 45
    assert [index for index, frame in enumerate(frames) if frame.key_frame and index % 15 == 0] == [0, 15, 30]
    steps = np.diff([float(frame.time or 0) for frame in frames])
    assert np.allclose(steps, 1001 / 30000, atol=1e-4)


def test_a_shot_shorter_than_a_frame_has_one(tmp_path: Path) -> None:
    shot = Shot(scene=scenes()[0], duration_seconds=0.01)
    assert render_video(tmp_path / "x.mp4", [shot], size=SIZE, sound=False) == 1


def test_cuts_are_hard_and_shots_move() -> None:
    first, second = (
        np.stack([np.asarray(frame, dtype=np.int16) for frame in draw_shot(shot, size=SIZE, fps=Fraction(8))])
        for shot in (Shot(scene=scene, duration_seconds=1) for scene in scenes(2))
    )
    within = np.abs(np.diff(first, axis=0)).mean(axis=(1, 2, 3))
    assert within.min() > 0
    assert np.abs(second[0] - first[-1]).mean() > 2 * within.max()


def test_same_scene_same_bytes(tmp_path: Path) -> None:
    shots = [Shot(scene=scenes()[0], duration_seconds=0.5)]
    for number in range(6):
        render_video(tmp_path / f"{number}.mp4", shots, size=SIZE)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("camera", get_args(Camera))
def test_every_camera_motion_and_backdrop_draws(camera: Camera) -> None:
    for motion, backdrop in zip(get_args(Motion), 2 * get_args(Backdrop), strict=False):
        scene = scenes(1)[0]
        lead = replace(scene.actors[0], motion=motion)
        scene = replace(scene, actors=(lead,), camera=camera, backdrop=backdrop, label="A 1")
        frames = list(draw_shot(Shot(scene=scene, duration_seconds=0.2), size=(48, 64), fps=Fraction(10)))
        assert [frame.size for frame in frames] == [(64, 48)] * 2


def test_no_shots_is_a_file_of_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "failed.mp4"
    VideoFile(path=path, shots=()).write()
    assert path.stat().st_size == 0


@pytest.mark.parametrize(
    ("name", "size", "message"), [("x.mkv", SIZE, "suffix"), ("x.mp4", (91, 160), "even"), ("x.mp4", None, "one shot")]
)
def test_refuses(tmp_path: Path, name: str, size: tuple[int, int] | None, message: str) -> None:
    shots = [Shot(scene=scenes()[0], duration_seconds=1)] if size else []
    with pytest.raises(ValueError, match=message):
        render_video(tmp_path / name, shots, size=size or SIZE)


def test_scenes_differ_and_sequences_keep_their_lead() -> None:
    looks = {(scene.backdrop, scene.mood) for scene in scenes(8)}
    assert len({backdrop for backdrop, _ in looks}) == 8
    assert len({mood for _, mood in looks}) == 8
    sequence = make_sequence(np.random.default_rng(0), scenes(1)[0], count=5)
    assert len({(scene.actors[0].shape, scene.actors[0].colour) for scene in sequence}) == 1
    assert all(first.camera != second.camera for first, second in itertools.pairwise(sequence))
