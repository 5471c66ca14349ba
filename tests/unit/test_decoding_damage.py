"""Files that are cut off, damaged or hostile: an error that names the cause, never a wrong frame."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from civid_loader.decoding import read_frames
from civid_loader.errors import (
    CorruptVideoError,
    NoVideoStreamError,
    UnreadableVideoError,
    VideoError,
    VideoNotFoundError,
)
from civid_loader.sampling import All, Fps, Middle, Times, Uniform
from support.media import number_image, read_numbers, write_video

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"
ERRORS: dict[str, type[VideoError]] = {
    "audio_only": NoVideoStreamError, "zero": VideoNotFoundError,
    **dict.fromkeys(("garbage", "html", "trunc60_moovtail"), UnreadableVideoError),
}  # fmt: skip


def noisy_number(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A number in a picture that takes many bytes to store."""
    image = number_image(number)
    image[8:] = np.random.default_rng(number).integers(0, 255, image[8:].shape, np.uint8)
    return image


def test_a_file_that_is_cut_off_gives_the_frames_it_has(tmp_path: Path) -> None:
    """The header still promises 4 s; the sampler sees what is there."""
    whole = write_video(tmp_path / "a.mp4", num_frames=100, container_options={"movflags": "faststart"}).read_bytes()
    cut = whole[: int(len(whole) * 0.6)]
    found = read_frames(cut, Uniform(4))
    end_seconds = float(read_frames(cut, Times((9.0,))).pts_seconds[0]) + 0.04
    assert 1.0 < end_seconds < 3.9
    assert read_numbers(found.frames_TCHW) == [int((i + 0.5) * end_seconds / 4 * 25 + 1e-6) for i in range(4)]
    with pytest.raises(UnreadableVideoError, match=r"the span starts at 3\.9 s, but the video ends"):
        read_frames(cut, Middle(), span=(3.9, 4.0))


def test_a_file_that_lost_its_header(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4").read_bytes()
    with pytest.raises(UnreadableVideoError, match="download it again"):
        read_frames(whole[: len(whole) // 2], Middle())


def test_damage_is_an_error_where_it_can_be_seen_in_the_frames_wanted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=100, gop=25, num_b_frames=2, image=noisy_number)
    with av.open(str(path)) as container:
        hit = next(
            packet for packet in container.demux(video=0) if packet.pts is not None and packet.pts >= 1.4 * 90_000
        )
    data = bytearray(path.read_bytes())
    start = data.index(bytes(hit)) + hit.size // 2
    data[start : start + 40] = b"\xff" * 40
    for second in (0, 2, 3):
        found = read_frames(bytes(data), Uniform(5), span=(second, second + 1))
        assert read_numbers(found.frames_TCHW) == [25 * second + k for k in (2, 7, 12, 17, 22)]
    whole = read_frames(path, All()).frames_TCHW
    found = read_frames(bytes(data), All())
    assert found.is_corrupt[35:50].all(), "the damaged frame, and all that may be predicted from it"
    assert not found.is_corrupt[:25].any()
    assert not found.is_corrupt[50:].any()
    for k in range(100):
        assert found.is_corrupt[k] or torch.equal(found.frames_TCHW[k], whole[k]), k
    assert read_frames(bytes(data), Uniform(5), span=(1.9, 2.5)).is_corrupt.tolist() == [True] + [False] * 4


def test_no_damaged_frame_is_ever_given_as_whole(tmp_path: Path) -> None:
    """Frame by frame: what is given equals the undamaged file; also a frame predicted from one that is shown later."""
    path = write_video(tmp_path / "a.mp4", num_frames=24, gop=24, num_b_frames=3, image=noisy_number)
    expected = read_frames(path, Fps(25)).frames_TCHW
    num_errors = 0
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in packets[5:17:4]:
        data = bytearray(path.read_bytes())
        half = len(packet) // 2
        start = data.index(packet) + half
        data[start : start + half] = bytes(half)
        for k in range(24):
            try:
                found = read_frames(bytes(data), Times((k / 25 + 0.02,)))
            except CorruptVideoError:
                num_errors += 1
            else:
                num_errors += int(found.is_corrupt[0])
                assert found.is_corrupt[0] or torch.equal(found.frames_TCHW[0], expected[k]), k
    assert 10 < num_errors < 60


def test_text_that_names_another_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = write_video(tmp_path / "other.mp4")
    script = tmp_path / "script.mp4"
    script.write_text(f"ffconcat version 1.0\nfile {other.name}\n")
    with av.open(str(script)) as container:
        assert next(container.decode(video=0)).width == 64, "FFmpeg itself follows it"
    with pytest.raises(UnreadableVideoError, match="Invalid argument"):
        read_frames(script, Middle())


def test_times_that_go_backwards_are_an_error(tmp_path: Path) -> None:
    """AVI stores no times of display: with B-frames FFmpeg gives the times of decoding."""
    path = write_video(tmp_path / "a.avi", num_b_frames=2)
    with pytest.raises(UnreadableVideoError, match="times of its frames go backwards; remux"):
        read_frames(path, Fps(25))


def test_a_title_that_is_no_utf8_is_no_obstacle(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mkv", metadata={"title": "TITLETITLE"}).read_bytes()
    assert data.count(b"TITLETITLE") == 1
    assert len(read_frames(data.replace(b"TITLETITLE", b"\xff\xfeTITLE\xe9\xe9\xe9"), Middle()).frames_TCHW) == 1


def test_a_size_that_changes_within_the_clip_needs_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for second, size in enumerate(((48, 64), (96, 128))):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.height, encoder.width = size
            encoder.pix_fmt, encoder.options = "yuv420p", {"preset": "ultrafast"}
            encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
            frames = [av.VideoFrame.from_ndarray(number_image(k, size=size), format="rgb24") for k in range(25)]
            for k, frame in enumerate([*frames, None]):
                if frame is not None:
                    frame.pts = 25 * second + k
                for packet in encoder.encode(frame):
                    packet.stream, packet.time_base = stream, encoder.time_base
                    container.mux(packet)
    with pytest.raises(UnreadableVideoError, match=r"change from \(48, 64\) to \(96, 128\) px; pass size="):
        read_frames(path, Uniform(4))
    found = read_frames(path, Uniform(4), size=(48, 64)).frames_TCHW
    assert read_numbers(found[:2]) == [6, 18]
    assert found.shape == (4, 3, 48, 64)


def every_frame(path: Path) -> list[tuple[float, av.VideoFrame]]:
    """The oracle: all frames with their times, one after the other, from the first packet on."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        packets = (packet for packet in container.demux(stream) if not packet.is_corrupt)
        frames = [frame for packet in packets for frame in packet.decode()]
    return [(frame.time - frames[0].time, frame) for frame in frames]


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
@pytest.mark.parametrize("path", sorted(MEDIA.glob("*/*.*")), ids=lambda path: path.stem)
def test_ordinary_and_nasty_media(path: Path) -> None:
    if path.stem in ERRORS:
        with pytest.raises(ERRORS[path.stem]):
            read_frames(path, Uniform(3))
        return
    if path.stem == "bitrot":
        with pytest.raises(CorruptVideoError, match=r"bitrot\.mp4: some of the frames wanted cannot") as caught:
            read_frames(path, All())
        found = caught.value.frames
        assert found is not None
        whole = read_frames(path.with_name("rot90.mp4"), All()).frames_TCHW.rot90(-1, (2, 3))
        differs = (found.frames_TCHW != whole).flatten(1).any(dim=1)
        assert not (differs & ~found.is_corrupt).any()
        assert differs.sum() > 100
        return
    expected = every_frame(path)
    last_seconds = expected[-1][0] or 0.03
    for sampler, span in (
        (Times((0.0, last_seconds / 3, last_seconds)), None),
        (Times((0.1,)), (last_seconds * 0.6, last_seconds * 0.9)),
    ):
        found = read_frames(path, sampler, span=span)
        start_seconds, end_seconds = span or (0.0, last_seconds + 1)
        inside = [item for item in expected if start_seconds - 1e-6 <= item[0] < end_seconds - 1e-6] or expected[:1]
        for t, pts, image in zip(sampler.seconds, found.pts_seconds, found.frames_TCHW, strict=True):
            time, frame = [item for item in inside if item[0] <= start_seconds + t + 1e-6][-1]
            assert float(pts) + start_seconds == pytest.approx(time, abs=1e-6)
            assert np.array_equal(
                image.permute(1, 2, 0), np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            )
