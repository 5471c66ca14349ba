"""What a run over a dataset found, in numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from civid_loader.histograms import Panel, draw_panels
from civid_loader.layers import layer_folder
from civid_loader.storage import atomic_file, read_table

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessReport:
    """What a run found."""

    dataset: str
    layer: str
    fingerprint: str
    """Of all stages together."""
    num_clips: int
    reasons: Mapping[str, int]
    """Why clips have no values -> how many."""
    statistics: Mapping[str, Mapping[str, float]]
    """Column -> num_null, min, median, mean, max; of plain numbers."""
    num_chunks_run: int
    """By this call; the others were finished before."""
    decode_seconds: float
    """Of all workers and threads together, in this call."""
    model_seconds: float
    wall_seconds: float
    picture: str | None
    """Histograms of the plain numbers; null where there are none."""


def report_on(
    root: Path,
    layer: str,
    *,
    fingerprint: str,
    start: float,
    num_run: int = 0,
    spent: Sequence[float] = (0.0, 0.0),
) -> ProcessReport:
    """What a finished layer holds, and what this call took."""
    rows = read_table(root, layer_folder(layer))
    reasons = Counter((reason or "").partition(":")[0] for reason in rows["reason"].to_pylist() if reason)
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
        reasons=dict(reasons),
        statistics=statistics,
        num_chunks_run=num_run,
        decode_seconds=spent[0],
        model_seconds=spent[1],
        wall_seconds=perf_counter() - start,
        picture=_draw(root, layer, {name: values for name, values in plain.items() if len(values)}),
    )


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
