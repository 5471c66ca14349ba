"""`filter`: the samples of which a condition on their clips is true, as a dataset of their own.

judge (reads only the columns of the condition) -> write rows, layers, card, manifest in `<output>/.incomplete` -> move.
Killed at any moment and started again, it starts over and ends with the same bytes.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import duckdb
import numpy as np
import pyarrow as pa
import xxhash

import civid_loader
from civid_loader import builders
from civid_loader.card import write_card
from civid_loader.clip_table import aligned, clip_table, leaves, offsets
from civid_loader.errors import AnnotationError, CividLoaderError, OutputError, WhereError
from civid_loader.filter_outcomes import OUTCOMES, Mask, Outcomes, Scope, Truth, Unknown, judge
from civid_loader.filter_tables import RowWriter, copy_layer, copy_tables
from civid_loader.judging import BATCH, Judge, chosen_layers, columns_in, columns_joined
from civid_loader.output import WORK, check_output, finished_manifest, only_builder
from civid_loader.repo_names import pull_hint
from civid_loader.schema import TABLES
from civid_loader.storage import MANIFEST, atomic_file, read_manifest, read_table, replace, write_json
from civid_loader.upstream.records import Source
from civid_loader.where import TRUE, UNKNOWN, Evaluator, parse_where

if TYPE_CHECKING:
    import datasets

REJECTED: Final = "rejected/filtered.jsonl"
"""Samples that were dropped, one JSON line each, with the conditions they were dropped for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterReport:
    """What a filter kept."""

    output: str | None
    """The dataset folder; None: only counted."""
    where: str
    scope: Scope
    unknown: Unknown
    """Whether unknown samples were dropped or kept."""
    samples: Mapping[str, Mapping[str, int]]
    """Split -> kept, unknown, dropped -> samples; the three add up to all."""
    dropped_by: Mapping[str, int]
    """Condition -> dropped samples it is false for; one sample may count with several."""
    unknown_by: Mapping[str, int]
    """Condition -> unknown samples it is unknown for."""
    unknown_reasons: Mapping[str, int]
    """`<layer>: <reason>` -> clips without the value that was asked for."""
    num_clips: int
    """In the rows written."""
    layers: Mapping[str, int]
    """Layer -> rows written."""
    num_videos_of_parent: int
    """Clips whose bytes lie in the config `videos` of the dataset that was filtered, which is not copied."""


def filter_rows(
    ds: "datasets.Dataset", where: str, *, scope: Scope = "all", unknown: Unknown = "drop"
) -> "datasets.Dataset":
    """The samples of which a condition on their clips is true: `filter_rows(ds, "flow_mean_px >= 20")`.

    Args:
        ds: samples, with layers joined to them.
        where: an SQL expression on one clip, see `columns_of` for its names.
        scope: keep a sample where it is true of all its clips, or of any.
        unknown: drop or keep samples of which nobody can tell, as a value is missing.

    Raises:
        WhereError: the condition cannot be read or computed.
    """
    _check_options(scope, unknown)
    if not hasattr(ds, "select_columns") or not hasattr(ds, "select"):
        raise TypeError(f"a datasets.Dataset is filtered, one split of it, not {type(ds).__name__}")
    condition = parse_where(where)
    known = columns_joined(ds)
    columns = known.find(condition.names)
    used = [layer for layer in known.layers if any(column.layer == layer for column in columns)]
    needed = list(dict.fromkeys(leaf.partition(".")[0] for leaf in leaves(columns))) + used
    if missing := [name for name in needed if name not in ds.column_names]:
        raise WhereError(f"the rows have no column {', '.join(missing)}, which the condition needs")
    found: list[Truth] = []
    with Evaluator(condition) as evaluate:
        for rows in ds.select_columns(needed).with_format("arrow").iter(BATCH):
            lists = rows.column("clips").combine_chunks()
            structs = {name: aligned(rows.column(name).combine_chunks(), offsets(lists), layer=name) for name in used}
            truth = evaluate(clip_table(rows, columns, structs))
            found.append(judge(truth, offsets(lists), scope=scope).samples)
    outcomes = np.concatenate(found) if found else np.array([], np.uint8)
    return ds.select(np.flatnonzero(_is_kept(outcomes, unknown)))


def filter_dataset(
    dataset: str | os.PathLike[str],
    *,
    where: str,
    output: str | os.PathLike[str] | None,
    layers: list[str] | None = None,
    scope: Scope = "all",
    unknown: Unknown = "drop",
    overwrite: bool = False,
    quiet: bool = False,
) -> FilterReport:
    """Write the samples of which a condition on their clips is true as another dataset, with their layers.

    The config `videos` is not copied: pointers `videos:<clip_id>` need the dataset that was filtered.

    Args:
        dataset: folder of a built dataset.
        where: an SQL expression on one clip, see `columns_of` for its names.
        output: the dataset folder to make. None: only count.
        layers: that the condition may read and that are copied; None: all.
        scope: keep a sample where the condition is true of all its clips, or of any.
        unknown: drop or keep samples of which nobody can tell, as a value is missing. They are counted either way.
        overwrite: replace what `output` holds.
        quiet: no progress bar.

    Raises:
        AnnotationError: `dataset` is no built dataset.
        WhereError: the condition cannot be read or computed, or keeps nothing.
        LayerError: there is no such layer, or it is of another dataset.
        OutputError: `output` holds something else, or another process works there.
    """
    _check_options(scope, unknown)
    source = Path(os.path.abspath(dataset))
    if not (source / MANIFEST).is_file():
        raise AnnotationError(
            f"{source}: no {MANIFEST}, so no built dataset; make one with `civid build`{pull_hint(dataset)}"
        )
    read_table(source, columns=["sample_id"])  # complete, and of this version of the schema
    chosen = chosen_layers(source, layers)
    condition = parse_where(where)
    run = Judge(source, condition, columns_in(source, chosen), scope=scope, quiet=quiet)
    if output is None:
        run.judge_all()
        settings = {"where": where, "scope": scope, "unknown": unknown}
        return _report(None, settings | run.tally.summary() | {"num_clips": 0, "layers": {}, "num_videos_of_parent": 0})
    root = Path(output)
    plan = _plan(source, where, chosen, scope=scope, unknown=unknown)
    check_output(root, Source(annotations=(str(source),)))
    if not overwrite and (finished := finished_manifest(root, plan)):
        return _report(root, finished["filtered"])
    work = root / WORK
    with only_builder(work):
        if (work / "plan.json").is_file() and not overwrite:
            raise OutputError(f"{root} holds an unfinished build; choose another --output, or --overwrite")
        shutil.rmtree(work / "new", ignore_errors=True)
        try:
            manifest = _write(run, work / "new", plan, chosen, unknown=unknown)
        except CividLoaderError:  # nothing that `output` held was touched
            shutil.rmtree(work / "new" if (work / "plan.json").is_file() else work)
            if not any(root.iterdir()):
                root.rmdir()
            raise
        _publish(work / "new", root)
        shutil.rmtree(work)
    return _report(root, manifest["filtered"])


def _check_options(scope: Scope, unknown: Unknown) -> None:
    for name, value, allowed in (("scope", scope, get_args(Scope)), ("unknown", unknown, get_args(Unknown))):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: it is {' or '.join(map(repr, allowed))}")


def _is_kept(outcomes: Truth, unknown: Unknown) -> Mask:
    return outcomes >= (UNKNOWN if unknown == "keep" else TRUE)


def _plan(dataset: Path, where: str, layers: list[str], *, scope: Scope, unknown: Unknown) -> dict[str, Any]:
    """What the filtered dataset is made of: another value is another dataset. No path stands in it."""
    parent = read_manifest(dataset)
    return {
        "name": parent["name"],
        "parent": {
            "name": parent["name"],
            "folder": dataset.name,
            "manifest_xxh3": xxhash.xxh3_64_hexdigest(json.dumps(parent, sort_keys=True).encode()),
            "where": where,
            "num_rows": parent["num_rows"],
        },
        "filter": {"scope": scope, "unknown": unknown, "layers": layers},
        "civid_loader": civid_loader.__version__,
        "duckdb": duckdb.__version__,
        "pyarrow": pa.__version__,
    }


def _write(judge_: Judge, new: Path, plan: dict[str, Any], layers: list[str], *, unknown: Unknown) -> dict[str, Any]:
    """Write the whole dataset into the folder `new`; returns its manifest."""
    dataset = judge_.dataset
    parent = read_manifest(dataset)
    with atomic_file(new / REJECTED) as file:

        def note(split: str, sample_ids: pa.Array, outcomes: Outcomes) -> None:
            is_dropped = ~_is_kept(outcomes.samples, unknown)
            for i in np.flatnonzero(is_dropped).tolist():
                line = {"sample_id": sample_ids[i].as_py(), "split": split}
                line |= {"outcome": OUTCOMES[outcomes.samples[i]], "reason": judge_.tally.blame(outcomes, i)}
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

        outcomes = judge_.judge_all(note)
    summary = judge_.tally.summary()
    if not any(_is_kept(of_split, unknown).any() for of_split in outcomes.values()):
        told = {name: summary[name] for name in ("samples", "dropped_by", "unknown_by", "unknown_reasons")}
        raise WhereError(f"{plan['parent']['where']!r} keeps none of the samples: {json.dumps(told)}")
    writer = RowWriter(dataset, new)
    for split, of_split in outcomes.items():
        writer.write(split, _is_kept(of_split, unknown))
    copied = copy_tables(dataset, new, parent)
    num_rows = {"annotations": writer.num_rows} | {table: parent["num_rows"][table] for table in copied}
    manifest = plan | {
        "license": parent["license"],
        "num_rows": num_rows,
        "shards": {"annotations": writer.shards} | copied,
        "rejected": {},
        "counts": {name: dict(sorted(counter.items())) for name, counter in writer.counts.items()},
    }
    write_json(new / MANIFEST, manifest)
    write_card(new, builders.find(parent["name"]), num_rows, about=_about(plan, summary, writer))
    of_layers = {name: copy_layer(dataset, new, name, writer.clip_ids) for name in layers}
    filtered = {"where": plan["parent"]["where"], **plan["filter"], **summary}
    filtered |= {"num_clips": writer.num_clips, "layers": of_layers, "num_videos_of_parent": writer.num_of_parent}
    manifest = read_manifest(new) | {"filtered": filtered}
    write_json(new / MANIFEST, manifest)
    return manifest


def _about(plan: dict[str, Any], summary: dict[str, Any], writer: RowWriter) -> str:
    """What the card says: where the rows are from, and where the videos are."""
    folder = plan["parent"]["folder"].replace("`", "'")
    num_all = sum(sum(counts.values()) for counts in summary["samples"].values())
    where = " ".join(plan["parent"]["where"].split()).replace("`", "'")
    text = (
        f"These are the {sum(writer.num_rows.values()):,} of {num_all:,} samples of `{folder}` for "
        f"which, for {plan['filter']['scope']} of their clips, ``{where}``; unknown ones were "
        f"{'kept' if plan['filter']['unknown'] == 'keep' else 'dropped'}. No videos are inside: `clips[].video` points "
        "to them."
    )
    if writer.num_of_parent:
        text += f" {writer.num_of_parent:,} pointers, `videos:<clip_id>`, need the config `videos` of that dataset."
    return text


def _publish(new: Path, root: Path) -> None:
    """Move what is finished to where it belongs, the manifest last; what was there is replaced."""
    (root / MANIFEST).unlink(missing_ok=True)
    for folder in (*TABLES, "scores", "captions", "rejected"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for path in sorted(new.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
        replace(path, root / path.name)


def _report(root: Path | None, filtered: Mapping[str, Any]) -> FilterReport:
    names = (
        "where", "scope", "unknown", "samples", "dropped_by", "unknown_by", "unknown_reasons", "num_clips", "layers",
        "num_videos_of_parent",
    )  # fmt: skip
    return FilterReport(output=None if root is None else str(root), **{name: filtered[name] for name in names})


filter = filter_rows
