import io
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from civid_loader.decoding import Frames, read_frames
from civid_loader.errors import NoVideoStreamError, UnreadableVideoError, VideoNotFoundError
from civid_loader.sampling import ClipTimes, Fps, Middle, Times, Uniform
from support.media import number_image, read_number, read_numbers, write_sound, write_video

FPS = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    """100 frames, 4 s, a keyframe every 12."""
    return write_video(folder / "video.mp4", num_frames=100, num_b_frames=2)


def numbers(frames: Frames) -> list[int]:
    return read_numbers(frames.frames_TCHW)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mov"])
@pytest.mark.parametrize("open_gop", [False, True])
def test_every_frame_is_found_from_every_side(folder: Path, suffix: str, open_gop: bool) -> None:
    """Leading pictures of open GOPs, and containers that seek by decoding time, need an earlier start."""
    path = write_video(folder / f"{open_gop}.{suffix}", num_frames=60, num_b_frames=3, open_gop=open_gop)
    for k in range(60):
        # The middle of the frame: Matroska rounds its edges to milliseconds.
        found = read_frames(path, Times(((k + 0.5) / FPS,)))
        assert numbers(found) == [k]
        assert float(found.pts_seconds[0]) == pytest.approx(k / FPS, abs=1e-3)
    assert numbers(read_frames(path, Fps(FPS))) == list(range(60))
    assert numbers(read_frames(path, Times((0.0, 99.0)), span=(2.2, 99.0))) == [55, 59]


def test_mpeg4_in_avi(folder: Path) -> None:
    path = write_video(folder / "mpeg4.avi", num_frames=30, codec="mpeg4")
    assert numbers(read_frames(path, Uniform(30))) == list(range(30))


def test_uniform_and_middle_and_repeated_frames(video: Path) -> None:
    assert numbers(read_frames(video, Uniform(8))) == [6, 18, 31, 43, 56, 68, 81, 93]
    assert numbers(read_frames(video, Middle())) == [50]
    assert numbers(read_frames(video, Uniform(6), span=(0.0, 0.08))) == [0, 0, 0, 1, 1, 1], "fewer than asked for"


def test_times_in_any_order_and_past_the_end(video: Path) -> None:
    found = read_frames(video, Times((3.0, 0.0, 9.0, 3.0)))
    assert numbers(found) == [75, 0, 99, 75]
    assert found.pts_seconds.tolist() == pytest.approx([3.0, 0.0, 3.96, 3.0])
    assert found.pts_seconds.dtype == torch.float64
    assert numbers(read_frames(video, Times((9.0,)), span=(0.0, 0.96))) == [23], "the span ends before the keyframe 24"


def test_variable_frame_rate(folder: Path) -> None:
    """The frame at t is the one on screen, never number t x fps; the duration is that of the last frame's end."""
    pts_seconds = [0.0, 0.1, 0.15, 1.0, 2.5, 2.54]
    path = write_video(folder / "vfr.mp4", pts_seconds=pts_seconds)
    found = read_frames(path, Times((0.0, 0.099, 0.1, 0.5, 0.9999999, 1.0, 2.4, 2.53, 2.55)))
    assert numbers(found) == [0, 0, 1, 2, 3, 3, 3, 4, 5], "0.9999999 is within 1e-6 of 1"
    assert found.pts_seconds.tolist() == pytest.approx([pts_seconds[k] for k in numbers(found)])
    assert numbers(read_frames(path, Middle())) == [3]


def test_times_count_from_the_first_frame(folder: Path) -> None:
    for suffix in ("mp4", "ts", "mkv"):
        path = write_video(folder / f"late.{suffix}", start_seconds=5.0, num_b_frames=2)
        found = read_frames(path, Times((0.0, 0.5)), span=(0.2, 1.0))
        assert numbers(found) == [5, 17]
        assert found.pts_seconds.tolist() == pytest.approx([0.0, 0.48])


def test_frames_outside_an_edit_list_are_not_shown(folder: Path) -> None:
    """Written from -0.32 s on: the header hides the first 8 frames, which are needed to decode the rest."""
    path = write_video(folder / "edited.mp4", start_seconds=-0.32, num_b_frames=2)
    assert numbers(read_frames(path, Fps(FPS))) == list(range(8, 30))
    assert numbers(read_frames(path, Middle(), span=(0.4, 0.8))) == [23]
    data = bytearray(path.read_bytes())
    duration_at = data.index(b"elst") + 12  # in milliseconds, behind version, flags and number of edits
    assert int.from_bytes(data[duration_at : duration_at + 4], "big") == 880
    data[duration_at : duration_at + 4] = (400).to_bytes(4, "big")
    assert numbers(read_frames(bytes(data), Fps(FPS))) == list(range(8, 18)), "nor those after it"


@pytest.mark.parametrize("cut", [0.96, 1.0, 1.01, 1.9999999, 2.0000001, 0.333])
def test_spans_are_half_open_and_never_share_a_frame(video: Path, cut: float) -> None:
    every = Times(tuple(i / (4 * FPS) for i in range(12 * FPS)))
    before = read_frames(video, every, span=(0.0, cut))
    after = read_frames(video, every, span=(cut, 3.0))
    assert sorted({*numbers(before), *numbers(after)}) == list(range(75))
    assert numbers(before)[-1] + 1 == numbers(after)[0] == math.ceil(cut * FPS - 1e-4)
    assert float(before.pts_seconds[-1]) < cut
    assert float(after.pts_seconds[0]) >= -1e-6


def test_what_the_sampler_is_told(video: Path) -> None:
    class Asked(list[tuple[float, float]]):
        def times_seconds(self, clip: ClipTimes) -> list[float]:
            self.append((clip.duration_seconds, clip.fps))
            return [0.0]

    asked = Asked()
    for span in (None, (1.0, None), (1.0, 2.5), (3.0, 3.97), (3.0, 5.0)):
        read_frames(video, asked, span=span)
    assert [duration for duration, _ in asked] == pytest.approx([4.0, 3.0, 1.5, 0.97, 1.0])
    assert [fps for _, fps in asked] == pytest.approx([FPS] * 5)


def test_span_to_the_end_and_beyond_it(video: Path) -> None:
    assert numbers(read_frames(video, Uniform(2), span=(3.0, None))) == [81, 93]
    assert numbers(read_frames(video, Uniform(2), span=(3.0, 99.0))) == [81, 93], "the duration there is"
    assert numbers(read_frames(video, Uniform(2), span=(3.0, 3.2))) == [76, 78]


def test_a_span_in_which_no_frame_begins_gives_the_one_on_screen(video: Path) -> None:
    for end_seconds in (2.03, 2.04):  # frame 51 begins at 2.04
        found = read_frames(video, Uniform(2), span=(2.01, end_seconds))
        assert numbers(found) == [50, 50]
        assert found.pts_seconds.tolist() == pytest.approx([-0.01, -0.01])


@pytest.mark.parametrize("span", [(4.0, 5.0), (4.0, None), (60.0, 61.0)])
def test_a_span_after_the_end_is_an_error(video: Path, span: tuple[float, float | None]) -> None:
    with pytest.raises(UnreadableVideoError, match=rf"video\.mp4: the span starts at {span[0]} s, .* ends at 4\.0 s"):
        read_frames(video, Middle(), span=span)


@pytest.mark.parametrize(
    "span", [(-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (math.inf, None)]
)
def test_what_is_no_span_or_size_is_refused(video: Path, span: tuple[float, float | None]) -> None:
    with pytest.raises(ValueError, match="0 <= start < end"):
        read_frames(video, Middle(), span=span)
    with pytest.raises(ValueError, match=r"size=\(0, 8\): a size is \(height, width\)"):
        read_frames(video, Middle(), size=(0, 8))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_frames_are_turned_as_displayed(folder: Path, degrees: int) -> None:
    path = write_video(folder / f"turned{degrees}.mp4", rotation_degrees=degrees)
    frame = read_frames(path, Times((0.44,))).frames_TCHW[0]
    assert frame.shape == ((3, 48, 64) if degrees == 180 else (3, 64, 48))
    assert read_number(torch.rot90(frame, -degrees // 90, dims=(1, 2))) == 11


def stripes(_: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """80x120 px: columns 0-39 dark, 40-79 light, 80-119 dark."""
    image = np.full((80, 120, 3), 16, np.uint8)
    image[:, 40:80] = 235
    return image


def test_size_covers_then_crops_the_centre(folder: Path) -> None:
    path = write_video(folder / "stripes.mp4", size=(80, 120), image=stripes, num_frames=2)
    for size in ((40, 20), (20, 10), (160, 80), (39, 19)):
        light = read_frames(path, Middle(), size=size).frames_TCHW
        assert light.shape == (1, 3, *size)
        assert light.dtype == torch.uint8
        assert light.is_contiguous()
        assert int(light[..., 2:-2].min()) > 200, "the light third, in its proportion"
    wide = read_frames(path, Middle(), size=(20, 120)).frames_TCHW[0, 0].float()
    assert wide[:, 45:75].mean() > 200
    assert wide[:, :35].mean() < 50
    native = read_frames(path, Middle()).frames_TCHW
    assert native.shape == (1, 3, 80, 120)
    assert native.is_contiguous()


def test_shrinking_is_antialiased(folder: Path) -> None:
    """Lines of one pixel become an even grey; without antialiasing every third would be picked."""

    def lines(_: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        image = np.full((96, 96, 3), 16, np.uint8)
        image[:, ::2] = 235
        return image

    path = write_video(folder / "lines.mp4", size=(96, 96), image=lines, num_frames=1)
    small = read_frames(path, Middle(), size=(32, 32)).frames_TCHW[..., 2:-2].float()
    assert float(small.std()) < 20
    assert 90 < float(small.mean()) < 160


def test_all_ways_to_name_a_video_give_the_same(video: Path) -> None:
    found = read_frames(video, Uniform(4)).frames_TCHW
    with open(video, "rb") as file:
        file.seek(1000)
        for _ in range(2):
            assert torch.equal(read_frames(file, Uniform(4)).frames_TCHW, found)
        assert not file.closed
    for same in (str(video), video.read_bytes()):
        assert torch.equal(read_frames(same, Uniform(4)).frames_TCHW, found)
    assert torch.equal(read_frames(video, Uniform(4), threads=2).frames_TCHW, found)


def test_a_short_span_reads_a_small_part_of_a_long_file(folder: Path) -> None:
    class Counting(io.FileIO):
        num_read = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(-1 if size is None else size) or b""
            self.num_read += len(data)
            return data

    def noise(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        image = np.random.default_rng(number).integers(0, 255, (64, 96, 3), np.uint8)
        image[:12] = number_image(number, size=(64, 96))[:12]
        return image

    path = write_video(folder / "long.mp4", num_frames=200, size=(64, 96), gop=10, image=noise)
    with Counting(str(path), "rb") as file:
        found = read_frames(file, Uniform(2), span=(6.0, 6.4))
        assert numbers(found) == [152, 157]
        assert file.num_read < path.stat().st_size / 3


def test_the_best_of_several_video_streams(folder: Path) -> None:
    """A file can hold a preview before the film."""
    path = folder / "two.mp4"
    with av.open(str(path), "w") as container:
        sizes = ((24, 32), (96, 128))
        streams = [container.add_stream("libx264", rate=FPS) for _ in sizes]
        for stream, size in zip(streams, sizes, strict=True):
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            stream.disposition = Disposition.default
        for stream, size in zip(streams, sizes, strict=True):
            for i in range(25):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(number_image(i, size=size), format="rgb24")))
            container.mux(stream.encode())
    found = read_frames(path, Uniform(5))
    assert found.frames_TCHW.shape[2:] == (96, 128)
    assert numbers(found) == [2, 7, 12, 17, 22]


def test_one_frame(folder: Path) -> None:
    path = write_video(folder / "one.mp4", num_frames=1)
    for sampler in (Uniform(3), Fps(2), Middle()):
        assert set(numbers(read_frames(path, sampler))) == {0}


def test_a_path_that_is_not_there(folder: Path) -> None:
    with pytest.raises(VideoNotFoundError, match=r"no file '.*none\.mp4'"):
        read_frames(folder / "none.mp4", Middle())


def test_an_empty_file(folder: Path) -> None:
    (folder / "empty.mp4").touch()
    with pytest.raises(VideoNotFoundError, match=r"empty\.mp4: the file is empty, as failed downloads are"):
        read_frames(folder / "empty.mp4", Middle())
    with pytest.raises(UnreadableVideoError, match="cannot be decoded"):
        read_frames(b"", Middle())


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>404</html>" * 40, bytes(range(256)) * 40, b"\0" * 5000])
def test_what_is_no_video_is_one_kind_of_error(folder: Path, content: bytes) -> None:
    path = folder / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError, match=r"bad\.mp4: cannot be decoded .*Invalid data.* download it again"):
        read_frames(path, Middle())
    with pytest.raises(UnreadableVideoError, match="bytes in memory: cannot be decoded"):
        read_frames(content, Middle())


@pytest.mark.parametrize("cover", [False, True])
def test_sound_only(folder: Path, cover: bool) -> None:
    path = write_sound(folder / f"sound{cover}.mp4", cover=cover)
    with pytest.raises(NoVideoStreamError, match="no video stream"):
        read_frames(path, Middle())
