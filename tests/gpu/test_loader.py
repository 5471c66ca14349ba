"""Batches reach a GPU from page-locked memory, with all that is in them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from civid_loader.loader import SequenceLoader
from civid_loader.packing import PackClips
from civid_loader.sampling import Uniform
from support.training import dataset_of, write_videos


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_pinned_and_move(tmp_path: Path, num_workers: int) -> None:
    rows = dataset_of(write_videos(tmp_path, 6))
    settings: dict[str, Any] = {"frames": Uniform(2), "size": (32, 48), "batch_size": 2, "num_workers": num_workers}
    for batch in SequenceLoader(rows, videos=tmp_path, **settings):
        assert batch.frames_BNTCHW.is_pinned()
        assert batch.mask_BNT.is_pinned()
        moved = batch.to("cuda", non_blocking=True)
        assert moved.frames_BNTCHW.device.type == moved.weights_B.device.type == "cuda"
        assert torch.equal(moved.frames_BNTCHW.cpu(), batch.frames_BNTCHW)
        assert moved.texts == batch.texts
    packed = next(iter(SequenceLoader(rows, videos=tmp_path, collate=PackClips(max_frames=8), **settings)))
    assert packed.packed.frames_PTCHW.is_pinned()
    assert packed.to("cuda").packed.segment_PT.device.type == "cuda"
