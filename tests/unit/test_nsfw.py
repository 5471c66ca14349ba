"""The safety checker's rule, against the same written out as a loop."""
# ruff: noqa: N803, N806 - tensors carry their shape.

import math
from pathlib import Path

import pytest
import torch

from civid_loader.errors import ModelError
from civid_loader.processing.scores.nsfw import Concepts, Nsfw, NsfwParams
from support import tiny_models
from support.noise_clips import clips_for, noise_clips
from support.stages_clip import make_nsfw
from support.tiny_models import as_weights


def _naive_margins(embedded_D: torch.Tensor, concepts: Concepts) -> list[float]:
    def cosine(one_D: torch.Tensor, other_D: torch.Tensor) -> float:
        one: list[float] = one_D.tolist()
        other: list[float] = other_D.tolist()
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))

    adjustment = 0.0
    for special_D, threshold in zip(concepts.special_embeds_KD, concepts.special_thresholds_K, strict=True):
        if round(cosine(embedded_D, special_D) - threshold.item() + adjustment, 3) > 0:
            adjustment = 0.01
    return [
        round(cosine(embedded_D, concept_D) - threshold.item() + adjustment, 3)
        for concept_D, threshold in zip(concepts.embeds_KD, concepts.thresholds_K, strict=True)
    ]


def test_rule_is_that_of_the_loop() -> None:
    torch.manual_seed(0)
    concepts = Concepts(
        embeds_KD=torch.randn(17, 16),
        thresholds_K=0.4 * torch.rand(17),
        special_embeds_KD=torch.randn(3, 16),
        special_thresholds_K=0.4 * torch.rand(3),
    )
    embedded_TD = torch.randn(64, 16)
    expected_TK = torch.tensor([_naive_margins(one_D, concepts) for one_D in embedded_TD], dtype=torch.float64)
    margins_TK = concepts.margins(embedded_TD)
    torch.testing.assert_close(margins_TK, expected_TK)
    assert torch.equal((margins_TK > 0).any(1), (expected_TK > 0).any(1))
    assert 0 < int((margins_TK > 0).any(1).sum()) < 64


def test_a_special_concept_lowers_the_others_thresholds() -> None:
    axes_KD = torch.eye(4)

    def margin(special_threshold: float, threshold: float) -> float:
        concepts = Concepts(
            embeds_KD=axes_KD[:1],
            thresholds_K=torch.tensor([threshold]),
            special_embeds_KD=axes_KD[1:2],
            special_thresholds_K=torch.tensor([special_threshold]),
        )
        return float(concepts.margins(torch.tensor([[3.0, 4.0, 0, 0]]))[0, 0])  # cosines .6 and .8

    assert margin(0.9, 0.605) == -0.005
    assert margin(0.7, 0.605) == 0.005
    assert margin(0.8, 0.605) == -0.005  # at the threshold is not over it
    assert margin(0.7996, 0.605) == -0.005  # 0.0004 is 0.000 to three decimals
    assert margin(0.7994, 0.605) == 0.005
    assert margin(0.9, 0.6004) == 0.0


def test_batch_and_order_do_not_matter(tmp_path: Path) -> None:
    stage = make_nsfw(tmp_path)
    stage.setup(device="cpu")
    rows = stage.run(clips_for(stage, noise_clips()))
    assert stage.run(clips_for(stage, noise_clips())[::-1])[::-1] == rows
    assert [stage.run([one])[0] for one in clips_for(stage, noise_clips())] == rows
    assert rows[1]["nsfw_frames"] in (0, 8)  # one image, looked at 8 times
    assert all(row["nsfw"] == (row["nsfw_score"] > 0) == (row["nsfw_frames"] > 0) for row in rows)


def test_high_thresholds_make_all_safe(tmp_path: Path) -> None:
    folder = tiny_models.save_safety_checker(tmp_path / "strict", bar=1.0)
    stage = Nsfw(NsfwParams(num_frames=2), weights={"safety_checker": as_weights(folder)})
    stage.setup(device="cpu")
    for row in stage.run(clips_for(stage, noise_clips()[:2])):
        assert (row["nsfw"], row["nsfw_frames"]) == (False, 0)
        assert row["nsfw_score"] <= 0


def test_another_model_is_refused(tmp_path: Path) -> None:
    clip = tiny_models.save_clip(tmp_path / "clip")
    stage = Nsfw(NsfwParams(), weights={"safety_checker": as_weights(clip)})
    with pytest.raises(ModelError, match=r"model clip \(safety_checker\).*no safety checker.*concept_embeds"):
        stage.setup(device="cpu")
    (clip / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="--model safety_checker=PATH"):
        stage.setup(device="cpu")
