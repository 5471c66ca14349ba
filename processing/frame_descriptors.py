"""Vectors that say what frames look like, so that frames can be compared: weight-free ones, and those of a model.

The weight-free ones are ours and stand in for the papers' networks (ImageBind, DINOv2) where there are no weights: they
know colours and edges, not things. Cosines of one are not those of another; each says which thresholds suit it.

Legend: T frames, H height, W width, C = 3 channels (RGB), D dimensions.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from civid_loader.errors import MissingDependencyError, ModelError
from civid_loader.processing.weights import ModelNeed, find_weights

Frames = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

_SIDE_PX: Final = 96
_CELLS: Final = 4
_HUES: Final = 12
_LEVELS: Final = 6
_DIRECTIONS: Final = 8


class Embedder(Protocol):
    """Vectors of frames. Picklable; equal identities give equal vectors."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the vectors, as plain values."""

    @property
    def same_scene_at_least(self) -> float | None:
        """Cosine from which on the ends of two cuts show one thing going on; None: not known."""

    def __call__(self, frames_THWC: Frames) -> Vectors:
        """float32 [T, D] of uint8 RGB frames [T, H, W, C]."""


@dataclass(frozen=True, slots=True)
class ColourHistogram:
    """Colours, by where they are: hue by saturation, and lightness, in 4 x 4 cells; square roots, so that a cosine is a
    Bhattacharyya coefficient."""

    version: ClassVar[int] = 1
    same_scene_at_least: ClassVar[float | None] = 0.9
    """Of 10 cuts of three short films, those within a take gave 0.99 and more, those to another 0.81 and less."""

    @property
    def identity(self) -> dict[str, Any]:
        """See `Embedder`."""
        return {"descriptor": "colour_histogram", "version": self.version}

    def __call__(self, frames_THWC: Frames) -> Vectors:
        """See `Embedder`."""
        return np.stack([_colours(_small(frame)) for frame in frames_THWC])


@dataclass(frozen=True, slots=True)
class GradientHistogram:
    """Edges: their directions in 4 x 4 cells, weighted by how strong they are, without what all cells share."""

    version: ClassVar[int] = 1
    same_scene_at_least: ClassVar[float | None] = 0.6
    """Of the same cuts: 0.97 and more, and 0.45 and less."""

    @property
    def identity(self) -> dict[str, Any]:
        """See `Embedder`."""
        return {"descriptor": "gradient_histogram", "version": self.version}

    def __call__(self, frames_THWC: Frames) -> Vectors:
        """See `Embedder`."""
        return np.stack([_gradients(_small(frame)) for frame in frames_THWC])


@dataclass(frozen=True, slots=True)
class ColourGradient:
    """Both of the above side by side, each of length 1: the weight-free stand-in for ImageBind. Not the paper's."""

    version: ClassVar[int] = 1
    same_scene_at_least: ClassVar[float | None] = None

    @property
    def identity(self) -> dict[str, Any]:
        """See `Embedder`."""
        return {"descriptor": "colour_gradient", "version": self.version}

    def __call__(self, frames_THWC: Frames) -> Vectors:
        """See `Embedder`."""
        small = [_small(frame) for frame in frames_THWC]
        return np.stack([np.concatenate([_colours(image), _gradients(image)]) for image in small])


@dataclass(frozen=True, slots=True)
class ModelEmbedder:
    """A vision model of transformers (DINOv2, CLIP, SigLIP) in a folder, on the CPU or the first GPU."""

    folder: str
    """With config, preprocessor and safetensors; nothing is downloaded."""
    sha256: str
    """Of its files."""
    same_scene_at_least: ClassVar[float | None] = None

    @classmethod
    def of(cls, folder: str | Path) -> "ModelEmbedder":
        """The model of a folder.

        Raises:
            ModelError: no folder with a model's config.
        """
        path = Path(folder).resolve()
        if not (path / "config.json").is_file():
            raise ModelError(f"{folder}: no config.json, so no model folder of transformers")
        found = find_weights("embedding", ModelNeed(id=path.name, license=""), given=str(path), may_download=False)
        return cls(folder=str(path), sha256=str(found.sha256))

    @property
    def identity(self) -> dict[str, Any]:
        """See `Embedder`."""
        return {"model": Path(self.folder).name, "sha256": self.sha256}

    def __call__(self, frames_THWC: Frames) -> Vectors:
        """See `Embedder`; one frame at a time, so that vectors do not depend on what else is asked."""
        import torch

        processor, model, device = _loaded(self.folder)
        vectors = []
        with torch.inference_mode():
            for frame in frames_THWC:
                inputs = processor(images=frame, return_tensors="pt").to(device)
                # Two towers (CLIP, SigLIP) have a method for pictures; its result is a tensor before transformers 5.
                found = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
                vector = found if isinstance(found, torch.Tensor) else found.pooler_output
                vectors.append(vector[0].float().cpu().numpy())
        return np.stack(vectors)


@lru_cache(maxsize=1)
def _loaded(folder: str) -> tuple[Any, Any, str]:
    try:
        import torch
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise MissingDependencyError(
            f"an embedding model needs {error.name}: pip install 'civid_loader[process]'"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    auto_processor: Any = AutoImageProcessor  # whose methods have no types
    processor = auto_processor.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return processor, model.eval().to(device), device


def _small(frame_HWC: Frames) -> Frames:
    small = cv2.resize(np.ascontiguousarray(frame_HWC), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _cells(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[H, W] -> [cells, pixels of a cell]"""
    side = _SIDE_PX // _CELLS
    return image.reshape(_CELLS, side, _CELLS, side).swapaxes(1, 2).reshape(_CELLS**2, -1)


def _counted(bins: npt.NDArray[Any], weights: npt.NDArray[Any], num_bins: int) -> npt.NDArray[np.float64]:
    """[cells, num_bins]: weights by bin, in each cell."""
    of_cells = zip(_cells(bins), _cells(weights), strict=True)
    return np.stack([np.bincount(cell, weights=weight, minlength=num_bins) for cell, weight in of_cells])


def _colours(image_HWC: Frames) -> Vectors:
    hsv_HWC = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2HSV).astype(np.int64)
    colourful = hsv_HWC[..., 1] * hsv_HWC[..., 2] / 255**2
    hues = _counted(hsv_HWC[..., 0] * _HUES // 180, colourful, _HUES)
    levels = _counted(hsv_HWC[..., 2] * _LEVELS // 256, 1 - 0.5 * colourful, _LEVELS)
    return _unit(np.sqrt(np.concatenate([hues, levels], axis=1)).ravel())


def _gradients(image_HWC: Frames) -> Vectors:
    luma = cv2.GaussianBlur(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    down, right = np.gradient(luma)
    strength = np.hypot(down, right)
    direction = (np.arctan2(down, right) % np.pi) / np.pi
    bins = np.minimum((direction * _DIRECTIONS).astype(np.int64), _DIRECTIONS - 1)
    counted = np.sqrt(_counted(bins, strength, _DIRECTIONS))
    return _unit((counted - counted.mean()).ravel())


def _unit(vector: npt.NDArray[np.float64]) -> Vectors:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
