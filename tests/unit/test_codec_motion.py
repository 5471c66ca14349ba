"""Motion vectors: planted motion is measured, and a video that has none says so."""
# ruff: noqa: N806 - arrays carry their shape.

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from civid_loader.processing.scores.codec_motion import CodecMotion, CodecMotionParams
from civid_loader.processing.stage import ClipInput
from civid_loader.videos import LocalSource, bytes_source
from support.media import write_video

Images = npt.NDArray[np.uint8]
SIZE = (128, 192)


def texture() -> Images:
    coarse = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def moving(step_px: int, *, columns: slice = slice(None), until: int = 1000) -> Callable[[int], Images]:
    """A picture of which these columns move down, as a ring, up to a frame."""

    def image(number: int) -> Images:
        image_HWC = texture()
        image_HWC[:, columns] = np.roll(image_HWC[:, columns], step_px * min(number, until), axis=0)
        return image_HWC

    return image


def row_of(path: Path, *, span: tuple[float, float] = (0.0, 2.0), **params: Any) -> dict[str, Any]:
    stage = CodecMotion(CodecMotionParams(**params))
    source = bytes_source(path.read_bytes(), name=path.name)
    clip = ClipInput(
        id="a", frames={}, times_seconds={}, fps=25, duration_seconds=span[1] - span[0], video=source, span_seconds=span
    )
    return stage.run([clip])[0]


def video(folder: Path, image: Callable[[int], Images], **settings: Any) -> Path:
    # With a search of the encoder that is wide enough to find the motion there is.
    x264 = {"preset": "medium", "x264-params": "keyint=12:bframes=0:scenecut=0:ref=1"}
    settings = {"encoder": x264, "size": SIZE, "num_frames": 50, "image": image, **settings}
    return write_video(folder / "a.mp4", **settings)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("step_px", [2, 5])
def test_planted_motion_is_measured(tmp_path: Path, codec: str, step_px: int) -> None:
    settings: dict[str, Any] = {} if codec == "libx264" else {"codec": codec, "encoder": {}}
    row = row_of(video(tmp_path, moving(step_px), **settings))
    assert row["codec_motion_mean"] == pytest.approx(step_px / sum(SIZE), rel=0.15)


def test_a_still_video_has_none(tmp_path: Path) -> None:
    assert row_of(video(tmp_path, moving(0))) == {"codec_motion_mean": 0.0, "codec_motion_patch_min": 0.0}


def test_a_patch_that_stands_still_is_found(tmp_path: Path) -> None:
    """The right third moves: of patches of 64 px, the two on the left do not."""
    path = video(tmp_path, moving(4, columns=slice(128, None)))
    row = row_of(path, patch_px=64)
    assert row["codec_motion_mean"] == pytest.approx(4 / sum(SIZE) / 3, rel=0.2)
    assert row["codec_motion_patch_min"] < 1e-4
    one = row_of(path, patch_px=1000)
    assert one["codec_motion_patch_min"] == one["codec_motion_mean"]


def test_only_the_share_of_the_span_is_looked_at(tmp_path: Path) -> None:
    """4 s; it stands still from 1 s on."""
    path = video(tmp_path, moving(4, until=25), num_frames=100)
    moves, still = 4 / sum(SIZE), 0.0
    assert row_of(path, span=(0.0, 2.0))["codec_motion_mean"] == pytest.approx(moves, rel=0.2)
    assert row_of(path, span=(0.0, 4.0), share=1.0)["codec_motion_mean"] < moves / 2
    assert row_of(path, span=(2.0, 4.0))["codec_motion_mean"] == still
    assert row_of(path, span=(0.4, 1.0))["codec_motion_mean"] == pytest.approx(moves, rel=0.2)


@pytest.mark.parametrize(
    "settings",
    [
        {"codec": "libvpx-vp9", "encoder": {"cpu-used": "8", "deadline": "realtime"}},
        {"encoder": {"preset": "ultrafast", "x264-params": "keyint=1"}},
        {"num_frames": 1},
    ],
    ids=["no such codec", "keyframes only", "one frame"],
)
def test_without_vectors_there_is_no_value(tmp_path: Path, settings: dict[str, Any]) -> None:
    row = row_of(video(tmp_path, moving(3), **settings))
    assert row == {"not_computable": "no motion vectors: its codec tells none, or every frame is coded by itself"}


def test_a_file_that_is_no_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    assert "the file cannot be read as a video" in row_of(tmp_path / "a.mp4")["reason"]


def test_a_file_that_is_gone_says_so_but_not_where_it_was(tmp_path: Path) -> None:
    source = LocalSource(str(tmp_path / "secret.mp4"))
    clip = ClipInput(id="a", frames={}, times_seconds={}, fps=25, duration_seconds=1, video=source)
    reason = CodecMotion(CodecMotionParams()).run([clip])[0]["reason"]
    assert "VideoNotFoundError" in reason
    assert "secret" not in reason


def test_without_a_file_it_says_so() -> None:
    clip = ClipInput(id="a", frames={}, times_seconds={}, fps=25, duration_seconds=1)
    assert "no video file" in CodecMotion(CodecMotionParams()).run([clip])[0]["reason"]


@pytest.mark.parametrize("params", [{"fps": 0.0}, {"share": 0.0}, {"share": 1.5}, {"patch_px": 0}])
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="share above 0"):
        CodecMotionParams(**params)
