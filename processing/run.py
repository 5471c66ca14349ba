"""`process`: stages over a dataset, into a layer.

plan -> chunks through an engine, each written and journaled in `<dataset>/.incomplete-<layer>` -> seal: the layer's
shards, card and manifest. Killed at any moment and started again, it ends with the same rows, and redoes no finished
chunk; every engine finds the same.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal

import torch
import xxhash

from civid_loader.errors import OutputError, StageError, TooManyFailedError
from civid_loader.output import is_continued, only_builder
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.chunks import Chunk, plan_chunks, read_clips
from civid_loader.processing.delivery import deliver
from civid_loader.processing.earlier_captions import EarlierCaptions
from civid_loader.processing.engines.local import run_local
from civid_loader.processing.engines.ray import run_ray
from civid_loader.processing.planner import DecodePlan, check_root
from civid_loader.processing.process_report import ProcessReport, Spent, report_on
from civid_loader.processing.provenance import is_finished, made_by_of, provenance_of
from civid_loader.processing.run_checks import FailureCap, check_device, check_limited
from civid_loader.processing.sealing import layers_of, read_rows, seal
from civid_loader.processing.stage import CorpusStage, Row, Stage
from civid_loader.processing.stage_rows import features_of_work, is_error, table_of, unit_of
from civid_loader.processing.work import UNIT_KEYS, Job, Result, Setup, StageSpec
from civid_loader.progress import track_units
from civid_loader.schema import arrow_schema_of
from civid_loader.storage import Journal, write_json, write_shard

Engine = Literal["local", "ray"]
_JOURNAL: Final = "journal.jsonl"
_PLAN: Final = "plan.json"


def process(
    dataset: str | os.PathLike[str],
    stages: Sequence[StageSpec],
    *,
    layer: str,
    videos: str | os.PathLike[str] | None,
    captioner: CaptionerSpec | None = None,
    pictures: str | os.PathLike[str] | None = None,
    captions_from: str | None = None,
    device: str = "cpu",
    engine: Engine = "local",
    num_proc: int | None = None,
    address: str | None = None,
    decode_threads: int = 2,
    timeout_seconds: float | None = 120.0,
    max_memory_bytes: int | None = None,
    limit: int | None = None,
    retry_errors: bool = False,
    overwrite: bool = False,
    output: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> ProcessReport:
    """Run stages over every clip of a built dataset; what they find is its layer `layer`.

    Each clip is decoded once for all stages. A clip that cannot be decoded or judged is a row with its reason.

    Args:
        dataset: folder of a built dataset.
        stages: see `StageSpec`.
        layer: `scores-<name>`, or `captions-<name>` where a stage writes captions, whose scores then go into the layer
            `scores-<name>` beside it; one that is there and was made otherwise is replaced, unless `limit` would leave
            fewer clips in it.
        videos: root of its video files; None where its pointers need none.
        captioner: whom stages ask that ask a model.
        pictures: root of the pictures that the dataset points to: portraits, in MovieBench's folder of annotations.
        captions_from: a layer of captions that an earlier run wrote: stages read them before those of the dataset.
        device: cpu, or cuda.
        engine: local, or ray (an extra).
        num_proc: worker processes, or Ray actors; None: one per GPU, else one per two cores. 0: this process, which is
            the default where a server is asked. Several workers share its `max_in_flight`.
        address: of a Ray cluster; None starts one on this machine.
        decode_threads: of each worker.
        timeout_seconds: for decoding one clip.
        max_memory_bytes: of a worker; one that takes more while decoding a clip alone costs that clip.
        limit: about so many clips only, the first ones; see `plan_chunks`.
        retry_errors: try the clips again with which something went wrong in the finished layer; the others keep their
            rows, those too of which there is nothing to compute.
        overwrite: begin anew, whatever is there: finished, unfinished, or of more clips.
        output: folder or fsspec URL to which the finished layer is copied too, see `deliver`.
        quiet: no progress bar.

    Raises:
        StageError: stages that do not fit together, or that ask a model where none is given.
        VideoRootError: `videos` is no folder, or pointers need one.
        CaptionerError: the model cannot be asked.
        LayerError: no name of a layer, or one of another kind; or there are no such `captions_from`.
        AnnotationError: no built dataset.
        OutputError: an unfinished run of other stages or options lies there, or a layer of more clips, or another
            process works on it.
        TooManyFailedError: the first clips come to nothing, one and all, see `FailureCap`.
        WorkerError: workers end, and no clip is to blame.
    """
    spent = Spent()
    root = Path(os.path.abspath(dataset))
    if engine == "local":
        check_device(device)
    elif max_memory_bytes is not None:
        raise StageError("engine ray ends workers for their memory by rules of its own; limit it with engine local")
    plan = DecodePlan.of([spec.make() for spec in stages])
    layers, unit = layers_of(layer, plan.stages), unit_of(plan.stages)
    chunks = plan_chunks(root, limit=limit, unit=unit)
    earlier = None if captions_from is None else EarlierCaptions.of(root, captions_from, into=layer)
    asked, num_slots = _checked(captioner, plan.stages, device)
    made_by = made_by_of(
        plan.stages,
        chunks,
        captioner=asked,
        has_pictures=None if pictures is None or asked is None else True,
        captions_from=earlier.identity if earlier else None,
    )
    finished = not overwrite and is_finished(root, layer, made_by)
    if finished and not retry_errors:
        return _report(root, layers, output, fingerprint=made_by["fingerprint"], spent=spent)
    if limit is not None and not overwrite:
        check_limited(root, layers, num_clips=chunks.num_clips)
    # What compares clips needs of each what `run` gives, which the finished layer does not hold.
    compares = any(isinstance(stage, CorpusStage) for stage in plan.stages)
    rows_before = read_rows(root, layers) if finished and not compares else []
    known = {row["clip_id"]: row for row in rows_before if not is_error(row["reason"])}
    work = root / f".incomplete-{layer}"
    num_proc = _num_workers(num_proc, engine, device, captioner, num_slots)
    videos_root = None if videos is None else _root_of(os.fspath(videos))
    check_root(plan, read_clips(root, chunks.listed[0]) if chunks.listed else [], videos=videos_root)
    setup = Setup(
        stages=tuple(stages),
        videos=videos_root,
        pictures=None if pictures is None else _root_of(os.fspath(pictures)),
        device=device,
        decode_threads=decode_threads,
        timeout_seconds=timeout_seconds,
        captioner=captioner and captioner.shared_by(num_proc or 1),
        # Nodes of a cluster may not see this file; there, finished chunks are what is not asked again.
        answers=_answers_of(root, asked) if asked is not None and address is None else None,
    )
    with only_builder(work):
        todo = made_by | {"retry": sorted(known) if retry_errors else None}
        journal = _opened(work, todo, overwrite=overwrite)
        cap = FailureCap(is_over=bool(journal.entries or known))
        pending = [chunk for chunk in chunks.listed if chunk.index not in journal.entries]
        schema = arrow_schema_of(features_of_work(plan.stages))
        ids: dict[int, list[str]] = {}
        jobs = _jobs(root, pending, known, ids, key=UNIT_KEYS[unit or "clip"], earlier=earlier)
        results = _engine(engine, jobs, setup, num_proc, address, max_memory_bytes)
        num_done = chunks.num_clips - sum(chunk.num_clips for chunk in pending)
        with track_units(label=layer, unit="clips", total=chunks.num_clips, num_done=num_done, quiet=quiet) as advance:
            for result in results:
                rows = _merged(result, ids.pop(result.index), known)
                _check_first(cap, rows, work)
                write_shard(work / f"{result.index:06d}.parquet", [table_of(rows, schema)], table=layer, schema=schema)
                journal.add(result.index, {"num_rows": len(rows)})
                spent.add(result)
                advance(len(rows), _told(spent))
        started = (work / _PLAN).stat().st_mtime
        told = provenance_of(root, chunks, plan.stages, made_by, device=device, started=started)
        seal(root, layer, work, chunks, plan.stages, told)
        shutil.rmtree(work)
    if num_slots is not None and not _is_server(captioner):
        num_slots *= 0 if num_proc is None else max(1, num_proc)  # each worker has the model; Ray says not how many
    return _report(root, layers, output, fingerprint=made_by["fingerprint"], spent=spent, num_slots=num_slots)


def _opened(work: Path, todo: dict[str, Any], *, overwrite: bool) -> Journal:
    """The journal of an unfinished run, or a new one; one that has not finished a chunk is worth no question."""
    plan = work / _PLAN
    if overwrite or (plan.is_file() and json.loads(plan.read_bytes()) != todo and not Journal(work / _JOURNAL).entries):
        plan.unlink(missing_ok=True)
    try:
        if not is_continued(work, todo):
            write_json(plan, todo)
    except OutputError as error:
        raise OutputError(f"{error}; or begin anew with --overwrite") from error
    return Journal(work / _JOURNAL)


def _check_first(cap: FailureCap, rows: Sequence[Row], work: Path) -> None:
    try:
        cap.add(rows)
    except TooManyFailedError:
        (work / _JOURNAL).unlink(missing_ok=True)  # with the right videos, the same command begins anew
        raise


def _report(root: Path, layers: Sequence[str], output: str | os.PathLike[str] | None, **told: Any) -> ProcessReport:
    if output is not None:
        deliver(root, layers, output)
    return report_on(root, layers, **told)


def _root_of(videos: str) -> str:
    return videos if "://" in videos else os.path.abspath(videos)


def _checked(
    spec: CaptionerSpec | None, stages: Sequence[Stage[Any]], device: str
) -> tuple[dict[str, Any] | None, int | None]:
    """What decides the answers of the model that is asked, and how many it works on at once; None: none is asked."""
    if unit_of(stages) is None:
        return None, None
    if spec is None:
        asking = next(stage.name for stage in stages if isinstance(stage, AskingStage))
        raise StageError(f"stage {asking} asks a model: name a --backend and its --model")
    captioner = spec.make(device=device)
    captioner.check()
    captioner.close()
    return dict(captioner.identity), captioner.num_slots


def _answers_of(root: Path, asked: Mapping[str, Any]) -> Path:
    """Where a model's answers about a dataset are kept, beyond the run: hidden, and no part of what is published."""
    return root / f".answers-{xxhash.xxh3_64_hexdigest(repr(sorted(asked.items())).encode())}.sqlite"


def _is_server(captioner: CaptionerSpec | None) -> bool:
    return captioner is not None and captioner.is_server


def _num_workers(
    num_proc: int | None, engine: Engine, device: str, captioner: CaptionerSpec | None, num_slots: int | None
) -> int | None:
    """None: one for each GPU, or some CPUs, of a Ray cluster."""
    is_server = _is_server(captioner)
    if num_proc is not None:
        return min(num_proc, num_slots or 1) if is_server else num_proc
    if is_server:
        return 1 if engine == "ray" else 0
    if engine == "ray":
        return None
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.cuda.device_count() if device == "cuda" else max(1, num_cores // 2)


def _engine(
    engine: Engine, jobs: Iterator[Job], setup: Setup, num_proc: int | None, address: str | None, max_bytes: int | None
) -> Iterator[Result]:
    if engine == "ray":
        return run_ray(jobs, setup, num_actors=num_proc, address=address)
    assert num_proc is not None
    return run_local(jobs, setup, num_proc=num_proc, max_memory_bytes=max_bytes)


def _jobs(
    root: Path,
    pending: Sequence[Chunk],
    known: Mapping[str, Row],
    ids: dict[int, list[str]],
    *,
    key: str,
    earlier: EarlierCaptions | None,
) -> Iterator[Job]:
    """Chunks as workers take them; `ids` gets the clips of each. What is gone through as one is done again as one."""
    for chunk in pending:
        clips = read_clips(root, chunk)
        ids[chunk.index] = [clip["clip_id"] for clip in clips]
        wanted = {clip[key] for clip in clips if clip["clip_id"] not in known}
        todo = [clip for clip in clips if clip[key] in wanted]
        yield Job(index=chunk.index, clips=todo if earlier is None else earlier.added(todo), skipped={})


def _merged(result: Result, ids: Sequence[str], known: Mapping[str, Row]) -> list[Row]:
    """The rows of a chunk, those found now and those known before; ids are compared, never counted on."""
    found = {row["clip_id"]: row for row in result.rows}
    return [found.get(clip_id) or known[clip_id] for clip_id in ids]


def _told(spent: Spent) -> str:
    """For the progress bar: where the time goes, and what went wrong."""
    total = spent.decode_seconds + spent.model_seconds
    told = f"decoding {spent.decode_seconds / total:.0%}" if total else ""
    if spent.usage.completion_tokens:
        told += f", {spent.usage.completion_tokens / (perf_counter() - spent.start):,.0f} tokens/s"
    return told + (f", {spent.num_reasons:,} without values" if spent.num_reasons else "")
