"""Scores: five stages together against the five apart; two workers against one; what Ray costs per chunk; and the share
of the time in which a model computes.

    python tests/benchmarks/process.py [--quick] [--output results.json]

Each contender runs in a process of its own, in turn; medians of CPU seconds of that process and its workers, or of wall
seconds where workers run side by side. Clips: H.264 720p, GOP 250, of 10 s each, as spans of the benchmark's films.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from unittest import mock

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.videos import FOLDER, Table, environment, make, save

from support.built import clip, write_dataset

FLOW: Final = {"backend": "dis", "size": [128, 240], "fps": 1.0}
STAGES: Final[dict[str, dict[str, Any]]] = {
    "colour": {},
    "scene_cuts": {},
    "technical_quality": {},
    "duplicates": {},
    "optical_flow": FLOW,
}
RAFT: Final = "RAFT-small"
"""Random weights: they take as long as trained ones."""
CLIP_SECONDS: Final = 10.0
CHUNK_CLIPS: Final = 4


def dataset(folder: Path, videos: Path, *, num_clips: int) -> Path:
    """Clips that are spans of one film, again and again."""
    starts = [CLIP_SECONDS * (i % 3) for i in range(num_clips)]
    clips = [[clip(f"c{i}", videos.name, span=(start, start + CLIP_SECONDS))] for i, start in enumerate(starts)]
    return write_dataset(folder, {"train": clips})


def one(
    root: Path, videos: Path, stages: list[str], engine: Literal["local", "ray"], num_proc: int
) -> dict[str, float]:
    """CPU and wall seconds of a run, without the imports; for Ray from the first result on, per chunk."""
    from civid_loader.processing import chunks
    from civid_loader.processing.run import process
    from civid_loader.processing.work import StageSpec

    mock.patch.object(chunks, "CHUNK_CLIPS", CHUNK_CLIPS).start()
    if stages == [RAFT]:
        import torch

        from support.stages_motion import random_raft
        from support.tiny_models import as_weights

        torch.save(random_raft(large=False).state_dict(), root / "raft.pth")
        params = {"backend": "raft_small", "fps": 2.0}
        specs = [StageSpec(name="optical_flow", params=params, weights={"raft": as_weights(root / "raft.pth")})]
        device = "cuda" if torch.cuda.is_available() else "cpu"
    else:
        specs, device = [StageSpec(name=name, params=STAGES[name], weights={}) for name in stages], "cpu"
    before, start = _cpu_seconds(), time.perf_counter()
    report = process(
        root,
        specs,
        layer="scores-run",
        device=device,
        videos=videos.parent,
        engine=engine,
        num_proc=num_proc,
        decode_threads=2 if stages == [RAFT] else 0,
        quiet=True,
    )
    return {
        "cpu": _cpu_seconds() - before,
        "wall": time.perf_counter() - start,
        "decode": report.decode_seconds,
        "model": report.model_seconds,
        "is_cuda": device == "cuda",
    }


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer clips, one round.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write all numbers as JSON.")] = None,
    videos: Annotated[Path, typer.Option(help="Where made videos are kept.")] = FOLDER,
    run_one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run all three comparisons."""
    if run_one is not None:
        told = json.loads(run_one)
        print(json.dumps(one(Path(told["root"]), Path(told["video"]), *told["what"])))
        return
    video = make(["h264_720_g250"], videos)["h264_720_g250"]
    about = environment("ray", "opencv-python-headless")
    print(about)
    rounds = 1 if quick else 3
    few, many = (4, 8) if quick else (8, 24)
    engines: dict[str, tuple[str, int]] = {
        "one worker": ("local", 1),
        "two workers": ("local", 2),
        "Ray, one actor": ("ray", 1),
    }
    contenders: dict[str, tuple[int, list[Any]]] = {
        **{name: (few, [[name], "local", 0]) for name in STAGES},
        RAFT: (few // 4, [[RAFT], "local", 0]),
        "all five together": (few, [list(STAGES), "local", 0]),
        **{f"{name}, {n}": (n, [list(STAGES), *how]) for name, how in engines.items() for n in (few, many)},
    }
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, (num_clips, what) in contenders.items():
            with tempfile.TemporaryDirectory() as folder:
                root = dataset(Path(folder) / "set", video, num_clips=num_clips)
                told = json.dumps({"root": str(root), "video": str(video), "what": what})
                command = [sys.executable, __file__, "--run-one", told]
                result = subprocess.run(command, check=True, capture_output=True, text=True)
                found.setdefault(name, []).append(json.loads(result.stdout.splitlines()[-1]))
    middle = {
        name: {key: statistics.median(one_run[key] for one_run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    apart = sum(middle[name]["cpu"] for name in STAGES)
    together = Table(f"Five stages, {few} clips of 10 s", ["stage", "CPU s", "of it decoding, s"])
    for name in (*STAGES, "all five together"):
        together.add(name, f"{middle[name]['cpu']:.2f}", f"{middle[name]['decode']:.2f}")
    together.add("together / apart", f"{middle['all five together']['cpu'] / apart:.2f}", "")
    # What more chunks take: starting up is in both.
    per_chunk = {
        name: (middle[f"{name}, {many}"]["wall"] - middle[f"{name}, {few}"]["wall"]) / ((many - few) / CHUNK_CLIPS)
        for name in engines
    }
    running = Table(
        "Engines, all five stages", ["engine", "start-up and all, wall s", "wall s per chunk", "of one worker"]
    )
    for name in engines:
        ratio = per_chunk[name] / per_chunk["one worker"]
        running.add(name, f"{middle[f'{name}, {many}']['wall']:.1f}", f"{per_chunk[name]:.2f}", f"{ratio:.2f}")
    raft = middle[RAFT]
    busy = Table(
        f"{RAFT}, 12 updates, 520 x 960 px at 2 fps, one process",
        ["device", "decoding, s", "model, s", "wall, s", "model / wall"],
    )
    device = "CUDA" if raft["is_cuda"] else "CPU"
    busy.add(
        device,
        f"{raft['decode']:.2f}",
        f"{raft['model']:.2f}",
        f"{raft['wall']:.2f}",
        f"{raft['model'] / raft['wall']:.2f}",
    )
    save(output, [together, running, busy], about)


if __name__ == "__main__":
    typer.run(main)
