"""How beautiful a clip is, from CLIP embeddings, with the LAION aesthetic predictors.

score = w . e / |e| + b, of the CLIP ViT-L/14 embedding e of a frame; about 1 to 10. Head v1 (LAION-AI/
aesthetic-predictor) is this map; head v2 (christophschuhmann/improved-aesthetic-predictor) has five linear layers
with nothing but dropout between them, which together are one such map, and it is used as one.

Legend: T frames, D dimensions of the embedding.
"""
# ruff: noqa: N803, N806, N815 - tensors carry their shape.

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from civid_loader.processing.embeddings import ImageEncoder, encoder_frames, load_image_encoder
from civid_loader.processing.pretrained import unfit
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed, Weights

Head = Literal["v1", "v2"]
Reduction = Literal["mean", "median"]
_V1_URL: Final = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"


@dataclass(frozen=True, kw_only=True, slots=True)
class AestheticParams:
    """Of `Aesthetic`."""

    heads: tuple[Head, ...] = ("v2",)
    """Predictors asked: v1 is LAION's own, v2 the improved one."""
    fps: float = 2.0
    """Frames per second looked at."""
    reduction: Reduction = "mean"
    """Of the frames' scores to the clip's."""

    def __post_init__(self) -> None:
        given: list[tuple[str, object]] = [("heads", Head), ("reduction", Reduction)]
        for (name, options), values in zip(given, (self.heads, (self.reduction,)), strict=True):
            if not values or (wrong := [one for one in values if one not in get_args(options)]):
                told = repr(wrong[0]) if values else "nothing"
                raise ValueError(f"aesthetic: {name} has {told}, must be of {', '.join(get_args(options))}")


class Aesthetic(Stage[AestheticParams]):
    """Aesthetic scores."""

    name = "aesthetic"
    version = 1
    Params = AestheticParams
    cost = "CLIP ViT-L/14, 162 GFLOP per frame"
    columns = (
        Column(name="aesthetic_v1", dtype="float32", doc="Score of head v1, about 1 to 10; mean or median of frames."),
        Column(name="aesthetic_v1_min", dtype="float32", doc="That of the worst frame."),
        Column(name="aesthetic_v2", dtype="float32", doc="Score of head v2, about 1 to 10; mean or median of frames."),
        Column(name="aesthetic_v2_min", dtype="float32", doc="That of the worst frame."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {"frames": encoder_frames(self.params.fps)}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        heads = {
            "v1": ModelNeed(
                id="LAION-AI/aesthetic-predictor/sa_0_4_vit_l_14_linear", license="MIT", is_on_hub=False, url=_V1_URL
            ),
            "v2": ModelNeed(id="ttj/sac-logos-ava1-l14-linearMSE", license="Apache-2.0"),
        }
        clip = ModelNeed(id="openai/clip-vit-large-patch14", license="MIT")
        return {"clip": clip, **{f"head_{name}": heads[name] for name in self.params.heads}}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        encoder = load_image_encoder(self.weights["clip"], role="clip", device=device)
        self._heads: dict[Head, AffineHead] = {}
        for name in sorted(set(self.params.heads)):
            role = f"head_{name}"
            head = AffineHead.read(self.weights[role], role=role)
            if len(head.weight_D) != encoder.num_dimensions:
                what = f"it takes {len(head.weight_D)} dimensions, clip has {encoder.num_dimensions}"
                raise unfit(self.weights[role], role, what)
            self._heads[name] = head
        self._encoder: ImageEncoder | None = encoder

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
        row: Row = {}
        for name, head in self._heads.items():
            scores_T = head(embedded_TD)
            middle = scores_T.mean() if self.params.reduction == "mean" else scores_T.quantile(0.5)
            row |= {f"aesthetic_{name}": float(middle), f"aesthetic_{name}_min": float(scores_T.min())}
        return row


@dataclass(frozen=True, slots=True)
class AffineHead:
    """Embedding to score."""

    weight_D: torch.Tensor
    """float64."""
    bias: float

    @classmethod
    def read(cls, weights: Weights, *, role: str) -> "AffineHead":
        """Of a .pth or .safetensors file, or the folder that it is alone in.

        Linear layers `<name>.<number>.weight` and `.bias` follow each other by number; one may have no name at all.

        Raises:
            ModelError: there is no such file, or its layers are not such.
        """
        state = _read_state(weights, role=role)
        names = sorted((key.removesuffix("weight") for key in state if key.endswith("weight")), key=_number)
        try:
            weight, bias = state[f"{names[0]}weight"].double(), state[f"{names[0]}bias"].double()
            for name in names[1:]:
                step = state[f"{name}weight"].double()
                weight, bias = step @ weight, step @ bias + state[f"{name}bias"].double()
            return cls(weight.view(bias.numel(), -1).squeeze(0), bias.item())  # which is of one number, or raises
        except (IndexError, KeyError, RuntimeError, ValueError) as error:
            told = ", ".join(f"{key} {list(value.shape)}" for key, value in list(state.items())[:6]) or "none"
            raise unfit(weights, role, f"its weights ({told}) are no linear layers down to one number") from error

    def __call__(self, embedded_TD: torch.Tensor) -> torch.Tensor:
        """Scores [T], float64, of embeddings of any length."""
        embedded_TD = embedded_TD.double()
        scores_T: torch.Tensor = torch.mv(embedded_TD, self.weight_D) / embedded_TD.norm(dim=1) + self.bias
        return scores_T


def _number(name: str) -> int:
    """Of the layer `layers.4.`: 4."""
    digits = [int(part) for part in name.split(".") if part.isdigit()]
    return digits[-1] if digits else 0


def _read_state(weights: Weights, *, role: str) -> dict[str, torch.Tensor]:
    path = weights.path
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix in (".safetensors", ".pth"))
        if len(found) != 1:
            raise unfit(weights, role, f"{path} has {len(found)} files .safetensors or .pth, must have one")
        path = found[0]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise unfit(weights, role, f"{path} cannot be read as weights") from error
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise unfit(weights, role, f"{path} has no table of weights")
    return state
