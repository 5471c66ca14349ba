"""Draws scenes and encodes them: the videos of the made-up release.

The same shots give the same frames: all randomness is in the scenes (`scene.make_scenes`).
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image

from civid_loader.demo.backdrops import paint_backdrop
from civid_loader.demo.scene import Actor, Camera, Motion, Scene
from civid_loader.demo.sprites import paint_actor, paint_label

Codec = Literal["h264", "mpeg4"]

_WORLD: Final = 1.3
"""Width of what is drawn over width of the frame: room for the camera to move."""
_SUPERSAMPLE: Final = 2
_SAMPLE_RATE_HZ: Final = 44_100


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """A scene for some time; a video is a list of them with hard cuts between."""

    scene: Scene
    """What it shows."""
    duration_seconds: float
    """How long, rounded to whole frames, at least one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFile:
    """A video still to be rendered."""

    path: Path
    """Where it goes; the suffix .mp4 or .avi decides the container."""
    shots: tuple[Shot, ...]
    """Its content; empty writes a file of zero bytes, what a failed download leaves."""
    size: tuple[int, int] = (180, 320)
    """(height, width) in pixels, both even."""
    fps: Fraction = Fraction(24)
    """Frames per second."""
    sound: bool = True
    """Whether there is an audio track."""
    codec: Codec = "h264"
    """Video codec."""

    def write(self) -> None:
        """Render it; folders are made."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.shots:
            self.path.touch()
            return
        render_video(self.path, self.shots, size=self.size, fps=self.fps, sound=self.sound, codec=self.codec)


def render_video(
    path: Path,
    shots: Sequence[Shot],
    *,
    size: tuple[int, int] = (180, 320),
    fps: Fraction = Fraction(24),
    sound: bool = True,
    codec: Codec = "h264",
) -> int:
    """Render `shots` to `path` (.mp4 or .avi), yuv420p, a keyframe at every cut; returns the number of frames.

    `size` is (height, width) in pixels. Sound is AAC in .mp4 and MP3 in .avi.

    Raises:
        ValueError: the suffix is another one, a side is odd, or there is no shot.
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".avi"):
        raise ValueError(f"{path}: the suffix must be .mp4 or .avi")
    if not shots or size[0] % 2 or size[1] % 2:
        raise ValueError(f"{path}: needs at least one shot and even sides, got {len(shots)} shots and size {size}")
    # MP3 starts before zero; shifting everything for it would put an empty frame after the first one of an .avi.
    with av.open(str(path), mode="w", options={"avoid_negative_ts": "disabled"}) as container:
        video = _video_stream(container, size=size, fps=fps, codec=codec, reorder=path.suffix == ".mp4")
        audio = _audio_stream(container, "aac" if path.suffix == ".mp4" else "libmp3lame") if sound else None
        num_frames = 0
        for shot in shots:
            melody = _tone(shot)
            for index, image in enumerate(draw_shot(shot, size=size, fps=fps)):
                frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
                frame.pts, frame.time_base = num_frames, 1 / fps
                if index == 0:
                    frame.pict_type = av.video.frame.PictureType.I
                container.mux(video.encode(frame))
                if audio is not None:
                    _mux_sound(container, audio, melody, index=index, first=num_frames, fps=fps)
                num_frames += 1
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return num_frames


def draw_shot(shot: Shot, *, size: tuple[int, int], fps: Fraction) -> Iterator[Image.Image]:
    """The shot's frames, RGB, `size` (height, width) pixels."""
    scene, (height, width) = shot.scene, size
    world = paint_backdrop(scene, size=(round(_WORLD * _SUPERSAMPLE * height), round(_WORLD * _SUPERSAMPLE * width)))
    short_side = _SUPERSAMPLE * min(height, width)
    poses = [_poser(paint_actor(actor, height_px=round(actor.size * short_side))) for actor in scene.actors]
    label = paint_label(scene.label, height_px=round(0.14 * min(size))) if scene.label else None
    num_frames = max(1, round(shot.duration_seconds * fps))
    # A shape crosses the frame in 1.5 s or more: in a shot of 0.2 s it moves 13 % of the way.
    reach = min(1.0, shot.duration_seconds / 1.5)
    for index in range(num_frames):
        progress = 0.5 + reach * ((index + 0.5) / num_frames - 0.5)
        canvas = world.copy()
        for actor, pose in zip(reversed(scene.actors), reversed(poses), strict=True):
            _place(canvas, pose, actor, progress=progress, seconds=float(index / fps))
        frame = _film(canvas, scene.camera, progress * progress * (3 - 2 * progress), size=size)
        if label is not None:
            frame.paste(label, ((width - label.width) // 2, height - round(0.2 * min(size))), mask=label)
        yield frame


def _film(world: Image.Image, camera: Camera, progress: float, *, size: tuple[int, int]) -> Image.Image:
    """What the camera sees at `progress` 0..1 of its movement."""
    height, width = size
    x, y, zoom = _CAMERAS[camera](progress)
    if zoom == 1:  # ten times as fast as resizing, and half a pixel is fine enough a step for a pan
        left = round(x * world.width) - width * _SUPERSAMPLE // 2
        top = round(y * world.height) - height * _SUPERSAMPLE // 2
        return world.reduce(_SUPERSAMPLE, box=(left, top, left + width * _SUPERSAMPLE, top + height * _SUPERSAMPLE))
    dx, dy = zoom * width * _SUPERSAMPLE / 2, zoom * height * _SUPERSAMPLE / 2
    x, y = x * world.width, y * world.height
    return world.resize((width, height), Image.Resampling.BILINEAR, box=(x - dx, y - dy, x + dx, y + dy))


def _poser(sprite: Image.Image) -> Callable[[int, int], Image.Image]:
    """The sprite turned by degrees and scaled to percent; motions repeat themselves, so poses are kept."""

    @functools.cache
    def pose(degrees: int, percent: int) -> Image.Image:
        side = round(sprite.width * percent / 100)
        scaled = sprite if percent == 100 else sprite.resize((side, side), Image.Resampling.BILINEAR)
        return scaled.rotate(degrees, Image.Resampling.BILINEAR) if degrees else scaled

    return pose


def _place(
    canvas: Image.Image,
    pose: Callable[[int, int], Image.Image],
    actor: Actor,
    *,
    progress: float,
    seconds: float,
) -> None:
    """Paste the shape where its motion puts it; frame fractions become world pixels."""
    x, y, degrees, scale = _MOTIONS[actor.motion](actor.x, actor.y, progress, seconds)
    sprite = pose(round(degrees) % 360, round(50 * scale) * 2)
    left = (0.5 + (x - 0.5) / _WORLD) * canvas.width - sprite.width / 2
    top = (0.5 + (y - 0.5) / _WORLD) * canvas.height - sprite.height / 2
    canvas.paste(sprite, (round(left), round(top)), mask=sprite)


def _wave(seconds: float, period_seconds: float) -> float:
    return math.sin(2 * math.pi * seconds / period_seconds)


Placement = tuple[float, float, float, float]
_MOTIONS: Final[Mapping[Motion, Callable[[float, float, float, float], Placement]]] = {
    "drift_right": lambda x, y, p, t: (0.1 + 0.8 * p, y + 0.03 * _wave(t, 2), 0, 1),
    "drift_left": lambda x, y, p, t: (0.9 - 0.8 * p, y + 0.03 * _wave(t, 2), 0, 1),
    "rise": lambda x, y, p, t: (x + 0.02 * _wave(t, 2), 0.82 - 0.6 * p, 0, 1),
    "sink": lambda x, y, p, t: (x + 0.02 * _wave(t, 2), 0.22 + 0.56 * p, 0, 1),
    "bounce": lambda x, y, p, t: (x, y + 0.12 - 0.28 * abs(_wave(t, 2)), 0, 1),
    "circle": lambda x, y, p, t: (0.5 + 0.2 * _wave(t, 4), 0.5 - 0.22 * _wave(t + 1, 4), 0, 1),
    "spin": lambda x, y, p, t: (x, y, -90 * t, 1),
    "sway": lambda x, y, p, t: (x + 0.06 * _wave(t, 3), y, -9 * _wave(t, 3), 1),
    "pulse": lambda x, y, p, t: (x, y, 0, 1 + 0.16 * _wave(t, 2)),
    "still": lambda x, y, p, t: (x, y, 0, 1),
}
"""(x, y, progress 0..1, seconds) -> (x, y, degrees, scale)."""

_ROOM: Final = (_WORLD - 1) / _WORLD / 2
"""How far the camera can move from the middle, as a fraction of the world."""
_CAMERAS: Final[Mapping[Camera, Callable[[float], tuple[float, float, float]]]] = {
    "static": lambda p: (0.5, 0.5, 1),
    "pan_right": lambda p: (0.5 + _ROOM * (2 * p - 1), 0.5, 1),
    "pan_left": lambda p: (0.5 + _ROOM * (1 - 2 * p), 0.5, 1),
    "push_in": lambda p: (0.5, 0.5, 1.25 - 0.4 * p),
    "pull_back": lambda p: (0.5, 0.5, 0.85 + 0.4 * p),
    "tilt_up": lambda p: (0.5, 0.5 + _ROOM * (1 - 2 * p), 1),
}
"""Progress 0..1 -> middle of the view as fractions of the world, and its size in frames."""


def _video_stream(
    container: OutputContainer, *, size: tuple[int, int], fps: Fraction, codec: Codec, reorder: bool
) -> VideoStream:
    stream = container.add_stream("libx264" if codec == "h264" else "mpeg4", rate=fps)
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.gop_size = 48
    # Two files are rendered at a time, so one thread each. AVI cannot hold reordered (B-) frames.
    stream.codec_context.thread_count = 1
    stream.max_b_frames = 2 if reorder else 0
    if codec == "h264":
        # With its macroblock tree x264 gives other bytes in every run.
        stream.codec_context.options = {"preset": "veryfast", "crf": "21", "forced-idr": "1", "mbtree": "0"}
    else:
        stream.bit_rate = 1_500_000
    return stream


def _audio_stream(container: OutputContainer, codec: str) -> AudioStream:
    stream = container.add_stream(codec, rate=_SAMPLE_RATE_HZ)
    assert isinstance(stream, AudioStream)
    stream.layout = "mono"
    stream.codec_context.thread_count = 1
    return stream


def _tone(shot: Shot) -> npt.NDArray[np.float32]:
    """A soft arpeggio, one second per note; its key comes from the scene."""
    samples = np.arange(math.ceil((shot.duration_seconds + 1) * _SAMPLE_RATE_HZ))
    seconds = samples / _SAMPLE_RATE_HZ
    root = 220.0 * 2 ** (shot.scene.texture_seed % 12 / 12)
    step = np.asarray([1, 5 / 4, 3 / 2, 5 / 4])[seconds.astype(int) % 4]
    swell = np.sin(np.pi * (seconds % 1)) ** 2
    tone: npt.NDArray[np.float32] = (0.12 * swell * np.sin(2 * np.pi * root * step * seconds)).astype(np.float32)
    return tone


def _mux_sound(
    container: OutputContainer,
    stream: AudioStream,
    melody: npt.NDArray[np.float32],
    *,
    index: int,
    first: int,
    fps: Fraction,
) -> None:
    """The sound under frame `index` of the shot, which is frame `first` of the video: the tracks stay interleaved."""
    start, stop, offset = (math.floor(n * _SAMPLE_RATE_HZ / fps) for n in (first, first + 1, first - index))
    frame = av.AudioFrame.from_ndarray(melody[None, start - offset : stop - offset], format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = _SAMPLE_RATE_HZ, Fraction(1, _SAMPLE_RATE_HZ), start
    container.mux(stream.encode(frame))
