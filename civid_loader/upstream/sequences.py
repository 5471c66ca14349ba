"""Sample rows of several clips, gathered as flat columns: one Python object per text, none per row, clip or caption."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa

from civid_loader.schema import arrow_schema
from civid_loader.upstream.cells import clip_struct, nest, struct_of
from civid_loader.upstream.records import Context
from civid_loader.upstream.video_index import locate

Texts = tuple[tuple[str, ...], tuple[str, ...]]
"""(kinds, texts): captions of one thing."""
NO_TEXTS: Final[Texts] = ((), ())
_TYPES: Final = {field.name: field.type for field in arrow_schema("annotations")}


@dataclass(kw_only=True, slots=True)
class Sequence:
    """One row, before it becomes columns."""

    key: str
    """Unique in the dataset; clip i is called `<key>/<i>`."""
    file: str
    row_index: int
    sequence_index: int | None
    video_id: str | None
    videos: list[str | None]
    """One per clip."""
    about_clips: list[Texts]
    """One per clip."""
    about_steps: list[Texts]
    """One from each clip to the next, or none at all."""
    about_all: Texts
    flags: dict[str, None]


class SequenceRows:
    """Rows added one at a time, made into a table at once."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {field.name: [] for field in fields(Sequence)}

    def add(self, row: Sequence) -> None:
        """Append a row."""
        for name, values in self.columns.items():
            values.append(getattr(row, name))

    def table(
        self, context: Context, *, annotator: str, sample_annotator: str, dataset: str, subset: str, license: str
    ) -> pa.Table:
        """The rows, with every clip pointed at its file."""
        columns = self.columns
        num_rows = len(columns["key"])
        num_clips = [len(videos) for videos in columns["videos"]]
        num_steps = [len(steps) for steps in columns["about_steps"]]
        clips = {
            "clip_id": _texts(f"{key}/{i:03d}" for key, n in zip(columns["key"], num_clips) for i in range(n)),  # noqa: B905
            "index": pa.array(_positions(num_clips)),
            "video": self._point_to_files(context, num_clips),
            "trimmed": pa.array(np.ones(sum(num_clips), dtype=np.bool_)),
            "source": clip_struct("source", sum(num_clips), video_id=_texts(np.repeat(columns["video_id"], num_clips))),
            "captions": _captions(chain.from_iterable(columns["about_clips"]), annotator),
        }  # fmt: skip
        position = _positions(num_steps)
        steps = {
            "from_index": pa.array(position),
            "to_index": pa.array(position + np.int32(1)),
            "captions": _captions(chain.from_iterable(columns["about_steps"]), annotator),
        }
        index = pa.array(columns["sequence_index"], pa.int32())
        rows = {
            "sample_id": _texts(f"{dataset}/{subset}/{key}" for key in columns["key"]),
            "dataset": dataset,
            "subset": subset,
            "level": "sequence",
            "clips": nest(num_clips, struct_of(clips, _TYPES["clips"].value_type, sum(num_clips)), _TYPES["clips"]),
            "transitions": nest(
                num_steps, struct_of(steps, _TYPES["transitions"].value_type, sum(num_steps)), _TYPES["transitions"]
            ),
            "captions": _captions(columns["about_all"], sample_annotator),
            "hierarchy": struct_of({"sequence_index": index}, _TYPES["hierarchy"], num_rows, mask=index.is_null()),
            "flags": pa.array(list(map(list, columns["flags"])), _TYPES["flags"]),
            "provenance": struct_of(
                {
                    "annotation_file": _texts(columns["file"]),
                    "row_index": pa.array(columns["row_index"], pa.int64()),
                    "license": license,
                },
                _TYPES["provenance"],
                num_rows,
            ),
        }
        whole = struct_of(rows, pa.struct(list(_TYPES.items())), num_rows)
        return pa.Table.from_arrays(whole.flatten(), schema=arrow_schema("annotations"))

    def _point_to_files(self, context: Context, num_clips: list[int]) -> pa.Array:
        """A clip that is not there keeps upstream's name, and its row gets a flag."""
        video = _texts(chain.from_iterable(self.columns["videos"]))
        if context.videos is None or video.null_count == len(video):
            return video
        located = locate(context.videos, video)
        named = video.is_valid().to_numpy(zero_copy_only=False)
        row = np.repeat(np.arange(len(num_clips)), num_clips)
        for clip in np.flatnonzero(named & (located.not_found | located.ambiguous)).tolist():
            name = "video_not_found" if located.not_found[clip] else "ambiguous_video"
            self.columns["flags"][row[clip]][name] = None
        return located.video


def _captions(owners: Iterable[Texts], annotator: str) -> pa.ListArray:
    """list<CAPTION> per owner."""
    pairs = list(owners)
    kind = _texts(chain.from_iterable(kinds for kinds, _ in pairs))
    text = _texts(chain.from_iterable(texts for _, texts in pairs))
    values = {"kind": kind, "text": text, "annotator": annotator}
    list_type = _TYPES["captions"]
    return nest([len(kinds) for kinds, _ in pairs], struct_of(values, list_type.value_type, len(text)), list_type)


def _texts(values: Iterable[str | None]) -> pa.Array:
    return pa.array(list(values), pa.string())


def _positions(counts: list[int]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """0, 1, ... within each group: [2, 3] -> [0, 1, 0, 1, 2]."""
    total = np.asarray(counts, dtype=np.int64)
    return (np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total)).astype(np.int32)
