"""`curate`: a folder of films to a dataset folder, as a recipe says. Killed and started again, it ends with the same
bytes.

list films -> cut and join each, journaled in `<output>/.incomplete` -> shards, rejected films, card, manifest.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import av
import cv2
import pyarrow as pa
import xxhash

import civid_loader
from civid_loader.errors import (
    AnnotationError,
    NoVideoStreamError,
    StageError,
    VideoError,
    VideoNotFoundError,
)
from civid_loader.output import WORK, check_output, finished_manifest, only_builder, open_work
from civid_loader.pool import map_jobs
from civid_loader.processing import curate_asking
from civid_loader.processing.answers import Usage
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.curate_asking import Asked, CuratingAsker
from civid_loader.processing.curate_seal import REJECTED, seal
from civid_loader.processing.curate_video import (
    Embedders,
    KeepParams,
    curate_video,
    params_of,
)
from civid_loader.processing.frame_descriptors import ColourGradient, ColourHistogram, Embedder, GradientHistogram
from civid_loader.processing.recipe import Recipe, load_recipe
from civid_loader.processing.segments.entity_segment import EntitySegmentParams
from civid_loader.processing.segments.similarity_segment import SimilaritySegmentParams
from civid_loader.processing.segments.split import SplitParams
from civid_loader.processing.segments.split_stitch import SplitStitchParams
from civid_loader.schema import arrow_schema
from civid_loader.storage import MANIFEST, Journal, write_json, write_shard
from civid_loader.upstream.records import Source
from civid_loader.upstream.video_index import VideoIndex

MAX_EXAMPLES: Final = 10
_STEPS: Final = {"civid": "similarity_segment", "lvd2m": "keep", "miradata": "split_stitch"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateReport:
    """What `curate` made."""

    output: str
    """The dataset folder: `datasets.load_dataset(report.output)`."""
    recipe: str
    num_videos: int
    """Films that were looked at."""
    num_scenes: int
    """That they were cut into."""
    num_samples: int
    num_clips: int
    video_seconds: float
    """Of all films that can be read."""
    clip_seconds: float
    """Of all clips."""
    rejected: Mapping[str, int]
    """missing, unreadable or no_video -> films, listed in `rejected/videos.jsonl`."""
    examples: tuple[str, ...]
    """The first of them, with what is wrong."""
    skipped: Mapping[str, int]
    """Reason -> files that were not looked at."""
    flags: Mapping[str, int]
    """Flag -> samples."""
    usage: Usage | None
    """What was asked of a model in this call; null where none is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A film; what a worker process gets."""

    index: int
    pointer: str
    videos: str
    work: str
    recipe: Recipe
    embedders: Embedders
    asked: Asked | None
    timeout_seconds: float | None


def curate(
    videos: str | os.PathLike[str],
    *,
    recipe: str | os.PathLike[str] | Recipe,
    output: str | os.PathLike[str],
    embedder: Embedder | None = None,
    captioner: CaptionerSpec | None = None,
    second_captioner: CaptionerSpec | None = None,
    device: str = "cpu",
    num_proc: int = 1,
    timeout_seconds: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> CurateReport:
    """Cut films into clips and sequences as a paper does it; a dataset of spans of the films, which stay as they are.

    Args:
        videos: folder of films, at any depth.
        recipe: civid, lvd2m, miradata, or a .yaml file of the same form.
        output: the dataset folder to make; one that was cut off there is continued.
        embedder: what frames are compared by; None: a weight-free one, which is not the paper's. In miradata it votes
            in the place of ImageBind; a weight-free one always in that of DINOv2.
        captioner: whom to ask what sequences are about (step `entity_segment` of civid), or whether a scene goes on in
            the next (`split_stitch` of miradata); None: nobody, and samples are flagged. Several workers share a
            server's `max_in_flight`, and load any other model each.
        second_captioner: the second language model that votes in miradata; see `StitchAsker` for what one alone does.
        device: cpu or cuda, where it runs.
        num_proc: worker processes, a film each. The result does not depend on it.
        timeout_seconds: for reading a film; None: without.
        overwrite: replace what `output` holds.
        quiet: no progress bar.

    Raises:
        StageError: no such recipe, or one that does not say how films are cut, or that has nothing to ask.
        CaptionerError: the model cannot be asked.
        AnnotationError: no films in `videos`, or no sample came of them.
        OutputError: `output` holds something else, or another process works there.
    """
    if num_proc < 1:
        raise ValueError(f"num_proc must be >= 1, not {num_proc}")
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(os.fspath(recipe))
    embedders = _embedders(plan, embedder)
    _check_recipe(plan, embedders)
    asked = Asked.of(plan, captioner, second_captioner, device=device)
    asker = None if asked is None else asked.identity()
    root, folder = Path(output), os.path.abspath(videos)
    check_output(root, Source(annotations=(), videos=folder))
    if not os.path.isdir(folder):
        what = "a file" if os.path.exists(folder) else "not there"
        raise AnnotationError(f"{folder} is {what}; name the folder that the films lie in, at any depth")
    scanned = VideoIndex.scan(folder)
    pointers = [name for name in scanned.pointer.to_pylist() if "!" not in name]
    pointers = sorted(name for name in pointers if not Path(folder, name).resolve().is_relative_to(root.resolve()))
    if not pointers:
        raise AnnotationError(f"{folder}: no video files in it, nor in its folders")
    fingerprint = _fingerprint(plan, folder, pointers, embedders) | {"asker": asker}
    if not overwrite and (finished := finished_manifest(root, fingerprint)):
        return _report(root, finished, None if captioner is None else Usage())
    work, usage = root / WORK, Usage()
    with only_builder(work):
        open_work(root, fingerprint, overwrite=overwrite)
        journal = Journal(work / "journal.jsonl")
        jobs = [
            _Job(
                index=i, pointer=pointer, videos=folder, work=str(work), recipe=plan, embedders=embedders,
                asked=asked and asked.shared_by(num_proc), timeout_seconds=timeout_seconds,
            )
            for i, pointer in enumerate(pointers)
        ]  # fmt: skip
        pending = [job for job in jobs if job.index not in journal.entries]
        try:
            for number, entry in map_jobs(_run, pending, num_proc=num_proc, label="curating", quiet=quiet):
                usage.add(Usage(**entry.pop("usage")))
                journal.add(number, entry)
        finally:
            curate_asking.close()
        sealed = seal(root, work, plan, [journal.entries[job.index] for job in jobs], is_asked=asked is not None)
        manifest = fingerprint | sealed | {"skipped_videos": scanned.skipped}
        write_json(root / MANIFEST, manifest)
        shutil.rmtree(work)
    return _report(root, manifest, None if captioner is None else usage)


def _embedders(recipe: Recipe, given: Embedder | None) -> Embedders:
    weight_free = ColourGradient() if recipe.dataset == "civid" else ColourHistogram()
    return Embedders(first=given or weight_free, second=GradientHistogram())


def _check_recipe(recipe: Recipe, embedders: Embedders) -> None:
    """Refuse now what every film would be refused for."""
    if recipe.dataset not in _STEPS:
        raise StageError(f"recipe {recipe.name} makes {recipe.dataset}; films become {', '.join(_STEPS)}")
    if recipe.step(_STEPS[recipe.dataset]) is None or params_of(recipe, "split", SplitParams) is None:
        raise StageError(
            f"recipe {recipe.name}: to make {recipe.dataset} of films, `segmentation` needs the steps split and "
            f"{_STEPS[recipe.dataset]}"
        )
    params_of(recipe, "similarity_segment", SimilaritySegmentParams)
    params_of(recipe, "entity_segment", EntitySegmentParams)
    params_of(recipe, "keep", KeepParams)
    stitching = params_of(recipe, "split_stitch", SplitStitchParams)
    if stitching and stitching.imagebind_at_least is None and embedders.first.same_scene_at_least is None:
        raise StageError(
            f"recipe {recipe.name}: from which cosine on scenes are joined is not published, and not known of this "
            "embedding; copy the recipe and say it: split_stitch, params, imagebind_at_least"
        )


def _fingerprint(recipe: Recipe, folder: str, pointers: Sequence[str], embedders: Embedders) -> dict[str, Any]:
    """What the dataset is made from and how: another value is another dataset. No path stands in it."""
    sizes = [[name, os.path.getsize(os.path.join(folder, name))] for name in pointers]
    plan = json.dumps(asdict(recipe), sort_keys=True)
    return {
        "name": recipe.dataset,
        "recipe": {"name": recipe.name, "xxh3": xxhash.xxh3_64_hexdigest(plan.encode())},
        "inputs": {"num_files": len(pointers), "xxh3": xxhash.xxh3_64_hexdigest(json.dumps(sizes).encode())},
        "videos": xxhash.xxh3_64_hexdigest(folder.encode()),
        "embeddings": [embedders.first.identity, embedders.second.identity],
        "civid_loader": civid_loader.__version__,
        "av": av.__version__,
        "opencv": cv2.__version__,
        "pyarrow": pa.__version__,
    }


def _run(job: _Job) -> dict[str, Any]:
    """The rows of one film as a file, its journal entry, and what was asked; the same film gives the same bytes."""
    asker = None if job.asked is None else job.asked.load()
    return _entry(job, asker) | {"usage": asdict(Usage() if asker is None else curate_asking.take_usage(asker))}


def _entry(job: _Job, asker: CuratingAsker | None) -> dict[str, Any]:
    path = Path(job.work) / f"{job.index:05d}.parquet"
    try:
        found = curate_video(
            job.pointer,
            root=job.videos,
            recipe=job.recipe,
            embedders=job.embedders,
            asker=asker,
            timeout_seconds=job.timeout_seconds,
        )
    except VideoError as error:
        message = str(error).replace(os.path.join(job.videos, ""), "")
        return {"num_rows": 0, "video": job.pointer, "rejected": _status(error), "error": message}
    rows = pa.Table.from_pylist(found.rows, schema=arrow_schema("annotations"))
    write_shard(path, [rows], table="annotations")
    clips = [clip for row in found.rows for clip in row["clips"]]
    return {
        "num_rows": len(found.rows),
        "num_scenes": found.num_scenes,
        "num_clips": len(clips),
        "video_seconds": found.duration_seconds,
        "clip_seconds": sum(clip["media"]["duration_seconds"] for clip in clips),
        "flags": dict(Counter(flag for row in found.rows for flag in row["flags"])),
    }


def _status(error: VideoError) -> str:
    kinds = {NoVideoStreamError: "no_video", VideoNotFoundError: "missing"}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), "unreadable")


def _report(root: Path, manifest: dict[str, Any], usage: Usage | None) -> CurateReport:
    examples = []
    if manifest["rejected"]:
        with (root / REJECTED).open(encoding="utf-8") as lines:
            examples = [f"{line['video']}: {line['error']}" for line in map(json.loads, islice(lines, MAX_EXAMPLES))]
    return CurateReport(
        output=str(root),
        recipe=manifest["recipe"]["name"],
        num_samples=manifest["num_rows"]["annotations"]["train"],
        rejected=manifest["rejected"],
        examples=tuple(examples),
        skipped=manifest["skipped_videos"],
        flags=manifest["counts"]["flags"],
        usage=usage,
        **{name: manifest[name] for name in ("num_videos", "num_scenes", "num_clips", "video_seconds", "clip_seconds")},
    )
