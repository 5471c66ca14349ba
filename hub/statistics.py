"""What a built folder holds, in numbers. Read row group by row group, and only the columns that are counted."""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from civid_loader.hub.configs import DEFAULT, Config, list_configs
from civid_loader.hub.numbers import NumberStatistics, Tally

DURATION_EDGES: Final = (0, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
WORD_EDGES: Final = (0, 5, 10, 20, 50, 100, 200, 500)
CLIP_EDGES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50, 100)
"""Where buckets begin; the last one is open."""

_CAPTIONS: Final = (("clips", "captions"), ("transitions", "captions"), ("captions",))
_SAMPLE_COLUMNS: Final = (
    "flags", "clips.list.element.clip_id", "clips.list.element.media.duration_seconds",
    "clips.list.element.source.start_seconds", "clips.list.element.source.end_seconds",
    *(
        f"{'.list.element.'.join(path)}.list.element.{field}"
        for path in _CAPTIONS for field in ("kind", "text")
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Counts of a dataset. A clip that is in several rows counts in each."""

    num_rows: Mapping[str, Mapping[str, int]]
    """Config -> split -> rows."""
    num_clips: int
    """Clips of all samples."""
    clips_per_sample: NumberStatistics
    """Clips of a sample."""
    durations: NumberStatistics
    """Length of a clip in seconds."""
    durations_are_measured: bool
    """Whether they are of the `media` layer; else what upstream states, or the clip's place in its source gives."""
    words: Mapping[str, Mapping[str, NumberStatistics]]
    """Config `default` or `captions-...` -> kind of caption -> words of a caption, as spaces part them."""
    flags: Mapping[str, int]
    """Flag -> rows, most frequent first."""
    missing: Mapping[str, Mapping[str, float]]
    """Config -> column (`clips[].source.url`) -> share of nulls; not of columns within other lists than `clips`."""
    scores: Mapping[str, Mapping[str, NumberStatistics]]
    """Config `scores-...` -> column -> its numbers."""


def dataset_statistics(root: Path, *, tables: Collection[str] | None = None) -> Statistics:
    """Count what the built folder `root` holds, in all tables or in the folders `tables`.

    Raises:
        AnnotationError: `root` is no built folder, or a shard is missing.
    """
    configs = {config.name: config for config in list_configs(root, tables=tables)}
    samples = _Samples()
    for rows in configs[DEFAULT].read(_SAMPLE_COLUMNS):
        samples.add(rows)
    words = {DEFAULT: samples.words.results()}
    for name, config in configs.items():
        if name.startswith("captions-"):
            words[name] = _layer_words(config)
    durations, media = samples.durations, configs.get("media")
    if media:
        durations = Tally()
        for rows in media.read(["clip_duration_seconds"]):
            durations.add(rows["clip_duration_seconds"].combine_chunks())
    return Statistics(
        num_rows={name: dict(config.num_rows) for name, config in configs.items()},
        num_clips=samples.num_clips,
        clips_per_sample=samples.clips_per_sample.result(CLIP_EDGES),
        durations=durations.result(DURATION_EDGES),
        durations_are_measured=media is not None,
        words=words,
        flags=dict(sorted(samples.flags.items(), key=lambda item: (-item[1], item[0]))),
        missing={name: _missing(config) for name, config in configs.items() if name != "videos"},
        scores={name: dict(_scores(config)) for name, config in configs.items() if name.startswith("scores-")},
    )


class _Words:
    """Words of captions, by kind."""

    def __init__(self) -> None:
        self._of_kind: dict[str, Tally] = {}

    def add(self, captions: pa.Array) -> None:
        """Count an array of CAPTION structs."""
        kinds = pc.struct_field(captions, "kind")
        words = pc.count_substring_regex(pc.struct_field(captions, "text"), r"\S+")
        for kind in pc.unique(kinds).to_pylist():
            self._of_kind.setdefault(kind, Tally(are_whole=True)).add(words.filter(pc.equal(kinds, kind)))

    def results(self) -> dict[str, NumberStatistics]:
        """The most frequent kind first."""
        ordered = sorted(self._of_kind.items(), key=lambda item: (-item[1].num_values, item[0]))
        return {kind: tally.result(WORD_EDGES) for kind, tally in ordered}


def _layer_words(config: Config) -> dict[str, NumberStatistics]:
    words = _Words()
    lists = [name for name in ("captions", "transition_captions") if name in config.features]
    for rows in config.read([f"{name}.list.element.{field}" for name in lists for field in ("kind", "text")]):
        for name in lists:
            words.add(rows[name].combine_chunks().flatten())
    return words.results()


class _Samples:
    """Counts over sample rows, fed in pieces."""

    def __init__(self) -> None:
        self.num_clips = 0
        self.clips_per_sample, self.durations = Tally(are_whole=True), Tally()
        self.words = _Words()
        self.flags: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        lists = rows["clips"].combine_chunks()
        clips = lists.flatten()
        self.num_clips += len(clips)
        self.clips_per_sample.add(pc.list_value_length(lists))
        start, end = (pc.struct_field(clips, ["source", f"{edge}_seconds"]) for edge in ("start", "end"))
        stated = pc.struct_field(clips, ["media", "duration_seconds"])
        self.durations.add(pc.coalesce(stated, pc.subtract(end, start)))
        self.flags.update(_counts(rows["flags"].combine_chunks().flatten()))
        for path in _CAPTIONS:
            captions: Any = rows[path[0]].combine_chunks().flatten()
            for name in path[1:]:
                captions = pc.struct_field(captions, name).flatten()
            self.words.add(captions)


def _counts(texts: pa.Array) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(texts).to_pylist()}


def _missing(config: Config) -> dict[str, float]:
    """From the footers of the shards, without reading rows."""
    num_null, num_values = Counter[str](), Counter[str]()
    for path in config.shards:
        footer = pq.read_metadata(path)
        for group, column in itertools.product(range(footer.num_row_groups), range(footer.num_columns)):
            leaf = footer.row_group(group).column(column)
            name = leaf.path_in_schema.replace(".list.element", "[]")
            # Of an inner list the footer does not tell empty ones from nulls; there are always clips.
            if "[]" in re.sub(r"^clips\[\]", "", name):
                continue
            if leaf.statistics is not None and leaf.statistics.has_null_count:
                num_null[name] += leaf.statistics.null_count
                num_values[name] += leaf.num_values
    return {name: num_null[name] / count for name, count in num_values.items() if count}


def _scores(config: Config) -> Iterator[tuple[str, NumberStatistics]]:
    """One column at a time: 16 MB for two million clips."""
    schema = pq.read_schema(config.shards[0])
    for field in schema:
        if pa.types.is_boolean(field.type) or pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            tally = Tally(are_whole=not pa.types.is_floating(field.type))
            for rows in config.read([field.name]):
                tally.add(rows[field.name].combine_chunks())
            yield field.name, tally.result()
