"""What made a layer: for a run to know it again, and for its metadata (models, frames, versions, device, when)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, Final

import av
import torch
import xxhash

import civid_loader
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.chunks import Chunks
from civid_loader.processing.prompts import load_prompt
from civid_loader.processing.stage import Stage
from civid_loader.storage import MANIFEST, read_manifest

_PACKAGES: Final = {
    "av": ("av",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "transformers": ("transformers",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "scenedetect": ("scenedetect-headless", "scenedetect"),
    "numpy": ("numpy",),
    "vllm": ("vllm",),
}
"""What is told -> distributions that bring it."""


def made_by_of(stages: Sequence[Stage[Any]], chunks: Chunks, **given: Any) -> dict[str, Any]:
    """What decides the rows: another value is another run. Neither paths nor versions of libraries are in it.

    Args:
        stages: of the run.
        chunks: its clips.
        given: what else does; what is not there is left out.
    """
    each: dict[str, Any] = {stage.name: stage.fingerprint() for stage in stages}
    there = {name: value for name, value in given.items() if value is not None}
    return {
        "fingerprint": xxhash.xxh3_64_hexdigest(repr(sorted((each | there).items())).encode()),
        "stages": each,
        **there,
        "clips": chunks.fingerprint,
        "num_clips": chunks.num_clips,
    }


def is_finished(root: Path, layer: str, made_by: dict[str, Any]) -> bool:
    """Whether the layer is there and was made just so."""
    if not (root / MANIFEST).is_file():
        return False
    made = read_manifest(root).get("layers", {}).get(layer, {}).get("made_by")
    return bool(made == made_by)


def provenance_of(
    root: Path,
    chunks: Chunks,
    stages: Sequence[Stage[Any]],
    made_by: Mapping[str, Any],
    *,
    device: str,
    started: float,
) -> dict[str, Any]:
    """See `write_layer`. Only `made_by` says whether another run would find the same; the rest is told for people.

    Args:
        root: the dataset.
        chunks: of the run.
        stages: of the run.
        made_by: what decides the rows.
        device: on which models ran.
        started: when the run began, in seconds since 1970.
    """
    manifest = read_manifest(root) if (root / MANIFEST).is_file() else {}
    return {
        "fingerprint": made_by["fingerprint"],
        "columns": [asdict(column) for stage in stages for column in stage.columns],
        "stages": [_told(stage, made_by.get("captioner"), device=device) for stage in stages],
        "source": {
            "dataset": manifest.get("name"),
            "built_with": manifest.get("civid_loader"),
            "clips": chunks.fingerprint,
            "num_clips": chunks.num_clips,
        },
        "made_with": {
            **versions(),
            "device": device,
            "gpu": _gpu() if device == "cuda" else None,
            "decoder": "pyav",
            "created_utc": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        },
        "made_by": made_by,
    }


def versions() -> dict[str, Any]:
    """Of this package, of Python, and of what computes; null where it is not installed."""
    found = {name: _version(of) for name, of in _PACKAGES.items()}
    ffmpeg = {name: ".".join(map(str, parts)) for name, parts in av.library_versions.items()}
    return {"civid_loader": civid_loader.__version__, "python": python_version(), **found, "ffmpeg": ffmpeg}


def _version(distributions: Sequence[str]) -> str | None:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _gpu() -> str | None:
    """Null where the GPUs are on other machines."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _told(stage: Stage[Any], captioner: Mapping[str, Any] | None, *, device: str) -> dict[str, Any]:
    """A stage with its models and the frames it looks at."""
    dtype = stage.dtype_on(device)
    models = [weights.provenance | {"dtype": dtype} for weights in stage.weights.values()]
    told = {
        "stage": stage.name,
        "version": stage.version,
        "fingerprint": stage.fingerprint(),
        "params": asdict(stage.params),
        "requests": {name: one.identity() for name, one in stage.requests().items()},
        "models": models,
    }
    if isinstance(stage, AskingStage):
        told["prompts"] = {name: load_prompt(name).sha256 for name in stage.prompts}
        if captioner is not None:
            known = {name: captioner.get(name) for name in ("revision", "sha256", "dtype")}
            models.append(known | {"id": captioner["model"]})
    return told
