"""What training copies save: CPU per sample on a video and on its proxy, what the copy costs, and how near it comes.

    python tests/benchmarks/proxy.py [--quick] [--videos FOLDER] [--output results.json]

Medians of CPU seconds of one thread, contenders in turn. PSNR is of the copy's frames against those of the original,
resized directly to the same size.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, cast

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import typer
from benchmarks.decode import Target
from benchmarks.videos import FOLDER, SPECS, Table, environment, make, race, save, torchcodec_decoder, with_torchcodec

from civid_loader import Fps, Uniform, Window, read_frames
from civid_loader.media import probe
from civid_loader.reencoding.encoding import Codec, ProxySettings, encode_proxy
from civid_loader.sampling import Sampler
from civid_loader.videos import open_video

NAMES: Final = ("h264_720_g250", "h264_720_g12", "h264_1080_g250", "hevc_720")
SAMPLERS: Final[Mapping[str, Sampler]] = {
    "8 uniform": Uniform(8),
    "window 16": Window(16, start=0.55),
    "2 fps": Fps(2),
}


def encoded(path: Path, settings: ProxySettings, copies: Table) -> Path:
    """The proxy of a video, next to it; made anew each time, since making it is measured."""
    target = path.with_name(f".proxy-{path.stem}-{settings.codec}.mp4")
    seconds = probe(open_video(str(path.resolve()), root=None)).duration_seconds
    cpu, wall = time.process_time(), time.perf_counter()
    with path.open("rb") as file:
        encode_proxy(file, target, span=None, settings=settings)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    before, after = path.stat().st_size, target.stat().st_size
    frames = [read_frames(video, Uniform(8), size=_size(target)).frames_TCHW for video in (path, target)]
    copies.add(
        SPECS[path.stem].title,
        settings.codec,
        f"{60 * before / seconds / 1e6:.1f}",
        f"{60 * after / seconds / 1e6:.1f}",
        f"{after / before:.2f}",
        f"{60 * cpu / seconds:.1f}",
        f"{60 * wall / seconds:.1f}",
        f"{psnr_db(*frames):.1f}",
    )
    return target


def _size(proxy: Path) -> tuple[int, int]:
    facts = probe(open_video(str(proxy.resolve()), root=None))
    return facts.height, facts.width


def psnr_db(images_TCHW: torch.Tensor, others_TCHW: torch.Tensor) -> float:
    """Of all pixels together."""
    error = (images_TCHW.double() - others_TCHW.double()).square().mean().item()
    return 10 * math.log10(255**2 / error) if error else math.inf


def _copied(path: str, numbers: list[int]) -> torch.Tensor:
    """torchcodec on a proxy: nothing to resize."""
    images_TCHW: torch.Tensor = torchcodec_decoder(path).get_frames_at(numbers).data
    return images_TCHW


def compare(table: Table, path: Path, proxy: Path, codec: str, *, budget_seconds: float) -> None:
    """CPU per sample, before and after."""
    size = _size(proxy)
    index = probe(open_video(str(path.resolve()), root=None)).index
    indexes = [probe(open_video(str(video.resolve()), root=None)).index.to_bytes() for video in (path, proxy)]
    for title, sampler in SAMPLERS.items():
        numbers = Target(path, index, sampler).numbers
        contenders: dict[str, Callable[[], Any]] = {
            "original": partial(read_frames, path, sampler, size=size, index=indexes[0]),
            "proxy": partial(read_frames, proxy, sampler, size=size, index=indexes[1]),
            "torchcodec": partial(with_torchcodec, str(path), numbers),
            "torchcodec, proxy": partial(_copied, str(proxy), numbers),
        }
        runs = race(contenders, min_rounds=2, max_rounds=10, budget_seconds=budget_seconds)
        original, copy = runs["original"].result, runs["proxy"].result
        assert torch.allclose(original.pts_seconds, copy.pts_seconds, atol=1e-6), "the copy shows other times"
        ours = runs["proxy"].cpu_seconds
        table.add(
            SPECS[path.stem].title,
            codec,
            title,
            f"{1e3 * ours:.1f}",
            *(f"{timing.cpu_seconds / ours:.1f}" for name, timing in runs.items() if name != "proxy"),
            f"{psnr_db(original.frames_TCHW, copy.frames_TCHW):.1f}",
        )


def main(
    videos: Annotated[Path, typer.Option(help="where the made videos are kept")] = FOLDER,
    codec: Annotated[list[str] | None, typer.Option(help="h264, hevc or av1; may be repeated")] = None,
    short_side_px: Annotated[int, typer.Option(help="of the copies")] = 256,
    gop: Annotated[int, typer.Option(help="frames from keyframe to keyframe of the copies")] = 16,
    quick: Annotated[bool, typer.Option(help="one small video")] = False,
    output: Annotated[Path | None, typer.Option(help="results as JSON")] = None,
) -> None:
    """Compare sampling from videos with sampling from their training copies."""
    torch.set_num_threads(1)
    paths = make(("h264_480",) if quick else NAMES, videos)
    about = environment()
    print(about)
    copies = Table(
        "Making the copies",
        ["video", "codec", "MB/min", "copy, MB/min", "copy/video", "CPU s/min", "wall s/min", "PSNR dB, 8 frames"],
    )
    samples = Table(
        "CPU per sample; of others / ours on the copy",
        ["video", "codec", "frames", "ours, copy, ms", "ours, video", "torchcodec, video", "torchcodec, copy", "PSNR"],
    )
    made = []
    for kind in codec or ["h264"]:
        settings = ProxySettings(short_side_px=short_side_px, gop=gop, codec=cast(Codec, kind))
        made += [(path, encoded(path, settings, copies), kind) for path in paths.values()]
    for path, proxy, kind in made:
        compare(samples, path, proxy, kind, budget_seconds=1.0 if quick else 6.0)
        proxy.unlink()
    save(output, [copies, samples], about)


if __name__ == "__main__":
    typer.run(main)
