"""MiraData (Ju et al., NeurIPS 2024): long clips with six captions each; releases v0 and v1."""

import re
from typing import Final
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from civid_loader.upstream.builder import CsvBuilder
from civid_loader.upstream.cells import (
    CaptionColumn,
    Cells,
    clip_struct,
    nest_captions,
    nest_flags,
    one_clip_samples,
    pointer_fields,
    provenance,
)
from civid_loader.upstream.records import Chunk, Context, Terms
from civid_loader.upstream.video_index import locate

KINDS: Final = ("short", "dense", "main_object", "background", "camera", "style")
MIN_FPS: Final = 0.01
WINDOW_SECONDS: Final = 120
"""Clips longer than this are captioned window by window; a rest shorter than a window has no caption."""
LAST_GAMING_ID: Final = 7416
"""v0: download ids up to here are games, the rest city walks (README; issue #3)."""
_INDEX: Final = r"^(?P<download>\d{12})_(?P<video>.{11})-(?P<clip>\d{6})$"
_FILE_PATH: Final = r"(?P<download>\d{12})\.(?P<clip>\d+)(?:\.\w+)?$"
_PLAIN_PATH: Final = r"^(?:[\w-]+/)*[\w.-]+$"
"""Any other path could lead out of the video root."""
_STAND_IN: Final = "|||0|||1|||-"
"""Takes the place of a window that cannot be read while its row is being rejected."""


class MiraData(CsvBuilder):
    """One table per release and quality level; one row is one clip."""

    TITLE = "MiraData"
    HOMEPAGE = "https://mira-space.github.io/"
    TERMS = Terms(
        license="miradata-research",
        text="The authors give the data for information only, without commercial use, and ask users not to copy, "
        "publish or distribute any part of it further. (The v1 repository also carries a GPL-3.0 file; the stricter "
        "text counts.) Keep what you build from it private.",
    )
    SUBSETS = ("v1", "v1_330k", "v1_93k", "v1_42k", "v1_9k", "v0")
    NEEDS = (
        frozenset({"dense_caption", "file_path", "timestamp"}),
        frozenset({"dense_caption", "index", "start_frame", "end_frame", "fps"}),
    )
    FIELDS = (
        *(f"{kind}_caption" for kind in KINDS), "video_id", "fps",
        "index", "start_frame", "end_frame", "start_timestep", "end_timestep",
        "clip_id", "source", "video_url", "width", "height", "seconds", "timestamp", "frame_number", "framestamp",
        "file_path",
    )  # fmt: skip

    @classmethod
    def subset_of(cls, stem: str, columns: frozenset[str]) -> str:
        if "file_path" not in columns:
            return "v0"
        level = re.search(r"(330k|93k|42k|9k)(?![0-9a-z])", stem)
        return f"v1_{level[1]}" if level else "v1"

    @classmethod
    def rows(cls, cells: Cells, row_index: npt.NDArray[np.int64], chunk: Chunk, context: Context) -> pa.Table:
        read = _v0_clips if "file_path" not in cells.table.column_names else _v1_clips
        clip = read(cells, context)
        return one_clip_samples(
            len(cells),
            clip | {"captions": _captions(cells)},
            sample_id=pc.binary_join_element_wise("miradata", chunk.subset, clip["clip_id"], "/"),
            dataset="miradata",
            subset=chunk.subset,
            level="clip",
            flags=nest_flags(cells),
            provenance=provenance(
                len(cells),
                annotation_file=chunk.file,
                row_index=row_index,
                upstream_version=chunk.subset[:2],
                license=cls.TERMS.license,
            ),
        )


def _v0_clips(cells: Cells, context: Context) -> dict[str, pa.Array]:
    """Clips keyed by `index`; times are frames / fps (README)."""
    index = cells.text("index")
    cells.reject(index.is_null(), "index is missing")
    parts = cells.match("index", _INDEX, example="000000008783_AbCdEfGhIjK-000114")
    download = pc.cast(pc.struct_field(parts, "download"), pa.int64())
    folder = _folder(download)
    # Upstream names a raw file by the index up to its first "-", which cuts ids that contain one.
    whole = pc.replace_substring_regex(index, r"-\d{6}$", "")
    cut = pc.replace_substring_regex(index, r"-.*$", "")
    start_frame, end_frame = cells.integer("start_frame"), cells.integer("end_frame")
    fps = cells.number("fps")
    cells.reject(pc.less_equal(fps, 0), "fps is not positive")
    cells.reject(pc.less(fps, MIN_FPS), f"fps is below {MIN_FPS}")
    cells.reject(pc.less(start_frame, 0), "start_frame is negative")
    cells.reject(pc.less_equal(end_frame, start_frame), "the clip ends before it starts")
    start, end = _divide(start_frame, fps), _divide(end_frame, fps)
    sources = [_path(folder, whole), _path(folder, cut)]
    located = locate(context.videos, _path(folder, index), sources, starts=start)
    video_id = cells.text("video_id")
    is_game = pc.less_equal(download, LAST_GAMING_ID)
    source = clip_struct(
        "source", len(cells), platform="youtube", category=pc.if_else(is_game, "gaming", pa.scalar("city")),
        video_id=video_id, url=pc.binary_join_element_wise("https://www.youtube.com/watch?v=", video_id, ""),
        start_seconds=start, end_seconds=end,
        start_frame=start_frame, end_frame=end_frame,
    )  # fmt: skip
    media = clip_struct("media", len(cells), fps=fps)
    return {"clip_id": index, "source": source, "media": media, **pointer_fields(cells, located)}


def _v1_clips(cells: Cells, context: Context) -> dict[str, pa.Array]:
    """Clips keyed by `file_path` (`clip_id` went through a float upstream); `timestamp` is what upstream cuts with."""
    file_path = cells.text("file_path")
    cells.reject(file_path.is_null(), "file_path is missing")
    parts = cells.match("file_path", _FILE_PATH, example="video_clips/000000100/000000100233.3.mp4")
    download, number = pc.struct_field(parts, "download"), pc.struct_field(parts, "clip")
    clip_id = pc.binary_join_element_wise(download, number, ".")
    plain_id = pc.binary_join_element_wise(pc.utf8_ltrim(download, "0"), number, ".")
    stated_id = pc.replace_substring_regex(cells.text("clip_id"), r"^0+", "")
    cells.flag("clip_id_float_loss", pc.not_equal(stated_id, pc.utf8_ltrim(plain_id, "0")))
    folder = _folder(pc.cast(download, pa.int64()))
    canonical = pc.binary_join_element_wise(
        "video_clips", folder, pc.binary_join_element_wise(clip_id, ".mp4", ""), "/"
    )
    is_plain = pc.match_substring_regex(file_path, _PLAIN_PATH)
    start, end = cells.time_pair("timestamp")
    clip_path = pc.if_else(is_plain, file_path, canonical)
    located = locate(context.videos, clip_path, [_path(folder, download)], starts=start)

    start_frame, end_frame = cells.integer_pair("framestamp")
    cells.reject(pc.less_equal(end, start), "the clip ends before it starts")
    fps, seconds = cells.positive(cells.number("fps")), cells.positive(cells.number("seconds"))
    by_frames = pc.abs(pc.subtract(_divide(start_frame, fps), start))
    cells.flag("frames_disagree_with_timestamp", pc.greater(by_frames, 0.1))
    platform, category = _platform_and_category(cells.text("source"))
    source = clip_struct(
        "source", len(cells), platform=platform, category=category, video_id=cells.text("video_id"),
        url=cells.text("video_url"), start_seconds=start, end_seconds=end, start_frame=start_frame, end_frame=end_frame,
    )  # fmt: skip
    width, height = (cells.positive(cells.integer(name, num_bits=32)) for name in ("width", "height"))
    media = clip_struct(
        "media", len(cells), width=width, height=height, fps=fps, duration_seconds=seconds,
        num_frames=cells.positive(cells.integer("frame_number")),
    )  # fmt: skip
    return {"clip_id": clip_id, "source": source, "media": media, **pointer_fields(cells, located)}


def _captions(cells: Cells) -> pa.ListArray:
    """Six kinds per clip, in windows where the cell is coded as `[|||start||| end||| text |||,...]`."""
    columns = []
    has_window = np.zeros(len(cells), dtype=np.bool_)
    num_windows = np.zeros(len(cells), dtype=np.int64)
    for kind in KINDS:
        annotator = "upstream:panda-70m" if kind == "short" else "upstream:gpt-4v"
        name = f"{kind}_caption"
        text = cells.text(name)
        if name in cells.table.column_names:
            lost = pc.match_substring_regex(cells.table.column(name).combine_chunks(), r"^\s+[a-z]")
            cells.flag("caption_prefix_lost", lost)
        is_coded = pc.fill_null(pc.match_substring_regex(text, r"^\[\s*\|\|\|"), False)
        if not pc.any(is_coded).as_py():
            columns.append(CaptionColumn(kind=kind, annotator=annotator, text=text))
            continue
        plain = np.flatnonzero(~is_coded.to_numpy(zero_copy_only=False))
        whole = CaptionColumn(kind=kind, annotator=annotator, text=text.filter(pc.invert(is_coded)), row=plain)
        windowed, counts = _windows(cells, name, text, is_coded, annotator)
        columns += [whole, windowed]
        has_window |= counts > 0
        num_windows = np.maximum(num_windows, counts)
    if has_window.any() and "seconds" in cells.table.column_names:
        expected = np.nan_to_num(cells.number("seconds").to_numpy(zero_copy_only=False)) // WINDOW_SECONDS
        cells.flag("missing_caption_windows", has_window & (num_windows < expected))
    return nest_captions(columns, len(cells))


def _windows(
    cells: Cells, name: str, text: pa.Array, is_coded: pa.Array, annotator: str
) -> tuple[CaptionColumn, npt.NDArray[np.int64]]:
    """The captions of a kind that have windows, in time order, and the number of windows per row."""
    coded_rows = np.flatnonzero(is_coded.to_numpy(zero_copy_only=False))
    pieces = pc.split_pattern(pc.utf8_rtrim(text.filter(is_coded), "] \t"), "|||,")
    piece_row = coded_rows[pc.list_parent_indices(pieces).to_numpy()]
    piece = pieces.flatten()
    content = pc.not_equal(pc.utf8_trim(piece, "[ \t"), "")
    piece_row, piece = piece_row[content.to_numpy(zero_copy_only=False)], piece.filter(content)
    parts = pc.split_pattern(piece, "|||", max_splits=3)
    is_whole = pc.equal(pc.list_value_length(parts), 4)
    if not pc.all(is_whole).as_py():
        parts = pc.split_pattern(pc.if_else(is_whole, piece, _STAND_IN), "|||", max_splits=3)
    edges = [pc.utf8_trim_whitespace(pc.list_element(parts, place)) for place in (1, 2)]
    is_timed = pc.and_(*(pc.match_substring_regex(edge, r"^\d{1,9}$") for edge in edges))
    start, end = (pc.cast(pc.if_else(is_timed, edge, "0"), pa.float64()) for edge in edges)
    is_forward = pc.or_(pc.less(start, end), pc.invert(is_timed))
    for good, reason in (
        (pc.and_(is_whole, is_timed), "a caption window cannot be read"),
        (is_forward, "a caption window ends before it starts"),
    ):
        bad_rows = piece_row[~good.to_numpy(zero_copy_only=False)]
        cells.reject(pa.array(np.isin(np.arange(len(cells)), bad_rows)), f"{name}: {reason}")

    window_text = pc.list_element(parts, 3)
    if pc.any(pc.ends_with(window_text, "|||")).as_py():
        window_text = pc.replace_substring_regex(window_text, r"\|\|\|$", "")
    window_text = pc.utf8_trim_whitespace(window_text)
    window_text = pc.if_else(pc.equal(window_text, ""), pa.scalar(None, pa.string()), window_text)
    order = np.lexsort((start.to_numpy(), piece_row))
    column = CaptionColumn(
        kind=name.removesuffix("_caption"),
        annotator=annotator,
        text=window_text.take(pa.array(order)),
        row=piece_row[order],
        start_seconds=start.take(pa.array(order)),
        end_seconds=end.take(pa.array(order)),
    )
    distinct = np.unique(np.stack([piece_row, start.to_numpy()], axis=1), axis=0)[:, 0].astype(np.int64)
    return column, np.bincount(distinct, minlength=len(cells))


def _platform_and_category(source: pa.Array) -> tuple[pa.Array, pa.Array]:
    """`videvo, %2Ffree-motion-graphics` -> `videvo`, `/free-motion-graphics`; the category may be absent."""
    codes = source.dictionary_encode()
    names = [name.partition(",") for name in codes.dictionary.to_pylist()]
    platform = pa.array([platform.strip() or None for platform, _, _ in names], pa.string())
    category = pa.array([unquote(category.strip()) or None for _, _, category in names], pa.string())
    return platform.take(codes.indices), category.take(codes.indices)


def _folder(download: pa.Array) -> pa.Array:
    """Download id 1431495 lies in folder 000001431."""
    return pc.utf8_lpad(pc.cast(pc.divide(download, 1000), pa.string()), 9, "0")


def _path(folder: pa.Array, stem: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pc.binary_join_element_wise(folder, stem, "/"), ".mp4", "")


def _divide(frames: pa.Array, fps: pa.Array) -> pa.Array:
    return pc.divide(pc.cast(frames, pa.float64()), fps)
