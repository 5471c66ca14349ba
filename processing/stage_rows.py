"""Decoded clips through stages: the rows that come out, and what they look like as Arrow."""

from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Final

import pyarrow as pa
from datasets import Features, List, Value

from civid_loader.processing.asking import AskingStage, Previous, Unit
from civid_loader.processing.planner import DecodedClip
from civid_loader.processing.stage import Column, CorpusStage, Row, Stage
from civid_loader.schema import CAPTION_LAYER_FEATURES

CAPTIONS: Final = ("captions", "transition_captions")
"""Columns of stages that write."""
NOT_COMPUTABLE: Final = "not computable: "
"""What the reason of a row begins with where nothing went wrong."""


def is_error(reason: str | None) -> bool:
    """Whether something went wrong with a clip, so that another try may do better."""
    return reason is not None and not reason.startswith(NOT_COMPUTABLE)


def rows_of_batch(stages: Sequence[Stage[Any]], batch: Sequence[DecodedClip]) -> list[Row]:
    """One row per clip of what no model is asked about: `clip_id`, all columns, `reason`."""
    known: list[Row] = [{**clip.row} for clip in batch]
    rows = [_empty(stages, clip) for clip in batch]
    shared: list[dict[Any, Any]] = [{} for _ in batch]
    whole = [i for i, clip in enumerate(batch) if clip.reason is None]
    for stage in stages:
        found = stage.run([batch[i].input(stage, known[i], shared[i]) for i in whole])
        assert len(found) == len(whole), f"{stage.name}: {len(found)} rows for {len(whole)} clips"
        for i, row in zip(whole, found, strict=True):
            _take(stage, row, rows[i], known[i])
    return rows


def rows_of_unit(stages: Sequence[Stage[Any]], clips: Iterable[DecodedClip], *, lock: Lock) -> Iterator[Row]:
    """One row per clip of a unit, one clip after the other; many units at once, in threads.

    Args:
        stages: some of them ask.
        clips: of the unit, in order.
        lock: held while a stage computes that does not ask.
    """
    previous: dict[str, Previous] = {}
    for clip in clips:
        known, shared, row = {**clip.row}, dict[Any, Any](), _empty(stages, clip)
        for stage in stages if clip.reason is None else ():
            given = clip.input(stage, {**known}, shared)
            if isinstance(stage, AskingStage):
                found = stage.run_one(given, previous.get(stage.name))
                if stage.unit != "clip":
                    previous[stage.name] = Previous(clip=given, row=found)
            else:
                with lock:
                    (found,) = stage.run([given])
            _take(stage, found, row, known)
        yield row


def _empty(stages: Sequence[Stage[Any]], clip: DecodedClip) -> Row:
    names = [column.name for stage in stages for column in parts_of(stage)]
    row: Row = {"clip_id": clip.row["clip_id"], "reason": clip.reason, **dict.fromkeys(names)}
    return row | {name: [] for name in CAPTIONS} if writes_captions(stages) else row


def _take(stage: Stage[Any], found: Row, row: Row, known: Row) -> None:
    """Add what a stage found to a clip's row, and to what later stages know of the clip."""
    values = {column.name: found.get(column.name) for column in parts_of(stage)}
    row |= values
    known |= values
    for name in CAPTIONS:
        if texts := found.get(name):
            row[name] = [*row[name], *texts]
            known[name] = [*texts, *(known.get(name) or ())]
    if reason := found.get("reason"):
        row["reason"] = _with_reason(row["reason"], f"{stage.name}: {reason}")
    elif why := found.get("not_computable"):
        row["reason"] = _with_reason(row["reason"], f"{NOT_COMPUTABLE}{stage.name}: {why}")


def _with_reason(before: str | None, more: str) -> str:
    """What went wrong comes first: by it a row is judged."""
    if before is None:
        return more
    return f"{more}; {before}" if is_error(more) and not is_error(before) else f"{before}; {more}"


def unit_of(stages: Sequence[Stage[Any]]) -> Unit | None:
    """The largest unit that they ask about; None: not one asks."""
    units = {stage.unit for stage in stages if isinstance(stage, AskingStage)}
    larger: tuple[Unit, ...] = ("movie", "sample", "clip")
    return next((unit for unit in larger if unit in units), None)


def writes_captions(stages: Sequence[Stage[Any]]) -> bool:
    """Whether captions are among what they find."""
    return any(stage.caption_kinds for stage in stages)


def parts_of(stage: Stage[Any]) -> Sequence[Column]:
    """What a stage gives clip by clip; one that compares clips gives its columns only at the end."""
    return stage.parts if isinstance(stage, CorpusStage) else stage.columns


def features_of(columns: Iterable[Column]) -> Features:
    """Of a layer of scores with these columns."""
    own = {column.name: _feature(column.dtype) for column in columns}
    return Features({"clip_id": Value("string"), **own, "reason": Value("string")})


def features_of_work(stages: Sequence[Stage[Any]]) -> Features:
    """Of the rows that workers give, captions among them."""
    features = features_of(part for stage in stages for part in parts_of(stage))
    captions = {name: CAPTION_LAYER_FEATURES[name] for name in CAPTIONS}
    return Features({**features, **captions}) if writes_captions(stages) else features


def _feature(dtype: str) -> Any:
    return List(_feature(dtype[5:-1])) if dtype.startswith("list<") else Value(dtype)


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows as Arrow. Not a number is missing, as everywhere."""
    clean = [{name: None if value != value else value for name, value in row.items()} for row in rows]
    return pa.Table.from_pylist(clean, schema=schema)
