"""Aesthetic scores: heads are affine, do not see the embedding's length, and give what their weights say."""
# ruff: noqa: N806 - tensors carry their shape.

from pathlib import Path

import pytest
import torch

from civid_loader.errors import ModelError
from civid_loader.processing.scores.aesthetic import Aesthetic, AestheticParams, AffineHead
from support import tiny_models
from support.noise_clips import clips_for, noise_clips
from support.stages_clip import make_aesthetic
from support.tiny_models import DIM, as_weights


def test_batch_and_order_do_not_matter(tmp_path: Path) -> None:
    stage = make_aesthetic(tmp_path)
    stage.setup(device="cpu")
    rows = stage.run(clips_for(stage, noise_clips()))
    assert stage.run(clips_for(stage, noise_clips())[::-1])[::-1] == rows
    assert [stage.run([one])[0] for one in clips_for(stage, noise_clips())] == rows
    assert all(row["aesthetic_v1_min"] <= row["aesthetic_v1"] for row in rows)
    assert rows[1]["aesthetic_v2"] == rows[1]["aesthetic_v2_min"]  # one frame


def test_known_weights_give_known_scores(tmp_path: Path) -> None:
    path = tiny_models.save_linear_head(tmp_path / "v1.pth", torch.eye(DIM)[0] * 3, bias=2.0)
    head = AffineHead.read(as_weights(path), role="head_v1")
    assert head(torch.eye(DIM)[:2]).tolist() == [5.0, 2.0]
    embedded_TD = torch.zeros(1, DIM)
    embedded_TD[0, 0], embedded_TD[0, 1] = 3, 4
    assert head(embedded_TD).tolist() == pytest.approx([2 + 3 * 0.6])
    assert head(embedded_TD * 100).tolist() == pytest.approx(head(embedded_TD).tolist())


@pytest.mark.parametrize("name", ["v2.pth", "v2"])
def test_the_layers_of_v2_are_one_affine_map(tmp_path: Path, name: str) -> None:
    path = tiny_models.save_mlp_head(tmp_path / name, seed=3)
    head = AffineHead.read(as_weights(path), role="head_v2")
    embedded_TD = torch.randn(7, DIM)
    unit_TD = torch.nn.functional.normalize(embedded_TD, dim=1)
    expected_T = tiny_models.mlp_head(3).eval()(unit_TD)[:, 0]
    torch.testing.assert_close(head(embedded_TD).float(), expected_T)


def test_only_the_heads_asked_for(tmp_path: Path) -> None:
    both = make_aesthetic(tmp_path)
    stage = Aesthetic(AestheticParams(reduction="median"), weights={k: both.weights[k] for k in ("clip", "head_v2")})
    assert set(stage.weights_needed()) == {"clip", "head_v2"}
    stage.setup(device="cpu")
    (row,) = stage.run(clips_for(stage, noise_clips()[:1]))
    assert set(row) == {"aesthetic_v2", "aesthetic_v2_min"}


def test_wrong_heads_are_refused(tmp_path: Path) -> None:
    stage = make_aesthetic(tmp_path)
    wide = tiny_models.save_linear_head(tmp_path / "wide.pth", torch.ones(768))
    (broken := tmp_path / "broken.pth").write_bytes(b"no weights")
    torch.save({"weight": torch.ones(2, DIM), "bias": torch.ones(2)}, two := tmp_path / "two.pth")
    (nothing := tmp_path / "nothing").mkdir()
    for path, told in [
        (wide, "it takes 768 dimensions, clip has 16"),
        (broken, "cannot be read as weights"),
        (two, r"weight \[2, 16\].* no linear layers down to one number"),
        (nothing, "has 0 files"),
    ]:
        stage.weights["head_v1"] = as_weights(path)
        with pytest.raises(ModelError, match=told) as error:
            stage.setup(device="cpu")
        assert f"model {path.name} (head_v1)" in str(error.value)
        assert "--model head_v1=PATH" in str(error.value)


def test_params_are_checked() -> None:
    with pytest.raises(ValueError, match="heads has 'v3', must be of v1, v2"):
        AestheticParams(heads=("v3",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction has 'max', must be of mean, median"):
        AestheticParams(reduction="max")  # type: ignore[arg-type]
