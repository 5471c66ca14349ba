"""Embeddings: the same whoever shares a batch, computed once for all stages, refused where a folder is not right."""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from civid_loader.errors import ModelError
from civid_loader.processing import embeddings
from civid_loader.processing.embeddings import ImageEncoder, Preparation, TextEncoder, load_image_encoder
from civid_loader.processing.scores.aesthetic import Aesthetic, AestheticParams
from civid_loader.processing.scores.clip_similarity import ClipSimilarity, ClipSimilarityParams
from civid_loader.processing.scores.temporal_consistency import TemporalConsistency, TemporalConsistencyParams
from civid_loader.processing.stage import ClipInput, Stage
from support import tiny_models
from support.noise_clips import clips_for, noise_clips
from support.tiny_models import as_weights

REQUEST = embeddings.encoder_frames(2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    tiny_models.save_clip(made / "clip")
    tiny_models.save_dino(made / "dino")
    tiny_models.save_dino(made / "dinov2", version=2)
    tiny_models.save_siglip(made / "siglip")
    tiny_models.save_mlp_head(made / "head_v2")
    return made


def _clips(seed: int = 0) -> list[ClipInput]:
    stage = TemporalConsistency(TemporalConsistencyParams())
    return clips_for(stage, noise_clips(seed=seed))


def _embed(encoder: ImageEncoder, clips: list[ClipInput]) -> list[torch.Tensor]:
    return encoder.embed(clips, name="frames", request=REQUEST)


@pytest.mark.parametrize(("name", "crop"), [("clip", True), ("siglip", True), ("dinov2", True), ("dino", False)])
def test_embedding_does_not_depend_on_the_batch(folder: Path, name: str, crop: bool) -> None:
    encoder = load_image_encoder(as_weights(folder / name), role=name, device="cpu", crop=crop)
    together = _embed(encoder, _clips())
    alone = [_embed(encoder, [one])[0] for one in _clips()]
    backwards = _embed(encoder, _clips()[::-1])[::-1]
    among_others = _embed(encoder, [*_clips(seed=1), *_clips()])[3:]
    assert [len(one) for one in together] == [4, 1, 2]  # 25 fps, 2 looked at per second
    for same in (alone, backwards, among_others):
        assert all(torch.equal(one, other) for one, other in zip(together, same, strict=True))


def test_embeds_as_transformers_does(folder: Path) -> None:
    frames_THWC = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    clip = ClipInput(id="a", frames={"frames": frames_THWC}, times_seconds={}, fps=25, duration_seconds=1)
    said = Preparation.read(as_weights(folder / "clip"), role="clip")
    pixels_TCHW = (torch.from_numpy(frames_THWC).permute(0, 3, 1, 2) / 255 - torch.tensor(said.mean).view(3, 1, 1)) / (
        torch.tensor(said.std).view(3, 1, 1)
    )
    model = transformers.CLIPModel.from_pretrained(folder / "clip")
    expected_TD: Any = model.get_image_features(pixels_TCHW)
    encoder = load_image_encoder(as_weights(folder / "clip"), role="clip", device="cpu")
    torch.testing.assert_close(_embed(encoder, [clip])[0], expected_TD.pooler_output)
    dino = transformers.AutoModel.from_pretrained(folder / "dino", add_pooling_layer=False)
    encoder = load_image_encoder(as_weights(folder / "dino"), role="dino", device="cpu")
    torch.testing.assert_close(_embed(encoder, [clip])[0], dino(pixels_TCHW).last_hidden_state[:, 0])


def test_preparation_cuts_the_centre_or_stretches() -> None:
    columns_TCHW = torch.arange(8, dtype=torch.uint8).expand(1, 3, 4, 8)
    cut = Preparation(size=(4, 4), is_stretched=False, mean=(0, 0, 0), std=(1, 1, 1))
    assert cut.fit(columns_TCHW)[0, 0, 0].tolist() == [2, 3, 4, 5]
    assert replace(cut, is_stretched=True).fit(columns_TCHW).shape == (1, 3, 4, 4)
    assert replace(cut, size=None).fit(columns_TCHW) is columns_TCHW
    assert replace(cut, size=(6, 6)).fit(columns_TCHW).shape == (1, 3, 6, 6)
    assert cut.normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten().tolist() == [1, 1, 1]


def test_one_forward_serves_three_stages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, head = as_weights(folder / "clip"), as_weights(folder / "head_v2")
    makers: list[Callable[[], Stage[Any]]] = [
        lambda: Aesthetic(AestheticParams(), weights={"clip": clip, "head_v2": head}),
        lambda: ClipSimilarity(ClipSimilarityParams(), weights={"clip": clip}),
        lambda: TemporalConsistency(TemporalConsistencyParams(encoders=("clip",)), weights={"clip": clip}),
    ]
    num_forwards = 0
    forward = ImageEncoder._forward

    def counting(self: ImageEncoder, images_NCHW: torch.Tensor) -> torch.Tensor:
        nonlocal num_forwards
        num_forwards += 1
        return forward(self, images_NCHW)

    monkeypatch.setattr(ImageEncoder, "_forward", counting)
    shared = _clips()
    rows = []
    stages = [make() for make in makers]
    for stage in stages:
        stage.setup(device="cpu")
        rows.append(stage.run(shared))
    assert num_forwards == 1
    for make, expected in zip(makers, rows, strict=True):
        (stage := make()).setup(device="cpu")
        assert stage.run(_clips()) == expected
    assert num_forwards == 4
    assert stages[0]._encoder is stages[1]._images  # type: ignore[attr-defined] # and one is in memory


def test_other_frames_or_weights_are_not_shared(folder: Path) -> None:
    clips = _clips()[:1]
    _embed(load_image_encoder(as_weights(folder / "dino"), role="dino", device="cpu"), clips)
    _embed(load_image_encoder(as_weights(folder / "dino"), role="dino", device="cpu", crop=False), clips)
    encoder = load_image_encoder(as_weights(folder / "clip"), role="clip", device="cpu")
    _embed(encoder, clips)
    encoder.embed(clips, name="frames", request=embeddings.encoder_frames(None))
    assert len(clips[0].shared) == 4


def test_a_long_text_is_cut_before_its_end(folder: Path) -> None:
    encoder = TextEncoder(as_weights(folder / "clip"), role="clip", device="cpu")
    fits = "x" * (tiny_models.MAX_TOKENS - 2)
    fits_D, is_cut = encoder.embed(fits)
    assert not is_cut
    long_D, is_cut = encoder.embed(fits + " and what nobody reads")
    assert is_cut
    assert torch.equal(fits_D, long_D)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder / "clip")
    ids = tokenizer([fits], return_tensors="pt")["input_ids"]
    assert ids[0, -1] == tokenizer.eos_token_id
    expected: Any = transformers.CLIPModel.from_pretrained(folder / "clip").get_text_features(ids)
    torch.testing.assert_close(fits_D, expected.pooler_output[0])


def test_wrong_folders_name_the_role_and_the_cure(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "headless").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / "headless" / name).write_bytes((folder / "clip" / name).read_bytes())
    half = tmp_path / "half"  # a CLIP without what it projects with
    vision_config: Any = tiny_models.clip_config(0).vision_config
    transformers.CLIPVisionModel(vision_config).save_pretrained(half)
    (half / "preprocessor_config.json").write_bytes((folder / "clip" / "preprocessor_config.json").read_bytes())
    for name, told in [
        ("empty", "no preprocessor_config.json"),
        ("headless", "cannot be loaded as CLIPVisionModelWithProjection"),
        ("half", "lack 1 weights of CLIPVisionModelWithProjection, such as visual_projection.weight"),
    ]:
        with pytest.raises(ModelError, match=told) as error:
            load_image_encoder(as_weights(tmp_path / name), role="clip", device="cpu")
        assert f"model {name} (clip)" in str(error.value)
        assert "--model clip=PATH" in str(error.value)
    with pytest.raises(ModelError, match="'vit' has no texts"):
        TextEncoder(as_weights(folder / "dino"), role="clip", device="cpu")
