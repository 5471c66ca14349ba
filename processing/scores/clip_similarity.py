"""How well a clip's caption fits what is seen, by CLIP (CLIPScore, Hessel et al. 2021, without its factor 2.5).

clip_similarity = mean over frames of cos(e_t, c), of the embeddings e_t of frames and c of the caption.

Legend: T frames, D dimensions of the embedding.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from civid_loader.processing.embeddings import ImageEncoder, TextEncoder, encoder_frames, load_image_encoder
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed
from civid_loader.schema import SINGLE_CAPTION_KINDS


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSimilarityParams:
    """Of `ClipSimilarity`."""

    caption_kind: str = "short"
    """The clip's first caption of this kind is read; of the kinds of `schema.CAPTION`."""
    fps: float = 2.0
    """Frames per second looked at."""

    def __post_init__(self) -> None:
        if self.caption_kind not in SINGLE_CAPTION_KINDS:
            kinds = ", ".join(SINGLE_CAPTION_KINDS)
            raise ValueError(f"clip_similarity: caption_kind is {self.caption_kind!r}, must be one of {kinds}")


class ClipSimilarity(Stage[ClipSimilarityParams]):
    """Likeness of caption and frames."""

    name = "clip_similarity"
    version = 1
    Params = ClipSimilarityParams
    cost = "CLIP ViT-L/14, 162 GFLOP per frame"
    columns = (
        Column(name="clip_similarity", dtype="float32", doc="Mean cosine of frames and caption, -1 to 1."),
        Column(name="clip_similarity_min", dtype="float32", doc="That of the frame that fits least."),
        Column(name="clip_similarity_cut", dtype="bool", doc="Whether the caption is longer than the 77 tokens read."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {"frames": encoder_frames(self.params.fps)}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        return {"clip": ModelNeed(id="openai/clip-vit-large-patch14", license="MIT")}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        self._texts: TextEncoder | None = TextEncoder(self.weights["clip"], role="clip", device=device)
        self._images: ImageEncoder | None = load_image_encoder(self.weights["clip"], role="clip", device=device)

    def teardown(self) -> None:
        """See `Stage`."""
        self._texts = self._images = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        assert self._images is not None, "run() comes after setup()"
        texts = [self._caption(clip) for clip in batch]
        told = [clip for clip, text in zip(batch, texts, strict=True) if text is not None]
        embedded = iter(self._images.embed(told, name="frames", request=self.requests()["frames"]))
        kind = self.params.caption_kind
        return [
            {"not_computable": f"no caption of kind {kind}"} if text is None else self._row(text, next(embedded))
            for text in texts
        ]

    def _caption(self, clip: ClipInput) -> str | None:
        captions = clip.row.get("captions") or ()
        texts = [one["text"] for one in captions if one["kind"] == self.params.caption_kind]
        return next((text for text in texts if text and text.strip()), None)

    def _row(self, text: str, embedded_TD: torch.Tensor) -> Row:
        assert self._texts is not None, "run() comes after setup()"
        if not len(embedded_TD):
            return {"reason": "no frames"}
        text_D, is_cut = self._texts.embed(text)
        cosines_T = torch.cosine_similarity(embedded_TD.double(), text_D.double()[None], dim=1)
        return {
            "clip_similarity": float(cosines_T.mean()),
            "clip_similarity_min": float(cosines_T.min()),
            "clip_similarity_cut": is_cut,
        }
