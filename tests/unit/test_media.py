"""`media.probe` finds what a file really holds, however it is wrapped, and whatever its header says."""

import hashlib
import struct
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import av
import pytest

from civid_loader.errors import NoVideoStreamError, UnreadableVideoError, VideoTimeoutError
from civid_loader.media import VideoFacts, fingerprint, probe
from civid_loader.packets import PacketIndex
from civid_loader.schema import MEDIA_FEATURES
from civid_loader.videos import ByteSource, bytes_source
from support.media import write_sound, write_video


def _probe(path: Path, **options: Any) -> VideoFacts:
    return probe(bytes_source(path.read_bytes(), name=path.name), **options)


def test_every_fact_is_a_column() -> None:
    assert {field.name for field in fields(VideoFacts)} - {"index"} <= set(MEDIA_FEATURES)


def test_an_ordinary_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=30, fps=25, size=(48, 64), gop=12)
    facts = _probe(path, with_sha256=True)
    data = path.read_bytes()
    assert facts.num_bytes == len(data)
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert facts.container.startswith("mov,mp4")
    assert (facts.codec, facts.pixel_format, facts.height, facts.width) == ("h264", "yuv420p", 48, 64)
    assert (facts.num_frames, facts.num_keyframes, facts.is_vfr) == (30, 3, False)
    assert [facts.fps, facts.real_fps, facts.start_seconds, facts.duration_seconds] == pytest.approx([25, 25, 0, 1.2])
    assert (facts.is_truncated, facts.rotation_degrees, facts.has_audio) == (False, 0, False)
    assert (facts.audio_codec, facts.audio_sample_rate_hz, facts.audio_channels) == (None, None, None)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts"])
def test_frames_and_seconds_are_the_same_in_every_container(tmp_path: Path, suffix: str) -> None:
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(suffix, "libx264")
    facts = _probe(write_video(tmp_path / f"a.{suffix}", num_frames=30, fps=25, codec=codec))
    assert facts.num_frames == 30
    assert facts.fps == pytest.approx(25, rel=0.01)
    assert facts.duration_seconds == pytest.approx(1.2, abs=0.002)
    assert not facts.is_vfr
    assert facts.codec == {"libx264": "h264", "libvpx-vp9": "vp9", "mpeg4": "mpeg4"}[codec]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate(tmp_path: Path, suffix: str) -> None:
    facts = _probe(write_video(tmp_path / f"a.{suffix}", pts_seconds=[0.0, 0.04, 0.5, 0.54, 2.0]))
    assert facts.is_vfr
    assert facts.num_frames == 5
    assert facts.duration_seconds >= 2


@pytest.mark.parametrize("fps", [24, 30, 60])
def test_milliseconds_of_matroska_are_no_variable_rate(tmp_path: Path, fps: int) -> None:
    assert not _probe(write_video(tmp_path / "a.mkv", fps=fps)).is_vfr


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_out_of_order_are_counted_once(tmp_path: Path, suffix: str) -> None:
    facts = _probe(write_video(tmp_path / f"a.{suffix}", num_frames=30, num_b_frames=3, open_gop=True))
    assert facts.num_frames == 30
    assert not facts.is_vfr
    assert facts.duration_seconds == pytest.approx(1.2, abs=0.002)


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_size_is_as_displayed(tmp_path: Path, degrees: int) -> None:
    facts = _probe(write_video(tmp_path / "a.mp4", size=(48, 96), rotation_degrees=degrees))
    assert (facts.height, facts.width) == ((48, 96) if degrees % 180 == 0 else (96, 48))
    assert facts.rotation_degrees % 360 == degrees % 360


def test_sound_is_noted(tmp_path: Path) -> None:
    facts = _probe(write_video(tmp_path / "a.mp4", sound=True))
    assert facts.has_audio
    assert (facts.audio_codec, facts.audio_sample_rate_hz, facts.audio_channels) == ("aac", 16_000, 1)
    assert facts.num_frames == 30


def test_time_before_the_first_frame_is_told_and_not_counted(tmp_path: Path) -> None:
    facts = _probe(write_video(tmp_path / "a.mkv", start_seconds=3.0))
    assert facts.start_seconds == pytest.approx(3.0)
    assert facts.duration_seconds == pytest.approx(1.2, abs=0.002)


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=30, start_seconds=-0.32)  # 8 frames before second 0
    facts = _probe(path)
    with av.open(str(path)) as container:
        num_shown = sum(1 for _ in container.decode(video=0))
    assert facts.num_frames == num_shown == 22
    assert facts.duration_seconds == pytest.approx(22 / 25)


@pytest.mark.parametrize("options", [{"movflags": "frag_keyframe+empty_moov"}, {}])
def test_frames_are_counted_and_not_believed(tmp_path: Path, options: dict[str, str]) -> None:
    """A header that states another length: of an MP4 the movie's duration, ten hours."""
    data = bytearray(write_video(tmp_path / "a.mp4", container_options=options).read_bytes())
    struct.pack_into(">I", data, data.index(b"mvhd") + 20, 36_000_000)
    facts = probe(bytes_source(bytes(data)))
    assert [facts.num_frames, facts.duration_seconds] == pytest.approx([30, 1.2])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_a_file_that_is_cut_off_holds_what_is_left(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write_video(
        tmp_path / f"a.{suffix}", num_frames=60, codec=codec, container_options={"movflags": "faststart"}
    )
    data = path.read_bytes()
    facts = probe(bytes_source(data[: len(data) * 17 // 20]))
    assert 10 < facts.num_frames < 60
    assert facts.duration_seconds == pytest.approx(facts.num_frames / 25, abs=0.05)
    assert facts.is_truncated or suffix != "mp4"


def test_an_mp4_without_its_header_is_unreadable(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4").read_bytes()
    with pytest.raises(UnreadableVideoError, match=r"a\.mp4: cannot be opened as a video"):
        probe(bytes_source(data[: len(data) // 2], name="a.mp4"))


def test_no_picture_no_video(tmp_path: Path) -> None:
    for path in (write_sound(tmp_path / "a.m4a"), write_sound(tmp_path / "cover.mp4", cover=True)):
        with pytest.raises(NoVideoStreamError, match=path.name):
            _probe(path)


@pytest.mark.parametrize("data", [b"<html>404</html>" * 50, b"\0" * 5000, b"ffconcat version 1.0\nfile /etc/passwd\n"])
def test_what_is_no_video_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableVideoError):
        probe(bytes_source(data))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_index_says_where_the_packets_lie(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", num_frames=40, num_b_frames=2)
    index = PacketIndex.from_bytes(_probe(path).index.to_bytes())
    assert index.offsets is not None
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [packet.pts for packet in packets] == (index.pts - index.first_pts).tolist()
        for packet, at, size in zip(packets, index.offsets, index.sizes, strict=True):
            assert data[at : at + size] == bytes(packet)


def test_another_content_is_another_fingerprint(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mp4").read_bytes()
    texts = {fingerprint(bytes_source(content))[2] for content in (data, data + b"\0", b"\0" + data, data[:-1] + b"~")}
    assert len(texts) == 4
    assert fingerprint(bytes_source(data))[2] in texts
    assert _probe(tmp_path / "a.mp4").fingerprint == fingerprint(bytes_source(data))[2]


class _Slow:
    """A source that takes its time."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read_ranges(self, *arguments: Any, **options: Any) -> list[bytes]:
        time.sleep(0.05)
        return self._source.read_ranges(*arguments, **options)


def test_a_slow_source_is_given_up(tmp_path: Path) -> None:
    source: Any = _Slow(bytes_source(write_video(tmp_path / "a.mkv", num_frames=100).read_bytes(), name="a.mkv"))
    with pytest.raises(VideoTimeoutError, match=r"a\.mkv: not done .* 0\.01 s"):
        probe(source, timeout_seconds=0.01)
