"""`process`: stages over a dataset, into a layer.

plan -> chunks through an engine, each written and journaled in `<dataset>/.incomplete-<layer>` -> seal: the layer's
shards, card and manifest. Killed at any moment and started again, it ends with the same rows, and redoes no finished
chunk; every engine finds the same.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal

import av
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xxhash

import civid_loader
from civid_loader.layers import layer_folder, write_layer
from civid_loader.output import is_continued, only_builder
from civid_loader.processing.chunks import Chunk, Chunks, first_of_each, plan_chunks, read_clips
from civid_loader.processing.engines.local import run_local
from civid_loader.processing.engines.ray import run_ray
from civid_loader.processing.planner import DecodePlan
from civid_loader.processing.process_report import ProcessReport, report_on
from civid_loader.processing.stage import CorpusStage, Row, Stage
from civid_loader.processing.work import Job, Result, Setup, StageSpec, features_of, parts_of, table_of
from civid_loader.progress import track_units
from civid_loader.schema import arrow_schema_of
from civid_loader.storage import MANIFEST, Journal, read_manifest, read_table, write_json, write_shard

Engine = Literal["local", "ray"]
_JOURNAL: Final = "journal.jsonl"


def process(
    dataset: str | os.PathLike[str],
    stages: Sequence[StageSpec],
    *,
    layer: str,
    videos: str | os.PathLike[str] | None,
    device: str = "cpu",
    engine: Engine = "local",
    num_proc: int | None = None,
    address: str | None = None,
    decode_threads: int = 2,
    timeout_seconds: float | None = 120.0,
    max_memory_bytes: int | None = None,
    limit: int | None = None,
    retry_errors: bool = False,
    quiet: bool = False,
) -> ProcessReport:
    """Run stages over every clip of a built dataset; what they find is its layer `layer`.

    Each clip is decoded once for all stages. A clip that cannot be decoded or judged is a row with its reason.

    Args:
        dataset: folder of a built dataset.
        stages: see `StageSpec`.
        layer: `scores-<name>`; one that is there and was made otherwise is replaced.
        videos: root of its video files; None where its pointers need none.
        device: cpu, or cuda.
        engine: local, or ray (an extra).
        num_proc: worker processes, or Ray actors; None: one per GPU, else one per two cores. 0: this process.
        address: of a Ray cluster; None starts one on this machine.
        decode_threads: of each worker.
        timeout_seconds: for decoding one clip.
        max_memory_bytes: of a worker; one that takes more while decoding a clip alone costs that clip.
        limit: about so many clips only, the first of each split in turn.
        retry_errors: try the clips again that have a reason in the finished layer; the others keep their rows.
        quiet: no progress bar.

    Raises:
        StageError: stages that do not fit together.
        AnnotationError: no built dataset.
        OutputError: an unfinished run of other stages or options lies there, or another process works on it.
        WorkerError: workers end, and no clip is to blame.
    """
    start = perf_counter()
    root = Path(os.path.abspath(dataset))
    folder = layer_folder(layer)
    plan = DecodePlan.of([spec.make() for spec in stages])
    chunks = plan_chunks(root, limit=limit)
    made_by = _made_by(plan.stages, chunks, videos)
    setup = Setup(
        stages=tuple(stages),
        videos=None if videos is None else _root_of(os.fspath(videos)),
        device=device,
        decode_threads=decode_threads,
        timeout_seconds=timeout_seconds,
    )
    finished = _finished(root, layer, made_by)
    if finished and not retry_errors:
        return report_on(root, layer, fingerprint=made_by["fingerprint"], start=start)
    # What compares clips needs of each what `run` gives, which the finished layer does not hold.
    compares = any(isinstance(stage, CorpusStage) for stage in plan.stages)
    known = _good_rows(root, folder) if finished and not compares else {}
    work = root / f".incomplete-{layer}"
    with only_builder(work):
        todo = made_by | {"retry": sorted(known) if retry_errors else None}
        if not is_continued(work, todo):
            write_json(work / "plan.json", todo)
        journal = Journal(work / _JOURNAL)
        pending = [chunk for chunk in chunks.listed if chunk.index not in journal.entries]
        schema = arrow_schema_of(features_of(part for stage in plan.stages for part in parts_of(stage)))
        ids: dict[int, list[str]] = {}
        results = _engine(engine, _jobs(root, pending, known, ids), setup, num_proc, address, max_memory_bytes)
        spent = [0.0, 0.0]
        num_done = sum(chunk.num_clips for chunk in chunks.listed) - sum(chunk.num_clips for chunk in pending)
        with track_units(label=layer, unit="clips", total=chunks.num_clips, num_done=num_done, quiet=quiet) as advance:
            for result in results:
                rows = _merged(result, ids.pop(result.index), known)
                write_shard(work / f"{result.index:06d}.parquet", [table_of(rows, schema)], table=folder, schema=schema)
                journal.add(result.index, {"num_rows": len(rows)})
                spent = [spent[0] + result.decode_seconds, spent[1] + result.model_seconds]
                advance(len(rows))
        _seal(root, layer, work, chunks, plan.stages, made_by, device=device)
        shutil.rmtree(work)
    return report_on(root, layer, fingerprint=made_by["fingerprint"], start=start, num_run=len(pending), spent=spent)


def _root_of(videos: str) -> str:
    return videos if "://" in videos else os.path.abspath(videos)


def _engine(
    engine: Engine, jobs: Iterator[Job], setup: Setup, num_proc: int | None, address: str | None, max_bytes: int | None
) -> Iterator[Result]:
    if engine == "ray":
        return run_ray(jobs, setup, num_actors=num_proc, address=address)
    if num_proc is None:
        num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_proc = torch.cuda.device_count() if setup.device == "cuda" else max(1, num_cores // 2)
    return run_local(jobs, setup, num_proc=num_proc, max_memory_bytes=max_bytes)


def _jobs(root: Path, pending: Sequence[Chunk], known: Mapping[str, Row], ids: dict[int, list[str]]) -> Iterator[Job]:
    """Chunks as workers take them; `ids` gets the clips of each."""
    for chunk in pending:
        clips = read_clips(root, chunk)
        ids[chunk.index] = [clip["clip_id"] for clip in clips]
        yield Job(index=chunk.index, clips=[clip for clip in clips if clip["clip_id"] not in known], skipped={})


def _merged(result: Result, ids: Sequence[str], known: Mapping[str, Row]) -> list[Row]:
    """The rows of a chunk, those found now and those known before; ids are compared, never counted on."""
    found = {row["clip_id"]: row for row in result.rows}
    return [known.get(clip_id) or found[clip_id] for clip_id in ids]


def _made_by(stages: Sequence[Stage[Any]], chunks: Chunks, videos: Any) -> dict[str, Any]:
    """What decides the rows: another value is another run."""
    each = {stage.name: stage.fingerprint() for stage in stages}
    return {
        "fingerprint": xxhash.xxh3_64_hexdigest(repr(sorted(each.items())).encode()),
        "stages": each,
        "clips": chunks.fingerprint,
        "num_clips": chunks.num_clips,
        "videos": None if videos is None else xxhash.xxh3_64_hexdigest(os.fspath(videos).encode()),
        "versions": {"civid_loader": civid_loader.__version__, "av": av.__version__, "torch": torch.__version__},
    }


def _finished(root: Path, layer: str, made_by: dict[str, Any]) -> bool:
    """Whether the layer is there and was made just so."""
    if not (root / MANIFEST).is_file():
        return False
    made = read_manifest(root).get("layers", {}).get(layer, {}).get("made_by")
    return bool(made == made_by)


def _good_rows(root: Path, folder: str) -> dict[str, Row]:
    return {row["clip_id"]: row for row in read_table(root, folder).to_pylist() if row["reason"] is None}


def _seal(
    root: Path,
    layer: str,
    work: Path,
    chunks: Chunks,
    stages: Sequence[Stage[Any]],
    made_by: dict[str, Any],
    *,
    device: str,
) -> None:
    """The chunks' rows as the layer, each clip once; what needs all of them is computed now."""
    features = features_of(column for stage in stages for column in stage.columns)
    schema = arrow_schema_of(features)
    of_all = _finish(work, chunks, stages)
    seen: set[int] = set()

    def pieces(split: str) -> Iterator[pa.Table]:
        for chunk in chunks.listed:
            if chunk.split == split:
                rows = pq.read_table(work / f"{chunk.index:06d}.parquet")
                rows = rows.filter(first_of_each(rows["clip_id"].combine_chunks(), seen))
                merged = [row | of_all.get(row["clip_id"], {}) for row in rows.to_pylist()]
                yield table_of([{name: row[name] for name in schema.names} for row in merged], schema)

    splits = dict.fromkeys(chunk.split for chunk in chunks.listed)
    provenance = {
        "fingerprint": made_by["fingerprint"],
        "columns": [asdict(column) for stage in stages for column in stage.columns],
        "stages": [_told(stage) for stage in stages],
        "made_with": made_by["versions"] | {"device": device, "decoder": "pyav"},
        "made_by": made_by,
    }
    write_layer(root, layer, {split: pieces(split) for split in splits}, features=features, provenance=provenance)


def _told(stage: Stage[Any]) -> dict[str, Any]:
    """A stage, for the layer's metadata."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "fingerprint": stage.fingerprint(),
        "params": asdict(stage.params),
        "models": [weights.provenance for weights in stage.weights.values()],
    }


def _finish(work: Path, chunks: Chunks, stages: Sequence[Stage[Any]]) -> dict[str, Row]:
    """What stages that compare clips find: clip id -> columns."""
    found: dict[str, Row] = {}
    for stage in stages:
        if isinstance(stage, CorpusStage):
            names = ["clip_id", *(part.name for part in stage.parts)]
            tables = [pq.read_table(work / f"{chunk.index:06d}.parquet", columns=names) for chunk in chunks.listed]
            rows = pa.concat_tables(tables)
            rows = rows.filter(first_of_each(rows["clip_id"].combine_chunks(), set()))
            for clip_id, row in zip(rows["clip_id"].to_pylist(), stage.finish(rows), strict=True):
                found.setdefault(clip_id, {}).update(row)
    return found
