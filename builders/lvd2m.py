"""LVD-2M (Xiong et al., NeurIPS 2024): long single-shot clips from HD-VG, Panda-70M, InternVid and WebVid."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from civid_loader.upstream.builder import CsvBuilder
from civid_loader.upstream.cells import (
    CaptionColumn,
    Cells,
    clip_struct,
    nest_captions,
    nest_flags,
    one_clip_samples,
    one_score,
    pointer_fields,
    provenance,
)
from civid_loader.upstream.records import Chunk, Context, Source, Terms
from civid_loader.upstream.tables import read_range
from civid_loader.upstream.video_index import locate

PART_SECONDS: Final = 30.0
"""Clips are captioned in parts of this length (paper, appendix D); each part is headed `Caption x:`."""


class LVD2M(CsvBuilder):
    """Three tables (ytb, hdvg, webvid) and a random sample; one row is one clip."""

    TITLE = "LVD-2M"
    HOMEPAGE = "https://silentview.github.io/LVD-2M/"
    TERMS = Terms(
        license="hdvila-research",
        text="The authors publish under the terms of HD-VILA: Microsoft's research-use data agreement. The HD-VG part "
        "is for academic use and must not be distributed; WebVid is withdrawn, its rows are links. Keep what you build "
        "from it private.",
    )
    SUBSETS = ("ytb", "hdvg", "webvid", "random_sample")
    NEEDS = (frozenset({"key", "refined_caption"}),)
    SURVEYS = "refined_caption"
    FIELDS = (
        "key", "video_id", "url", "dataset_src", "raw_caption", "refined_caption", "rewritten_caption", "orig_caption",
        "total score", "span", "video_time", "orig_span", "scene_cut",
    )  # fmt: skip

    @classmethod
    def subset_of(cls, stem: str, columns: frozenset[str]) -> str:
        named = [subset for subset in cls.SUBSETS if subset in stem]
        if named:
            return named[0]
        return "hdvg" if "orig_span" in columns else "ytb" if "span" in columns else "webvid"

    @classmethod
    def survey(cls, chunk: Chunk, source: Source) -> npt.NDArray[np.uint64]:
        """Hashes of the refined captions, seeded with the file: thousands of rows carry one wrong text (issue #4)."""
        name = source.renamed("refined_caption")
        hashes = [
            _hashes(block.cells.column(name).combine_chunks(), chunk.payload.path)
            for block in read_range(chunk.payload, only=name)
        ]
        return np.concatenate([np.array([], dtype=np.uint64), *hashes])

    @classmethod
    def rows(cls, cells: Cells, row_index: npt.NDArray[np.int64], chunk: Chunk, context: Context) -> pa.Table:
        num_rows = len(cells)
        key = pc.replace_substring_regex(cells.text("key"), r"\.mp4$", "")
        cells.reject(pc.equal(pc.fill_null(pc.binary_length(key), 0), 0), "key is missing")
        cells.reject(pc.match_substring_regex(key, r"[/\\:]|^\.+$"), "key is not a file name")
        video_id = cells.text("video_id")
        file_name = pc.binary_join_element_wise(key, ".mp4", "")
        duration = cells.number("video_time")
        cells.reject(pc.less_equal(duration, 0), "video_time is not positive")
        start, end = _span(cells, duration)
        cells.reject(pc.less_equal(end, start), "the span ends before it starts")
        sources = [pc.binary_join_element_wise(video_id, ".mp4", "")]
        located = locate(context.videos, file_name, sources, starts=start)
        refined = cells.table.column("refined_caption").combine_chunks()
        hashes = _hashes(refined, chunk.payload.path)
        has_caption = cells.text("refined_caption").is_valid().to_numpy(zero_copy_only=False)
        cells.flag("duplicated_refined_caption", np.isin(hashes, context.repeated) & has_caption)

        origin = cells.text("dataset_src")
        captions = [
            _raw_parts(cells, duration),
            CaptionColumn(kind="refined", annotator="upstream:claude-3-haiku", text=cells.text("refined_caption")),
            CaptionColumn(kind="rewritten", annotator="upstream:llama-3.1-70b", text=cells.text("rewritten_caption")),
            CaptionColumn(
                kind="original",
                annotator=pc.binary_join_element_wise("upstream", pc.coalesce(origin, pa.scalar("source")), ":"),
                text=cells.text("orig_caption"),
            ),
        ]
        flow = one_score(cells.number("total score"), name="flow_mean", unit="px", annotator="upstream:raft")
        url = cells.text("url")
        youtube = pc.match_substring_regex(url, r"youtu\.?be")
        platform = pc.if_else(youtube, "youtube", pa.scalar("web"))
        clip = {
            "clip_id": key,
            **pointer_fields(cells, located),
            "source": clip_struct(
                "source", num_rows, platform=platform, category=origin, video_id=video_id, url=url,
                start_seconds=start, end_seconds=end,
            ),
            "media": clip_struct("media", num_rows, duration_seconds=duration),
            "captions": nest_captions(captions, num_rows),
            "scores": flow,
        }  # fmt: skip
        return one_clip_samples(
            num_rows,
            clip,
            sample_id=pc.binary_join_element_wise("lvd2m", chunk.subset, key, "/"),
            dataset="lvd2m",
            subset=chunk.subset,
            level="clip",
            flags=nest_flags(cells),
            provenance=provenance(num_rows, annotation_file=chunk.file, row_index=row_index, license=cls.TERMS.license),
        )


def _hashes(text: pa.Array, file: str) -> npt.NDArray[np.uint64]:
    """A hash per text, 0 for a missing one."""
    seed = xxhash.xxh32_intdigest(file.encode())
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter(
        (digest(t, seed) if t else 0 for t in text.cast(pa.binary()).to_pylist()), dtype=np.uint64, count=len(text)
    )


def _span(cells: Cells, duration: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Where the clip lies in its source video, in seconds.

    ytb states it (`span`). hdvg states the HD-VILA clip (`orig_span`) and frames inside it (`scene_cut`), not the frame
    rate; but the cut lasts `video_time`, so with a cut [s, e): fps = (e - s) / video_time. With e = -1 the cut runs to
    the end of orig_span. Example: orig_span 100-140 s, cut [150, 450], 12 s long: 25 fps, so 106-118 s.
    """
    start, end = cells.time_pair("span")
    if "orig_span" not in cells.table.column_names:
        return start, end
    outer_start, outer_end = cells.time_pair("orig_span")
    first, last = (pc.cast(frame, pa.float64()) for frame in cells.integer_pair("scene_cut"))
    is_cut = pc.fill_null(pc.or_(pc.greater(first, 0), pc.greater(last, -1)), False)
    cells.reject(pc.and_(pc.greater(last, -1), pc.less_equal(last, first)), "scene_cut ends before it starts")
    to_end = pc.equal(last, -1)
    fps = pc.divide(pc.subtract(last, first), duration)
    cut_start = pc.if_else(to_end, pc.subtract(outer_end, duration), pc.add(outer_start, pc.divide(first, fps)))
    cut_end = pc.add(cut_start, duration)
    slack_seconds = 0.5
    inside = pc.and_(
        pc.greater_equal(cut_start, pc.subtract(outer_start, slack_seconds)),
        pc.less_equal(cut_end, pc.add(outer_end, slack_seconds)),
    )
    usable = pc.fill_null(pc.and_(is_cut, inside), False)
    cells.flag("span_from_scene_cut", usable)
    cells.flag("scene_cut_not_inside_orig_span", pc.and_(is_cut, pc.invert(usable)))
    cut_start, cut_end = pc.max_element_wise(cut_start, outer_start), pc.min_element_wise(cut_end, outer_end)
    return (
        pc.coalesce(start, pc.if_else(usable, cut_start, outer_start)),
        pc.coalesce(end, pc.if_else(usable, cut_end, outer_end)),
    )


def _raw_parts(cells: Cells, duration: pa.Array) -> CaptionColumn:
    """`raw_caption`, cut at its `Caption x:` heads; windowed where the number of parts is that of 30 s pieces."""
    annotator = "upstream:llava-v1.6-34b"
    text = cells.text("raw_caption")
    head = r"Caption\s+\d+\s*:"  # begins with a literal: that is what the regex engine is fast at
    has_head = pc.fill_null(pc.match_substring_regex(text, head), False)
    if not pc.any(has_head).as_py():
        return CaptionColumn(kind="raw", annotator=annotator, text=text)
    lists = pc.split_pattern_regex(text.filter(has_head), head)
    whole = np.flatnonzero(~has_head.to_numpy(zero_copy_only=False))
    row = np.flatnonzero(has_head.to_numpy(zero_copy_only=False))[pc.list_parent_indices(lists).to_numpy()]
    row = np.concatenate([whole, row])
    order = pa.array(np.argsort(row, kind="stable"))
    part = pa.concat_arrays([text.filter(pc.invert(has_head)), pc.utf8_trim_whitespace(lists.flatten())]).take(order)
    row = row[order.to_numpy()]
    written = pc.fill_null(pc.greater(pc.binary_length(part), 0), False)
    row, part = row[written.to_numpy(zero_copy_only=False)], part.filter(written)
    num_parts = np.bincount(row, minlength=len(cells))
    position = np.arange(len(row)) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
    seconds = duration.to_numpy(zero_copy_only=False)
    expected = np.ceil(seconds / PART_SECONDS)
    cells.flag("caption_windows_assumed", (num_parts > 1) & (num_parts == expected))
    cells.flag("caption_parts_without_windows", (num_parts > 1) & (num_parts != expected))
    known = ((num_parts > 1) & (num_parts == expected))[row]
    start = np.where(known, position * PART_SECONDS, np.nan)
    end = np.where(known, np.minimum((position + 1) * PART_SECONDS, seconds[row]), np.nan)
    return CaptionColumn(
        kind="raw",
        annotator=annotator,
        text=part,
        row=row,
        start_seconds=pa.array(start, from_pandas=True),
        end_seconds=pa.array(end, from_pandas=True),
    )
