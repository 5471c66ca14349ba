"""What it costs to get a few frames out of a video: `civid_loader.read_frames` against other libraries.

    python tests/benchmarks/decode.py [--quick] [--videos FOLDER] [--output results.json]

One process, contenders in turn, medians of CPU seconds of all threads; everyone resizes alike (torch, antialias) and
is checked to give the same pixels; where torchcodec or PyAV do not, decoding everything decides who is right. Ratios
are theirs/ours: above 1 we need less. Nothing is fetched.
"""
# ruff: noqa: N806 - tensors carry their shape.

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import av
import numpy as np
import torch
import typer
from benchmarks.build import _two_cores
from benchmarks.probe import opening
from benchmarks.videos import (
    FOLDER,
    QUICK,
    SIZE,
    SPECS,
    Table,
    Timing,
    environment,
    make,
    race,
    resized,
    save,
    with_torchcodec,
)

from civid_loader import Fps, Middle, PacketIndex, Uniform, Window, frame_groups, read_frames
from civid_loader.media import probe
from civid_loader.sampling import Sampler
from civid_loader.videos import open_video

SAMPLERS: Final[Mapping[str, Sampler]] = {
    "one": Middle(),
    "8 uniform": Uniform(8),
    "window 16": Window(16, start=0.55),
    "2 fps": Fps(2),
}
OURS: Final = ("header", "index", "2 threads")
OTHERS: Final = ("torchcodec", "approximate", "datasets", "decord", "video-reader", "PyAV")


def with_datasets(path: Path, numbers: Sequence[int]) -> torch.Tensor:
    """`datasets.Video`, as a row of a dataset is decoded."""
    import datasets

    decoder = datasets.Video().decode_example({"path": str(path), "bytes": None})
    return resized(decoder.get_frames_at(list(numbers)).data)


def with_decord(path: Path, numbers: Sequence[int]) -> torch.Tensor:
    """decord in one thread."""
    decord = import_module("decord")
    batch = decord.VideoReader(str(path), num_threads=1).get_batch(list(numbers)).asnumpy()
    return resized(torch.from_numpy(batch).permute(0, 3, 1, 2))


def with_video_reader(path: Path, numbers: Sequence[int]) -> torch.Tensor:
    """video-reader-rs in one thread."""
    video_reader = import_module("video_reader")
    batch = video_reader.PyVideoReader(str(path), threads=1).get_batch(list(numbers))
    return resized(torch.from_numpy(batch).permute(0, 3, 1, 2))


def with_pyav(path: Path, ticks: Sequence[int], key_of: Mapping[int, int]) -> torch.Tensor:
    """Seek to the keyframe before a target unless the decoder is in its group already, and decode all from there.

    Times are ticks from the first frame; `key_of` tells a target's keyframe.
    """
    images: dict[int, torch.Tensor] = {}
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.thread_type = "NONE"
        frames: Iterator[av.VideoFrame] = iter(())
        group: int | None = None
        start = stream.start_time or 0
        for target in sorted(set(ticks)):
            if key_of[target] != group:
                group = key_of[target]
                container.seek(start + target, stream=stream)
                frames = container.decode(stream)
            frame = next(frame for frame in frames if frame.pts is not None and frame.pts >= start + target)
            image_CHW = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            images[target] = resized(image_CHW[None])[0]
    return torch.stack([images[target] for target in ticks])


class Target:
    """What a sampler asks for of one video, for contenders that are told frame numbers or times."""

    def __init__(self, path: Path, index: PacketIndex, sampler: Sampler) -> None:
        self.path, self.index, self.sampler = path, index, sampler
        moments = index.seconds(index.pts[index.shown])
        wanted = read_frames(path, sampler, size=SIZE).pts_seconds.numpy()
        found = np.searchsorted(moments, wanted + 1e-6, side="right") - 1
        self.numbers: list[int] = found.tolist()
        self.packets: list[int] = index.shown[found].tolist()
        self.groups = index.groups(self.packets)

    def contenders(self, stored: bytes) -> dict[str, Callable[[], torch.Tensor]]:
        """Everyone by name, ready to run."""
        path, numbers = self.path, self.numbers
        ours = partial(read_frames, path, self.sampler, size=SIZE)
        ticks = self.index.pts - self.index.first_pts
        wanted = ticks[self.packets].tolist()
        keys = {int(ticks[packet]): first for first, packets in self.groups for packet in packets}
        return {
            "header": lambda: ours().frames_TCHW,
            "index": lambda: ours(index=stored).frames_TCHW,
            "2 threads": lambda: ours(index=stored, threads=2).frames_TCHW,
            "torchcodec": lambda: with_torchcodec(path, numbers),
            "approximate": lambda: with_torchcodec(path, numbers, mode="approximate"),
            "datasets": lambda: with_datasets(path, numbers),
            "decord": lambda: with_decord(path, numbers),
            "video-reader": lambda: with_video_reader(path, numbers),
            "PyAV": lambda: with_pyav(path, wanted, keys),
        }

    def truth(self) -> torch.Tensor:
        """The same frames, out of a decoder that was given everything from the first packet on."""
        images: dict[int, torch.Tensor] = {}
        with av.open(str(self.path), "r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for number, frame in enumerate(container.decode(stream)):
                if number in self.numbers:
                    image_CHW = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                    images[number] = resized(image_CHW[None])[0]
        return torch.stack([images[number] for number in self.numbers])

    def floor(self) -> int:
        """Frames that must be decoded: of each group, what others refer to, and the targets."""
        num_frames = 0
        data = self.path.read_bytes()
        for first, targets in self.groups:
            for packet in range(first, max(targets) + 1):
                num_frames += packet in targets or _is_reference(self.index, packet, data)
        return num_frames


def _is_reference(index: PacketIndex, packet: int, data: bytes) -> bool:
    """Whether other pictures may refer to a packet's: of H.264 and HEVC its first slice tells, else always."""
    if index.offsets is None or index.codec not in ("h264", "hevc"):
        return True
    at = int(index.offsets[packet])
    end = at + int(index.sizes[packet])
    while at + 4 < end:
        head = data[at + 4]
        if index.codec == "h264" and head & 31 in (1, 5):
            return head >> 5 & 3 != 0
        kind = head >> 1 & 63
        if index.codec == "hevc" and kind < 32:  # *_N types are the even ones below 16 (H.265, table 7-1)
            return kind >= 16 or kind % 2 == 1
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return True


class _CountingContext:
    """A codec context that counts the frames that come out of it."""

    def __init__(self, context: Any, counts: list[int]) -> None:
        object.__setattr__(self, "_context", context)
        object.__setattr__(self, "_counts", counts)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["_context"], name, value)

    def decode(self, packet: Any) -> Any:
        frames = self.__dict__["_context"].decode(packet)
        self.__dict__["_counts"].append(len(frames))
        return frames


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many frames came out of our decoder, packet by packet, while the `with` statement lasts."""
    counts: list[int] = []
    make_context = frame_groups._context
    with patch.object(frame_groups, "_context", lambda index: _CountingContext(make_context(index), counts)):
        yield counts


def compare(names: Sequence[str], paths: Mapping[str, Path], *, cell_seconds: float) -> list[Table]:
    """The matrix of videos and samplers."""
    cpu = Table(
        "CPU of others / ours (stored index); `!=` other pixels than ours, `-` cannot",
        ["video", "frames", "ours, ms", "right", "header", *OTHERS],
    )
    work = Table(
        "Wall time of others / ours in 2 threads; frames decoded",
        ["video", "frames", "1 thread, ms", "2 threads, ms", "1/2", "torchcodec/2", "CPU 2/1", "decoded", "floor"],
    )
    shown: list[tuple[str, ...]] = []
    for name in names:
        facts = probe(open_video(str(paths[name].resolve()), root=None))
        stored = facts.index.to_bytes()
        for title, sampler in SAMPLERS.items():
            target = Target(paths[name], facts.index, sampler)
            timings = race(
                target.contenders(stored),
                min_rounds=1,
                max_rounds=15,
                budget_seconds=cell_seconds,
                may_fail=OTHERS,
            )
            cpu.add(SPECS[name].title, title, *_cpu_cells(timings, target.truth))
            with counted() as counts:
                read_frames(paths[name], sampler, size=SIZE, index=stored)
            shown.append((SPECS[name].title, title, *_work_cells(timings), str(sum(counts)), str(target.floor())))
    for row in shown:
        work.add(*row)
    busy = statistics.median(_two_cores() for _ in range(3))
    print(f"\ntwo busy loops at once get {busy:.2f}x of one done here: more than that no thread can bring")
    return [cpu, work]


def _cpu_cells(timings: Mapping[str, Timing], truth: Callable[[], torch.Tensor]) -> list[str]:
    ours = timings["index"]
    others = (timings[name].result for name in ("torchcodec", "PyAV"))
    is_disputed = not all(isinstance(other, Exception) or torch.equal(other, ours.result) for other in others)
    right = "agreed" if not is_disputed else "yes" if torch.equal(truth(), ours.result) else "NO"
    cells = [f"{1e3 * ours.cpu_seconds:.1f}", right]
    for name in ("header", *OTHERS):
        timing = timings[name]
        if isinstance(timing.result, Exception):
            cells.append("-")
            continue
        is_same = torch.equal(timing.result, ours.result)
        cells.append(f"{timing.cpu_seconds / ours.cpu_seconds:.2f}{'' if is_same else ' !='}")
    return cells


def _work_cells(timings: Mapping[str, Timing]) -> list[str]:
    one, two = timings["index"], timings["2 threads"]
    assert torch.equal(one.result, two.result), "threads change the frames"
    return [
        f"{1e3 * one.wall_seconds:.1f}",
        f"{1e3 * two.wall_seconds:.1f}",
        f"{one.wall_seconds / two.wall_seconds:.2f}",
        f"{timings['torchcodec'].wall_seconds / two.wall_seconds:.2f}",
        f"{two.cpu_seconds / one.cpu_seconds:.2f}",
    ]


def main(
    videos: Annotated[Path, typer.Option(help="where the made videos are kept")] = FOLDER,
    only: Annotated[list[str] | None, typer.Option(help=f"one of {', '.join(SPECS)}; may be repeated")] = None,
    quick: Annotated[bool, typer.Option(help="two small videos, under a minute")] = False,
    output: Annotated[Path | None, typer.Option(help="results as JSON")] = None,
) -> None:
    """Compare the cost of decoding a few frames with other libraries."""
    torch.set_num_threads(1)
    names = tuple(only or (QUICK if quick else SPECS))
    paths = make(names, videos)
    about = environment("decord", "video-reader-rs")
    print(f"{about}; frames of {SIZE[1]}x{SIZE[0]} px")
    warm = make(QUICK[:1], videos)[QUICK[0]]
    index = probe(open_video(str(warm.resolve()), root=None)).index
    race(
        Target(warm, index, Uniform(8)).contenders(index.to_bytes()),
        min_rounds=1,
        max_rounds=1,
        budget_seconds=0,
        may_fail=OTHERS,
    )
    tables = opening(path for path in paths.values() if path.suffix == ".mp4")
    tables += compare(names, paths, cell_seconds=1.0 if quick else 6.0)
    save(output, tables, about)


if __name__ == "__main__":
    typer.run(main)
