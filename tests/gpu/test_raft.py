"""RAFT on a GPU gives the flow that torchvision's forward gives on the CPU, and reduced precision stays close."""

import numpy as np
import pytest
import torch

from civid_loader.processing.raft import Precision, Raft
from support.stages_motion import pattern_HWC, random_raft, shifted_THWC

TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2}
"""Mean difference, as a share of the mean length."""


@pytest.mark.gpu
@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("large", [False, True])
def test_flow_on_a_gpu(large: bool, precision: Precision) -> None:
    frames = shifted_THWC(pattern_HWC(136, 240), [0, 2, 4, 6, 8, 10])
    images = (torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = random_raft(large=large)(images[:-1], images[1:], num_flow_updates=4)[-1]
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic)
    raft = Raft(random_raft(large=large), device="cuda", num_flow_updates=4, precision=precision)
    found = [flow for _, flow in raft.flows([frames])]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before
    assert all(flow.device.type == "cuda" and flow.dtype == torch.float32 for flow in found)
    difference = (torch.stack(found).cpu() - expected).abs().mean()
    assert float(difference / expected.abs().mean()) < TOLERANCES[precision]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_flow_on_a_gpu_does_not_depend_on_company(precision: Precision) -> None:
    raft = Raft(random_raft(large=True), device="cuda", num_flow_updates=4, precision=precision)
    noise = np.random.default_rng(0)
    clips = [noise.integers(0, 256, (num_frames, 128, 136, 3), dtype=np.uint8) for num_frames in (5, 1, 2, 9)]
    together: list[list[torch.Tensor]] = [[] for _ in clips]
    for clip, flow in raft.flows(clips):
        together[clip].append(flow)
    for frames, expected in zip(clips, together, strict=True):
        alone = [flow for _, flow in raft.flows([frames])]
        assert len(alone) == len(frames) - 1
        assert all(map(torch.equal, alone, expected))
