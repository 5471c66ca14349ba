"""What a condition is about: a table with one row per clip, and the names of its columns.

Columns come from the sample, from the clip, and from each layer: under its bare name where no other has that name, and
always as `"scores-lvd2m".flow_mean_px`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from civid_loader.errors import LayerError, WhereError
from civid_loader.schema import SAMPLE_FEATURES

CAPTIONS: Final = "captions-"
_WORD_COUNTS: Final = pa.map_(pa.string(), pa.int64())
_SCORES: Final = pa.map_(pa.string(), pa.float64())
_SAMPLE: Final = ("sample_id", "dataset", "subset", "level", "flags", "hierarchy")
_CLIP: Final = {
    "clip_id": "clip_id", "clip_index": "index", "video": "video", "trimmed": "trimmed", "source": "source",
    "upstream_media": "media", "upstream_scores": "scores", "captions": "captions", "words": "captions",
    "characters": "characters",
}  # fmt: skip
"""Name -> field of `clips[]` that it is made of."""

ABOUT: Final[Mapping[str, str]] = {
    "sample_id": "of the sample", "dataset": "civid, miradata, moviebench or lvd2m", "subset": "upstream's own table",
    "level": "clip, sequence or scene", "flags": "list: 'fence_residue' in flags, len(flags) == 0",
    "hierarchy": "hierarchy.movie_id, .movie_title, .imdb_id, .scene_id, .scene_index, .sequence_index",
    "num_clips": "of the sample", "clip_id": "of the clip", "clip_index": "position in the sample, from 0",
    "video": "pointer to its file", "trimmed": "whether that file is cut to the clip",
    "source": "source.platform, .category, .video_id, .url, .start_seconds, .end_seconds, .start_frame, .end_frame",
    "upstream_media": "as upstream states it: .width, .height, .fps, .duration_seconds, .num_frames",
    "upstream_scores": "by name: upstream_scores['total score'] > 4; the first of a name",
    "captions": "list of structs: len(captions) > 0, captions[1].text",
    "words": "number of words by kind of caption: words['dense'] >= 20; the first caption of a kind",
    "characters": "list of structs: len(characters) > 0",
}  # fmt: skip
"""Names of every dataset, with what they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column that a condition reads."""

    name: str
    """In the table."""
    layer: str | None = None
    """None: of the sample or the clip."""
    field: str | None = None
    """Of the layer; None: all that are read from it, as a struct."""


@dataclass(frozen=True, kw_only=True)
class ClipColumns:
    """Which names there are in a dataset."""

    layers: Mapping[str, pa.StructType]
    """Layer -> its columns, without `clip_id`."""

    def types(self) -> dict[str, str]:
        """Every name, as it is written in a condition, and its type."""
        types = {name: str(_type_of(name)) for name in ABOUT}
        owners = self._owners()
        for layer, struct in self.layers.items():
            for field in self._fields(layer):
                is_bare = field not in ABOUT and len(owners[field]) == 1 and field not in self.layers
                kind = _WORD_COUNTS if field == "words" and layer.startswith(CAPTIONS) else struct.field(field).type
                types[quoted(field) if is_bare else f"{quoted(layer)}.{quoted(field)}"] = str(kind)
        return types

    def find(self, names: Iterable[tuple[str, ...]]) -> list[Column]:
        """The columns that a condition's names stand for.

        Raises:
            WhereError: no such name, or several layers have it; the message has names that are close.
        """
        return list(dict.fromkeys(self._find(parts) for parts in names))

    def _find(self, parts: tuple[str, ...]) -> Column:
        first = parts[0]
        if (name := _like(first, ABOUT)) is not None:
            return Column(name=name)
        if (layer := _like(first, self.layers)) is not None:
            if len(parts) == 1:
                return Column(name=layer, layer=layer)
            field = _like(parts[1], self._fields(layer))
            if field is None:
                raise WhereError(f"no column {parts[1]!r} in {layer}; it has {', '.join(self._fields(layer))}")
            return Column(name=layer, layer=layer, field=field)
        owners = self._owners()
        field = _like(first, owners)
        if field is None:
            raise WhereError(self._unknown(first))
        if len(owners[field]) > 1:
            ways = " or ".join(f"{quoted(layer)}.{quoted(field)}" for layer in owners[field])
            raise WhereError(f"several layers have a column {field!r}; write {ways}")
        return Column(name=field, layer=owners[field][0], field=field)

    def _fields(self, layer: str) -> list[str]:
        fields = [field.name for field in self.layers[layer] if not pa.types.is_binary(field.type)]
        return [*fields, "words"] if layer.startswith(CAPTIONS) else fields

    def _owners(self) -> dict[str, list[str]]:
        """Column -> layers that have it."""
        owners: dict[str, list[str]] = {}
        for layer in self.layers:
            for field in self._fields(layer):
                owners.setdefault(field, []).append(layer)
        return owners

    def _unknown(self, name: str) -> str:
        written = {**{one: one for one in ABOUT}, **{one: quoted(one) for one in self.layers}}
        for field, layers in self._owners().items():
            written[field] = " or ".join(f"{quoted(layer)}.{quoted(field)}" for layer in layers)
            written[field] = quoted(field) if len(layers) == 1 and field not in ABOUT else written[field]
        starts = [one for one in written if one.startswith(f"{name}-")]
        close = [*starts, *get_close_matches(name, list(written), n=3, cutoff=0.5)]
        hint = f" Did you mean {', '.join(written[one] for one in dict.fromkeys(close))}?" if close else ""
        quotes = ' (a name with dashes stands in double quotes: "scores-lvd2m".flow)' if starts else ""
        return f"no column {name!r}.{hint}{quotes} There are: {', '.join(written.values())}"


def quoted(name: str) -> str:
    """As it is written in a condition: `"scores-lvd2m"`, `flow`."""
    return name if name.isidentifier() and name.isascii() else '"' + name.replace('"', '""') + '"'


def _like(name: str, known: Iterable[str]) -> str | None:
    """The known name that SQL takes this one for: case does not count."""
    names = list(known)
    return name if name in names else next((one for one in names if one.lower() == name.lower()), None)


def _type_of(name: str) -> pa.DataType:
    made = {"num_clips": pa.int64(), "words": _WORD_COUNTS, "upstream_scores": _SCORES}
    if name in made:
        return made[name]
    schema: pa.Schema = SAMPLE_FEATURES.arrow_schema
    return schema.field(name).type if name in _SAMPLE else schema.field("clips").type.value_type.field(_CLIP[name]).type


def leaves(columns: Sequence[Column]) -> list[str]:
    """What must be read of the sample rows for these columns, as Parquet names it: `clips.list.element.clip_id`."""
    names = ["sample_id", "clips.list.element.clip_id"]
    for name in (column.name for column in columns if column.layer is None):
        if name in _SAMPLE:
            names.append(name)
        elif name in _CLIP:
            names.append(f"clips.list.element.{_CLIP[name]}")
    return list(dict.fromkeys(names))


def fields_of(columns: Sequence[Column], layer: str, struct: pa.StructType) -> list[str]:
    """Columns of a layer that must be read for these; with `reason`, where it has one."""
    used = [column for column in columns if column.layer == layer]
    known = [field.name for field in struct if not pa.types.is_binary(field.type)]
    wanted = {"captions" if one.field == "words" and layer.startswith(CAPTIONS) else one.field for one in used}
    return known if None in wanted else [name for name in known if name in wanted or (used and name == "reason")]


def clip_table(rows: pa.Table, columns: Sequence[Column], layers: Mapping[str, pa.StructArray]) -> pa.Table:
    """The columns, with a row per clip of these samples; `layers` have an entry per clip, null where there is none."""
    lists = rows.column("clips").combine_chunks()
    lists = lists if isinstance(lists, pa.ListArray) else pa.array([], lists.type)
    clips = lists.flatten()
    parents = pc.list_parent_indices(lists)
    made: dict[str, pa.Array] = {}
    for column in columns:
        if column.layer is None:
            made[column.name] = _own_column(column.name, rows, lists, clips, parents)
        elif column.field is None or column.name == column.layer:
            made[column.name] = _with_words(layers[column.layer], column.layer)
        else:
            made[column.name] = pc.struct_field(_with_words(layers[column.layer], column.layer), column.field)
    if not made:  # a condition that reads nothing, such as `true`
        made["clip_id"] = pc.struct_field(clips, "clip_id")
    return pa.table(made)


def _own_column(name: str, rows: pa.Table, lists: pa.ListArray, clips: pa.StructArray, parents: pa.Array) -> pa.Array:
    if name == "num_clips":
        return pc.list_value_length(lists).take(parents).cast(pa.int64())
    if name in _SAMPLE:
        values = rows.column(name).take(parents)
        return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    values = pc.struct_field(clips, _CLIP[name])
    if name == "upstream_scores":
        return first_of_each(values, "name", "value")
    return word_counts(values) if name == "words" else values


def _with_words(struct: pa.StructArray, layer: str) -> pa.StructArray:
    """A layer of captions with the number of words of each kind."""
    names = [field.name for field in struct.type]
    if not layer.startswith(CAPTIONS) or "captions" not in names:
        return struct
    arrays = [pc.struct_field(struct, name) for name in names]
    arrays.append(word_counts(arrays[names.index("captions")]))
    return pa.StructArray.from_arrays(arrays, names=[*names, "words"], mask=struct.is_null())


def word_counts(captions: pa.ListArray) -> pa.MapArray:
    """Kind -> words of the first caption of that kind, for each list; null where there is no list."""
    values = captions.flatten()
    counts = pc.count_substring_regex(pc.struct_field(values, "text"), r"\S+").cast(pa.int64())
    counted = pa.StructArray.from_arrays([pc.struct_field(values, "kind"), counts], names=["kind", "num_words"])
    lists = pa.ListArray.from_arrays(pa.array(offsets(captions), pa.int32()), counted, mask=captions.is_null())
    return first_of_each(lists, "kind", "num_words")


def first_of_each(lists: pa.ListArray, key: str, value: str) -> pa.MapArray:
    """Key -> value of the first struct with that key, for each list; null where there is no list."""
    structs = lists.flatten()
    bounds = offsets(lists)
    rows = np.repeat(np.arange(len(lists)), np.diff(bounds))
    keys = pc.struct_field(structs, key)
    codes = pc.fill_null(keys.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    _, first = np.unique(rows * (int(codes.max(initial=0)) + 2) + codes, return_index=True)
    kept = np.sort(first[codes[first] >= 0])
    counts = np.bincount(rows[kept], minlength=len(lists))
    kept_bounds = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32(), mask=None)
    taken = pa.array(kept)
    values = pc.struct_field(structs, value)
    maps = pa.MapArray.from_arrays(kept_bounds, keys.take(taken), values.take(taken))
    return pc.if_else(lists.is_null(), pa.scalar(None, maps.type), maps) if lists.null_count else maps


def offsets(lists: pa.ListArray) -> npt.NDArray[np.int64]:
    """Where the list of each row begins in `lists.flatten()`, and the end."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def aligned(lists: pa.ListArray, bounds: npt.NDArray[np.int64], *, layer: str) -> pa.StructArray:
    """The entries of a joined layer, checked to be one per clip."""
    if not np.array_equal(offsets(lists), bounds):
        raise LayerError(f"column {layer}: it must have one entry per clip, in the order of `clips`; join it again")
    return lists.flatten()
