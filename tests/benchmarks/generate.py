"""Tables in upstream's shapes and sizes, made of random words: as long and as compressible as the real texts."""

import csv
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from civid_loader.builders.civid import JOINT_KINDS, SINGLE_KINDS

ROWS: Final[Mapping[str, int]] = {"lvd2m": 300_000, "miradata": 100_000, "civid": 20_000}
"""Rows (CI-VID: sequences) at scale 1."""
FILES: Final[Mapping[str, str]] = {
    "lvd2m": "ytb_{}.csv",
    "miradata": "miradata_v1_93k_{}.csv",
    "civid": "train_{}.jsonl",
}
BATCH: Final = 5_000

FENCE: Final = '"\n}\n```'
SINGLE_WORDS: Final = (124, 22, 21, 46)
JOINT_WORDS: Final = (70, 48, 20, 23, 21, 22)
MIRADATA_WORDS: Final = {"short": 12, "dense": 92, "background": 54, "main_object": 60, "style": 30, "camera": 48}
"""Mean words of a caption (upstream-formats.md, 1.2 and 2.2)."""


def generate(name: str, folder: Path, scale: float) -> Path:
    """The table of a dataset at a scale, made unless it is there."""
    num_rows = max(1, round(ROWS[name] * scale))
    path = folder / FILES[name].format(num_rows)
    if not path.is_file():
        begin = time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".incomplete")
        WRITERS[name](temporary, num_rows)
        temporary.replace(path)
        print(f"made {path}: {path.stat().st_size / 1e6:.0f} MB in {time.perf_counter() - begin:.0f} s")
    return path


class Words:
    """Texts of random words. Some words are far more frequent than others, as in any language."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        odds = np.arange(len(letters), 0, -1) / np.arange(len(letters) + 1).sum()
        lengths = self.rng.poisson(3.7, 8_000) + 2
        vocabulary = ["".join(self.rng.choice(letters, size=length, p=odds)) for length in lengths]
        weights = 1 / np.arange(5, len(vocabulary) + 5)
        picked = self.rng.choice(len(vocabulary), size=1 << 20, p=weights / weights.sum())
        self.pool = [vocabulary[i] + ("," if i % 29 == 0 else "") for i in picked.tolist()]
        self.number = np.arange(1 << 20, dtype=np.int64)

    def texts(self, num_texts: int, mean_words: int) -> list[str]:
        """Sentences of about that many words: the pool, entered at a random place for every eight words."""
        num_runs = np.maximum(1, self.rng.normal(mean_words / 8, mean_words / 32, num_texts).round().astype(int))
        starts = self.rng.integers(0, len(self.pool) - 8, int(num_runs.sum())).tolist()
        texts = []
        position = 0
        for count in num_runs.tolist():
            words: list[str] = []
            for start in starts[position : position + count]:
                words += self.pool[start : start + 8]
            texts.append(f"{' '.join(words).capitalize().rstrip(',')}.")
            position += count
        return texts


def _lvd2m(path: Path, num_rows: int) -> None:
    names = (
        "key", "video_id", "url", "dataset_src", "raw_caption", "refined_caption", "rewritten_caption", "orig_caption",
        "total score", "span", "video_time",
    )  # fmt: skip
    words = Words()
    _write_csv(path, names, (_lvd2m_rows(words, count) for count in _batches(num_rows)))


def _lvd2m_rows(words: Words, count: int) -> Iterator[tuple[Any, ...]]:
    """A fifth of the clips is over 30 s long and described in parts."""
    rng = words.rng
    halves = zip(words.texts(count, 60), words.texts(count, 60), strict=True)
    is_long = rng.random(count) < 0.2
    raw = [
        f"Caption 1: {a} Caption 2: {b}" if long else f"{a} {b}" for (a, b), long in zip(halves, is_long, strict=True)
    ]
    seconds = np.where(is_long, rng.uniform(31, 60, count), rng.uniform(10, 30, count)).round(3)
    starts = rng.uniform(0, 3000, count).round(3)
    ids = _video_ids(rng, count)
    return zip(
        [f"{video}.{i % 90}_{i % 7}" for i, video in enumerate(ids)],
        ids,
        [f"https://www.youtube.com/watch?v={video}" for video in ids],
        rng.choice(["panda70m", "internvid", "hdvg"], count).tolist(),
        raw,
        words.texts(count, 89),
        words.texts(count, 20),
        words.texts(count, 15),
        rng.uniform(20, 200, count).tolist(),
        [f"['{_clock(a)}','{_clock(b)}']" for a, b in zip(starts.tolist(), (starts + seconds).tolist(), strict=True)],
        seconds.tolist(),
        strict=True,
    )


def _miradata(path: Path, num_rows: int) -> None:
    names = (
        "clip_id", "source", "video_url", "video_id", "width", "height", "fps", "seconds", "timestamp", "frame_number",
        "framestamp", "file_path", *(f"{kind}_caption" for kind in MIRADATA_WORDS),
    )  # fmt: skip
    words, first = Words(), np.cumsum([0, *_batches(num_rows)]).tolist()
    batches = zip(first[:-1], _batches(num_rows), strict=True)
    _write_csv(path, names, (_miradata_rows(words, begin, count) for begin, count in batches))


def _miradata_rows(words: Words, begin: int, count: int) -> Iterator[tuple[Any, ...]]:
    """A clip in seven is longer than 120 s; its captions are coded window by window, in no order."""
    rng = words.rng
    is_long = rng.random(count) < 0.14
    seconds = np.where(is_long, rng.uniform(120, 720, count), rng.uniform(20, 120, count)).round(3)
    num_windows = np.where(is_long, seconds // 120, 1).astype(int)
    fps = rng.choice([29.97, 30, 23.97602398, 25], count)
    start = rng.uniform(0, 3000, count).round(3)
    first, last = (start * fps).astype(int), ((start + seconds) * fps).astype(int)
    ids = _video_ids(rng, count)
    download = (begin + np.arange(count)).tolist()
    sources = ["youtube, hd-vila-100m", "youtube, city or scenic tours", "videvo, %2Ffree-motion-graphics", "pexels"]
    captions = []
    for mean in MIRADATA_WORDS.values():
        texts = iter(words.texts(int(num_windows.sum()), mean))
        captions.append([_coded(rng, texts, n) if n > 1 else next(texts) for n in num_windows.tolist()])
    return zip(
        [f"{i}.{i % 30}".rstrip("0") for i in download],
        rng.choice(sources, count).tolist(),
        [f"https://www.youtube.com/watch?v={video}" for video in ids],
        ids,
        [1280] * count,
        [720] * count,
        fps.tolist(),
        seconds.tolist(),
        [f"['{_clock(a)}', '{_clock(b)}']" for a, b in zip(start.tolist(), (start + seconds).tolist(), strict=True)],
        (last - first).tolist(),
        [f"[{a}, {b}]" for a, b in zip(first.tolist(), last.tolist(), strict=True)],
        [f"video_clips/{i // 1000:09d}/{i:012d}.{i % 30}.mp4" for i in download],
        *captions,
        strict=True,
    )


def _coded(rng: np.random.Generator, texts: Iterator[str], num_windows: int) -> str:
    coded = (f"|||{120 * i}||| {120 * i + 120}||| {next(texts)} |||," for i in rng.permutation(num_windows).tolist())
    return f"[{''.join(coded)}]"


def _civid(path: Path, num_rows: int) -> None:
    """Sequences of 2 to 8 clips, 3.3 on average; half of the answers end in what was left of a code fence."""
    words = Words()
    with path.open("w", encoding="utf-8") as file:
        for count in _batches(num_rows):
            num_clips = np.minimum(8, 1 + words.rng.geometric(0.43, count))
            singles = _items(words, int(num_clips.sum()), tuple(SINGLE_KINDS), SINGLE_WORDS)
            joints = _items(words, int(num_clips.sum()), tuple(JOINT_KINDS), JOINT_WORDS)
            for n in num_clips.tolist():
                record = {
                    "single_captions:": [next(singles) for _ in range(n)],
                    "joint_captions:": [next(joints) for _ in range(n - 1)],
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _items(words: Words, count: int, names: tuple[str, ...], means: tuple[int, ...]) -> Iterator[dict[str, str]]:
    fields = [words.texts(count, mean) for mean in means]
    fenced = words.rng.random(count) < 0.5
    fields[-1] = [f"{text}{FENCE}" if is_fenced else text for text, is_fenced in zip(fields[-1], fenced, strict=True)]
    return (dict(zip(names, values, strict=True)) for values in zip(*fields, strict=True))


def _write_csv(path: Path, names: tuple[str, ...], batches: Iterator[Iterator[tuple[Any, ...]]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for rows in batches:
            writer.writerows(rows)


def _batches(num_rows: int) -> list[int]:
    return [min(BATCH, num_rows - begin) for begin in range(0, num_rows, BATCH)]


def _video_ids(rng: np.random.Generator, count: int) -> list[str]:
    letters = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", dtype="S1")
    drawn = letters[rng.integers(0, len(letters), (count, 11))]
    return [video.decode() for video in drawn.view("S11").ravel().tolist()]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{rest:06.3f}"


WRITERS: Final[Mapping[str, Callable[[Path, int], None]]] = {"lvd2m": _lvd2m, "miradata": _miradata, "civid": _civid}
