"""What frames look like, as vectors: of length 1, alike for what is alike, and the same in any company."""

from pathlib import Path

import numpy as np
import pytest

from civid_loader.errors import ModelError
from civid_loader.processing.frame_descriptors import (
    ColourGradient,
    ColourHistogram,
    Embedder,
    GradientHistogram,
    ModelEmbedder,
)
from support.films import Take, pictures

SIZE = (90, 160)


def _frames(*takes: Take) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([picture for take in takes for picture in pictures(take, SIZE)])


@pytest.mark.parametrize("embedder", [ColourHistogram(), GradientHistogram(), ColourGradient()])
def test_weight_free(embedder: Embedder) -> None:
    one, other = Take(seed=1, num_frames=1), Take(seed=2, num_frames=1)
    near = Take(seed=1, other=2, share=0.1, num_frames=1)
    vectors = embedder(_frames(one, near, other))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[0, 1] > 0.8 > alike[0, 2]
    np.testing.assert_array_equal(embedder(_frames(other, one)), vectors[[2, 0]])
    assert vectors.dtype == np.float32
    assert np.isfinite(embedder(np.zeros((1, *SIZE, 3), np.uint8))).all()


def test_who_they_are() -> None:
    known = [str(one.identity) for one in (ColourHistogram(), GradientHistogram(), ColourGradient())]
    assert len(set(known)) == 3


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        ModelEmbedder.of(tmp_path)


def test_models(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    dino = transformers.Dinov2Model(transformers.Dinov2Config(**vision))
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(text_config={**text, "vocab_size": 9}, vision_config=vision, projection_dim=16)
    )
    frames_THWC = _frames(Take(seed=1, num_frames=2), Take(seed=2, num_frames=1))  # noqa: N806
    for model, processor, width in ((dino, "BitImageProcessor", 32), (clip, "CLIPImageProcessor", 16)):
        folder = tmp_path / processor
        model.save_pretrained(folder)
        made = getattr(transformers, processor)(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
        made.save_pretrained(folder)
        embedder = ModelEmbedder.of(folder)
        vectors = embedder(frames_THWC)
        assert vectors.shape == (3, width)
        np.testing.assert_array_equal(embedder(frames_THWC[2:]), vectors[2:])
        assert embedder.identity["sha256"]
        assert str(tmp_path) not in str(embedder.identity)
