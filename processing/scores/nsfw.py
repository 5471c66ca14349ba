"""Whether a clip is safe for work, with the safety checker of Stable Diffusion.

A frame's embedding is compared with 17 concepts, each of which has a threshold; three more, about which special care
is taken, lower them. With cosine similarities s_j to those and c_k to the concepts, and thresholds w:

    adjustment = 0.01 if any round(s_j - w_j, 3) > 0 else 0
    margin_k = round(c_k - w_k + adjustment, 3); the frame is not safe iff any margin_k > 0

The rule is of the StableDiffusionSafetyChecker of diffusers. There the adjustment also helps those special concepts
that come after the first one found, which changes nothing: it is on then already. The checker's image encoder is a
CLIP ViT-L/14 of its own.

Legend: N images, T frames, K concepts, D dimensions.
"""
# ruff: noqa: N803, N806, N815 - tensors carry their shape.

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file

from civid_loader.processing.embeddings import ImageEncoder, Preparation
from civid_loader.processing.pretrained import read_config, unfit
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed, Weights

_ADJUSTMENT: Final = 0.01
_CONCEPTS: Final = ("concept_embeds", "concept_embeds_weights", "special_care_embeds", "special_care_embeds_weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class NsfwParams:
    """Of `Nsfw`."""

    num_frames: int = 8
    """Frames looked at, evenly spread."""


class Nsfw(Stage[NsfwParams]):
    """Not safe for work."""

    name = "nsfw"
    version = 1
    Params = NsfwParams
    cost = "CLIP ViT-L/14, 162 GFLOP per frame"
    columns = (
        Column(name="nsfw_score", dtype="float32", doc="Largest margin of all frames and concepts; > 0: not safe."),
        Column(name="nsfw_frames", dtype="int32", doc="Frames that are not safe."),
        Column(name="nsfw", dtype="bool", doc="Whether any frame is not safe."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        count = self.params.num_frames
        bicubic = FrameRequest(
            mode="uniform_mid", value=count, size=(224, 224), resize="short_side", interpolation="bicubic"
        )
        return {"frames": bicubic}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        checker = ModelNeed(id="CompVis/stable-diffusion-safety-checker", license="CreativeML OpenRAIL-M")
        return {"safety_checker": checker}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        checker = _load_checker(self.weights["safety_checker"], role="safety_checker", device=device)
        self._encoder: ImageEncoder | None = checker[0]
        self._concepts = checker[1]

    def teardown(self) -> None:
        """See `Stage`."""
        self._encoder = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        assert self._encoder is not None, "run() comes after setup()"
        embedded = self._encoder.embed(batch, name="frames", request=self.requests()["frames"])
        return [self._row(one_TD) for one_TD in embedded]

    def _row(self, embedded_TD: torch.Tensor) -> Row:
        if not len(embedded_TD):
            return {"reason": "no frames"}
        worst_T = self._concepts.margins(embedded_TD).amax(dim=1)
        num_unsafe = int((worst_T > 0).sum())
        return {"nsfw_score": float(worst_T.max()), "nsfw_frames": num_unsafe, "nsfw": num_unsafe > 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Concepts:
    """What frames are compared with. All are float32, as released."""

    embeds_KD: torch.Tensor
    thresholds_K: torch.Tensor
    special_embeds_KD: torch.Tensor
    special_thresholds_K: torch.Tensor

    def margins(self, embedded_TD: torch.Tensor) -> torch.Tensor:
        """By how much each frame is over the threshold of each concept, [T, K], float64, to three decimals."""
        special_TK = _cosines(embedded_TD, self.special_embeds_KD) - self.special_thresholds_K.double()
        is_special_T = (special_TK.round(decimals=3) > 0).any(dim=1)
        margins_TK = _cosines(embedded_TD, self.embeds_KD) - self.thresholds_K.double()
        return torch.round(margins_TK + _ADJUSTMENT * is_special_T[:, None], decimals=3)


def _cosines(one_TD: torch.Tensor, other_KD: torch.Tensor) -> torch.Tensor:
    one_TD, other_KD = one_TD.double(), other_KD.double()
    lengths_TK = torch.outer(one_TD.norm(dim=1), other_KD.norm(dim=1))
    return torch.mm(one_TD, other_KD.T) / lengths_TK


def _load_checker(weights: Weights, *, role: str, device: str) -> tuple[ImageEncoder, Concepts]:
    """The checker's image encoder and concepts, of a folder with `model.safetensors`.

    Raises:
        ModelError: files or weights are missing.
    """
    config = read_config(weights, role=role)
    preparation = Preparation.read(weights, role=role)
    path = weights.path / "model.safetensors"
    try:
        state = load_file(path)
        concepts = [state.pop(name) for name in _CONCEPTS]
        half = config.vision_config
        half.projection_dim = len(state["visual_projection.weight"])
        model: Any = transformers.CLIPVisionModelWithProjection(half)
        # Its file is of the time when transformers kept the encoder one level deeper, and where each patch is.
        doubled = "vision_model.vision_model."
        renamed = {
            key.replace(doubled, "vision_model.", 1): value
            for key, value in state.items()
            if not key.endswith("position_ids")
        }
        model.load_state_dict(renamed)
    except (OSError, SafetensorError, KeyError, AttributeError, RuntimeError) as error:
        raise unfit(weights, role, f"{path} is no safety checker of Stable Diffusion: {error}") from error
    model.eval().requires_grad_(False).to(device)

    def embed(images_NCHW: torch.Tensor) -> torch.Tensor:
        embeds_ND: torch.Tensor = model(pixel_values=images_NCHW).image_embeds
        return embeds_ND

    key = json.dumps(weights.identity, sort_keys=True)
    encoder = ImageEncoder(embed, preparation, key=key, device=device, num_dimensions=half.projection_dim)
    embeds_KD, thresholds_K, special_embeds_KD, special_thresholds_K = concepts
    return encoder, Concepts(
        embeds_KD=embeds_KD,
        thresholds_K=thresholds_K,
        special_embeds_KD=special_embeds_KD,
        special_thresholds_K=special_thresholds_K,
    )
