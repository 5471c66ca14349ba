"""Films cut where the library cuts them, frame by frame and in bounded memory."""
# ruff: noqa: N806 - arrays carry their shape.

import math
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scenedetect import ContentDetector, detect

from civid_loader.errors import UnreadableVideoError
from civid_loader.processing.registry import make
from civid_loader.processing.segments.split import Image, Split, SplitParams, find_cuts, split_video
from civid_loader.processing.stage import ClipInput
from civid_loader.videos import open_video
from support.films import Take, pictures, write_film
from support.media import write_video
from support.stages_motion import decoded

TAKES = (
    Take(seed=1, num_frames=40),
    Take(seed=1, num_frames=30, brighter=30),  # a cut at 3, none at 26
    Take(seed=2, num_frames=50),
    Take(seed=3, num_frames=7),  # shorter than 15 frames
    Take(seed=4, num_frames=40),
)


@pytest.fixture(scope="module", params=[(144, 256), (288, 512), (320, 180)], ids=["small", "large", "upright"])
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    size: tuple[int, int] = request.param
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4", TAKES, size=size)


@pytest.mark.parametrize("threshold", [3.0, 26.0, 27.0])
def test_cuts_are_those_of_the_library(film: Path, threshold: float) -> None:
    expected = detect(str(film), ContentDetector(threshold=threshold), start_in_scene=True)
    spans = split_video(open_video(str(film), root=None), SplitParams(threshold=threshold))
    assert [(span.start_frame, span.end_frame) for span in spans] == [
        (start.frame_num, end.frame_num) for start, end in expected
    ]
    assert len(spans) == (4 if threshold == 3 else 3)


def test_both_ways_with_short_scenes() -> None:
    # Each frame differs from the one before: one cut where that begins, or one every 15 frames.
    frames = [np.full((48, 64, 3), 10 * (number % 2), np.uint8) for number in range(60)]
    frames = [frames[0]] * 30 + frames
    assert len(find_cuts(frames, SplitParams(threshold=3.0, short_scenes="merge"))) == 1
    assert find_cuts(frames, SplitParams(threshold=3.0, short_scenes="suppress")) == [31, 46, 61, 76]
    with pytest.raises(ValueError, match="must be one of merge, suppress"):
        SplitParams(short_scenes="drop")  # type: ignore[arg-type]


def test_spans_cover_the_film(film: Path) -> None:
    spans = split_video(open_video(str(film), root=None), SplitParams(threshold=3.0))
    assert spans[0].start_seconds == 0
    assert spans[-1].end_frame == sum(take.num_frames for take in TAKES)
    for one, after in pairwise(spans):
        assert (one.end_seconds, one.end_frame) == (after.start_seconds, after.start_frame)
    for span in spans:
        assert math.isclose(span.start_seconds, span.start_frame / 24, abs_tol=1e-6)
    assert math.isclose(sum(span.duration_seconds for span in spans), spans[-1].end_frame / 24, abs_tol=1e-6)


def test_threshold_is_inclusive_and_every_cut_counts() -> None:
    black, grey = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 150, np.uint8)
    frames = [black, black, grey, grey, black]
    assert find_cuts(frames, SplitParams(threshold=50.0, min_scene_len_frames=0)) == [2, 4]
    assert find_cuts(frames, SplitParams(threshold=50.001, min_scene_len_frames=0)) == []
    assert find_cuts([], SplitParams()) == find_cuts([black], SplitParams()) == []


def test_one_frame_is_held_at_a_time() -> None:
    given: list[weakref.ref[Image]] = []

    def frames() -> Iterator[Image]:
        for _ in range(60):
            assert sum(one() is not None for one in given) <= 1
            image = np.zeros((48, 64, 3), np.uint8)
            given.append(weakref.ref(image))
            yield image
            del image

    assert find_cuts(frames(), SplitParams()) == []


def test_stage_finds_what_the_film_has(film: Path) -> None:
    frames_THWC = np.stack([picture for take in TAKES for picture in pictures(take, (144, 256))])
    times = np.arange(len(frames_THWC)) / 24
    clip = ClipInput(
        id="a", frames={"frames": frames_THWC}, times_seconds={"frames": times}, fps=24.0, duration_seconds=7.0
    )
    stage = make("split", {"threshold": 3.0})
    assert isinstance(stage, Split)
    [row] = stage.run([clip])
    assert row == {"scene_count": 4, "scene_starts": [0.0, 40 / 24, 70 / 24, 120 / 24]}
    assert stage.requests()["frames"].size == (256, 256)


@pytest.mark.parametrize("size", [(72, 96), (144, 256), (288, 512)])
def test_stage_cuts_where_the_library_does(size: tuple[int, int], tmp_path: Path) -> None:
    """Pictures smaller than 256 px too: enlarged, a score at the threshold would fall to its other side."""
    rng = np.random.default_rng(1)
    stills = [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(2)]
    path = write_video(tmp_path / "a.mp4", num_frames=40, size=size, image=lambda i: stills[i // 20], gop=10)
    scores: list[float] = []
    for threshold in np.linspace(5, 60, 12):
        expected = detect(str(path), ContentDetector(threshold=threshold), start_in_scene=True)
        stage = make("split", {"threshold": float(threshold)})
        [row] = stage.run([decoded(path, stage)])
        assert row["scene_count"] == len(expected), threshold
        scores.append(row["scene_count"])
    assert set(scores) == {1, 2}, "some thresholds are above the score, some below"


def test_what_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "page.mp4"
    path.write_bytes(b"<html>not found</html>" * 50)
    with pytest.raises(UnreadableVideoError, match=r"page\.mp4"):
        split_video(open_video(str(path), root=None), SplitParams())
    with pytest.raises(ValueError, match="threshold"):
        SplitParams(threshold=0.0)
