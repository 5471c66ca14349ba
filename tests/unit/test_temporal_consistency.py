"""Temporal consistency: 1 for a clip that stands still, the formula written out for one that does not."""
# ruff: noqa: N806 - tensors carry their shape.

from pathlib import Path

import numpy as np
import pytest
import torch

from civid_loader.errors import ModelError
from civid_loader.processing.scores.temporal_consistency import (
    TemporalConsistency,
    TemporalConsistencyParams,
    consistency,
)
from support.noise_clips import clips_for, noise_clips
from support.stages_clip import make_temporal_consistency
from support.tiny_models import as_weights

COLUMNS = ["tc_clip_adj", "tc_clip_vbench", "tc_dino_adj", "tc_dino_vbench"]


def test_standing_still_is_one_and_one_frame_is_nothing(tmp_path: Path) -> None:
    stage = make_temporal_consistency(tmp_path)
    stage.setup(device="cpu")
    still = np.repeat(noise_clips()[0][:1], 40, axis=0)
    rows = stage.run(clips_for(stage, [still, noise_clips()[1], noise_clips()[0]]))
    assert [rows[0][name] for name in COLUMNS] == pytest.approx([1.0] * 4, abs=1e-6)
    assert rows[1] == {"not_computable": "fewer than two frames"}
    assert all(rows[2][name] < 1 for name in COLUMNS)


def test_batch_and_order_do_not_matter(tmp_path: Path) -> None:
    stage = make_temporal_consistency(tmp_path)
    stage.setup(device="cpu")
    rows = stage.run(clips_for(stage, noise_clips()))
    assert stage.run(clips_for(stage, noise_clips())[::-1])[::-1] == rows
    assert [stage.run([one])[0] for one in clips_for(stage, noise_clips())] == rows


def test_formula() -> None:
    # Cosines to the frame before: 0, 0.6, below 0; to the first: 0, 0.8, 0.
    embedded_TD = torch.tensor([[2.0, 0, 0], [0, 5, 0], [4, 3, 0], [0, -1, 0]])
    adj, vbench = consistency(embedded_TD)
    assert adj == pytest.approx(0.6 / 3)
    assert vbench == pytest.approx((0.6 + 0.8) / 6)
    assert consistency(embedded_TD * torch.tensor([[1.0], [7], [0.1], [3]])) == pytest.approx((adj, vbench))
    assert consistency(embedded_TD.flip(0))[0] == pytest.approx(adj)


def test_encoders_and_frames_are_chosen(tmp_path: Path) -> None:
    both = make_temporal_consistency(tmp_path)
    params = TemporalConsistencyParams(encoders=("clip",), fps=None)
    stage = TemporalConsistency(params, weights={"clip": both.weights["clip"]})
    assert list(stage.weights_needed()) == ["clip"]
    assert stage.requests()["frames"].mode == "all"
    stage.setup(device="cpu")
    (row,) = stage.run(clips_for(stage, [noise_clips()[0][:3]]))
    assert list(row) == ["tc_clip_adj", "tc_clip_vbench"]
    with pytest.raises(ValueError, match="encoders has 'ibot', must be of dino, clip"):
        TemporalConsistencyParams(encoders=("ibot",))  # type: ignore[arg-type]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    stage = make_temporal_consistency(tmp_path)
    (tmp_path / "dino" / "model.safetensors").unlink()
    stage.weights["dino"] = as_weights(tmp_path / "dino")
    with pytest.raises(ModelError, match=r"model dino \(dino\).*--model dino=PATH"):
        stage.setup(device="cpu")
