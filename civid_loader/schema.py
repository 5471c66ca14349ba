"""The unified schema: one row shape for all datasets. Everything else speaks only this.

A row is a *sample*: an ordered sequence of 1..n *clips* with their captions. A clip is the half-open span
`[start_seconds, end_seconds)` of a video. Captions about the step from clip i to clip i+1 are *transitions*.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, List, Value, Video

from civid_loader.errors import SchemaError

SCHEMA_VERSION: Final = "1.0"

SINGLE_CAPTION_KINDS: Final = (
    "short", "dense", "main_object", "background", "camera", "camera_angle", "camera_movement", "style", "content",
    "raw", "refined", "rewritten", "original", "plot", "synopsis", "scene_title", "audio_description", "subtitle",
)  # fmt: skip
TRANSITION_CAPTION_KINDS: Final = (
    "continuation_content", "change_content", "continuation_background",
    "change_background", "change_camera_angle", "change_camera_movement",
)  # fmt: skip
CAPTION_KINDS: Final = SINGLE_CAPTION_KINDS + TRANSITION_CAPTION_KINDS
"""The closed vocabulary of `caption.kind`."""

LEVELS: Final = ("clip", "sequence", "scene")

_TEXT, _INT, _LONG, _REAL = Value("string"), Value("int32"), Value("int64"), Value("float64")

CAPTION: Final = {"kind": _TEXT, "text": _TEXT, "start_seconds": _REAL, "end_seconds": _REAL, "annotator": _TEXT}
"""Windows are relative to the clip, half-open; null = the whole clip."""
SOURCE: Final = {
    "platform": _TEXT, "category": _TEXT, "video_id": _TEXT, "url": _TEXT,
    "start_seconds": _REAL, "end_seconds": _REAL, "start_frame": _LONG, "end_frame": _LONG,
}  # fmt: skip
MEDIA: Final = {"width": _INT, "height": _INT, "fps": _REAL, "duration_seconds": _REAL, "num_frames": _LONG}
CLIP: Final = {
    "clip_id": _TEXT,
    "index": _INT,
    "video": _TEXT,
    "trimmed": Value("bool"),
    "source": SOURCE,
    "media": MEDIA,
    "captions": List(CAPTION),
    "characters": List({"name": _TEXT, "description": _TEXT}),
    "scores": List({"name": _TEXT, "unit": _TEXT, "annotator": _TEXT, "value": _REAL}),
}

SAMPLE_FEATURES: Final = Features(
    {
        "sample_id": _TEXT,
        "dataset": _TEXT,
        "subset": _TEXT,
        "level": _TEXT,
        "clips": List(CLIP),
        "transitions": List({"from_index": _INT, "to_index": _INT, "captions": List(CAPTION)}),
        "captions": List(CAPTION),
        "hierarchy": {
            "movie_id": _TEXT, "movie_title": _TEXT, "imdb_id": _TEXT, "scene_id": _TEXT,
            "scene_index": _INT, "sequence_index": _INT,
        },
        "flags": List(_TEXT),
        "provenance": {"annotation_file": _TEXT, "row_index": _LONG, "upstream_version": _TEXT, "license": _TEXT},
    }
)  # fmt: skip
CHARACTER_FEATURES: Final = Features(
    {
        "movie_id": _TEXT,
        "character_id": _TEXT,
        "name": _TEXT,
        "actor": _TEXT,
        "aliases": List(_TEXT),
        "portraits": List(_TEXT),
        "audio": List(_TEXT),
    }
)
MOVIE_FEATURES: Final = Features(
    {"movie_id": _TEXT, "title": _TEXT, "imdb_id": _TEXT, "synopsis": _TEXT, "scene_ids": List(_TEXT)}
)

MEDIA_STATUSES: Final = ("ok", "missing", "unreadable", "no_video", "not_checked")
MEDIA_FEATURES: Final = Features(
    {
        "clip_id": _TEXT,
        "video": _TEXT,
        "status": _TEXT,
        "reason": _TEXT,
        "checked_at": Value("timestamp[ms, tz=UTC]"),
        "num_bytes": _LONG,
        "fingerprint": _TEXT,
        "sha256": _TEXT,
        "container": _TEXT,
        "codec": _TEXT,
        "width": _INT,
        "height": _INT,
        "rotation_degrees": _INT,
        "pixel_format": _TEXT,
        "color_range": _TEXT,
        "color_space": _TEXT,
        "fps": _REAL,
        "real_fps": _REAL,
        "is_vfr": Value("bool"),
        "num_frames": _LONG,
        "num_keyframes": _LONG,
        "start_seconds": _REAL,
        "duration_seconds": _REAL,
        "is_truncated": Value("bool"),
        "has_audio": Value("bool"),
        "audio_codec": _TEXT,
        "audio_sample_rate_hz": _INT,
        "audio_channels": _INT,
        "clip_num_frames": _LONG,
        "clip_duration_seconds": _REAL,
        "shard": _TEXT,
        "byte_offset": _LONG,
        "packet_index": Value("binary"),
    }
)
"""The `media` layer, one row per clip: what its file really holds, found by `civid probe`. Facts are of the whole file,
`clip_*` and `packet_index` of the clip's span. Width and height are as displayed, after rotation. `start_seconds` is
the time the container gives the first frame; all other times count from that frame."""
VIDEO_FEATURES: Final = Features({"clip_id": _TEXT, "video": Video()})
"""The `videos` config: the bytes of each clip's file."""
CAPTION_LAYER_FEATURES: Final = Features(
    {"clip_id": _TEXT, "captions": List(CAPTION), "transition_captions": List(CAPTION), "reason": _TEXT}
)
"""A layer of captions, one row per clip: about the clip, and about the step to it from the clip before. Of a clip that
could not be captioned, `reason` says why."""

TABLES: Final[Mapping[str, Features]] = {
    "annotations": SAMPLE_FEATURES,
    "characters": CHARACTER_FEATURES,
    "movies": MOVIE_FEATURES,
    "media": MEDIA_FEATURES,
    "videos": VIDEO_FEATURES,
}
"""Folder of a built dataset -> features of the rows in it."""

_REQUIRED: Final = {
    "sample_id", "dataset", "subset", "level", "clips", "clips[].clip_id", "clips[].index", "clips[].trimmed",
    "transitions[].from_index", "transitions[].to_index", "movie_id", "character_id",
    "clip_id", "status",
}  # fmt: skip


@cache
def arrow_schema(table: str) -> pa.Schema:
    """Arrow schema of a table of `TABLES`, see `arrow_schema_of`."""
    return arrow_schema_of(TABLES[table])


def arrow_schema_of(features: Features) -> pa.Schema:
    """Arrow schema with the metadata that lets stock `datasets` read every column's type."""
    metadata = {
        "huggingface": json.dumps({"info": {"features": features.to_dict()}}),
        "civid_loader.schema_version": SCHEMA_VERSION,
    }
    schema: pa.Schema = features.arrow_schema
    return schema.with_metadata(metadata)


def check_table(data: pa.Table, table: str) -> None:
    """Refuse rows of a table of `TABLES` that break the schema's rules, see `check_rows`."""
    check_rows(data, arrow_schema(table), name=table)


def check_rows(data: pa.Table, expected: pa.Schema, *, name: str) -> None:
    """Refuse rows that break the schema's rules, before they are written; `name` is that of the table, for messages.

    Checks types; required fields; the caption vocabulary; that missing is null, never "" or NaN; that every sample
    has a clip; that spans are `0 <= start < end`.

    Raises:
        SchemaError: names the column, the rule and the first offending value.
    """
    if not data.schema.equals(expected):
        raise SchemaError(f"{name}: columns are\n{data.schema}\nbut the schema says\n{expected}")
    for column in data.column_names:
        for chunk in data.column(column).chunks:
            for path, array in _walk(column, chunk):
                _check_array(path, array)


def _walk(path: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Every node of a nested column with its path (`clips[].source.url`); children only where the parent is valid."""
    yield path, array
    if pa.types.is_list(array.type):
        yield from _walk(f"{path}[]", array.flatten())
    elif pa.types.is_struct(array.type):
        valid = array.drop_null() if array.null_count else array
        for field in array.type:
            yield from _walk(f"{path}.{field.name}", pc.struct_field(valid, field.name))
        if {"start_seconds", "end_seconds"} <= {field.name for field in array.type}:
            start, end = (pc.struct_field(valid, f"{edge}_seconds") for edge in ("start", "end"))
            wrong = [pc.less(start, 0.0), pc.less_equal(end, 0.0), pc.less_equal(end, start)]
            for mask in wrong:
                _refuse(path, valid, mask, "a span must be 0 <= start_seconds < end_seconds")


def _check_array(path: str, array: pa.Array) -> None:
    name = path.replace("[].captions", ".captions").rpartition(".")[2]
    in_caption = path.endswith(("captions[].kind", "captions[].text", "captions[].annotator"))
    if (path in _REQUIRED or in_caption or path.endswith("[]")) and array.null_count:
        raise SchemaError(f"{path}: {array.null_count} nulls in a required field (row {_first(array.is_null())} first)")
    if pa.types.is_string(array.type):
        _refuse(path, array, pc.equal(pc.binary_length(array), 0), 'missing is null, never ""')
        vocabularies = {"level": LEVELS, "status": MEDIA_STATUSES}
        allowed = CAPTION_KINDS if path.endswith("captions[].kind") else vocabularies.get(path)
        if allowed:
            known = pc.is_in(array, value_set=pa.array(allowed))
            _refuse(path, array, pc.invert(known), f"must be one of {', '.join(allowed)}")
    elif pa.types.is_floating(array.type):
        _refuse(path, array, pc.invert(pc.is_finite(array)), "missing is null, never NaN")
    elif name == "clips":
        _refuse(path, array, pc.equal(pc.list_value_length(array), 0), "a sample has at least one clip")


def _refuse(path: str, array: pa.Array, bad: pa.Array, rule: str) -> None:
    if pc.any(bad).as_py():
        row = _first(bad)
        raise SchemaError(f"{path}: {rule}; value {row} is {array[row].as_py()!r}")


def _first(mask: pa.Array) -> int:
    return int(pc.index(mask, True).as_py())


def empty_sample() -> dict[str, Any]:
    """A sample row with every list empty and everything else missing, for builders to fill in."""
    return {**dict.fromkeys(SAMPLE_FEATURES), "clips": [], "transitions": [], "captions": [], "flags": []}


def caption(
    kind: str, text: str, annotator: str, *, start_seconds: float | None = None, end_seconds: float | None = None
) -> dict[str, Any]:
    """One CAPTION struct."""
    return {
        "kind": kind,
        "text": text,
        "start_seconds": start_seconds,
        "end_seconds": end_seconds,
        "annotator": annotator,
    }
