"""Stages on image encoders, with tiny models of random weights."""

from pathlib import Path

import torch

from civid_loader.processing.scores.aesthetic import Aesthetic, AestheticParams
from civid_loader.processing.scores.clip_similarity import ClipSimilarity, ClipSimilarityParams
from civid_loader.processing.scores.duplicates import Duplicates, DuplicatesParams
from civid_loader.processing.scores.nsfw import Nsfw, NsfwParams
from civid_loader.processing.scores.temporal_consistency import TemporalConsistency, TemporalConsistencyParams
from civid_loader.processing.scores.text_area import TextArea, TextAreaParams
from support import tiny_models
from support.tiny_models import as_weights


def make_aesthetic(folder: Path) -> Aesthetic:
    """Both heads."""
    clip = tiny_models.save_clip(folder / "clip")
    v1 = tiny_models.save_linear_head(folder / "v1.pth", torch.randn(tiny_models.DIM), bias=5.0)
    v2 = tiny_models.save_mlp_head(folder / "v2")
    weights = {"clip": as_weights(clip), "head_v1": as_weights(v1), "head_v2": as_weights(v2)}
    return Aesthetic(AestheticParams(heads=("v1", "v2")), weights=weights)


def make_duplicates(folder: Path) -> Duplicates:
    """By CLIP too."""
    clip = tiny_models.save_clip(folder / "clip")
    return Duplicates(DuplicatesParams(min_clip_cosine=0.9), weights={"clip": as_weights(clip)})


def make_nsfw(folder: Path) -> Nsfw:
    """With its own CLIP."""
    checker = tiny_models.save_safety_checker(folder / "checker")
    return Nsfw(NsfwParams(), weights={"safety_checker": as_weights(checker)})


def make_temporal_consistency(folder: Path) -> TemporalConsistency:
    """DINO and CLIP."""
    dino, clip = tiny_models.save_dino(folder / "dino"), tiny_models.save_clip(folder / "clip")
    weights = {"dino": as_weights(dino), "clip": as_weights(clip)}
    return TemporalConsistency(TemporalConsistencyParams(), weights=weights)


def make_clip_similarity(folder: Path) -> ClipSimilarity:
    """Of short captions."""
    clip = tiny_models.save_clip(folder / "clip")
    return ClipSimilarity(ClipSimilarityParams(), weights={"clip": as_weights(clip)})


def make_text_area(folder: Path) -> TextArea:
    """With PP-OCRv5."""
    detector = tiny_models.save_text_detector(folder / "detector")
    # A random detector is sure of nothing: its answers are around 0.47.
    params = TextAreaParams(pixel_threshold=0.48, box_threshold=0.48)
    return TextArea(params, weights={"detector": as_weights(detector)})
