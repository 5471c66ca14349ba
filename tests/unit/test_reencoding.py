"""One training copy: the same frames at the same times, keyframes where they were asked for, upright, small."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from civid_loader.errors import MissingDependencyError, UnreadableVideoError
from civid_loader.reencoding import encoding
from civid_loader.reencoding.encoding import Codec, ProxySettings, check_encoder, encode_proxy
from support.media import number_image, read_number, write_sound, write_video

SIZE = (96, 128)
VFR = [0.0, 0.04, 0.08, 0.5, 0.52, 0.9, 1.0, 2.75, 2.8, 3.0, 3.001, 3.5, 4.0, 4.04, 4.5, 5.25, 5.5, 6.0, 6.1, 6.2]


def proxy(
    video: Path,
    tmp_path: Path,
    *,
    span: tuple[float, float | None] | None = None,
    settings: ProxySettings | None = None,
) -> bytes:
    target = tmp_path / "proxy.mp4"
    with video.open("rb") as file:
        encode_proxy(file, target, span=span, settings=settings or ProxySettings(gop=8))
    return target.read_bytes()


def frames_of(video: bytes | Path) -> list[tuple[float, int]]:
    """(seconds, number in the picture) of every frame, from the first, read by PyAV alone."""
    with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video), "r") as container:
        found = [(_exact_seconds(frame), _number(frame)) for frame in container.decode(video=0)]
    return [(float(at - found[0][0]), number) for at, number in found]


def _exact_seconds(timed: "av.VideoFrame | av.AudioFrame | av.Packet[Any]") -> Fraction:
    assert timed.pts is not None
    assert timed.time_base is not None
    return timed.pts * timed.time_base


def _number(frame: av.VideoFrame) -> int:
    return read_number(torch.from_numpy(frame.to_ndarray(format="rgb24").transpose(2, 0, 1)))


def packets_of(video: bytes) -> list[tuple[float, float, bool]]:
    """(seconds, duration, is keyframe) in decoding order, as the container states them."""
    with av.open(io.BytesIO(video), "r") as container:
        return [
            (float(_exact_seconds(packet)), float((packet.duration or 0) * packet.time_base), packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.size
        ]


def at_times(frames: Sequence[tuple[float, int]], times: Sequence[float], *, start: float = 0.0) -> list[int]:
    """The number on screen at each time, by the definition of `read_frames`: never one before `start`."""
    moments = [seconds for seconds, _ in frames]
    first = bisect_right([moment - start for moment in moments], -1e-6)
    return [frames[max(first, bisect_right(moments, start + t + 1e-6) - 1)][1] for t in times]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_every_frame_keeps_its_time(name: str, tmp_path: Path) -> None:
    fps = 25 if name != "a.mkv" else 30
    video = write_video(tmp_path / name, num_frames=40, fps=fps, size=SIZE, num_b_frames=name != "a.avi" and 2)
    made = proxy(video, tmp_path)
    assert frames_of(made) == frames_of(video)
    assert [number for _, number in frames_of(made)] == list(range(40))
    assert max(at + duration for at, duration, _ in packets_of(made)) == pytest.approx(40 / fps, abs=1.1e-3)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_variable_rate_and_keyframes_in_every_codec(
    codec: Codec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "a.mp4", pts_seconds=VFR, size=SIZE, num_b_frames=3)
    capfd.readouterr()
    made = proxy(video, tmp_path, settings=ProxySettings(gop=6, codec=codec))
    assert capfd.readouterr() == ("", ""), "encoders that talk"
    assert frames_of(made) == frames_of(video)
    packets = packets_of(made)
    shown = sorted(packets)
    assert [place for place, packet in enumerate(shown) if packet[2]] == [0, 6, 12, 18]
    key_seconds = 0.0
    for at, _, is_key in packets:
        key_seconds = at if is_key else key_seconds
        assert at >= key_seconds, "a picture of an open group"
    for (at, duration, _), (following, *_) in pairwise(shown):
        assert at + duration == pytest.approx(following, abs=1e-5)
    with av.open(io.BytesIO(made), "r") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == {"av1": "libdav1d"}.get(codec, codec)
        assert stream.codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize(
    "span", [(0.0, 0.9), (0.5, 3.2), (0.51, 3.003), (2.0, 2.7), (4.5, None), (5.0, 99.0), (1.2, 1.3)]
)
def test_a_span_shows_what_read_frames_shows(span: tuple[float, float | None], tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", pts_seconds=VFR, size=SIZE, num_b_frames=2, open_gop=True, gop=7)
    made = proxy(video, tmp_path, span=span)
    frames, whole = frames_of(made), frames_of(video)
    end = min(span[1] or 99.0, max(at + duration for at, duration, _ in packets_of(video.read_bytes())))
    inside = [number for at, number in whole if span[0] <= at < end]
    assert [number for _, number in frames] == (inside or at_times(whole, [span[0]])), "none twice, none left out"
    if inside:
        times = np.linspace(0, end - span[0] - 1e-3, 500).tolist()
        assert at_times(frames, times) == at_times([f for f in whole if f[0] < end], times, start=span[0])
    assert max(at + duration for at, duration, _ in packets_of(made)) == pytest.approx(end - span[0], abs=2e-5)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_videos_are_stored_upright(degrees: int, tmp_path: Path) -> None:
    turns = -degrees // 90

    def lying(number: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        return np.ascontiguousarray(np.rot90(number_image(number, size=SIZE), turns))

    size = SIZE if degrees == 180 else (SIZE[1], SIZE[0])
    video = write_video(tmp_path / "a.mp4", num_frames=9, size=size, rotation_degrees=degrees, image=lying)
    made = proxy(video, tmp_path)
    assert [number for _, number in frames_of(made)] == list(range(9))
    with av.open(io.BytesIO(made), "r") as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.width, frame.rotation) == (*SIZE, 0)


@pytest.mark.parametrize(
    ("size", "short_side_px", "expected"),
    [((120, 214), 64, (64, 114)), ((214, 120), 64, (114, 64)), ((97, 131), 256, (96, 130)), ((64, 64), 64, (64, 64))],
)
def test_sizes(size: tuple[int, int], short_side_px: int, expected: tuple[int, int], tmp_path: Path) -> None:
    # 4:4:4 inside AVI keeps odd sizes.
    video = tmp_path / "a.avi"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv444p"
        for i in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(number_image(i, size=size), format="rgb24")))
        container.mux(stream.encode())
    made = proxy(video, tmp_path, settings=ProxySettings(short_side_px=short_side_px))
    with av.open(io.BytesIO(made), "r") as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == expected
    assert [number for _, number in frames_of(made)] == [0, 1, 2]


def _with_sound(path: Path) -> Path:
    """4 s of video that starts at 1.5 s of the container's time, with a tone from 2 to 3 s of the video's time."""
    rate = 16_000
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        sound = container.add_stream("aac", rate=rate, layout="mono")
        for i in range(100):
            frame = av.VideoFrame.from_ndarray(number_image(i, size=SIZE), format="rgb24")
            frame.pts, frame.time_base = i + 37, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        seconds = np.arange(rate * 6) / rate - 37 / 25
        tone = np.where((seconds >= 2) & (seconds < 3), 0.5 * np.sin(seconds * 2 * np.pi * 440), 0).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts = rate, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize(
    ("span", "tone"), [(None, (2.0, 3.0, 4.0)), ((1.8, 3.5), (0.2, 1.2, 1.7)), ((2.2, 2.9), (0, 0.7, 0.7))]
)
def test_sound_is_kept_if_asked_for(
    span: tuple[float, float] | None, tone: tuple[float, float, float], tmp_path: Path
) -> None:
    video = _with_sound(tmp_path / "a.mp4")
    with av.open(io.BytesIO(proxy(video, tmp_path, span=span))) as container:
        assert not container.streams.audio
    made = proxy(video, tmp_path, span=span, settings=ProxySettings(audio=True))
    with av.open(io.BytesIO(made), "r") as container:
        heard = [
            (float(_exact_seconds(frame)), np.abs(frame.to_ndarray()).max()) for frame in container.decode(audio=0)
        ]
        loud = [at for at, level in heard if level > 0.2]
        frame_seconds = 1024 / 16_000
        assert loud[0] == pytest.approx(tone[0], abs=frame_seconds)
        assert loud[-1] + frame_seconds == pytest.approx(tone[1], abs=frame_seconds * 1.5)
        assert heard[-1][0] + frame_seconds == pytest.approx(tone[2], abs=frame_seconds * 1.5)
    assert frames_of(made) == frames_of(proxy(video, tmp_path, span=span))


def test_a_video_without_sound_gives_a_copy_without(tmp_path: Path) -> None:
    made = proxy(write_video(tmp_path / "a.mp4"), tmp_path, settings=ProxySettings(audio=True))
    with av.open(io.BytesIO(made), "r") as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_colour_is_kept(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuvj420p"
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        stream.codec_context.color_range = 2
        for value in (0, 40, 130, 255):
            planes = np.full((SIZE[0] * 3 // 2, SIZE[1]), 128, np.uint8)
            planes[: SIZE[0]] = value
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuvj420p")))
        container.mux(stream.encode())
    made = proxy(video, tmp_path, settings=ProxySettings(short_side_px=64))
    with av.open(io.BytesIO(made), "r") as container:
        frames = list(container.decode(video=0))
        assert {(f.color_range, f.colorspace, f.color_primaries, f.color_trc) for f in frames} == {(2, 1, 1, 1)}
        luma = [int(frame.to_ndarray(format="gray")[20, 20]) for frame in frames]
    assert luma == pytest.approx([0, 40, 130, 255], abs=2)


def test_damage_is_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def noise(number: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        return rng.integers(0, 255, (*SIZE, 3), np.uint8)

    data = bytearray(write_video(tmp_path / "a.mp4", num_frames=40, size=SIZE, image=noise).read_bytes())
    cut, rotten = tmp_path / "cut.mp4", tmp_path / "rotten.mp4"
    cut.write_bytes(data[: len(data) // 2])
    for place in range(len(data) // 3, len(data) // 2, 500):
        data[place : place + 40] = rng.bytes(40)
    rotten.write_bytes(data)
    for path in (cut, rotten):
        with pytest.raises((UnreadableVideoError, av.error.FFmpegError)):
            proxy(path, tmp_path)
    video = write_video(tmp_path / "b.mp4", num_frames=25)
    with pytest.raises(UnreadableVideoError, match=r"the span starts at 2.0 s, but the video ends at 1.0 s"):
        proxy(video, tmp_path, span=(2.0, 3.0))
    with pytest.raises(UnreadableVideoError, match="no video stream"):
        proxy(write_sound(tmp_path / "s.mp4"), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "vp9"}, "must be one of h264, hevc, av1"),
        ({"short_side_px": 255}, "an even number"),
        ({"gop": 0}, "at least 1"),
        ({"crf": 99}, "between 0 and 51"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProxySettings(**settings)  # type: ignore[arg-type]


def test_an_encoder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_encoder(ProxySettings(audio=True))
    monkeypatch.setitem(encoding._ENCODERS, "av1", "librav2e")
    with pytest.raises(MissingDependencyError, match=r"no encoder librav2e.*pip install"):
        check_encoder(ProxySettings(codec="av1"))
