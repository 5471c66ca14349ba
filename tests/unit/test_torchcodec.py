"""The torchcodec backend gives the frames of the built-in one, where it is installed; else it says what to install."""

import sys
from pathlib import Path

import pytest
import torch

from civid_loader.decoding import Backend, read_frames
from civid_loader.errors import MissingDependencyError
from civid_loader.sampling import All, Fps, Middle, Sampler, Times, Uniform, Window
from support.structures import write_structure


def missing_reason() -> str | None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"torchcodec does not load: {str(error).splitlines()[0]}"
    return None


REASON = missing_reason()
needs_torchcodec = pytest.mark.skipif(REASON is not None, reason=REASON or "")
EQUAL = (
    "h264-b3", "h264-b8-open", "h264-pyramid", "h264-mkv-open", "h264-fragmented", "hevc", "hevc-open-mp4",
    "vp9-webm", "vp9-mp4", "vp9-odd", "vp8-webm", "av1-mp4", "mpeg4-avi", "vfr-mkv", "late-mp4",
    "discarded-first", "turned-90", "turned-180", "turned--90", "sound-mp4",
    "vfr-mp4",
)  # fmt: skip
BACKENDS: tuple[Backend, ...] = ("pyav", "torchcodec")
SAMPLERS: tuple[Sampler, ...] = (All(), Uniform(5), Fps(8.0), Window(4, start=0.6), Times((0.9, 0.0)))


@needs_torchcodec
@pytest.mark.parametrize("name", EQUAL)
def test_it_gives_the_same_frames(name: str, tmp_path: Path) -> None:
    path = write_structure(tmp_path, name)
    for sampler in SAMPLERS:
        for span in (None, (0.37, 0.96)):
            own = read_frames(path, sampler, span=span)
            other = read_frames(path, sampler, span=span, backend="torchcodec")
            assert torch.equal(own.pts_seconds, other.pts_seconds)
            assert torch.equal(own.frames_TCHW, other.frames_TCHW), (sampler, span)


@needs_torchcodec
@pytest.mark.parametrize("name", ["h264-10bit", "hevc-10bit"])
def test_ten_bits_are_the_same_frames_up_to_rounding(name: str, tmp_path: Path) -> None:
    path = write_structure(tmp_path, name)
    own, other = (read_frames(path, Uniform(7), backend=backend) for backend in BACKENDS)
    assert torch.equal(own.pts_seconds, other.pts_seconds)
    for one, same in zip(own.frames_TCHW.float(), other.frames_TCHW.float(), strict=True):
        error = ((one - same) ** 2).mean()
        others = [((one - frame) ** 2).mean() for frame in other.frames_TCHW.float()]
        assert error == min(others), "the same frame, not a neighbour"


def test_without_it_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_structure(tmp_path, "h264-b0")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(
        MissingDependencyError, match=r"pip install 'civid_loader\[torchcodec\]'.*apt-get install ffmpeg"
    ):
        read_frames(path, Middle(), backend="torchcodec")
    assert len(read_frames(path, Middle(), backend="auto").frames_TCHW) == 1
