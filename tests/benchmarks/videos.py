"""Synthetic videos for the decoding benchmarks, made once, and how contenders are timed and shown.

The pictures pan and zoom over a texture, with moving shapes and film grain: about as hard to encode, and to decode, as
ordinary footage. Codecs, GOP lengths and settings: `SPECS`.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

FPS: Final = 30
SIZE: Final = (256, 455)
"""(height, width) that all contenders scale to: whole 16:9 pictures, none cropped."""
FOLDER: Final = Path(tempfile.gettempdir(), "civid-benchmark-videos")
"""Where made videos are kept."""
_GRAIN: Final = 3
"""Standard deviation of the film grain."""
_X264: Final = {"preset": "fast", "crf": "21"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """One video to make."""

    title: str
    suffix: str = ".mp4"
    encoder: str = "libx264"
    size: tuple[int, int]
    """(height, width)."""
    num_seconds: int
    gop: int = 250
    options: Mapping[str, str] = field(default_factory=lambda: _X264)


SPECS: Final[Mapping[str, Spec]] = {
    "h264_360": Spec(title="H.264 360p, 4 s", size=(360, 640), num_seconds=4),
    "h264_480": Spec(title="H.264 480p, 10 s", size=(480, 854), num_seconds=10),
    "h264_720_g250": Spec(title="H.264 720p, GOP 250", size=(720, 1280), num_seconds=30),
    "h264_720_g12": Spec(title="H.264 720p, GOP 12", size=(720, 1280), num_seconds=30, gop=12),
    "h264_1080_g250": Spec(title="H.264 1080p, GOP 250", size=(1080, 1920), num_seconds=20),
    "hevc_720": Spec(
        title="HEVC 720p",
        encoder="libx265",
        size=(720, 1280),
        num_seconds=20,
        options={"preset": "ultrafast", "crf": "24", "x265-params": "log-level=none"},
    ),
    "av1_720": Spec(
        title="AV1 720p", encoder="libsvtav1", size=(720, 1280), num_seconds=20, options={"preset": "11", "crf": "32"}
    ),
    "vp9_720": Spec(
        title="VP9 720p, webm",
        suffix=".webm",
        encoder="libvpx-vp9",
        size=(720, 1280),
        num_seconds=20,
        options={"deadline": "realtime", "cpu-used": "8", "crf": "33", "row-mt": "1"},
    ),
    "mpeg4_480": Spec(
        title="MPEG-4 480p, avi",
        suffix=".avi",
        encoder="mpeg4",
        size=(480, 854),
        num_seconds=10,
        gop=12,
        options={"bf": "2", "qscale": "4", "flags": "+qscale"},
    ),
}
QUICK: Final = ("h264_360", "h264_480")


def make(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """The videos of these names, made unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    found = {}
    for name in names:
        spec = SPECS[name]
        found[name] = path = folder / f"{name}{spec.suffix}"
        if not path.is_file():
            begin = time.perf_counter()
            temporary = folder / f".incomplete-{path.name}"
            _encode(spec, temporary)
            temporary.replace(path)
            print(f"made {path.name}: {path.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - begin:.0f} s")
    return found


def _encode(spec: Spec, path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "+faststart"} if spec.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(spec.encoder, rate=FPS)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = spec.size
        stream.pix_fmt, stream.gop_size = "yuv420p", spec.gop
        stream.codec_context.options = dict(spec.options)
        for number, image in enumerate(_images(spec.size, FPS * spec.num_seconds)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _images(size: tuple[int, int], num_images: int) -> Iterator[npt.NDArray[np.uint8]]:
    height, width = size
    rng = torch.Generator().manual_seed(0)
    noise = (torch.randn((1, 3, 2 * height // octave, 2 * width // octave), generator=rng) for octave in (64, 16, 6))
    layers = [interpolate(layer, size=(2 * height, 2 * width), mode="bicubic") for layer in noise]
    texture = (128 + 40 * layers[0] + 20 * layers[1] + 8 * layers[2]).clamp(20, 235).to(torch.uint8)
    texture = texture.contiguous(memory_format=torch.channels_last)
    # Brightness and darkness apart, so that no number leaves 0..255 on the way.
    grain = (_GRAIN * torch.randn((2 * height, 2 * width, 1), generator=rng)).expand(-1, -1, 3)
    lighter, darker = (part.clamp(0, 20).to(torch.uint8).contiguous().numpy() for part in (grain, -grain))
    for number in range(num_images):
        seconds = number / FPS
        zoom = 1.3 + 0.25 * np.sin(0.4 * seconds)
        high, wide = int(height * zoom), int(width * zoom)
        top = int((2 * height - high) * (0.5 + 0.45 * np.sin(0.31 * seconds)))
        left = int((2 * width - wide) * (0.5 + 0.45 * np.cos(0.23 * seconds)))
        crop = texture[:, :, top : top + high, left : left + wide]
        image = interpolate(crop, size=size, mode="bilinear")[0].permute(1, 2, 0).contiguous().numpy()
        for shape in range(5):
            side = height // 8
            y = int((height - side) * (0.5 + 0.5 * np.sin((0.7 + 0.2 * shape) * seconds + shape)))
            x = int((width - side) * (0.5 + 0.5 * np.cos((0.9 - 0.1 * shape) * seconds + 2 * shape)))
            image[y : y + side, x : x + side] = (20 + 40 * shape, 230 - 40 * shape, 120)
        y, x = (number * 97) % height, (number * 61) % width
        window = slice(y, y + height), slice(x, x + width)
        yield image + lighter[window] - darker[window]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Medians of several runs of one contender."""

    cpu_seconds: float
    """Of all threads of the process."""
    wall_seconds: float
    result: Any
    """Of the first run; an exception where the contender cannot."""


def race(
    contenders: Mapping[str, Callable[[], Any]],
    *,
    min_rounds: int,
    max_rounds: int,
    budget_seconds: float,
    may_fail: Collection[str] = (),
) -> dict[str, Timing]:
    """Run contenders in turn, round after round until the budget is spent; one that may fail and does is out."""
    results: dict[str, Any] = {}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    end, num_rounds = time.perf_counter() + budget_seconds, 0
    while num_rounds < min_rounds or (num_rounds < max_rounds and time.perf_counter() < end):
        for name, contender in contenders.items():
            if isinstance(results.get(name), Exception):
                continue
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            try:
                result = contender()
            except Exception as error:
                if name not in may_fail:
                    raise
                result = error  # what a library cannot do is a result
            cpu[name].append(time.process_time() - cpu_start)
            wall[name].append(time.perf_counter() - wall_start)
            results[name] = result if isinstance(result, Exception) else results.get(name, result)
        num_rounds += 1
    return {
        name: Timing(
            cpu_seconds=statistics.median(cpu[name]), wall_seconds=statistics.median(wall[name]), result=results[name]
        )
        for name in contenders
    }


def resized(images_TCHW: torch.Tensor) -> torch.Tensor:
    """As every contender has it, frame by frame."""
    return torch.stack(
        [interpolate(image[None], size=SIZE, mode="bilinear", antialias=True)[0] for image in images_TCHW]
    )


def with_torchcodec(
    video: Any, numbers: Sequence[int], *, mode: str = "exact", size: tuple[int, int] | None = SIZE
) -> torch.Tensor:
    """torchcodec in one thread; `video` is a path, bytes or an open file."""
    decoder = torchcodec_decoder(video, mode=mode)
    images_TCHW: torch.Tensor = decoder.get_frames_at(list(numbers)).data
    return images_TCHW if size is None else resized(images_TCHW)


def torchcodec_decoder(video: Any, *, mode: str = "exact") -> Any:
    """An opened decoder; in exact mode it has read all packets."""
    return import_module("torchcodec.decoders").VideoDecoder(video, seek_mode=mode, num_ffmpeg_threads=1)


def environment(*packages: str) -> str:
    """One line: versions of everything, and how busy the machine is."""
    names = ("av", "torch", "torchcodec", "datasets", "numpy", *packages)
    return (
        f"python {platform.python_version()}, {', '.join(f'{name} {_version(name)}' for name in names)}; "
        f"FFmpeg of PyAV {'.'.join(map(str, av.library_versions['libavcodec']))} (libavcodec), of torchcodec "
        f"{_torchcodec_ffmpeg()}; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )


def _torchcodec_ffmpeg() -> str:
    try:
        return str(import_module("torchcodec").ffmpeg_major_version)
    except (ImportError, OSError, RuntimeError, AttributeError):
        return "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@dataclass(slots=True)
class Table:
    """Rows shown as Markdown while they come, and kept for JSON."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Show a row."""
        assert len(cells) == len(self.columns), (self.columns, cells)
        if not self.rows:
            print(f"\n**{self.title}**\n\n| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}")
        self.rows.append(list(cells))
        print(f"| {' | '.join(cells)} |", flush=True)


def save(path: Path | None, tables: Sequence[Table], about: str) -> None:
    """Write what was shown as JSON; does nothing without a path."""
    if path is not None:
        shown = [
            {"title": table.title, "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}
            for table in tables
        ]
        path.write_text(json.dumps({"environment": about, "tables": shown}, indent=1, ensure_ascii=False) + "\n")
