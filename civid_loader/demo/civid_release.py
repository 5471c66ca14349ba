"""CI-VID as published: pretty-printed caption files, and true JSONL with the construction pipeline's keys."""

import hashlib
import itertools
import json
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import numpy as np

from civid_loader.demo.render import Shot, VideoFile
from civid_loader.demo.scene import Scene, make_scenes, make_sequence
from civid_loader.demo.wording import joint_caption, single_caption, subject

Form = Literal["fenced", "plain", "published", "strings"]
Captions = list[dict[str, str]]

_FENCE: Final = 3 * "`"
_RESIDUES: Final = {"fence": '"\n}\n' + _FENCE, "fence_comma": '",\n}\n' + _FENCE, "paren": '")', "clean": ""}
"""What upstream's cutting left at the end of an item's last field."""
_CLIPS_DIR: Final = "/data/interleave/clips"
_FPS: Final = Fraction(16)
_PACKED: Final = "chunk_40_80"
_JAPANESE: Final = " A caption card names the shape in Japanese, 「ちいさな形の旅」, a journey of small shapes."
_CYRILLIC: Final = " A caption card says «МАЛЕНЬКАЯ ФИГУРА», Russian for a small shape."
_ESCAPED: Final = r" A caption card says \u0417\u0412\u0401\u0417\u0414\u0410, Russian for a star."


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One record of the train or test file."""

    source: str
    """Path of the source video in the pipeline; its md5 names the folder of the clips."""
    seq_idx: int
    """Number of the sequence in the source video."""
    scenes: tuple[int, ...]
    """Scene numbers of the clips that were kept."""
    coarse: tuple[int, ...]
    """Scene numbers before the entity step."""
    parts: tuple[int, ...]
    """Part folder of each clip inside the chunks; 80 and above were not downloaded."""
    form: Form
    """How the captions are written."""
    split: Literal["train", "test"] = "train"
    """Which of the two files."""


# Two videos share the stem "evening": only the md5 folder tells their clips apart. "kite season" straddles the last
# downloaded chunk (parts 40-79) and the next one, so one clip of its sequence is missing.
_ENTRIES: Final = (
    _Entry(
        source="/data/raw/0012/harbour_walk.mp4", seq_idx=0,
        scenes=(3, 4, 6), coarse=(3, 4, 5, 6), parts=(12, 12, 12), form="fenced",
    ),
    _Entry(
        source="/data/raw/0012/harbour_walk.mp4", seq_idx=1,
        scenes=(14, 15), coarse=(14, 15), parts=(12, 12), form="plain",
    ),
    _Entry(
        source="/data/raw/0031/evening.mp4", seq_idx=0, scenes=(2, 3), coarse=(2, 3), parts=(31, 31), form="published",
    ),
    _Entry(
        source="/data/raw/0057/evening.mp4", seq_idx=0, scenes=(2, 5), coarse=(2, 4, 5), parts=(57, 57), form="strings",
    ),
    _Entry(
        source="/data/raw/0079/kite season [part-2].mp4", seq_idx=2,
        scenes=(21, 22, 24, 27), coarse=(21, 22, 24, 26, 27), parts=(79, 79, 80, 79), form="fenced",
    ),
    _Entry(
        source="/data/raw/0204/paper_boats.mp4", seq_idx=0,
        scenes=(8, 9), coarse=(8, 9), parts=(204, 204), form="plain",
    ),
    _Entry(
        source="/data/raw/0007/lantern_room.mp4", seq_idx=0, split="test",
        scenes=(1, 2, 4), coarse=(1, 2, 4), parts=(7, 7, 7), form="fenced",
    ),
    _Entry(
        source="/data/raw/0066/tide-pool.mp4", seq_idx=3, split="test",
        scenes=(30, 31), coarse=(30, 31, 33), parts=(66, 66), form="plain",
    ),
)  # fmt: skip


def write_civid(root: Path, *, rng: np.random.Generator) -> tuple[tuple[Path, ...], list[VideoFile]]:
    """Write the annotations below `root`; returns them (train, test, folder of samples) and the videos to render."""
    annotations, videos = root / "annotations", root / "videos"
    samples = annotations / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    firsts = make_scenes(rng, count=len(_ENTRIES) + 5)
    _write_samples(samples, firsts[len(_ENTRIES) :], rng=rng)
    lines: dict[str, list[str]] = {"train": [], "test": []}
    files: list[VideoFile] = []
    for entry, first in zip(_ENTRIES, firsts, strict=False):
        first = replace(first, label="NORTH PIER") if entry.seq_idx == 2 else first
        scenes = make_sequence(rng, first, count=len(entry.scenes))
        lines[entry.split].append(json.dumps(_record(entry, scenes), ensure_ascii=False))
        files += _videos(entry, scenes, videos=videos)
    paths = []
    for split, records in lines.items():
        paths.append(annotations / f"CI-VID_{split}_samples.jsonl")
        paths[-1].write_text("".join(f"{line}\n" for line in records), encoding="utf-8", newline="\n")
    return (*paths, samples), files


def pack_chunk(videos: Path) -> None:
    """Replace the folder of one chunk by an uncompressed tar of the same content."""
    folder = videos / _PACKED
    with tarfile.open(videos / f"{_PACKED}.tar", "w") as tar:
        for path in sorted(folder.rglob("*.mp4")):
            member = tar.gettarinfo(path, arcname=path.relative_to(folder).as_posix())
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            with path.open("rb") as file:
                tar.addfile(member, file)
    shutil.rmtree(folder)


def _record(entry: _Entry, scenes: Sequence[Scene]) -> dict[str, object]:
    """A record with the keys of the construction pipeline, in the order it writes them."""
    stem = PurePosixPath(entry.source).stem
    md5 = _md5(entry.source)
    paths = {n: f"{_CLIPS_DIR}/{md5}/{stem}-Scene-{n:03d}.mp4" for n in entry.coarse}
    record: dict[str, object] = {
        "path": entry.source,
        "video_path_md5_hash": md5,
        "clip_seq": list(paths.values()),
        "seq_idx": entry.seq_idx,
        "good_clips": [paths[n] for n in entry.scenes],
        "entity": subject(scenes[0].actors[0]),
        "good_clip_idx": list(entry.scenes),
    }
    singles, joints = _captions(scenes)
    if entry.form == "published":
        return record | {"single_captions:": singles, "joint_captions:": joints}
    if entry.form == "strings":
        return record | {"single_captions:": _as_strings(singles), "joint_captions:": _as_strings(joints)}
    return record | {
        "response_singles": [_raw_answer(item, fenced=entry.form == "fenced") for item in singles],
        "response_joint": [_raw_answer(item, fenced=entry.form == "fenced") for item in joints],
    }


def _videos(entry: _Entry, scenes: Sequence[Scene], *, videos: Path) -> list[VideoFile]:
    stem, md5 = PurePosixPath(entry.source).stem, _md5(entry.source)
    files = []
    for number, part, scene in zip(entry.scenes, entry.parts, scenes, strict=True):
        if part < 80:
            chunk = videos / ("chunk_0_40" if part < 40 else _PACKED)
            path = chunk / str(part) / md5 / f"{stem}-Scene-{number:03d}.mp4"
            shot = Shot(scene=scene, duration_seconds=2.5 + 0.25 * (number % 5))
            files.append(VideoFile(path=path, shots=(shot,), fps=_FPS, sound=entry.seq_idx == 0))
    return files


def _write_samples(folder: Path, firsts: Sequence[Scene], *, rng: np.random.Generator) -> None:
    """The visualization samples. `001_caption.jsonl` and `001.jsonl` are different samples."""
    dicts = (
        ("000", 3, ("fence", "paren", "clean"), _JAPANESE),
        ("001", 2, ("fence_comma", "fence"), _CYRILLIC),
        ("002", 4, ("clean", "fence", "fence", "clean"), _ESCAPED),
    )
    for (name, count, residues, extra), first in zip(dicts, firsts, strict=False):
        label = "SHOP 24" if extra == _ESCAPED else None
        singles, joints = _captions(make_sequence(rng, replace(first, label=label), count=count))
        # Upstream never decoded what it cut out of the model's JSON: quotes keep their backslash.
        singles[0]["video_content"] = singles[0]["video_content"].replace('"', r"\"") + extra
        _dirty(singles, "video_background", residues)
        _dirty(joints, "change_in_camera_movement", ("fence", "clean", "fence"))
        body = json.dumps(_published(singles, joints), indent=4, ensure_ascii=False)
        (folder / f"{name}_caption.jsonl").write_text(f"{body}\n", encoding="utf-8", newline="\n")
    for name, first in zip(("001", "044"), firsts[3:], strict=True):
        singles, joints = _captions(make_sequence(rng, first, count=2))
        _dirty(singles, "video_background", ("fence", "clean"))
        _dirty(joints, "change_in_camera_movement", ("fence",))
        body = json.dumps(_published(_as_strings(singles), _as_strings(joints)), indent=2, ensure_ascii=False)
        (folder / f"{name}.jsonl").write_text(body, encoding="utf-8", newline="\n")


def _captions(scenes: Sequence[Scene]) -> tuple[Captions, Captions]:
    joints = [joint_caption(first, second) for first, second in itertools.pairwise(scenes)]
    return [single_caption(scene) for scene in scenes], joints


def _published(singles: Sequence[object], joints: Sequence[object]) -> dict[str, object]:
    return {"single_captions:": singles, "joint_captions:": joints}


def _as_strings(items: Captions) -> list[str]:
    return [json.dumps(item, ensure_ascii=False) for item in items]


def _dirty(items: Captions, field: str, residues: Sequence[str]) -> None:
    for item, residue in zip(items, residues, strict=False):
        item[field] += _RESIDUES[residue]


def _raw_answer(item: dict[str, str], *, fenced: bool) -> str:
    """What the model wrote."""
    body = json.dumps(item, indent=4, ensure_ascii=False)
    return f"{_FENCE}json\n{body}\n{_FENCE}" if fenced else body


def _md5(source: str) -> str:
    """Upstream hashes the path, not the file."""
    return hashlib.md5(source.encode(), usedforsecurity=False).hexdigest()
