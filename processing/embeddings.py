"""Frames and texts to embeddings, with CLIP, SigLIP and DINO encoders; computed once for all stages that want them.

An encoder always gets the same number of frames at once, the last time padded with black: a forward over another
number of frames takes other kernels, whose sums differ in the last digits (5e-7 of embeddings of size 3, ViT-B, CPU).
With the number fixed, neither a frame's neighbours nor its place among them change a bit of its embedding.

Legend: N images, T frames, H height, W width, C = 3 channels (RGB), D dimensions.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from weakref import WeakValueDictionary

import torch
import transformers
from torchvision.transforms.v2 import functional
from torchvision.transforms.v2.functional import InterpolationMode

from civid_loader.processing.pretrained import load_pretrained, read_config, unfit
from civid_loader.processing.stage import ClipInput, FrameRequest
from civid_loader.processing.weights import Weights

_CLIP: Final = ("clip", "clip_vision_model")
_SIGLIP: Final = ("siglip", "siglip_vision_model")
_DINO: Final = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
_FRAMES_AT_ONCE: Final = {"cpu": 8, "cuda": 64}
_SIDE_PX: Final = 224


def encoder_frames(fps: float | None) -> FrameRequest:
    """The frames that encoders look at: short side 224 px, bicubic with antialiasing; None: every frame.

    Stages that ask with it for the same `fps` share decoding, resizing and embeddings.
    """
    size = (_SIDE_PX, _SIDE_PX)
    if fps is None:
        return FrameRequest(mode="all", size=size, resize="short_side", interpolation="bicubic")
    return FrameRequest(mode="fps", value=fps, size=size, resize="short_side", interpolation="bicubic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What an encoder wants done to frames, as its `preprocessor_config.json` says."""

    size: tuple[int, int] | None
    """(height, width) in px that it takes; None: whatever comes."""
    is_stretched: bool
    """To `size`, the aspect ratio lost; else the centre is cut out of the frame, its short side made to fit."""
    mean: tuple[float, ...]
    """[C], of values 0 to 1."""
    std: tuple[float, ...]
    """[C]."""

    @classmethod
    def read(cls, weights: Weights, *, role: str, crop: bool = True) -> "Preparation":
        """That of a model folder; without `crop` frames keep their size.

        Raises:
            ModelError: it has none, or one that is not about this.
        """
        path = weights.path / "preprocessor_config.json"
        try:
            said = json.loads(path.read_text("utf-8"))
            whole, part = said.get("size", _SIDE_PX), said.get("crop_size")
            is_stretched = part is None or not said.get("do_center_crop", True)
            size = _height_width(whole if is_stretched else part)
            mean, std = tuple(map(float, said["image_mean"])), tuple(map(float, said["image_std"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unfit(weights, role, f"no {path.name} with image_mean, image_std and size") from error
        return cls(size=size if crop else None, is_stretched=is_stretched, mean=mean, std=std)

    def fit(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """Frames at `size`; uint8 like they came. Those of a request of that short side are only cut."""
        if self.size is None:
            return frames_TCHW
        height, width = frames_TCHW.shape[2:]
        if self.is_stretched:
            target = self.size
        else:
            scale = max(self.size[0] / height, self.size[1] / width)
            target = max(self.size[0], round(height * scale)), max(self.size[1], round(width * scale))
        if target != (height, width):
            bicubic = InterpolationMode.BICUBIC
            frames_TCHW = functional.resize(frames_TCHW, list(target), interpolation=bicubic, antialias=True)
        cropped: torch.Tensor = functional.center_crop(frames_TCHW, list(self.size))
        return cropped

    def normalize(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """uint8 to float32, around 0."""
        mean, std = (torch.tensor(one, device=images_NCHW.device).view(-1, 1, 1) for one in (self.mean, self.std))
        return (images_NCHW.float() / 255 - mean) / std


def _height_width(said: Any) -> tuple[int, int]:
    """Sizes as preprocessor configs write them: 224, {"shortest_edge": 224} or {"height": 224, "width": 224}."""
    if isinstance(said, dict):
        edge = said.get("shortest_edge")
        return (int(edge), int(edge)) if edge else (int(said["height"]), int(said["width"]))
    return int(said), int(said)


class ImageEncoder:
    """Frames of clips to embeddings."""

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        preparation: Preparation,
        *,
        key: Any,
        device: str,
        num_dimensions: int,
    ) -> None:
        """See `load_image_encoder`.

        Args:
            model: [N, C, H, W] to [N, D], on `device`.
            preparation: what it wants done before.
            key: tells it from others, for what stages share.
            device: cpu or cuda.
            num_dimensions: D.
        """
        self.key = key
        self.num_dimensions = num_dimensions
        self._model, self._preparation, self._device = model, preparation, torch.device(device)
        self._at_once = _FRAMES_AT_ONCE[self._device.type]

    def embed(self, batch: Sequence[ClipInput], *, name: str, request: FrameRequest) -> list[torch.Tensor]:
        """Of each clip, its frames' embeddings [T, D], float32, on the CPU, not normalised.

        Those that another stage left in `ClipInput.shared` are taken from there, and new ones are left for the next.
        """
        key = (self.key, request)
        missing = list({id(clip.shared): clip for clip in batch if key not in clip.shared}.values())
        fitted = [
            self._preparation.fit(torch.from_numpy(clip.frames[name]).permute(0, 3, 1, 2).contiguous())
            for clip in missing
        ]
        for shape in dict.fromkeys(one.shape[1:] for one in fitted):
            same = [i for i, one in enumerate(fitted) if one.shape[1:] == shape]
            counts = [len(fitted[i]) for i in same]
            found_ND = self._forward(torch.cat([fitted[i] for i in same]))
            for i, found_TD in zip(same, torch.split(found_ND, counts), strict=True):
                missing[i].shared[key] = found_TD
        return [clip.shared[key] for clip in batch]

    @torch.inference_mode()
    def _forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        parts = []
        for part_NCHW in torch.split(images_NCHW, self._at_once):
            padding = (0, 0, 0, 0, 0, 0, 0, self._at_once - len(part_NCHW))
            padded_NCHW = torch.nn.functional.pad(part_NCHW, padding).to(self._device)
            embedded_ND = self._model(self._preparation.normalize(padded_NCHW))
            parts.append(embedded_ND[: len(part_NCHW)].float().cpu())
        return torch.cat(parts)


_LOADED: Final[WeakValueDictionary[tuple[Any, str], ImageEncoder]] = WeakValueDictionary()
"""Encoders in use by stages of this process: each is loaded once."""


def load_image_encoder(weights: Weights, *, role: str, device: str, crop: bool = True) -> ImageEncoder:
    """The image encoder of a model folder.

    CLIP gives its projected embedding; SigLIP and SigLIP 2 (of fixed resolution) their pooled one; DINO v1, v2 and v3
    the CLS token after the last normalisation.

    Args:
        weights: the folder.
        role: of the stage, for messages.
        device: cpu or cuda.
        crop: cut the centre out of frames, as the model was trained; else all of a frame is looked at, of any size.

    Raises:
        ModelError: it is no such model, or files are missing.
    """
    key = (json.dumps(weights.identity, sort_keys=True), crop)
    encoder = _LOADED.get((key, device))
    if encoder is None:
        preparation = Preparation.read(weights, role=role, crop=crop)
        config = read_config(weights, role=role)
        kind = config.model_type
        if kind in _CLIP:
            options = {"config": _clip_half(config, "vision_config")}
            model = load_pretrained(transformers.CLIPVisionModelWithProjection, weights, role=role, **options)
        elif kind in _SIGLIP:
            model = load_pretrained(transformers.SiglipVisionModel, weights, role=role)
        elif kind in _DINO:
            options = {"add_pooling_layer": False} if kind == "vit" else {}
            model = load_pretrained(transformers.AutoModel, weights, role=role, **options)
        else:
            raise unfit(weights, role, f"its type {kind!r} is none of {', '.join((*_CLIP, *_SIGLIP, *_DINO))}")
        # Models of other types do this unasked.
        any_size = {"interpolate_pos_encoding": True} if not crop and kind in (*_CLIP, *_SIGLIP, "vit") else {}
        dimensions = config.projection_dim if kind in _CLIP else model.config.hidden_size
        pooled = _Pooled(model.to(device), any_size)
        encoder = ImageEncoder(pooled, preparation, key=key, device=device, num_dimensions=dimensions)
        _LOADED[key, device] = encoder
    return encoder


@dataclass(frozen=True, slots=True)
class _Pooled:
    """One embedding per image."""

    model: Any
    options: dict[str, Any]

    def __call__(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        output = self.model(pixel_values=images_NCHW, **self.options)
        for name in ("image_embeds", "pooler_output"):
            found_ND: torch.Tensor | None = getattr(output, name, None)
            if found_ND is not None:
                return found_ND
        first_ND: torch.Tensor = output.last_hidden_state[:, 0]
        return first_ND


class TextEncoder:
    """Texts to embeddings in the space of a CLIP's images."""

    def __init__(self, weights: Weights, *, role: str, device: str) -> None:
        """The text half of a CLIP folder.

        Raises:
            ModelError: it is no CLIP, or files are missing.
        """
        config = read_config(weights, role=role)
        if config.model_type != "clip":
            raise unfit(weights, role, f"its type {config.model_type!r} has no texts; 'clip' has")
        half = _clip_half(config, "text_config")
        model = load_pretrained(transformers.CLIPTextModelWithProjection, weights, role=role, config=half)
        self._model, self._device = model.to(device), device
        self._max_tokens = int(model.config.max_position_embeddings)
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(weights.path, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise unfit(weights, role, "no tokenizer") from error

    @torch.inference_mode()
    def embed(self, text: str) -> tuple[torch.Tensor, bool]:
        """Embedding [D], float32, on the CPU, not normalised; and whether the text is longer than it can read.

        Of a longer one the beginning is read, and the end-of-text token that the embedding is taken at.
        """
        # One text at a time and nothing padded: no other text can change it.
        tokens = self._tokenizer(text, truncation=True, max_length=self._max_tokens, return_overflowing_tokens=True)
        ids_1L = torch.tensor([tokens["input_ids"][0]], device=self._device)
        output: Any = self._model(input_ids=ids_1L)
        return output.text_embeds[0].float().cpu(), len(tokens["input_ids"]) > 1


def _clip_half(config: Any, name: Literal["vision_config", "text_config"]) -> Any:
    """Of a CLIP's config that of its image or text half, with the number of dimensions that both project to.

    That is written once, for both; a half has its own, which need not be right.
    """
    half = getattr(config, name, config)
    half.projection_dim = config.projection_dim
    return half
