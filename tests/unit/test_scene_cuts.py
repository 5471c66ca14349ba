"""Cuts: planted ones are found, and they are those of PySceneDetect's own reading of the file."""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scenedetect import ContentDetector, FrameTimecode, SceneManager, open_video
from scenedetect.scene_manager import compute_downscale_factor

from civid_loader.processing.resizing import ResizeTo
from civid_loader.processing.scores import scene_cuts
from civid_loader.processing.scores.scene_cuts import SceneCuts, SceneCutsParams
from support.media import colourful_image, write_video
from support.stages import clip_of, decoded_clip

Images = npt.NDArray[np.uint8]
FPS: Final = 25
EVERY: Final[dict[str, Any]] = {"fps": None}


def cuts_of(images_NHWC: Images, *, file_fps: float = FPS, **params: Any) -> dict[str, Any]:
    stage = SceneCuts(SceneCutsParams(**params))
    return stage.run([clip_of(images_NHWC, stage.requests(), fps=file_fps)])[0]


def flat(*greys: int, size: tuple[int, int] = (18, 32)) -> Images:
    return np.stack([np.full((*size, 3), grey, np.uint8) for grey in greys])


def shots(*starts: int, size: tuple[int, int]) -> Callable[[int], Images]:
    """A picture that moves a little, and is another one from each of `starts` on."""

    def image(number: int) -> Images:
        shot = sum(number >= start for start in starts)
        moved = colourful_image(7 * shot, size=size)
        # Slow motion within a shot, a mirrored and inverted picture after every other cut.
        moved = np.roll(moved, number, axis=1)
        return np.ascontiguousarray(255 - moved[:, ::-1] if shot % 2 else moved)

    return image


class Listening(ContentDetector):  # type: ignore[misc]
    """Remembers the scores that it judges."""

    heard: ClassVar[list[float]] = []

    def process_frame(self, timecode: FrameTimecode, frame_img: Images) -> list[FrameTimecode]:
        cuts: list[FrameTimecode] = super().process_frame(timecode, frame_img)
        self.heard.append(self._frame_score)
        return cuts


def of_the_file(path: Path, *, threshold: float, min_scene_len: int, frame_skip: int) -> tuple[list[int], list[float]]:
    """(frames that begin a shot, scores) as the library finds them, reading the file itself."""
    manager = SceneManager()
    manager.add_detector(Listening(threshold=threshold, min_scene_len=min_scene_len))
    Listening.heard.clear()
    manager.detect_scenes(open_video(str(path), backend="pyav", suppress_output=True), frame_skip=frame_skip)
    return [start.frame_num for start, _ in manager.get_scene_list()][1:], list(Listening.heard)


@pytest.mark.parametrize(
    ("size", "fps", "threshold", "min_frames"),
    [
        ((180, 320), None, 26.0, 0),
        ((180, 320), None, 26.0, 15),
        ((180, 320), None, 50.0, 0),
        ((320, 180), None, 26.0, 4),
        ((202, 358), 5.0, 26.0, 0),
        ((48, 64), None, 3.0, 0),
        ((48, 64), 0.5, 50.0, 0),
    ],
)
def test_they_are_those_of_the_library_reading_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    fps: float | None,
    threshold: float,
    min_frames: int,
) -> None:
    """From the mp4 through our decoder: the same cuts, and every score to the last bit."""
    slow = fps == 0.5
    num_frames, starts = (260, (30, 110, 170)) if slow else (50, (7, 20, 23, 41))
    path = write_video(tmp_path / "a.mp4", num_frames=num_frames, fps=FPS, size=size, image=shots(*starts, size=size))
    skip = 0 if fps is None else round(FPS / fps) - 1
    expected, scores = of_the_file(path, threshold=threshold, min_scene_len=min_frames, frame_skip=skip)
    assert len(set(scores)) > 4

    monkeypatch.setattr(scene_cuts, "ContentDetector", Listening)
    Listening.heard.clear()
    stage = SceneCuts(SceneCutsParams(fps=fps, threshold=threshold, min_scene_len_frames=min_frames))
    row = stage.run([decoded_clip(path, stage.requests(), fps=FPS, duration_seconds=num_frames / FPS)])[0]
    assert [round(seconds * FPS) for seconds in row["cut_times"]] == expected
    assert row["cut_count"] == len(expected) > 0
    assert Listening.heard == scores
    assert row["cut_max"] == max(scores)


@pytest.mark.parametrize("height", [1080, 1081, 719, 333, 270])
@pytest.mark.parametrize("width", [256, 257, 640, 1000, 1366, 1920, 4096])
def test_pictures_are_as_small_as_the_library_makes_them(height: int, width: int) -> None:
    resize = ResizeTo.of(SceneCuts(SceneCutsParams()).requests()["frames"])
    factor = compute_downscale_factor(max(height, width))
    small = resize(torch.zeros((3, height, width), dtype=torch.uint8))
    assert tuple(small.shape[1:]) == (round(height / factor), round(width / factor))


def test_small_pictures_stay_as_they_are() -> None:
    image = torch.zeros((3, 90, 160), dtype=torch.uint8)
    assert ResizeTo.of(SceneCuts(SceneCutsParams()).requests()["frames"])(image) is image


def test_a_still_clip_has_none() -> None:
    assert cuts_of(flat(*[77] * 9), **EVERY) == {"cut_max": 0.0, "cut_count": 0, "cut_times": []}


def test_the_threshold_itself_cuts() -> None:
    """Black to grey 150 changes the value alone, by 150: a third of it."""
    assert cuts_of(flat(0, 150), **EVERY, threshold=50.0) == {"cut_max": 50.0, "cut_count": 1, "cut_times": [0.04]}
    assert cuts_of(flat(0, 150), **EVERY, threshold=50.01)["cut_count"] == 0


def test_backwards_the_score_is_the_same() -> None:
    images_NHWC = np.random.default_rng(0).integers(0, 256, (2, 18, 32, 3), np.uint8)
    assert cuts_of(images_NHWC, **EVERY)["cut_max"] == cuts_of(images_NHWC[::-1], **EVERY)["cut_max"]


def test_saturated_colours_may_hide_a_cut() -> None:
    """From red to blue only the hue changes, by 120; a limit of the measure."""
    images_NHWC = flat(0, 0)
    images_NHWC[0, ..., 0] = images_NHWC[1, ..., 2] = 255
    assert cuts_of(images_NHWC, **EVERY) == {"cut_max": 40.0, "cut_count": 0, "cut_times": []}


@pytest.mark.parametrize("num_cuts", range(4))
def test_planted_cuts_are_counted(num_cuts: int) -> None:
    greys = [200 * (shot % 2) for shot in range(num_cuts + 1) for _ in range(5)]
    row = cuts_of(flat(*greys), **EVERY)
    assert row["cut_times"] == pytest.approx([5 * k / FPS for k in range(1, num_cuts + 1)])
    assert row["cut_count"] == num_cuts


def test_shots_that_are_too_short_are_merged() -> None:
    greys = [0] * 9 + [200] * 2 + [0] * 9
    assert cuts_of(flat(*greys), **EVERY)["cut_count"] == 2
    assert cuts_of(flat(*greys), **EVERY, min_scene_len_frames=6)["cut_count"] == 1


def test_a_short_tail_is_seen_where_asked_for() -> None:
    """5 s at 0.5 fps: 0, 2 and 4 s; the cut is at 4.5 s."""
    images_NHWC = flat(*[0] * 9, 255)
    assert cuts_of(images_NHWC, file_fps=2)["cut_count"] == 0
    assert cuts_of(images_NHWC, file_fps=2, include_last=True)["cut_times"] == [4.5]


def test_a_single_frame_cannot_be_judged() -> None:
    assert cuts_of(flat(5)) == {"not_computable": "one frame is looked at; a cut is between two"}


@pytest.mark.parametrize("params", [{"min_scene_len_frames": -1}, {"fps": None, "include_last": True}])
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(params))):
        SceneCutsParams(**params)
