"""LVD-2M as published: three tables with different columns, a sample of 100, and a flat folder of clips."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from civid_loader.demo.render import Shot, VideoFile
from civid_loader.demo.scene import Scene, make_scenes
from civid_loader.demo.wording import background, camera_movement, content, main_object, request, short

_CAPTIONS: Final = ("raw_caption", "refined_caption", "rewritten_caption", "orig_caption")
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "ytb_600k_720p.csv": (
        "key", "video_id", "url", "dataset_src", *_CAPTIONS, "total score", "span", "video_time",
    ),
    "hdvg_300k_720p.csv": (
        "key", "video_id", "url", "dataset_src", *_CAPTIONS, "total score", "video_time", "orig_span", "scene_cut",
    ),
    "webvid_1200k_336_short.csv": ("key", "url", "dataset_src", *_CAPTIONS, "total score", "video_time"),
}  # fmt: skip
_WRONG: Final = (
    "A teal hexagon waits in an empty studio while the camera stays still. The light is even, and the scene does not "
    "change from the first frame to the last."
)
"""What a failing service answered for many clips: the same text, about none of them."""
_PIECE_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One row of a table, without its captions."""

    table: str
    """Key of `_COLUMNS`."""
    key: str
    """Id of the clip, stem of its file."""
    dataset_src: str
    """The source set."""
    seconds: float
    """Length of the clip."""
    span: tuple[str, str] | None = None
    """`span`, or `orig_span` of an hdvg row, as the table writes its two times."""
    scene_cut: tuple[int, int] | None = None
    """[start, end) frames inside `orig_span`; -1: to its end."""
    fps: int = 12
    """Frames per second of the clip file."""
    wrong: bool = False
    """Whether the refined caption is the one of the failing service."""
    found: bool = True
    """Whether the clip was downloaded; upstream's script skips everything from 20 s on."""
    size: tuple[int, int] = (180, 320)
    """(height, width) of the clip file, pixels."""


_YTB, _HDVG, _WEBVID = _COLUMNS
# hdvg: scene_cut counts frames inside orig_span, e.g. [40 s, 54 s] from frame 100 at 25 fps on: 14 - 4 = 10 s.
_ROWS: Final = (
    _Row(
        table=_YTB, key="demoPanda01_3", dataset_src="panda70m", seconds=10.5, span=("0:01:20.880", "0:01:31.380"),
    ),
    _Row(
        table=_YTB, key="demoIntern2.17", dataset_src="internvid", seconds=11.0, span=("00:00:17.759", "00:00:28.759"),
        size=(320, 180),
    ),
    _Row(
        table=_YTB, key="-demoYtb03z_5", dataset_src="panda70m", seconds=41.2, span=("0:02:00.000", "0:02:41.200"),
        found=False,
    ),
    _Row(
        table=_YTB, key="demoPanda04_1", dataset_src="panda70m", seconds=10.0, span=("0:00:05.005", "0:00:15.005"),
        wrong=True,
    ),
    _Row(
        table=_YTB, key="demoIntern5.2", dataset_src="internvid", seconds=24.6, span=("00:10:00.250", "00:10:24.850"),
        wrong=True, found=False,
    ),
    _Row(
        table=_HDVG, key="demoHdvg-_6.41_3", dataset_src="hdvg", seconds=10.0, span=("00:03:10.000", "00:03:20.000"),
        scene_cut=(0, -1), fps=25,
    ),
    _Row(
        table=_HDVG, key="-demoHdvg07.9_2", dataset_src="hdvg", seconds=10.0, span=("00:00:40.000", "00:00:54.000"),
        scene_cut=(100, -1), fps=25,
    ),
    _Row(
        table=_HDVG, key="demoHdvg008.73_1", dataset_src="hdvg", seconds=10.4, span=("00:01:02.500", "00:01:30.000"),
        scene_cut=(150, 462), fps=30,
    ),
    _Row(
        table=_HDVG, key="demoHdvg009.31_4", dataset_src="hdvg", seconds=21.0, span=("00:05:00.000", "00:05:21.000"),
        scene_cut=(0, -1), wrong=True, found=False,
    ),
    _Row(
        table=_HDVG, key="demoHdvg010.5_1", dataset_src="hdvg", seconds=22.4, span=("00:02:00.000", "00:02:40.000"),
        scene_cut=(48, 608), wrong=True, found=False,
    ),
    _Row(table=_WEBVID, key="1044219901", dataset_src="webvid", seconds=10.0),
    _Row(table=_WEBVID, key="13620422", dataset_src="webvid", seconds=12.0, wrong=True),
    _Row(table=_WEBVID, key="33350812", dataset_src="webvid", seconds=63.0, wrong=True, found=False),
)  # fmt: skip


def write_lvd2m(root: Path, *, rng: np.random.Generator) -> tuple[tuple[Path, ...], list[VideoFile]]:
    """Write the tables below `root`; returns them (ytb, hdvg, webvid) and the videos to render.

    `random_sample_100.csv`, rows that are in the ytb table too, is written but not among those returned.
    """
    annotations = root / "annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    pieces = [_num_pieces(row) for row in _ROWS]
    scenes = iter(make_scenes(rng, count=sum(pieces)))
    shown = [[next(scenes) for _ in range(count)] for count in pieces]
    cells = [_cells(row, own, score=rng.uniform(20, 90)) for row, own in zip(_ROWS, shown, strict=True)]
    tables = {name: [row for row in cells if row["table"] == name] for name in _COLUMNS}
    paths = [_write_table(annotations / name, rows, columns=_COLUMNS[name]) for name, rows in tables.items()]
    _write_table(annotations / "random_sample_100.csv", tables[_YTB][:2], columns=_COLUMNS[_YTB])
    files = [_video(row, own, videos=root / "videos") for row, own in zip(_ROWS, shown, strict=True) if row.found]
    return tuple(paths), files


def _num_pieces(row: _Row) -> int:
    """Upstream captions clips in pieces of 30 s, the last one shorter: 41.2 s has two."""
    return int(-(-row.seconds // _PIECE_SECONDS))


def _cells(row: _Row, scenes: Sequence[Scene], *, score: float) -> dict[str, object]:
    """All cells a row could have; its table's columns pick from them."""
    # The id is what precedes the clip number, which follows the last '.' (hdvg, internvid) or '_' (panda70m).
    video_id = row.key.rpartition("." if "." in row.key else "_")[0]
    webvid = f"https://media.example.invalid/webvid/{row.key}/preview.mp4"
    parts = [f"{content(scene)} {background(scene)}" for scene in scenes]
    raw = parts[0] if len(parts) == 1 else " ".join(f"Caption {n}: {part}" for n, part in enumerate(parts, start=1))
    return {
        "table": row.table,
        "key": row.key,
        "video_id": video_id,
        "url": webvid if row.table == _WEBVID else f"https://www.youtube.com/watch?v={video_id}",
        "dataset_src": row.dataset_src,
        "raw_caption": raw,
        "refined_caption": _WRONG if row.wrong else _refined(scenes),
        "rewritten_caption": "hexagon waiting in an empty studio" if row.wrong else request(scenes[0]),
        "orig_caption": short(scenes[0]),
        "total score": score,
        "span": repr(list(row.span or ())),
        "orig_span": repr(list(row.span or ())),
        "scene_cut": repr(list(row.scene_cut or ())),
        "video_time": row.seconds,
    }


def _refined(scenes: Sequence[Scene]) -> str:
    return " Later on: ".join(f"{main_object(scene)} {camera_movement(scene)}" for scene in scenes)


def _write_table(path: Path, rows: Sequence[Mapping[str, object]], *, columns: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in rows)
    return path


def _video(row: _Row, scenes: Sequence[Scene], *, videos: Path) -> VideoFile:
    """Long takes without cuts and, as upstream's script leaves them, without sound."""
    shots = tuple(Shot(scene=scene, duration_seconds=row.seconds / len(scenes)) for scene in scenes)
    return VideoFile(path=videos / f"{row.key}.mp4", shots=shots, size=row.size, fps=Fraction(row.fps), sound=False)
