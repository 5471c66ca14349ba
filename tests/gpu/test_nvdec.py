"""Decoding on the GPU gives the frames that decoding on the CPU gives."""

import os
from pathlib import Path

import pytest
import torch

from civid_loader.decoding import read_frames
from civid_loader.errors import MissingDependencyError
from civid_loader.sampling import Uniform, Window
from support.media import read_numbers, write_video


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_nvdec_gives_the_same_frames(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=100, size=(256, 384), num_b_frames=2, codec=codec)
    for sampler, span in ((Uniform(8), None), (Window(5), (1.0, 3.0))):
        expected = read_frames(path, sampler, span=span, size=(128, 192))
        try:
            found = read_frames(path, sampler, span=span, size=(128, 192), device="cuda")
        except MissingDependencyError as error:
            if os.environ.get("FAIL_WITHOUT_CUDA"):
                raise  # a GPU job must not pass by skipping
            pytest.skip(str(error))
        assert found.frames_TCHW.device.type == "cuda"
        assert found.pts_seconds.tolist() == pytest.approx(expected.pts_seconds.tolist(), abs=1e-3)
        assert read_numbers(found.frames_TCHW.cpu()) == read_numbers(expected.frames_TCHW)
        difference = (found.frames_TCHW.cpu().float() - expected.frames_TCHW.float()).abs()
        assert float(difference.mean()) < 3, "colour conversion differs in the last bits"
        assert torch.isfinite(difference).all()
