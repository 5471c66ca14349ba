"""Writes the whole made-up release: four datasets as their authors publish them, and their videos."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from civid_loader.demo.civid_release import pack_chunk, write_civid
from civid_loader.demo.lvd2m_release import write_lvd2m
from civid_loader.demo.miradata_v0_release import write_miradata_v0
from civid_loader.demo.miradata_v1_release import write_miradata_v1
from civid_loader.demo.moviebench_release import write_moviebench
from civid_loader.demo.render import VideoFile

Writer = Callable[..., tuple[tuple[Path, ...], list[VideoFile]]]

_WRITERS: Final[Mapping[str, tuple[Writer, ...]]] = {
    "civid": (write_civid,),
    "miradata": (write_miradata_v0, write_miradata_v1),
    "moviebench": (write_moviebench,),
    "lvd2m": (write_lvd2m,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One dataset on disk, as a user has it after downloading."""

    name: str
    """Name of the dataset."""
    annotations: tuple[Path, ...]
    """What to hand to the builder: files, or folders of files."""
    videos: Path
    """Folder of the videos; some that the annotations name are missing, as in life."""


def make_release(root: Path, *, seed: int = 0, render: bool = True) -> dict[str, Release]:
    """Write `<root>/<dataset>/{annotations,videos}` for all four datasets; returns them by name.

    The same `seed` gives the same annotations, byte for byte. `render=False` writes no video: 0.3 s instead of 10 s.
    Existing files of the same names are overwritten.
    """
    root = Path(root)
    releases: dict[str, Release] = {}
    files: list[VideoFile] = []
    for number, (name, writers) in enumerate(_WRITERS.items()):
        annotations: list[Path] = []
        videos = root / name / "videos"
        videos.mkdir(parents=True, exist_ok=True)
        for part, write in enumerate(writers):
            paths, more = write(root / name, rng=np.random.default_rng([seed, number, part]))
            annotations += paths
            files += more
        releases[name] = Release(name=name, annotations=tuple(annotations), videos=videos)
    if render:
        # Longest first, so that no thread is left alone with it at the end.
        files.sort(key=lambda file: -sum(shot.duration_seconds * file.fps for shot in file.shots))
        with ThreadPoolExecutor() as pool:
            list(pool.map(VideoFile.write, files))
        pack_chunk(releases["civid"].videos)
    return releases
