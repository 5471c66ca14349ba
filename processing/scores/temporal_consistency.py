"""How much a clip stays the same over time, from embeddings of its frames (MiraBench and VBench consistency).

With cosines cut off below 0 of the embeddings e_t of frames t = 0 .. T-1:

    adj = mean over t >= 1 of cos(e_{t-1}, e_t)
    vbench = mean over t >= 1 of (cos(e_{t-1}, e_t) + cos(e_0, e_t)) / 2

The text of the MiraBench paper has `adj`, its code and that of VBench (subject and background consistency) `vbench`.
There DINO v1 ViT-B/16 sees whole frames and CLIP ViT-B/32 their centres, as here; of every frame, where by default we
look at two per second, and with the CLIP that other stages use.

Legend: T frames, D dimensions of the embedding.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from civid_loader.processing.embeddings import ImageEncoder, encoder_frames, load_image_encoder
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed

Encoder = Literal["dino", "clip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalConsistencyParams:
    """Of `TemporalConsistency`."""

    encoders: tuple[Encoder, ...] = ("dino", "clip")
    """Whose embeddings: DINO's are about the subject, CLIP's about the whole scene."""
    fps: float | None = 2.0
    """Frames per second looked at; None: every frame, as MiraBench has it."""

    def __post_init__(self) -> None:
        if not self.encoders or (wrong := [one for one in self.encoders if one not in get_args(Encoder)]):
            told = repr(wrong[0]) if self.encoders else "nothing"
            raise ValueError(f"temporal_consistency: encoders has {told}, must be of {', '.join(get_args(Encoder))}")


class TemporalConsistency(Stage[TemporalConsistencyParams]):
    """Likeness of frames to the one before and to the first."""

    name = "temporal_consistency"
    version = 1
    Params = TemporalConsistencyParams
    cost = "DINO ViT-B/16 and CLIP ViT-L/14, 35 to 62 and 162 GFLOP per frame"
    columns = (
        Column(name="tc_dino_adj", dtype="float32", doc="DINO, cosine to the frame before, 0 to 1."),
        Column(
            name="tc_dino_vbench", dtype="float32", doc="DINO, cosine to the frame before and to the first, 0 to 1."
        ),
        Column(name="tc_clip_adj", dtype="float32", doc="CLIP, cosine to the frame before, 0 to 1."),
        Column(
            name="tc_clip_vbench", dtype="float32", doc="CLIP, cosine to the frame before and to the first, 0 to 1."
        ),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {"frames": encoder_frames(self.params.fps)}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        models = {
            "dino": ModelNeed(id="facebook/dino-vitb16", license="Apache-2.0"),
            "clip": ModelNeed(id="openai/clip-vit-large-patch14", license="MIT"),
        }
        return {name: models[name] for name in sorted(set(self.params.encoders))}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        self._encoders: dict[str, ImageEncoder] = {
            role: load_image_encoder(self.weights[role], role=role, device=device, crop=role == "clip")
            for role in self.weights_needed()
        }

    def teardown(self) -> None:
        """See `Stage`."""
        self._encoders = {}

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        rows: list[Row] = [{} for _ in batch]
        for role, encoder in self._encoders.items():
            embedded = encoder.embed(batch, name="frames", request=self.requests()["frames"])
            for row, one_TD in zip(rows, embedded, strict=True):
                if len(one_TD) < 2:
                    row["not_computable"] = "fewer than two frames"
                else:
                    adj, vbench = consistency(one_TD)
                    row |= {f"tc_{role}_adj": adj, f"tc_{role}_vbench": vbench}
        return rows


def consistency(embedded_TD: torch.Tensor) -> tuple[float, float]:
    """`adj` and `vbench` of two frames or more, see above."""
    embedded_TD = embedded_TD.double()
    unit_TD = embedded_TD / embedded_TD.norm(dim=1, keepdim=True)
    before_T = (unit_TD[:-1] * unit_TD[1:]).sum(dim=1).clamp(min=0)
    first_T = (unit_TD[:1] * unit_TD[1:]).sum(dim=1).clamp(min=0)
    return float(before_T.mean()), float((before_T + first_T).mean() / 2)
