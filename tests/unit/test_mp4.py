"""The header of an MP4 says what the demuxer finds; what is unusual is left to the demuxer."""

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from civid_loader import mp4
from civid_loader.deadlines import Deadline
from civid_loader.packets import PacketIndex
from civid_loader.stream import open_stream
from civid_loader.videos import ByteSource, as_file, bytes_source
from support.media import number_image, write_sound, write_video

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"
FAST_START = {"movflags": "faststart"}


def read_mp4_index(source: ByteSource) -> PacketIndex | None:
    return mp4.read_mp4_index(source, Deadline(10.0))


def by_demuxer(data: bytes) -> PacketIndex:
    with as_file(bytes_source(data)) as file, open_stream(file, Deadline(None)) as stream:
        return stream.index(locate_in=file)


def check_same(data: bytes) -> PacketIndex:
    found, expected = read_mp4_index(bytes_source(data)), by_demuxer(data)
    assert found is not None
    assert found.offsets is not None
    assert expected.offsets is not None
    # The demuxer drops what an edit list hides, down to the keyframe before; the rest is the same.
    kept = np.isin(found.offsets, expected.offsets)
    assert not found.is_shown[~kept].any()
    assert np.array_equal(found.offsets[kept], expected.offsets)
    for name in ("sizes", "is_key", "is_shown"):
        assert np.array_equal(getattr(found, name)[kept], getattr(expected, name)), name
    assert found.seconds(found.pts[kept]) == pytest.approx(expected.seconds(expected.pts), abs=1e-9)
    assert found.end_seconds == pytest.approx(expected.end_seconds, abs=1e-6)
    for name in ("codec", "extradata", "rotation_degrees", "is_truncated"):
        assert getattr(found, name) == getattr(expected, name), name
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_frames": 1},
        {"num_b_frames": 3, "gop": 8},
        {"num_b_frames": 3, "gop": 8, "open_gop": True},
        {"start_seconds": 5.0, "num_b_frames": 2},
        {"start_seconds": -0.32, "num_b_frames": 2},
        {"pts_seconds": [0.0, 0.1, 0.15, 1.0, 2.5, 2.54], "num_b_frames": 2},
        {"rotation_degrees": 90},
        {"rotation_degrees": 180},
        {"rotation_degrees": -90},
        {"container_options": FAST_START, "num_frames": 300},
        {"codec": "libvpx-vp9"},
        {"codec": "libsvtav1"},
        {"codec": "libx265"},
    ],
    ids=str,
)
def test_header_and_demuxer_agree(tmp_path: Path, options: dict[str, Any]) -> None:
    for suffix in ("mp4", "mov"):
        if not (suffix == "mov" and options.get("codec") in ("libvpx-vp9", "libsvtav1")):
            check_same(write_video(tmp_path / f"a.{suffix}", **options).read_bytes())


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4", num_frames=100, container_options=FAST_START).read_bytes()
    found = check_same(data[: int(len(data) * 0.7)])
    assert found.is_truncated
    assert 20 < len(found.pts) < 100


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
@pytest.mark.parametrize(
    "name", ["nasty/bf8", "nasty/opengop", "nasty/vfr", "nasty/rot90", "real/bikes", "real/h265_video"]
)
def test_files_of_other_writers(name: str) -> None:
    check_same((MEDIA / f"{name}.mp4").read_bytes())


def test_sound_between_the_pictures(tmp_path: Path) -> None:
    """Packets of two tracks take turns: chunks hold several packets each."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for i in range(50):
            container.mux(video.encode(av.VideoFrame.from_ndarray(number_image(i), format="rgb24")))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), format="fltp", layout="mono")
            samples.sample_rate = 16_000
            container.mux(sound.encode(samples))
        container.mux(video.encode())
        container.mux(sound.encode())
    check_same(path.read_bytes())


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts"])
def test_other_containers_have_no_such_header(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == "avi" else "libx264"
    assert read_mp4_index(bytes_source(write_video(tmp_path / f"a.{suffix}", codec=codec).read_bytes())) is None


def test_fragments_are_left_to_the_demuxer(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    data = write_video(tmp_path / "a.mp4", container_options=options).read_bytes()
    assert read_mp4_index(bytes_source(data)) is None
    assert len(by_demuxer(data).pts) == 30


def test_sound_only_and_no_file_at_all(tmp_path: Path) -> None:
    for data in (write_sound(tmp_path / "a.mp4").read_bytes(), b"", b"\0" * 100, b"<html>" * 20):
        assert read_mp4_index(bytes_source(data)) is None


def test_two_edits_are_left_to_the_demuxer(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "a.mp4", start_seconds=-0.32).read_bytes())
    count_at = data.index(b"elst") + 8
    assert struct.unpack_from(">I", data, count_at) == (1,)
    assert read_mp4_index(bytes_source(bytes(data))) is not None
    rate_at = count_at + 12
    data[rate_at : rate_at + 4] = struct.pack(">HH", 2, 0)  # played at twice the speed
    assert read_mp4_index(bytes_source(bytes(data))) is None


def test_an_end_that_is_cut_off_is_left_to_the_demuxer(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "a.mp4", start_seconds=-0.32).read_bytes())
    duration_at = data.index(b"elst") + 12
    data[duration_at : duration_at + 4] = (400).to_bytes(4, "big")
    assert read_mp4_index(bytes_source(bytes(data))) is None
    assert int(by_demuxer(bytes(data)).is_shown.sum()) == 10


def test_a_long_header_is_read_in_two_steps(tmp_path: Path) -> None:
    """Of a file of 10,000 frames, only the boxes' heads and the header itself are read."""
    path = write_video(
        tmp_path / "a.mp4", num_frames=10_000, size=(16, 16), image=lambda _: np.zeros((16, 16, 3), np.uint8)
    )
    source = bytes_source(path.read_bytes())
    found = read_mp4_index(source)
    assert found is not None
    assert len(found.pts) == 10_000
    assert source.counters.num_requests <= 3
