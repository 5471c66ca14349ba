"""What every column of the schema means, in a sentence, and the unit its name tells."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from datasets import Features, LargeList, List, Value


def _captions(where: str, about: str, window: str | None, kinds: str = "`dense`, `background`") -> dict[str, str]:
    return {
        where: about,
        f"{where}[].kind": f"What it is about, a word of the schema's vocabulary: {kinds}.",
        f"{where}[].text": "The text.",
        f"{where}[].start_seconds": f"Start of the part the text is about, {window}; null: all of it."
        if window
        else "Always null: the text is about the step as a whole.",
        f"{where}[].end_seconds": "End of that part, not included." if window else "Always null.",
        f"{where}[].annotator": "Who or what wrote the text: `upstream:gpt-4o`.",
    }


_STEP_KINDS: Final = "`continuation_content`, `change_background`"
_SAMPLES: Final = {
    "sample_id": "Unique over all datasets of this schema. Not meant to be taken apart.",
    "dataset": "Short name of the source dataset.",
    "subset": "The source's own table the row comes from.",
    "level": "What a sample is: `clip`, `sequence` (of clips that belong together) or `scene`.",
    "clips": "The clips in order, at least one.",
    "clips[].clip_id": "Unique within the dataset; the key of every layer.",
    "clips[].index": "Place in the sample, from 0. Never renumbered, also when a clip is missing.",
    "clips[].video": "Where the video lies: a path below the video root, a URL, a member of an archive "
    "(`a.tar!b.mp4`), or `videos:<clip_id>` for the config `videos`. Null: the source names none.",
    "clips[].trimmed": "True: the file is already cut to the clip. False: the clip is "
    "`[source.start_seconds, source.end_seconds)` of it.",
    "clips[].source": "Where the clip comes from, as the source dataset states it.",
    "clips[].source.platform": "Site or collection: `youtube`, `pexels`, `lsmdc`.",
    "clips[].source.category": "The source's own category, or the dataset it took the clip from.",
    "clips[].source.video_id": "Id of the whole video there. Always text.",
    "clips[].source.url": "Address of the whole video.",
    "clips[].source.start_seconds": "Start of the clip in the whole video.",
    "clips[].source.end_seconds": "End of the clip in the whole video, not included.",
    "clips[].source.start_frame": "First frame of the clip in the whole video. Where it disagrees, the time counts.",
    "clips[].source.end_frame": "Frame after the last one of the clip. Where it disagrees, the time counts.",
    "clips[].media": "The clip's file as the source dataset states it. What files really hold is in the layer `media`.",
    "clips[].media.width": "Width of the picture.",
    "clips[].media.height": "Height of the picture.",
    "clips[].media.fps": "Frame rate.",
    "clips[].media.duration_seconds": "Length of the clip.",
    "clips[].media.num_frames": "Number of frames of the clip.",
    **_captions("clips[].captions", "Texts about this clip.", "counted from the start of the clip"),
    "clips[].characters": "Who appears in the clip.",
    "clips[].characters[].name": "Name of the character.",
    "clips[].characters[].description": "What the character looks like and does here.",
    "clips[].scores": "Numbers the source dataset publishes of the clip.",
    "clips[].scores[].name": "What is measured: `flow_mean`.",
    "clips[].scores[].unit": "Its unit: `px`.",
    "clips[].scores[].annotator": "What measured it: `upstream:raft`.",
    "clips[].scores[].value": "The number, in the unit beside it.",
    "transitions": "Texts about the step from one clip to the next.",
    "transitions[].from_index": "`index` of the clip before the step.",
    "transitions[].to_index": "`index` of the clip after the step.",
    **_captions("transitions[].captions", "Texts about this step: what goes on and what changes.", None, _STEP_KINDS),
    **_captions(
        "captions",
        "Texts about the sample as a whole.",
        "counted from the start of the sample",
        "`scene_title`, `synopsis`",
    ),
    "hierarchy": "Place of the sample in a larger whole.",
    "hierarchy.movie_id": "Id of the movie; the key of the tables `movies` and `characters`.",
    "hierarchy.movie_title": "Title of the movie.",
    "hierarchy.imdb_id": "The movie at IMDb: `tt` and digits.",
    "hierarchy.scene_id": "Id of the scene.",
    "hierarchy.scene_index": "Number of the scene in the movie, from 0.",
    "hierarchy.sequence_index": "Number of the sequence in its source video.",
    "flags": "What was odd about the row and how it was read; empty: nothing.",
    "provenance": "Where the row comes from.",
    "provenance.annotation_file": "Name of the source's annotation file.",
    "provenance.row_index": "Row, record or scene in that file, from 0.",
    "provenance.upstream_version": "Release of the source dataset.",
    "provenance.license": "Short name of the source's terms.",
}
_CHARACTERS: Final = {
    "movie_id": "Id of the movie.",
    "character_id": "Unique within the dataset.",
    "name": "Name of the character.",
    "actor": "Who plays the part.",
    "aliases": "Other names the shots may use.",
    "portraits": "Pictures of the character, relative to the source's folder of pictures; the first is the main one.",
    "audio": "Recordings of the voice, relative to the source's folder.",
}
_MOVIES: Final = {
    "movie_id": "Id of the movie, unique.",
    "title": "Title of the movie.",
    "imdb_id": "The movie at IMDb: `tt` and digits.",
    "synopsis": "What happens in the movie.",
    "scene_ids": "Ids of its scenes, in order.",
}
_MEDIA: Final = {
    "clip_id": "The clip; every clip has a row.",
    "video": "The pointer of the sample row: facts are of the file it names, whole.",
    "status": "`ok`, `missing`, `unreadable`, `no_video` or `not_checked`.",
    "reason": "Why the status is not `ok`.",
    "checked_at": "When the file was looked into.",
    "num_bytes": "Size of the file.",
    "fingerprint": "Changes when the file does.",
    "sha256": "SHA-256 of the file, where it was asked for.",
    "container": "Container format, as FFmpeg calls it.",
    "codec": "Video codec, as FFmpeg calls it.",
    "width": "Width as displayed, after rotation.",
    "height": "Height as displayed, after rotation.",
    "rotation_degrees": "Rotation the container asks for.",
    "pixel_format": "Pixel format, as FFmpeg calls it.",
    "color_range": "Range of the values: `tv` or `pc`.",
    "color_space": "Matrix of the colours.",
    "fps": "Mean frame rate, from counted frames.",
    "real_fps": "Frame rate the container states.",
    "is_vfr": "Whether the time between frames varies.",
    "num_frames": "Frames of the file, counted.",
    "num_keyframes": "Frames of the file at which decoding can start.",
    "start_seconds": "Time the container gives the first frame; all other times count from that frame.",
    "duration_seconds": "Length of the file.",
    "is_truncated": "Whether the file is cut off.",
    "has_audio": "Whether there is sound.",
    "audio_codec": "Audio codec, as FFmpeg calls it.",
    "audio_sample_rate_hz": "Sample rate of the sound.",
    "audio_channels": "Channels of the sound.",
    "clip_num_frames": "Frames of the clip's span.",
    "clip_duration_seconds": "Length of the clip's span.",
    "shard": "Shard of the config `videos` that holds the file, where it is in there.",
    "byte_offset": "Where the file starts in that shard.",
    "packet_index": "Where each packet of the span lies, when its frame is shown, and where decoding can start; "
    "packed, read by `civid_loader`.",
}
_CAPTION_LAYER: Final = {
    "clip_id": "The clip; every clip has a row.",
    **_captions("captions", "Texts about the clip.", "counted from the start of the clip"),
    **_captions("transition_captions", "Texts about the step to the clip from the one before it.", None, _STEP_KINDS),
    "reason": "Why there are no texts.",
}
_VIDEOS: Final = {"clip_id": "The clip.", "video": "Bytes of the clip's file."}

EXPLANATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "annotations": _SAMPLES,
    "characters": _CHARACTERS,
    "movies": _MOVIES,
    "media": _MEDIA,
    "videos": _VIDEOS,
    "captions": _CAPTION_LAYER,
}
"""Table of `schema.TABLES`, or `captions` for a layer of captions -> column -> what it is, in Markdown."""

_UNITS: Final = {
    "_seconds": "s", "_bytes": "bytes", "byte_offset": "bytes", "_degrees": "degrees", "_hz": "Hz", "_px": "px",
    "width": "px", "height": "px", "fps": "frames/s", "_frame": "frame number", "num_frames": "frames",
    "num_keyframes": "frames", "checked_at": "UTC", "_channels": "channels",
}  # fmt: skip


def unit_of(column: str) -> str:
    """Unit of a column by its name, `source.start_seconds` -> `s`; empty where it has none."""
    return next((unit for ending, unit in _UNITS.items() if column.endswith(ending)), "")


def columns_of(features: Features) -> Iterator[tuple[str, str]]:
    """Every column, nested ones after what they are in: (`clips[].source.url`, `string`)."""
    for name, feature in features.items():
        yield from _walk(name, feature)


def _walk(path: str, feature: Any) -> Iterator[tuple[str, str]]:
    yield path, _type_name(feature)
    while isinstance(feature, (List, LargeList)):
        path, feature = f"{path}[]", feature.feature
    if isinstance(feature, dict):
        for name, inner in feature.items():
            yield from _walk(f"{path}.{name}", inner)


def _type_name(feature: Any) -> str:
    if isinstance(feature, (List, LargeList)):
        return f"list of {_type_name(feature.feature)}"
    if isinstance(feature, dict):
        return "struct"
    return str(feature.dtype) if isinstance(feature, Value) else type(feature).__name__.lower()
