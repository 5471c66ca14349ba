"""What a few frames of a remote video cost: bytes, requests, time; ours against torchcodec through fsspec.

    python tests/benchmarks/remote.py [--quick] [--latency-ms 30] [--megabytes-per-second 12.5] [--videos FOLDER]

The server is our own, on 127.0.0.1, with that latency before each reply and that bandwidth for each connection.
Ratios of bytes are against the GOP ranges that the frames need; of time theirs/ours (stored index).
"""

import io
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, cast

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import av
import datasets
import fsspec
import torch
import typer
from benchmarks.decode import Target
from benchmarks.videos import FOLDER, SIZE, SPECS, Table, environment, make, race, save, with_torchcodec

from civid_loader import Uniform, Window, read_frames, video_shards
from civid_loader.media import probe
from civid_loader.sampling import Sampler
from civid_loader.video_shards import write_video_shard
from civid_loader.videos import ByteSource, bytes_source, open_range, open_video
from support.servers import Behaviour, RangeServer, serve

SAMPLERS: Final[Mapping[str, Sampler]] = {"8 uniform": Uniform(8), "window 16": Window(16, start=0.55)}
CLIP: Final = "clip"
BLOCK_BYTES: Final = 256 << 10
COLUMNS: Final = (
    "file", "frames", "contender", "MB", "x needed", "requests", "round trips", "ms", "their ms/ours", "same frames"
)  # fmt: skip
Contender = Callable[[], torch.Tensor]


class Trips:
    """A source that counts in how many rounds it asked its server: ranges of one call go in parallel."""

    def __init__(self, source: ByteSource) -> None:
        self.name, self.is_remote, self.counters = source.name, source.is_remote, source.counters
        self.num_trips = 0
        self._source = source

    def size(self, *, timeout_seconds: float | None = None) -> int:
        """See `ByteSource`."""
        return cast(int, self._counted(lambda: self._source.size(timeout_seconds=timeout_seconds)))

    def read_ranges(self, ranges: Sequence[tuple[int, int]], *, timeout_seconds: float | None = None) -> list[bytes]:
        """See `ByteSource`."""
        found = self._counted(lambda: self._source.read_ranges(ranges, timeout_seconds=timeout_seconds))
        return cast(list[bytes], found)

    def _counted(self, read: Callable[[], Any]) -> Any:
        before = self.counters.num_requests
        found = read()
        self.num_trips += self.counters.num_requests > before
        return found


@dataclass(kw_only=True, slots=True)
class Place:
    """Where one video lies, and how everyone gets at it."""

    title: str
    data: bytes
    """The video itself."""
    source: Callable[[], ByteSource]
    """Ours, new each time."""
    file: Callable[[str, int], Any]
    """(kind of cache, block size) -> what fsspec opens."""
    whole: Callable[[], bytes]
    """All of it."""
    trips: list[int]
    """Of our latest run."""

    def ours(self, sampler: Sampler, index: bytes | None) -> torch.Tensor:
        """`read_frames`."""
        source = Trips(self.source())
        images_TCHW = read_frames(source, sampler, size=SIZE, index=index, threads=2).frames_TCHW  # noqa: N806
        self.trips[:] = [source.num_trips]
        return images_TCHW

    def torchcodec(self, numbers: Sequence[int], *, mode: str, block_bytes: int) -> torch.Tensor:
        """torchcodec on a file of fsspec."""
        with self.file("readahead", block_bytes) as file:
            return with_torchcodec(file, numbers, mode=mode)

    def contenders(self, target: Target, stored: bytes, *, is_whole_only: bool = False) -> dict[str, Contender]:
        """Everyone by name, ready to run."""
        numbers, sampler = target.numbers, target.sampler
        default = 5 << 20
        found: dict[str, Contender] = {
            "ours, stored index": partial(self.ours, sampler, stored),
            "ours": partial(self.ours, sampler, None),
        }
        if not is_whole_only:
            found |= {
                "torchcodec exact (datasets.Video)": partial(
                    self.torchcodec, numbers, mode="exact", block_bytes=default
                ),
                "torchcodec approximate": partial(self.torchcodec, numbers, mode="approximate", block_bytes=default),
                "torchcodec approximate, 256 KB": partial(
                    self.torchcodec, numbers, mode="approximate", block_bytes=BLOCK_BYTES
                ),
            }
        return found | {"all of it + torchcodec": lambda: with_torchcodec(self.whole(), numbers)}


def header_last(data: bytes) -> bytes:
    """The same packets with the header behind them."""
    written = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(written, "w", format="mp4") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return written.getvalue()


def tar_of(data: bytes) -> bytes:
    """An uncompressed tar of three files, the video in the middle."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name in ("a.mp4", f"{CLIP}.mp4", "z.mp4"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return written.getvalue()


def listing(names: Sequence[str]) -> bytes:
    """A folder as servers show it, and fsspec reads it."""
    return "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode()


def _open(url: str, kind: str, block_bytes: int) -> Any:
    return fsspec.open(url, "rb", cache_type=kind, block_size=block_bytes)


def _fetch(url: str) -> bytes:
    files, path = fsspec.core.url_to_fs(url)
    data: bytes = files.cat_file(path)
    return data


def places(server: RangeServer, data: bytes, folder: Path) -> list[Place]:
    """The video as a file with its header first or last, in a tar, and in a Parquet shard."""
    last, tar = header_last(data), tar_of(data)
    shard = folder / "videos-00000.parquet"
    offset, _ = write_video_shard(shard, [("a", data), (CLIP, data), ("z", data)])[CLIP]
    server.files |= {"first.mp4": data, "last.mp4": last, "all.tar": tar}
    server.files |= {"set/videos/videos-00000.parquet": shard.read_bytes()}
    server.files |= {"set/videos/": listing([shard.name]), "set/videos": listing([shard.name])}
    shard.unlink()
    return [
        _file_place("mp4, header first", server.address("first.mp4"), data),
        _file_place("mp4, header last", server.address("last.mp4"), last),
        _tar_place(server.address("all.tar"), tar, data),
        *_parquet_places(server.url + "/set", server.address("set/videos/videos-00000.parquet"), data, offset),
    ]


def _file_place(title: str, url: str, data: bytes) -> Place:
    return Place(
        title=title,
        data=data,
        source=lambda: open_video(url, root=None),
        file=partial(_open, url),
        whole=lambda: _fetch(url),
        trips=[],
    )


def _tar_place(url: str, tar: bytes, data: bytes) -> Place:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        offset = opened.getmember(f"{CLIP}.mp4").offset_data
    chained = f"tar://{CLIP}.mp4::{url}"

    def open_member(kind: str, block_bytes: int) -> Any:
        options = {"cache_type": kind, "block_size": block_bytes}
        return fsspec.open(chained, "rb", skip_instance_cache=True, http={**options, "skip_instance_cache": False})

    return Place(
        title="member of a tar",
        data=data,
        source=lambda: open_range(url, offset=offset, num_bytes=len(data)),
        file=open_member,
        whole=lambda: _fetch(url)[offset : offset + len(data)],
        trips=[],
    )


def _parquet_places(dataset: str, shard: str, data: bytes, offset: int) -> list[Place]:
    """By the place that the media layer tells, and by the pointer alone, nothing remembered from before."""

    def streamed() -> bytes:
        rows = datasets.load_dataset("parquet", data_files=shard, split="train", streaming=True)
        rows = rows.cast_column("video", datasets.Video(decode=False))
        found = next(row for row in rows if row["clip_id"] == CLIP)
        value: bytes = found["video"]["bytes"]
        return value

    def by_pointer() -> ByteSource:
        video_shards._clips.cache_clear()
        video_shards._remote_stamps.cache_clear()
        fsspec.filesystem("http").dircache.clear()
        return open_video(f"videos:{CLIP}", root=None, dataset=dataset)

    shared: dict[str, Any] = {"data": data, "file": partial(_open, shard), "whole": streamed, "trips": []}
    return [
        Place(
            title="in Parquet, place known", source=lambda: open_range(shard, offset=offset, num_bytes=len(data)),
            **shared,
        ),
        Place(title="in Parquet, pointer alone", source=by_pointer, **shared),
    ]  # fmt: skip


def needed_bytes(target: Target) -> int:
    """Of the ranges from keyframe to last target."""
    return sum(target.index.byte_range(first, max(targets))[1] for first, targets in target.groups)


def compare(table: Table, place: Place, server: RangeServer, path: Path, *, label: str, cell_seconds: float) -> None:
    """One video, all samplers and contenders."""
    path.write_bytes(place.data)
    index = probe(bytes_source(place.data)).index
    is_parquet = "Parquet" in place.title
    for title, sampler in SAMPLERS.items():
        target = Target(path, index, sampler)
        right = with_torchcodec(place.data, target.numbers)
        contenders = place.contenders(target, index.to_bytes(), is_whole_only=is_parquet)
        spent: dict[str, tuple[int, int, int]] = {}

        def counted(name: str, run: Contender, spent: dict[str, tuple[int, int, int]] = spent) -> torch.Tensor:
            server.reset()
            place.trips.clear()
            images = run()
            spent[name] = server.num_bytes, len(server.requests), sum(place.trips)
            return images

        timings = race(
            {name: partial(counted, name, run) for name, run in contenders.items()},
            min_rounds=1, max_rounds=3, budget_seconds=cell_seconds,
            may_fail=[name for name in contenders if not name.startswith("ours")],
        )  # fmt: skip
        ours_seconds = timings["ours, stored index"].wall_seconds
        table.add(f"{label}, {place.title}", title, "needed", f"{needed_bytes(target) / 1e6:.2f}", *["1.00"], *[""] * 5)
        for name, timing in timings.items():
            if isinstance(timing.result, Exception):
                cells = ["-"] * 6 + [f"cannot: {type(timing.result).__name__}: {str(timing.result)[:60]}"]
            else:
                num_bytes, num_requests, num_trips = spent[name]
                cells = [f"{num_bytes / 1e6:.2f}", f"{num_bytes / needed_bytes(target):.2f}", str(num_requests)]
                cells += [str(num_trips) if num_trips else "", f"{1e3 * timing.wall_seconds:.0f}"]
                cells += [f"{timing.wall_seconds / ours_seconds:.1f}"]
                cells += ["yes" if torch.equal(timing.result, right) else "no"]
            table.add("", "", name, *cells)


def main(
    videos: Annotated[Path, typer.Option(help="where the made videos are kept")] = FOLDER,
    latency_ms: Annotated[float, typer.Option(help="before each reply")] = 30.0,
    megabytes_per_second: Annotated[float, typer.Option(help="of each connection; 0: no limit")] = 12.5,
    quick: Annotated[bool, typer.Option(help="one small video, once")] = False,
    output: Annotated[Path | None, typer.Option(help="results as JSON")] = None,
) -> None:
    """Compare what remote videos cost with torchcodec through fsspec."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    names = ["h264_480"] if quick else ["h264_720_g12", "h264_720_g250"]
    paths = make(names, videos)
    about = environment("fsspec", "aiohttp")
    print(f"{about}; {latency_ms:g} ms, {megabytes_per_second:g} MB/s per connection")
    behaviour = Behaviour(latency_seconds=latency_ms / 1e3, bytes_per_second=megabytes_per_second * 1e6 or None)
    table = Table("Remote: bytes, requests and wall time", COLUMNS)
    for name in names:
        with serve({}, behaviour=behaviour) as server, tempfile.TemporaryDirectory() as folder:
            for place in places(server, paths[name].read_bytes(), Path(folder)):
                path = Path(folder, "local.mp4")
                compare(table, place, server, path, label=SPECS[name].title, cell_seconds=0.0 if quick else 10.0)
    save(output, [table], about)


if __name__ == "__main__":
    typer.run(main)
