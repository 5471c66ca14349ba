"""Loaders side by side: samples per second, first batch, CPU seconds per sample.

Every contender gives batches of 4 samples of 16 frames from the middle of 200 clips (H.264, 360p, 4 s), scaled alike,
in a process of its own, in turn; medians over the rounds. CPU seconds are those of the process and its workers, from
making the loader to its end. A second table takes a batch of each in turn, in one process without workers: what else
the machine does meets all alike.
"""
# ruff: noqa: N806 - tensors carry their shape.

import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import av
import torch
import typer
from datasets import load_from_disk

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.videos import FOLDER, SIZE, Table, environment, make, resized, save

NUM_CLIPS: Final = 200
NUM_FRAMES: Final = 16
FIRST: Final = 40
"""The first of the frames; a clip has 120."""
BATCH: Final = 4


def ours(folder: Path, num_workers: int) -> Any:
    """`SequenceLoader`."""
    from civid_loader.loader import SequenceLoader
    from civid_loader.sampling import Window

    start = FIRST / (120 - NUM_FRAMES)
    loader = SequenceLoader(
        _rows(folder),
        videos=str(folder),
        frames=Window(NUM_FRAMES, start=start),
        size=SIZE,
        batch_size=BATCH,
        num_workers=num_workers,
    )
    return (batch.frames_BNTCHW.flatten(0, 1) for batch in loader)


def _rows(folder: Path) -> Any:
    """As a built dataset has them: memory-mapped, all columns."""
    from support.training import dataset_of

    target = folder.parent / "rows"
    if not target.is_dir():
        dataset_of([[path.name] for path in sorted(folder.glob("*.mp4"))]).save_to_disk(str(target))
    return load_from_disk(str(target))


def plain_files(folder: Path, num_workers: int) -> Any:
    """Files, PyAV, a map-style dataset."""
    return _loader(_Files(sorted(folder.glob("*.mp4"))), num_workers, shuffle=True)


class _Files(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return decode(str(self._paths[index]))


def datasets_video(folder: Path, num_workers: int) -> Any:
    """`datasets` with its Video feature (torchcodec)."""
    from datasets import Dataset, Video

    rows = Dataset.from_dict({"video": [str(path) for path in sorted(folder.glob("*.mp4"))]}).cast_column(
        "video", Video()
    )

    def frames(batch: dict[str, Any]) -> dict[str, Any]:
        numbers = list(range(FIRST, FIRST + NUM_FRAMES))
        return {"frames": [resized(video.get_frames_at(numbers).data) for video in batch["video"]]}

    loader = _loader(rows.with_transform(frames), num_workers, shuffle=True)
    return (batch["frames"] for batch in loader)


def webdataset(folder: Path, num_workers: int) -> Any:
    """WebDataset: tars read in sequence, decoded by PyAV."""
    import webdataset as wds

    shards = folder.parent / "webdataset"
    if not shards.is_dir():
        shards.mkdir()
        paths = sorted(folder.glob("*.mp4"))
        for i in range(0, len(paths), 50):
            with wds.TarWriter(str(shards / f"{i:05d}.tar")) as writer:
                for path in paths[i : i + 50]:
                    writer.write({"__key__": path.stem, "mp4": path.read_bytes()})
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    dataset = wds.WebDataset(urls, shardshuffle=4).to_tuple("mp4").map(lambda sample: decode(io.BytesIO(sample[0])))
    return _loader(dataset, num_workers)


def litdata(folder: Path, num_workers: int) -> Any:
    """LitData: its own chunks, decoded by PyAV."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder.parent / "litdata"), shuffle=True, transform=_decode_bytes)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=num_workers)


def _decode_bytes(data: bytes) -> torch.Tensor:
    return decode(io.BytesIO(data))


def _optimize(folder: Path) -> None:
    """LitData's chunks."""
    from litdata import optimize

    target = folder.parent / "litdata"
    if not target.is_dir():
        paths = [str(path) for path in sorted(folder.glob("*.mp4"))]
        optimize(fn=_read, inputs=paths, output_dir=str(target), chunk_bytes="64MB", num_workers=1)


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


CONTENDERS: Final[dict[str, Callable[[Path, int], Any]]] = {
    "ours": ours,
    "plain files, PyAV": plain_files,
    "datasets + Video": datasets_video,
    "WebDataset": webdataset,
    "LitData": litdata,
}


IN_TURN: Final = "in turn"
IMPORTED: Final = {
    "ours": ("civid_loader.loader",),
    "plain files, PyAV": (),
    "datasets + Video": ("datasets", "torchcodec.decoders"),
    "WebDataset": ("webdataset",),
    "LitData": ("litdata",),
}


def _loader(dataset: Any, num_workers: int, *, shuffle: bool = False) -> Any:
    return torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=num_workers, shuffle=shuffle)


def decode(video: Any) -> torch.Tensor:
    """What people write: seek to the keyframe, decode forward, scale."""
    with av.open(video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        assert stream.time_base is not None
        rate = stream.average_rate
        assert rate is not None
        first_pts, frames = (stream.start_time or 0), []
        container.seek(first_pts + int(FIRST / rate / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            number = round((frame.pts - first_pts) * stream.time_base * rate)
            if number >= FIRST:
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            if len(frames) == NUM_FRAMES:
                break
    scaled_TCHW: torch.Tensor = resized(torch.stack(frames).permute(0, 3, 1, 2))
    return scaled_TCHW


def measure(name: str, folder: Path, num_workers: int) -> dict[str, float]:
    """One pass of a contender, in this process."""
    torch.set_num_threads(1)
    for module in IMPORTED[name]:
        import_module(module)  # what a training script has imported anyway
    expected = _expected_mean(folder)
    before, start = _cpu_seconds(), time.perf_counter()
    batches: Iterator[torch.Tensor] = iter(CONTENDERS[name](folder, num_workers))
    first = next(batches)
    first_seconds, num_samples = time.perf_counter() - start, len(first)
    assert first.shape[-4:] == (NUM_FRAMES, 3, *SIZE), first.shape
    # All clips are the same, so all loaders must give the same picture.
    assert abs(float(first[0].float().mean()) - expected) < 0.5, "other frames"
    for batch in batches:
        num_samples += len(batch)
    wall_seconds = time.perf_counter() - start
    del batches  # ends the workers: their time counts when they are gone
    return {
        "num_samples": num_samples,
        "first_seconds": first_seconds,
        "wall_seconds": wall_seconds,
        "cpu_seconds": _cpu_seconds() - before,
    }


def in_turn(folder: Path) -> dict[str, list[float]]:
    """CPU milliseconds per sample of each batch of each contender, a batch of each in turn; the first is left out."""
    torch.set_num_threads(1)
    for module in {module for modules in IMPORTED.values() for module in modules}:
        import_module(module)
    batches = {name: iter(contender(folder, 0)) for name, contender in CONTENDERS.items()}
    for of_one in batches.values():
        next(of_one)
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(NUM_CLIPS // BATCH - 1):
        for name, of_one in batches.items():
            start = time.process_time()
            next(of_one)
            found[name].append((time.process_time() - start) / BATCH * 1000)
    return found


def _expected_mean(folder: Path) -> float:
    """Of the pixels of a clip's frames, as decoding by hand gives them."""
    return float(decode(str(min(folder.glob("*.mp4")))).float().mean())


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(
    videos: Annotated[Path, typer.Option(help="Folder of made videos.")] = FOLDER,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
    workers: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Race the loaders."""
    folder = videos / "loader" / "clips"
    if one is not None:
        print(json.dumps(in_turn(folder) if one == IN_TURN else measure(one, folder, workers)))
        return
    source = make(["h264_360"], videos)["h264_360"]
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(NUM_CLIPS):
        if not (path := folder / f"{i:05d}.mp4").is_file():
            shutil.copy(source, path)
    _optimize(folder)
    about = environment("datasets", "torchcodec", "webdataset", "litdata")
    print(about)
    table = Table(
        "Loaders",
        ["loader", "workers", "samples/s", "first batch, s", "CPU ms/sample", "CPU / ours", "first / plain files"],
    )
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for num_workers in (0, 2):
            for name in CONTENDERS:
                command = [
                    sys.executable,
                    __file__,
                    "--videos",
                    str(videos),
                    "--one",
                    name,
                    "--workers",
                    str(num_workers),
                ]
                result = subprocess.run(command, check=True, capture_output=True, text=True)
                found.setdefault((name, num_workers), []).append(json.loads(result.stdout.splitlines()[-1]))
    for (name, num_workers), results in found.items():
        own, plain = (_middle(found[other, num_workers]) for other in ("ours", "plain files, PyAV"))
        speed, first, cpu = _middle(results)
        cells = [f"{speed:.1f}", f"{first:.2f}", f"{1000 * cpu:.1f}", f"{cpu / own[2]:.2f}", f"{first / plain[1]:.2f}"]
        table.add(name, str(num_workers), *cells)
    save(output, [table, _table_in_turn(videos)], about)


def _table_in_turn(videos: Path) -> Table:
    command = [sys.executable, __file__, "--videos", str(videos), "--one", IN_TURN]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, list[float]] = json.loads(result.stdout.splitlines()[-1])
    table = Table("A batch of each in turn, 0 workers", ["loader", "CPU ms/sample", "CPU / ours", "least / ours"])
    own = found["ours"]
    for name, of_one in found.items():
        ratio = statistics.median(other / mine for other, mine in zip(of_one, own, strict=True))
        table.add(name, f"{statistics.median(of_one):.1f}", f"{ratio:.2f}", f"{min(of_one) / min(own):.2f}")
    return table


def _middle(results: list[dict[str, float]]) -> tuple[float, float, float]:
    """Medians: samples per second, seconds to the first batch, CPU seconds per sample."""
    speeds = [one["num_samples"] / one["wall_seconds"] for one in results]
    cpu = [one["cpu_seconds"] / one["num_samples"] for one in results]
    return (
        statistics.median(speeds),
        statistics.median([one["first_seconds"] for one in results]),
        statistics.median(cpu),
    )


if __name__ == "__main__":
    typer.run(main)
