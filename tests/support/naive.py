"""Row by row Python versions of the table builders, written from the format description alone.

They are an oracle for the vectorised builders (`unit/test_oracle.py`) and the yardstick of their speed (`benchmarks`).
Each takes the CSV file of one table, without video files, and yields (record number, sample row), in order; the
sample is null where the record cannot be read. Blank records are passed over.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from civid_loader.schema import CAPTION, CLIP, MEDIA, SAMPLE_FEATURES, SOURCE, caption
from support.naive_cells import (
    NULLS,
    BadRowError,
    check_span,
    number_of,
    pair_of,
    required,
    seconds,
    text_of,
    whole,
    whole_of,
)

Sample = dict[str, Any]
Rows = Iterator[tuple[int, Sample | None]]

LICENSES: Final = {"lvd2m": "hdvila-research", "miradata": "miradata-research"}
_WINDOW: Final = re.compile(r"\|\|\|\s*([0-9]+)\s*\|\|\|\s*([0-9]+)\s*\|\|\|\s*(.*?)\s*\|\|\|(?:,|\s*\]$)", re.DOTALL)


def lvd2m(path: Path, subset: str) -> Rows:
    """LVD-2M: `builders/lvd2m.py`."""
    times_seen = Counter(row.get("refined_caption", "") for _, row in _read(path))

    def sample(number: int, row: dict[str, str]) -> Sample:
        return _lvd2m_sample(number, row, path.name, subset, times_seen)

    return _samples(path, sample)


def miradata_v0(path: Path, subset: str = "v0") -> Rows:
    """MiraData v0: `builders/miradata.py`."""
    return _samples(path, lambda number, row: _v0_sample(number, row, path.name, subset))


def miradata_v1(path: Path, subset: str) -> Rows:
    """MiraData v1: `builders/miradata.py`."""
    return _samples(path, lambda number, row: _v1_sample(number, row, path.name, subset))


def _samples(path: Path, make: Callable[[int, dict[str, str]], Sample]) -> Rows:
    for number, row in _read(path):
        try:
            yield number, make(number, row)
        except BadRowError:
            yield number, None


def _read(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(1 << 24)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        names = next(reader)
        for number, cells in enumerate(reader):
            if any(cell not in NULLS for cell in cells):
                yield number, dict(zip(names, cells, strict=True))


def _lvd2m_sample(number: int, row: dict[str, str], file: str, subset: str, times_seen: Counter[str]) -> Sample:
    flags: list[str] = []
    key = required(row, "key").removesuffix(".mp4")
    if re.search(r"[/\\:]|^\.*$", key):
        raise BadRowError("key")
    if text_of(row, "refined_caption") and times_seen[row["refined_caption"]] > 1:
        flags.append("duplicated_refined_caption")
    duration = number_of(row, "video_time")
    if duration is not None and duration <= 0:
        raise BadRowError("video_time")
    start, end = _lvd2m_span(row, duration, flags)
    check_span(start, end)
    origin, url = text_of(row, "dataset_src"), text_of(row, "url")
    captions = _lvd2m_raw(text_of(row, "raw_caption"), duration, flags)
    for kind, column, annotator in (
        ("refined", "refined_caption", "upstream:claude-3-haiku"),
        ("rewritten", "rewritten_caption", "upstream:llama-3.1-70b"),
        ("original", "orig_caption", f"upstream:{origin or 'source'}"),
    ):
        if text := text_of(row, column):
            captions.append(caption(kind, text, annotator))
    platform = ("youtube" if re.search(r"youtu\.?be", url) else "web") if url else None
    clip = _clip(
        key,
        video=f"{key}.mp4",
        captions=captions,
        source={
            "platform": platform, "category": origin, "video_id": text_of(row, "video_id"), "url": url,
            "start_seconds": start, "end_seconds": end,
        },
        media={"duration_seconds": duration},
    )  # fmt: skip
    flow = number_of(row, "total score")
    if flow is not None:
        clip["scores"] = [{"name": "flow_mean", "unit": "px", "annotator": "upstream:raft", "value": flow}]
    return _sample("lvd2m", subset, clip, flags, file, number)


def _lvd2m_span(row: dict[str, str], duration: float | None, flags: list[str]) -> tuple[float | None, float | None]:
    """`span`; else the frames `scene_cut` of `orig_span`, whose frame rate is their number over `video_time`."""
    start, end = pair_of(row, "span", seconds)
    outer_start, outer_end = pair_of(row, "orig_span", seconds)
    if "orig_span" not in row:
        return start, end
    first, last = pair_of(row, "scene_cut", whole)
    if last is not None and last > -1 and last <= first:
        raise BadRowError("scene_cut")
    cut = None
    if first is not None and (first > 0 or last > -1):
        if duration and outer_start is not None:
            begin = outer_end - duration if last == -1 else outer_start + first / ((last - first) / duration)
            if begin >= outer_start - 0.5 and begin + duration <= outer_end + 0.5:
                cut = max(begin, outer_start), min(begin + duration, outer_end)
        flags.append("span_from_scene_cut" if cut else "scene_cut_not_inside_orig_span")
    return (start, end) if start is not None else cut or (outer_start, outer_end)


def _lvd2m_raw(text: str | None, duration: float | None, flags: list[str]) -> list[dict[str, Any]]:
    """The parts headed `Caption x:`; if there is one for every 30 s, part i is about [30 i, 30 i + 30) seconds."""
    parts = [part.strip() for part in re.split(r"\s*Caption\s+[0-9]+\s*:\s*", text or "")]
    parts = [part for part in parts if part]
    windows: list[tuple[float | None, float | None]] = [(None, None)] * len(parts)
    if len(parts) > 1:
        if duration is not None and math.ceil(duration / 30) == len(parts):
            windows = [(30.0 * i, min(30.0 * (i + 1), duration)) for i in range(len(parts))]
            flags.append("caption_windows_assumed")
        else:
            flags.append("caption_parts_without_windows")
    return [
        caption("raw", part, "upstream:llava-v1.6-34b", start_seconds=start, end_seconds=end)
        for part, (start, end) in zip(parts, windows, strict=True)
    ]


def _v0_sample(number: int, row: dict[str, str], file: str, subset: str) -> Sample:
    index = required(row, "index")
    match = re.fullmatch(r"([0-9]{12})_.{11}-[0-9]{6}", index)
    fps = number_of(row, "fps")
    start, end = whole_of(row, "start_frame"), whole_of(row, "end_frame")
    if not match or (fps is not None and fps < 0.01):
        raise BadRowError("index or fps")
    check_span(start, end)
    download, video_id = int(match[1]), text_of(row, "video_id")
    flags: list[str] = []
    clip = _clip(
        index,
        video=f"{download // 1000:09d}/{index}.mp4",
        captions=_six_captions(row, flags),
        source={
            "platform": "youtube",
            "category": "gaming" if download <= 7416 else "city",
            "video_id": video_id,
            "url": f"https://www.youtube.com/watch?v={video_id}" if video_id else None,
            "start_seconds": start / fps if fps and start is not None else None,
            "end_seconds": end / fps if fps and end is not None else None,
            "start_frame": start,
            "end_frame": end,
        },
        media={"fps": fps},
    )
    return _sample("miradata", subset, clip, flags, file, number)


def _v1_sample(number: int, row: dict[str, str], file: str, subset: str) -> Sample:
    path = required(row, "file_path")
    match = re.search(r"([0-9]{12})\.([0-9]+)(?:\.\w+)?$", path, re.ASCII)
    if not match:
        raise BadRowError("file_path")
    flags: list[str] = []
    stated = text_of(row, "clip_id")
    if stated is not None and stated.lstrip("0") != f"{match[1]}.{match[2]}".lstrip("0"):
        flags.append("clip_id_float_loss")
    start, end = pair_of(row, "timestamp", seconds)
    start_frame, end_frame = pair_of(row, "framestamp", whole)
    check_span(start, end)
    fps = number_of(row, "fps")
    measures: dict[str, float | None] = {"fps": fps, "duration_seconds": number_of(row, "seconds")}
    measures |= {name: whole_of(row, name, bits=32) for name in ("width", "height")}
    measures["num_frames"] = whole_of(row, "frame_number")
    if any((measures[name] or 1) <= 0 or measures[name] == 0 for name in ("fps", "duration_seconds")):
        flags.append("zero_or_negative_measure")
    if start is not None and start_frame is not None and fps and fps > 0 and abs(start_frame / fps - start) > 0.1:
        flags.append("frames_disagree_with_timestamp")
    if any(value is not None and value <= 0 for value in measures.values()) and "zero_or_negative_measure" not in flags:
        flags.append("zero_or_negative_measure")
    if not re.fullmatch(r"(?:[\w-]+/)*[\w.-]+", path, re.ASCII):
        path = f"video_clips/{int(match[1]) // 1000:09d}/{match[1]}.{match[2]}.mp4"
    platform, _, category = (part.strip() for part in (text_of(row, "source") or "").partition(","))
    clip = _clip(
        f"{match[1]}.{match[2]}",
        video=path,
        captions=_six_captions(row, flags),
        source={
            "platform": platform or None, "category": unquote(category) or None, "video_id": text_of(row, "video_id"),
            "url": text_of(row, "video_url"), "start_seconds": start, "end_seconds": end,
            "start_frame": start_frame, "end_frame": end_frame,
        },
        media={name: value if value is not None and value > 0 else None for name, value in measures.items()},
    )  # fmt: skip
    return _sample("miradata", subset, clip, flags, file, number)


def _six_captions(row: dict[str, str], flags: list[str]) -> list[dict[str, Any]]:
    """A text, or windows coded as `[|||0||| 120||| text |||,|||120||| ...]`, in any order."""
    captions = []
    most = 0
    for kind in ("short", "dense", "main_object", "background", "camera", "style"):
        annotator = "upstream:panda-70m" if kind == "short" else "upstream:gpt-4v"
        text = text_of(row, f"{kind}_caption")
        if re.match(r"[ \t\r\n]+[a-z]", row.get(f"{kind}_caption", "")) and "caption_prefix_lost" not in flags:
            flags.append("caption_prefix_lost")
        if text is None or not re.match(r"\[\s*\|\|\|", text):
            captions += [caption(kind, text, annotator)] if text else []
            continue
        if _WINDOW.sub("", text).strip("[] \t"):
            raise BadRowError(f"{kind}_caption")
        windows = sorted(
            ((float(start), float(end), part) for start, end, part in _WINDOW.findall(text)), key=lambda w: w[0]
        )
        if any(start >= end for start, end, _ in windows):
            raise BadRowError(f"{kind}_caption")
        most = max(most, len(windows))
        captions += [caption(kind, t, annotator, start_seconds=s, end_seconds=e) for s, e, t in windows if t]
    if most and most < (number_of(row, "seconds") or 0) // 120:
        flags.append("missing_caption_windows")
    return captions


def _clip(clip_id: str, *, video: str, captions: list[dict[str, Any]], source: Sample, media: Sample) -> Sample:
    clip = dict.fromkeys(CLIP) | {"clip_id": clip_id, "index": 0, "video": video, "trimmed": True}
    lists = {"captions": captions, "characters": [], "scores": []}
    return clip | lists | {"source": dict.fromkeys(SOURCE) | source, "media": dict.fromkeys(MEDIA) | media}


def _sample(dataset: str, subset: str, clip: Sample, flags: list[str], file: str, number: int) -> Sample:
    assert all(text.keys() == CAPTION.keys() for text in clip["captions"])
    return dict.fromkeys(SAMPLE_FEATURES) | {
        "sample_id": f"{dataset}/{subset}/{clip['clip_id']}",
        "dataset": dataset,
        "subset": subset,
        "level": "clip",
        "clips": [clip],
        "transitions": [],
        "captions": [],
        "flags": flags,
        "provenance": {
            "annotation_file": file,
            "row_index": number,
            "upstream_version": subset[:2] if dataset == "miradata" else None,
            "license": LICENSES[dataset],
        },
    }
