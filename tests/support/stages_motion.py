"""Stages that look at motion, small; and clips whose motion is known.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N802, N803, N806 - arrays carry their shape.

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.models.optical_flow import RAFT, raft_large, raft_small

from civid_loader.decoding import FrameSet, read_frame_sets
from civid_loader.processing.resizing import ResizeTo
from civid_loader.processing.scores.optical_flow import OpticalFlow, OpticalFlowParams
from civid_loader.processing.scores.tracking_strength import TrackingStrength, TrackingStrengthParams
from civid_loader.processing.stage import ClipInput, Stage
from civid_loader.processing.weights import find_weights
from support.media import write_video

Images = npt.NDArray[np.uint8]


def make_optical_flow(folder: Path) -> Stage[OpticalFlowParams]:
    """Small RAFT with random weights."""
    return make_raft_stage(folder, OpticalFlowParams(backend="raft_small", size=(128, 128), num_flow_updates=2))


def make_raft_stage(folder: Path, params: OpticalFlowParams) -> OpticalFlow:
    """With random weights, kept in `folder` as torchvision's are."""
    assert params.backend != "dis"
    path = folder / f"{params.backend}.pth"
    torch.save(random_raft(large=params.backend == "raft_large").state_dict(), path)
    (role, need), *_ = OpticalFlow(params).weights_needed().items()
    return OpticalFlow(params, weights={role: find_weights(role, need, given=str(path), may_download=False)})


def make_tracking_strength(folder: Path) -> Stage[TrackingStrengthParams]:
    """By Lucas-Kanade, which has no weights."""
    return TrackingStrength(TrackingStrengthParams())


def random_raft(*, large: bool) -> RAFT:
    """Always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: RAFT = (raft_large if large else raft_small)(weights=None).eval()
    return model


def pattern_HWC(height: int, width: int, *, cycles_per_px: float = 0.04, seed: int = 0) -> Images:
    """Soft coloured blobs without an edge: what leaves on one side comes in on the other."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    keep = np.exp(-((frequency / cycles_per_px) ** 2) / 2)
    noise = np.random.default_rng(seed).normal(size=(3, height, width))
    soft = np.fft.ifft2(np.fft.fft2(noise) * keep).real
    image = np.clip(128 + 45 * soft / soft.std(axis=(1, 2), keepdims=True), 0, 255)
    return np.ascontiguousarray(image.transpose(1, 2, 0).astype(np.uint8))


def shifted_THWC(image_HWC: Images, shifts_px: Sequence[int], *, axis: int = 1) -> Images:
    """The image moved by each of these: to the right, or down with axis 0."""
    return np.stack([np.roll(image_HWC, shift, axis=axis) for shift in shifts_px])


def write_pan(
    path: Path, *, px_per_frame: int, num_frames: int, fps: int, size: tuple[int, int], cycles_per_px: float = 0.04
) -> Path:
    """A video whose picture moves evenly to the right."""
    image_HWC = pattern_HWC(*size, cycles_per_px=cycles_per_px)
    return write_video(
        path,
        num_frames=num_frames,
        fps=fps,
        size=size,
        image=lambda i: np.roll(image_HWC, px_per_frame * i, axis=1),
    )


def clip_of(frames_THWC: Images, *, id: str = "a", **others: Images) -> ClipInput:
    """Frames as a stage gets them, under the name `frames`; and under others."""
    frames = {"frames": frames_THWC, **others}
    times_seconds = {name: np.arange(len(some)) / 2 for name, some in frames.items()}
    return ClipInput(id=id, frames=frames, times_seconds=times_seconds, fps=30.0, duration_seconds=10.0)


def decoded(path: Path, stage: Stage[Any]) -> ClipInput:
    """A clip of a video file, with the frames that a stage asks for."""
    requests = stage.requests()
    sets = [FrameSet(at=request.sampler(), fit=ResizeTo.of(request)) for request in requests.values()]
    found = dict(zip(requests, read_frame_sets(path, sets), strict=True))
    frames = {name: one.frames_TCHW.permute(0, 2, 3, 1).contiguous().numpy() for name, one in found.items()}
    return replace(clip_of(frames["frames"]), frames=frames)
