"""MiraData v0 as published: the table, and the folders its download script leaves behind."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import numpy as np

from civid_loader.demo.render import Shot, VideoFile
from civid_loader.demo.scene import Scene, make_scenes
from civid_loader.demo.wording import background, camera, dense, main_object, short, story, style

_COLUMNS: Final = (
    "index", "video_id", "start_frame", "end_frame", "main_object_caption", "background_caption", "style_caption",
    "camera_caption", "short_caption", "dense_caption", "fps", "start_timestep", "end_timestep", "", "",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One row of the table, without its captions."""

    download_idx: int
    """Number of the source video; up to 7416 gaming, above city."""
    video_id: str
    """Id at the platform, 11 characters."""
    clip_no: int
    """Number of the clip in the source video."""
    fps: str
    """As the table writes it."""
    frames: tuple[int, int]
    """[start, end) in the source video."""
    found: Literal["clip", "raw", "nothing"]
    """What the user's folder holds: the cut clip, only the source video, nothing."""
    prefix_lost: bool = False
    """Whether the main object caption begins mid-sentence."""

    @property
    def index(self) -> str:
        return f"{self.download_idx:012d}_{self.video_id}-{self.clip_no:06d}"


# The script cuts only the first clip of a source video, so the second row of 8431 is there only as source video;
# it also cuts the name of a source video at the first '-', which shortens the id of 9200.
_ROWS: Final = (
    _Row(download_idx=1204, video_id="demoGame001", clip_no=3, fps="30", frames=(5400, 5520), found="clip"),
    _Row(
        download_idx=6077, video_id="demoGame_02", clip_no=11, fps="29.97", frames=(17982, 18102), found="clip",
        prefix_lost=True,
    ),
    _Row(download_idx=8431, video_id="demoCity003", clip_no=0, fps="25", frames=(0, 76), found="clip"),
    _Row(download_idx=8431, video_id="demoCity003", clip_no=1, fps="25", frames=(76, 176), found="raw"),
    _Row(
        download_idx=9200, video_id="demo-City04", clip_no=2, fps="23.97602398", frames=(72, 168), found="raw",
        prefix_lost=True,
    ),
    _Row(download_idx=10022, video_id="demoCity005", clip_no=114, fps="30", frames=(171000, 174600), found="nothing"),
)  # fmt: skip


def write_miradata_v0(root: Path, *, rng: np.random.Generator) -> tuple[tuple[Path, ...], list[VideoFile]]:
    """Write the table below `root`; returns it and the videos to render. Every clip is two shots with a cut."""
    table = root / "annotations" / "miradata_v0.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    scenes = make_scenes(rng, count=2 * len(_ROWS))
    files: list[VideoFile] = []
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(_COLUMNS)
        for number, row in enumerate(_ROWS):
            pair = scenes[2 * number : 2 * number + 2]
            writer.writerow(_cells(row, pair))
            files += _videos(row, pair, videos=root / "videos")
        writer.writerow([""] * len(_COLUMNS))
    return (table,), files


def _cells(row: _Row, scenes: Sequence[Scene]) -> list[str]:
    main = story([main_object(scene) for scene in scenes])
    if row.prefix_lost:  # "A coral circle drifts …" -> " drifts …": upstream's answer parser ate the beginning
        main = " " + main.split(" ", 3)[3]
    return [
        row.index,
        row.video_id,
        *(str(frame) for frame in row.frames),
        main,
        story([background(scene) for scene in scenes]),
        style(scenes[0]),
        story([camera(scene) for scene in scenes]),
        short(scenes[0]),
        story([dense(scene) for scene in scenes]),
        row.fps,
        *(_rounded_clock(frame / float(row.fps)) for frame in row.frames),
        "",
        "",
    ]


def _videos(row: _Row, scenes: Sequence[Scene], *, videos: Path) -> list[VideoFile]:
    fps = Fraction(row.fps).limit_denominator(1001)
    start, end = (float(frame / fps) for frame in row.frames)
    shots = tuple(Shot(scene=scene, duration_seconds=(end - start) / 2) for scene in scenes)
    folder = f"{row.download_idx // 1000:09d}"
    if row.found == "clip":
        return [VideoFile(path=videos / "clip_video" / folder / f"{row.index}.mp4", shots=shots, fps=fps)]
    if row.found == "raw":  # the span, with something else before and after it
        before = Shot(scene=scenes[1], duration_seconds=start)
        after = Shot(scene=scenes[0], duration_seconds=2)
        path = videos / "raw_video" / folder / f"{row.index.split('-')[0]}.mp4"
        return [VideoFile(path=path, shots=(before, *shots, after), fps=fps)]
    return []


def _rounded_clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
