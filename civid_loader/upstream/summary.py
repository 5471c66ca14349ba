"""Counting what was read, for the summary a build ends with."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc


def count_rows(rows: pa.Table, counts: dict[str, Counter[str]]) -> None:
    """Add a piece of sample rows to the counts: clips by state, captions by kind, flags."""
    _add(counts, "flags", rows.column("flags").combine_chunks().flatten())
    clips = rows.column("clips").combine_chunks().flatten()
    steps = rows.column("transitions").combine_chunks().flatten()
    trimmed = pc.if_else(pc.struct_field(clips, "trimmed"), "trimmed clip files", "spans of whole videos")
    named = pc.struct_field(clips, "video").is_valid()
    _add(counts, "clips", pc.if_else(named, trimmed, "without a video named"))
    about_sample = rows.column("captions").combine_chunks()
    for captions in (pc.struct_field(clips, "captions"), pc.struct_field(steps, "captions"), about_sample):
        _add(counts, "captions", pc.struct_field(captions.flatten(), "kind"))
    counts.setdefault("transitions", Counter())["transitions"] += len(steps)


def _add(counts: dict[str, Counter[str]], name: str, values: pa.Array) -> None:
    counter = counts.setdefault(name, Counter())
    for entry in pc.value_counts(values).to_pylist():
        counter[entry["values"]] += entry["counts"]
