"""Clips for stages, and stages with the weights they need.

Legend: N frames of a clip, T frames asked for, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from civid_loader.decoding import FrameSet, read_frame_sets
from civid_loader.processing import registry
from civid_loader.processing.resizing import ResizeTo
from civid_loader.processing.stage import ClipInput, FrameRequest, Stage
from civid_loader.sampling import ClipTimes
from civid_loader.videos import bytes_source

Images = npt.NDArray[np.uint8]


@cache
def makers() -> Mapping[str, Callable[[Path], Stage[Any]]]:
    """Stage -> what makes it with tiny weights in a folder. To add one: `make_<stage>` in a file stages_*.py here."""
    modules = [import_module(f"support.{path.stem}") for path in sorted(Path(__file__).parent.glob("stages_*.py"))]
    functions = {name: value for module in modules for name, value in vars(module).items()}
    return {name: functions[f"make_{name}"] for name in registry.names() if f"make_{name}" in functions}


def clip_of(
    images_NHWC: Images,
    requests: Mapping[str, FrameRequest],
    *,
    fps: float = 25.0,
    clip_id: str = "clip",
    video: bytes | None = None,
    row: Mapping[str, Any] | None = None,
) -> ClipInput:
    """A clip of these images, with the frames that are requested. `video`: the file they are in."""
    pts_seconds = np.arange(len(images_NHWC)) / fps
    clip = ClipTimes(
        pts_seconds=pts_seconds, is_key=np.ones(len(images_NHWC), bool), duration_seconds=len(images_NHWC) / fps
    )
    numbers = {
        name: np.searchsorted(pts_seconds, np.array(request.sampler().times_seconds(clip)) + 1e-6, side="right") - 1
        for name, request in requests.items()
    }
    return ClipInput(
        id=clip_id,
        frames={
            name: np.stack([_resized(images_NHWC[k], ResizeTo.of(requests[name])) for k in chosen])
            for name, chosen in numbers.items()
        },
        times_seconds={name: pts_seconds[chosen] for name, chosen in numbers.items()},
        fps=fps,
        duration_seconds=clip.duration_seconds,
        video=None if video is None else bytes_source(video, name=f"{clip_id}.mp4"),
        row=row or {},
    )


def _resized(image_HWC: Images, resize: ResizeTo) -> Images:
    image_CHW = resize(torch.from_numpy(np.ascontiguousarray(image_HWC)).permute(2, 0, 1))
    return np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())


def decoded_clip(path: Path, requests: Mapping[str, FrameRequest], *, fps: float, duration_seconds: float) -> ClipInput:
    """A video file as a clip, with the frames that are requested, decoded in one pass."""
    sets = [FrameSet(at=one.sampler(), fit=ResizeTo.of(one)) for one in requests.values()]
    found = dict(zip(requests, read_frame_sets(str(path), sets), strict=True))
    return ClipInput(
        id=path.stem,
        frames={name: np.ascontiguousarray(one.frames_TCHW.permute(0, 2, 3, 1).numpy()) for name, one in found.items()},
        times_seconds={name: one.pts_seconds.numpy() for name, one in found.items()},
        fps=fps,
        duration_seconds=duration_seconds,
        video=bytes_source(path.read_bytes(), name=path.name),
    )
