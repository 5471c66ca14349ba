"""Caption and frames compared by CLIP: the cosine, the caption that is read, and no caption."""
# ruff: noqa: N806 - tensors carry their shape.

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from civid_loader import schema
from civid_loader.errors import ModelError
from civid_loader.processing.scores.clip_similarity import ClipSimilarity, ClipSimilarityParams
from support import tiny_models
from support.noise_clips import clips_for, noise_clips
from support.stages_clip import make_clip_similarity
from support.tiny_models import as_weights


@pytest.fixture
def stage(tmp_path: Path) -> ClipSimilarity:
    made = make_clip_similarity(tmp_path)
    made.setup(device="cpu")
    return made


def test_batch_and_order_do_not_matter(stage: ClipSimilarity) -> None:
    rows = stage.run(clips_for(stage, noise_clips()))
    assert stage.run(clips_for(stage, noise_clips())[::-1])[::-1] == rows
    assert [stage.run([one])[0] for one in clips_for(stage, noise_clips())] == rows
    assert all(-1 <= row["clip_similarity_min"] <= row["clip_similarity"] <= 1 for row in rows)


def test_is_the_mean_cosine(stage: ClipSimilarity) -> None:
    (clip,) = clips_for(stage, noise_clips()[:1], text="a dog on a horse")
    (row,) = stage.run([clip])
    assert stage._texts is not None
    text_D = stage._texts.embed("a dog on a horse")[0].numpy()
    (frames_TD,) = (one.numpy() for one in clip.shared.values())
    cosines = [float(one @ text_D / np.linalg.norm(one) / np.linalg.norm(text_D)) for one in frames_TD]
    assert row["clip_similarity"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert row["clip_similarity_min"] == pytest.approx(min(cosines), abs=1e-6)


def test_the_first_caption_of_the_kind_is_read(stage: ClipSimilarity) -> None:
    (clip,) = clips_for(stage, noise_clips()[:1], text="one")
    captions = [
        schema.caption("dense", "another", "nobody"),
        schema.caption("short", "one", "nobody"),
        schema.caption("short", "two", "nobody"),
    ]
    assert stage.run([replace(clip, row={"captions": captions})]) == stage.run([clip])


def test_no_such_caption_is_none(stage: ClipSimilarity) -> None:
    (clip,) = clips_for(stage, noise_clips()[:1])
    none = replace(clip, row={"captions": [schema.caption("dense", "another", "nobody")]})
    rows = stage.run([none, clip, replace(clip, row={}), replace(clip, row={"captions": None})])
    assert [row.get("clip_similarity") is None for row in rows] == [True, False, True, True]
    assert rows[0] == {"not_computable": "no caption of kind short"}


def test_long_captions_are_cut(stage: ClipSimilarity) -> None:
    beginning = "y" * (tiny_models.MAX_TOKENS - 2)
    rows = [
        stage.run(clips_for(stage, noise_clips()[:1], text=text))[0] for text in (beginning, f"{beginning} and so on")
    ]
    assert [row.pop("clip_similarity_cut") for row in rows] == [False, True]
    assert rows[0] == rows[1]


def test_wrong_folder_and_kind(tmp_path: Path) -> None:
    dino = tiny_models.save_dino(tmp_path / "dino")
    with pytest.raises(ModelError, match=r"model dino \(clip\): its type 'vit' has no texts.*--model clip=PATH"):
        ClipSimilarity(ClipSimilarityParams(), weights={"clip": as_weights(dino)}).setup(device="cpu")
    with pytest.raises(ValueError, match="caption_kind is 'tall', must be one of short, dense"):
        ClipSimilarityParams(caption_kind="tall")
