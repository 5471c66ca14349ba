"""What it costs to open a video and to know it: `media.probe`, the index, the first frame; against torchcodec.

    python tests/benchmarks/probe.py [--quick] [--videos FOLDER] [--media FOLDER] [--output results.json]

Medians of CPU seconds, contenders in turn. torchcodec in exact mode reads all packets, as probing does; probing also
decodes the first frame and hashes the edges of the file.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, cast

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import av
import torch
import typer
from benchmarks.videos import (
    FOLDER,
    QUICK,
    SPECS,
    Table,
    environment,
    make,
    race,
    save,
    torchcodec_decoder,
    with_torchcodec,
)  # fmt: skip

from civid_loader import PacketIndex, frame_groups, read_frames
from civid_loader.deadlines import Deadline
from civid_loader.media import probe
from civid_loader.mp4 import read_mp4_index
from civid_loader.sampling import Times
from civid_loader.videos import open_video

MEDIA: Final = ("*.mp4", "*.mkv", "*.webm", "*.avi")
FIRST: Final = Times((0.0,))


def opening(paths: Iterable[Path]) -> list[Table]:
    """The first frame of an MP4, and what has to be known of it before."""
    first = Table(
        "Open + first frame, full size, CPU ms (bare decoder: one keyframe decoded and converted, nothing else)",
        [
            "video",
            "ours, stored index",
            "ours, header",
            "torchcodec",
            "ours/torchcodec",
            "bare decoder",
            "bare/torchcodec",
        ],
    )
    known = Table(
        "Open, CPU ms", ["video", "our header parse", "stored index", "av.open", "torchcodec", "av.open/header"]
    )
    rows = []
    for path in paths:
        source = open_video(str(path.resolve()), root=None)
        stored = probe(source).index.to_bytes()
        runs = race(
            {
                "index": partial(_first, path, stored),
                "header": partial(_first, path, None),
                "torchcodec": partial(with_torchcodec, str(path), [0], size=None),
                "bare": partial(_bare, path, PacketIndex.from_bytes(stored)),
                "parse": partial(read_mp4_index, source, Deadline(None)),
                "parse stored": partial(PacketIndex.from_bytes, stored),
                "av.open": partial(_open_pyav, path),
                "open": partial(torchcodec_decoder, str(path)),
            },
            min_rounds=5,
            max_rounds=40,
            budget_seconds=3.0,
        )
        assert torch.equal(runs["index"].result, runs["torchcodec"].result), f"{path}: other pixels"
        cpu = {key: 1e3 * timing.cpu_seconds for key, timing in runs.items()}
        cells = [f"{cpu[key]:.2f}" for key in ("index", "header", "torchcodec")]
        ratio = f"{cpu['index'] / cpu['torchcodec']:.2f}"
        first.add(_title(path), *cells, ratio, f"{cpu['bare']:.2f}", f"{cpu['bare'] / cpu['torchcodec']:.2f}")
        cells = [f"{cpu[key]:.2f}" for key in ("parse", "parse stored", "av.open", "open")]
        rows.append((_title(path), *cells, f"{cpu['av.open'] / cpu['parse']:.1f}"))
    for row in rows:
        known.add(*row)
    return [first, known]


def _title(path: Path) -> str:
    return SPECS[path.stem].title if path.stem in SPECS else path.name


def _first(path: Path, index: bytes | None) -> torch.Tensor:
    return read_frames(path, FIRST, index=index).frames_TCHW


def _bare(path: Path, index: PacketIndex) -> object:
    with path.open("rb") as file:
        file.seek(int(cast(Any, index.offsets)[0]))
        packet: Any = av.Packet(file.read(int(index.sizes[0])))
    context: Any = frame_groups._context(index)
    frame = [*context.decode(packet), *context.decode(None)][0]
    return frame.reformat(format="rgb24", threads=1)


def _open_pyav(path: Path) -> None:
    with av.open(str(path), "r"):
        pass


def probing(paths: Sequence[Path], *, budget_seconds: float) -> Table:
    """All of what the `media` layer keeps of a file, against opening it."""
    table = Table(
        "Probe, CPU ms per file; index size",
        ["file", "probe", "torchcodec open", "torchcodec/probe", "seconds", "index bytes", "per minute"],
    )
    total = dict.fromkeys(("probe", "torchcodec"), 0.0)
    num_seconds = num_index_bytes = num_alike = 0.0
    for path in paths:
        source = open_video(str(path.resolve()), root=None)
        runs = race(
            {"probe": partial(probe, source), "torchcodec": partial(torchcodec_decoder, str(path))},
            min_rounds=3,
            max_rounds=20,
            budget_seconds=budget_seconds,
            may_fail=("probe", "torchcodec"),
        )
        facts, decoder = (runs[name].result for name in ("probe", "torchcodec"))
        if isinstance(facts, Exception) or isinstance(decoder, Exception):
            table.add(_title(path), *(["-"] * 5), str(facts if isinstance(facts, Exception) else decoder)[:60])
            continue
        for name in total:
            total[name] += runs[name].cpu_seconds
        num_bytes = len(facts.index.to_bytes())
        num_seconds, num_index_bytes = num_seconds + facts.duration_seconds, num_index_bytes + num_bytes
        num_alike += facts.num_frames == decoder.metadata.num_frames
        cells = [f"{1e3 * runs[name].cpu_seconds:.1f}" for name in ("probe", "torchcodec")]
        ratio = runs["torchcodec"].cpu_seconds / runs["probe"].cpu_seconds
        cells += [f"{ratio:.2f}", f"{facts.duration_seconds:.1f}", f"{num_bytes:,}"]
        table.add(_title(path), *cells, f"{60 * num_bytes / facts.duration_seconds:,.0f}")
    if num_seconds:
        cells = [f"{1e3 * total[name] / len(paths):.1f}" for name in total]
        cells += [f"{total['torchcodec'] / total['probe']:.2f}", f"{num_seconds:.0f}", f"{num_index_bytes:,.0f}"]
        table.add("mean (sums of seconds and bytes)", *cells, f"{60 * num_index_bytes / num_seconds:,.0f}")
        print(
            f"\n{len(paths) / total['probe']:.0f} files per CPU second probed, "
            f"{len(paths) / total['torchcodec']:.0f} opened by torchcodec; {num_alike:.0f} of {len(paths)} with the "
            "same number of frames"
        )
    return table


def main(
    videos: Annotated[Path, typer.Option(help="where the made videos are kept")] = FOLDER,
    media: Annotated[Path | None, typer.Option(help="folder of other videos to probe as well")] = None,
    quick: Annotated[bool, typer.Option(help="two small videos")] = False,
    output: Annotated[Path | None, typer.Option(help="results as JSON")] = None,
) -> None:
    """Compare the cost of opening and probing videos with torchcodec."""
    torch.set_num_threads(1)
    paths = list(make(QUICK if quick else tuple(SPECS), videos).values())
    others = sorted(path for pattern in MEDIA for path in (media.glob(pattern) if media else ()))
    about = environment()
    print(about)
    race({"warm": partial(_first, paths[0], None)}, min_rounds=1, max_rounds=1, budget_seconds=0.0)
    tables = opening(path for path in paths if path.suffix == ".mp4")
    tables.append(probing([*paths, *others], budget_seconds=0.5 if quick else 1.5))
    save(output, tables, about)


if __name__ == "__main__":
    typer.run(main)
