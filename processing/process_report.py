"""What a run over a dataset found, in numbers."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from civid_loader.histograms import Panel, draw_panels
from civid_loader.layers import layer_folder
from civid_loader.processing import registry
from civid_loader.processing.answers import Usage
from civid_loader.processing.stage_rows import CAPTIONS, is_error
from civid_loader.processing.work import Result
from civid_loader.storage import atomic_file, read_table

_OWN: Final = ("clip_id", "reason")
"""Columns of every layer."""
Doubles = npt.NDArray[np.float64]
_MAX_REASON: Final = 100
"""Characters of what a stage says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessReport:
    """What a run found."""

    dataset: str
    layer: str
    fingerprint: str
    """Of all stages together."""
    num_clips: int
    num_failed: int
    """With which something went wrong, those not counted that merely have nothing to compute."""
    reasons: Mapping[str, int]
    """Why clips lack values -> how many, the commonest first: a kind of error, or a stage and what it says."""
    statistics: Mapping[str, Mapping[str, float]]
    """Column -> num_null, min, median, mean, max; of plain numbers."""
    filled: Mapping[str, int]
    """Column of texts or lists -> clips that have something in it."""
    num_chunks_run: int
    """By this call; the others were finished before."""
    decode_seconds: float
    """Of all workers and threads together, in this call."""
    model_seconds: float
    wall_seconds: float
    captions: Mapping[str, Mapping[str, float]]
    """Kind -> num_texts, mean_words; of the captions written."""
    usage: Usage | None
    """What was asked of a model in this call; null where none is."""
    server_share: float | None
    """Of the requests that the model works on at one time, in all workers, how many it had on average, 0 to 1: near 1,
    the model is the limit. Null where no model is asked, or the number of workers is the cluster's."""
    picture: str | None
    """Histograms of the plain numbers; null where there are none."""


@dataclass(kw_only=True)
class Spent:
    """What a call took so far."""

    start: float = field(default_factory=perf_counter)
    num_chunks: int = 0
    num_reasons: int = 0
    decode_seconds: float = 0.0
    model_seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)

    def add(self, result: Result) -> None:
        """Count a chunk."""
        self.num_chunks += 1
        self.num_reasons += sum(row["reason"] is not None for row in result.rows)
        self.decode_seconds += result.decode_seconds
        self.model_seconds += result.model_seconds
        self.usage.add(result.usage)


def report_on(
    root: Path, layers: Sequence[str], *, fingerprint: str, spent: Spent, num_slots: int | None = None
) -> ProcessReport:
    """What a run's finished layers hold, scores in the last, and what this call took.

    Args:
        root: the dataset.
        layers: of the run.
        fingerprint: of the run.
        spent: by this call.
        num_slots: requests that the model works on at one time, in all workers; 0: not known; None: none is asked.
    """
    layer = layers[0]
    rows = read_table(root, layer_folder(layers[-1]))
    wall_seconds = perf_counter() - spent.start
    reasons = Counter(why for reason in rows["reason"].to_pylist() if reason for why in _kinds(reason))
    plain = {
        name: rows.column(name).drop_null().cast(pa.float64()).to_numpy()
        for name in rows.column_names
        if _is_number(rows.schema.field(name).type)
    }
    statistics = {name: _statistics(values, len(rows) - len(values)) for name, values in plain.items()}
    return ProcessReport(
        dataset=str(root),
        layer=layer,
        fingerprint=fingerprint,
        num_clips=len(rows),
        num_failed=sum(map(is_error, rows["reason"].to_pylist())),
        reasons=dict(reasons.most_common()),
        statistics=statistics,
        filled={name: _num_filled(rows.column(name)) for name in rows.column_names if name not in (*plain, *_OWN)},
        num_chunks_run=spent.num_chunks,
        decode_seconds=spent.decode_seconds,
        model_seconds=spent.model_seconds,
        wall_seconds=wall_seconds,
        captions=_captions(root, layer) if len(layers) > 1 else {},
        usage=None if num_slots is None else spent.usage,
        server_share=min(1.0, spent.usage.request_seconds / (num_slots * wall_seconds)) if num_slots else None,
        picture=_draw(root, layer, {name: values for name, values in plain.items() if len(values)}),
    )


def _kinds(reason: str) -> set[str]:
    """Why a clip lacks values, without what is of this clip alone.

    Of `civid_single: single: the answer is no JSON: line 1` that is its begin; of `VideoNotFoundError: no file a.mp4`
    the error. Several stages may have one each: `colour: ...; civid_single: ...`.
    """
    stages = {name for name in registry.names() if f"{name}: " in reason}
    if not stages:
        return {reason.partition(":")[0]}
    found = re.split(rf"(?:^|; )({'|'.join(stages)}): ", reason)
    return {f"{stage}: {said:.{_MAX_REASON}}" for stage, said in zip(found[1::2], found[2::2], strict=True)}


def _captions(root: Path, layer: str) -> dict[str, dict[str, float]]:
    table = read_table(root, layer_folder(layer))
    words: dict[str, list[int]] = {}
    for name in CAPTIONS:
        texts = table.column(name).combine_chunks().flatten()
        for kind, text in zip(texts.field("kind").to_pylist(), texts.field("text").to_pylist(), strict=True):
            words.setdefault(kind, []).append(len(text.split()))
    return {kind: {"num_texts": len(of), "mean_words": sum(of) / len(of)} for kind, of in sorted(words.items())}


def _num_filled(column: pa.ChunkedArray) -> int:
    is_list = pa.types.is_list(column.type)
    return int(pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py() or 0) if is_list else len(column.drop_null())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _statistics(values: Doubles, num_null: int) -> dict[str, float]:
    told = {"num_null": float(num_null)}
    if len(values):
        told |= {"min": values.min(), "median": np.median(values), "mean": values.mean(), "max": values.max()}
    return {name: float(value) for name, value in told.items()}


def _draw(root: Path, layer: str, plain: Mapping[str, Doubles]) -> str | None:
    if not plain:
        return None
    panels = []
    for name, values in plain.items():
        counts, edges = np.histogram(values, bins=10) if values.min() < values.max() else ([len(values)], values[:1])
        labels = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)] or [f"{values[0]:.4g}"]
        counted = dict(zip(labels, map(int, counts), strict=True))
        panels.append(Panel(title=name, counted="clips", counts=counted, otherwise="no values"))
    path = root / f"{layer}.png"
    with atomic_file(path) as file:
        draw_panels(panels, title=f"{root.name}: {layer}").save(file, format="PNG")
    return str(path)
