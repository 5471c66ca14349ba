"""MiraData v1 as published: the 9k table, and the folders its download script leaves behind."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import numpy as np

from civid_loader.demo.render import Shot, VideoFile
from civid_loader.demo.scene import Scene, make_scenes
from civid_loader.demo.wording import background, camera, dense, main_object, short, style

_COLUMNS: Final = (
    "clip_id", "source", "video_url", "video_id", "width", "height", "fps", "seconds", "timestamp", "frame_number",
    "framestamp", "file_path", "short_caption", "dense_caption", "background_caption", "main_object_caption",
    "style_caption", "camera_caption",
)  # fmt: skip
_YOUTUBE: Final = "https://www.youtube.com/watch?v="
_STOCK: Final = "https://media.example.invalid"
_WINDOW_SECONDS: Final = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One row of the table, without its captions."""

    download_id: int
    """Number of the source video."""
    clip_no: int
    """Number of the clip in the source video."""
    source: str
    """Platform and category."""
    video_id: str
    """Id at the platform."""
    span: tuple[float, float]
    """[start, end) in the source video, seconds."""
    found: Literal["clip", "raw", "empty", "nothing"]
    """What the user's folder holds: the cut clip, only the source video, a file of zero bytes, nothing."""
    fps: float = 30.0
    """Frames per second of the source video."""
    url: str | None = None
    """Address of the file, for stock videos."""
    frame_shift: int = 0
    """By how many frames framestamp is off."""
    early_seconds: float = 0.0
    """How much too early the clip file starts: it was cut at the keyframe before the span."""
    size: tuple[int, int] = (180, 320)
    """(height, width) of the file, pixels."""
    windows: tuple[int, ...] = ()
    """Start seconds of the captioned 120 s windows, in the order of the table."""

    def path(self, folder: str) -> str:
        clip_no = f".{self.clip_no}" if folder == "video_clips" else ""
        return f"{folder}/{self.download_id // 1000:09d}/{self.download_id:012d}{clip_no}.mp4"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Take:
    """A row with its pictures."""

    row: _Row
    """The row."""
    shots: tuple[Shot, ...]
    """What its span shows."""
    other: Scene
    """Something else, for the parts of a file outside the span."""

    def else_for(self, duration_seconds: float) -> tuple[Shot, ...]:
        return (Shot(scene=self.other, duration_seconds=duration_seconds),) if duration_seconds > 0 else ()


_ROWS: Final = (
    _Row(
        download_id=412, clip_no=1, source="youtube, 3D engine-rendered scenes", video_id="demoYt_0412",
        span=(254.2, 258.2), found="clip",
    ),
    _Row(
        download_id=412, clip_no=10, source="youtube, 3D engine-rendered scenes", video_id="demoYt_0412",
        span=(812.0, 816.5), found="clip", early_seconds=0.5,
    ),
    _Row(
        download_id=977, clip_no=4, source="youtube, city or scenic tours", video_id="-demoYt0977",
        span=(2.0, 5.0), found="raw", fps=24.0,
    ),
    _Row(
        download_id=977, clip_no=5, source="youtube, city or scenic tours", video_id="-demoYt0977",
        span=(5.0, 8.0), found="raw", fps=24.0,
    ),
    _Row(
        download_id=3120, clip_no=2, source="youtube, first-person perspective camera videos", video_id="demoYt_3120",
        span=(60.2, 311.2), found="clip", fps=5.0, size=(90, 160), windows=(120, 0),
    ),
    _Row(
        download_id=5544, clip_no=0, source="youtube, timelapse videos", video_id="demoYt_5544",
        span=(0.0, 381.5), found="nothing", windows=(240, 120),
    ),
    _Row(
        download_id=100233, clip_no=3, source="youtube, hd-vila-100m", video_id="demoHd-0233",
        span=(3.0, 7.0), found="raw", fps=25.0, frame_shift=40,
    ),
    _Row(
        download_id=4000021, clip_no=0, source="pexels", video_id="8812345", span=(0.0, 4.0), found="clip", fps=25.0,
        size=(320, 180), url=f"{_STOCK}/pexels/8812345-hd_720_1280_25fps.mp4",
    ),
    _Row(
        download_id=5000007, clip_no=0, source="videvo, %2Ffree-motion-graphics", video_id="4471", span=(0.0, 34.133),
        found="empty", url=f"{_STOCK}/videvo/Paper%20Kites%20%28loop%29.mp4",
    ),
    _Row(
        download_id=6000002, clip_no=0, source="pixabay", video_id="6294", span=(0.0, 4.138), found="clip", fps=29.0,
        url=f"{_STOCK}/pixabay/6294-lanterns.mp4",
    ),
)  # fmt: skip


def write_miradata_v1(root: Path, *, rng: np.random.Generator) -> tuple[tuple[Path, ...], list[VideoFile]]:
    """Write the table below `root`; returns it and the videos to render."""
    table = root / "annotations" / "miradata_v1_9k.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    scenes = iter(make_scenes(rng, count=sum(_num_windows(row) + 1 for row in _ROWS)))
    takes = [_Take(row=row, shots=_shots(row, scenes), other=next(scenes)) for row in _ROWS]
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_cells(take.row, take.shots) for take in takes)
    return (table,), _clips(takes, videos=root / "videos") + _source_videos(takes, videos=root / "videos")


def _num_windows(row: _Row) -> int:
    return int((row.span[1] - row.span[0]) // _WINDOW_SECONDS) + 1


def _shots(row: _Row, scenes: Iterator[Scene]) -> tuple[Shot, ...]:
    """One shot per whole window of 120 s and one for the rest, so that every window's caption is about its shot."""
    num_windows = _num_windows(row)
    rest = row.span[1] - row.span[0] - _WINDOW_SECONDS * (num_windows - 1)
    durations = [_WINDOW_SECONDS] * (num_windows - 1) + [rest]
    return tuple(Shot(scene=scene, duration_seconds=n) for n, scene in zip(durations, scenes, strict=False))


def _cells(row: _Row, shots: Sequence[Shot]) -> list[str]:
    start, end = row.span
    first = round(start * row.fps) + row.frame_shift
    num_frames = round((end - start) * row.fps)
    float_end = row.source.startswith(("videvo", "pixabay"))
    last: float = float(first + num_frames) if float_end else first + num_frames
    height, width = (1280, 720) if row.size[0] > row.size[1] else (720, 1280)
    captions = []
    for describe in (short, dense, background, main_object, style, camera):
        texts = [describe(shot.scene) for shot in shots]
        coded = (f"|||{at}||| {at + _WINDOW_SECONDS}||| {texts[at // _WINDOW_SECONDS]} |||," for at in row.windows)
        captions.append(f"[{''.join(coded)}]" if row.windows else texts[0])
    return [
        repr(float(f"{row.download_id}.{row.clip_no}")),  # so upstream lost the zero of clip 10
        row.source,
        row.url or f"{_YOUTUBE}{row.video_id}",
        row.video_id,
        str(width),
        str(height),
        repr(row.fps),
        repr(num_frames / row.fps) if float_end else repr(round(end - start, 3)),
        repr([_clock(start), _clock(end)]),
        str(num_frames),
        repr([first, last]),
        row.path("video_clips"),
        *captions,
    ]


def _clips(takes: Sequence[_Take], *, videos: Path) -> list[VideoFile]:
    files = []
    for take in takes:
        row, path = take.row, videos / take.row.path("video_clips")
        if row.found == "empty":
            files.append(VideoFile(path=path, shots=()))
        elif row.found == "clip":
            shots = (*take.else_for(row.early_seconds), *take.shots)
            # Only the long video is silent: 250 s of sound take as long as its pictures.
            sound = not row.windows
            files.append(VideoFile(path=path, shots=shots, size=row.size, fps=Fraction(row.fps), sound=sound))
    return files


def _source_videos(takes: Sequence[_Take], *, videos: Path) -> list[VideoFile]:
    """The source videos of rows without a clip: every row's span shows that row's shots, the rest something else."""
    timelines: dict[Path, VideoFile] = {}
    for take in takes:
        if take.row.found == "raw":
            path = videos / take.row.path("raw_video")
            before = timelines[path].shots if path in timelines else ()
            gap_seconds = take.row.span[0] - sum(shot.duration_seconds for shot in before)
            shots = (*before, *take.else_for(gap_seconds), *take.shots)
            timelines[path] = VideoFile(path=path, shots=shots, size=take.row.size, fps=Fraction(take.row.fps))
    ends = {videos / take.row.path("raw_video"): take.else_for(1.5) for take in takes}
    return [replace(file, shots=(*file.shots, *ends[path])) for path, file in timelines.items()]


def _clock(seconds: float) -> str:
    millis = round(seconds * 1000)
    return f"{millis // 3_600_000:02d}:{millis // 60_000 % 60:02d}:{millis // 1000 % 60:02d}.{millis % 1000:03d}"
