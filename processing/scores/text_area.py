"""How much of a clip is covered by written text: titles, subtitles, logos (CI-VID keeps clips up to 10 %).

A PP-OCR detector says of each pixel how probably it is text. Regions above a threshold become the smallest rotated
rectangles around them; those probable enough on average are grown, as the detector was trained on shrunken ones, by
area x ratio / perimeter on each side (Liao et al. 2020, Differentiable Binarization, section 3.4). The area is that of
their union.

Legend: H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import transformers

from civid_loader.processing.pretrained import load_pretrained, read_config, unfit
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed, Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class TextAreaParams:
    """Of `TextArea`. The thresholds are those of PaddleOCR."""

    num_frames: int = 3
    """Frames looked at, at 1/4, 1/2 and 3/4 of the clip for 3."""
    pixel_threshold: float = 0.3
    """Least probability of a pixel of text, 0 to 1."""
    box_threshold: float = 0.6
    """Least mean probability in a rectangle, 0 to 1."""
    grow_ratio: float = 1.5
    """Of rectangles, see above."""
    min_side_px: float = 3.0
    """Smaller rectangles are no text; px at the detector's size."""

    def __post_init__(self) -> None:
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise ValueError(f"text_area: num_frames={self.num_frames!r}: a whole number of at least 1")
        for name in ("pixel_threshold", "box_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"text_area: {name}={getattr(self, name)!r}: from 0 to 1")
        if self.grow_ratio < 0 or self.min_side_px < 0:
            raise ValueError(f"text_area: grow_ratio={self.grow_ratio}, min_side_px={self.min_side_px}: at least 0")


class TextArea(Stage[TextAreaParams]):
    """Share of the picture that is text."""

    name = "text_area"
    version = 1
    Params = TextAreaParams
    cost = "PP-OCRv5 detector at up to 960 px, 3 frames per clip"
    columns = (
        Column(name="text_area_max", dtype="float32", doc="Area of text / area of the frame, the most of all frames."),
        Column(name="text_area_mean", dtype="float32", doc="Area of text / area of the frame, mean of frames."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {"frames": FrameRequest(mode="thirds", value=self.params.num_frames)}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        return {"detector": ModelNeed(id="PaddlePaddle/PP-OCRv5_server_det_safetensors", license="Apache-2.0")}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        self._detector: TextDetector | None = TextDetector(self.weights["detector"], role="detector", device=device)

    def teardown(self) -> None:
        """See `Stage`."""
        self._detector = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        assert self._detector is not None, "run() comes after setup()"
        shares = [text_share(self._detector(frame_HWC), self.params) for frame_HWC in clip.frames["frames"]]
        if not shares:
            return {"reason": "no frames"}
        return {"text_area_max": max(shares), "text_area_mean": sum(shares) / len(shares)}


class TextDetector:
    """Where text is in a picture."""

    def __init__(self, weights: Weights, *, role: str, device: str) -> None:
        """A detector of PP-OCR v5 or v6, of a folder.

        Raises:
            ModelError: it is no such model, or files are missing.
        """
        kind = read_config(weights, role=role).model_type
        if not (kind.startswith("pp_ocr") and kind.endswith("_det")):
            raise unfit(weights, role, f"its type {kind!r} is no detector of PP-OCR")
        try:
            kind_of_processor: Any = transformers.AutoImageProcessor
            self._prepare = kind_of_processor.from_pretrained(weights.path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise unfit(weights, role, "no preprocessor_config.json of it") from error
        self._model = load_pretrained(transformers.AutoModelForObjectDetection, weights, role=role).to(device)
        self._device = device

    @torch.inference_mode()
    def __call__(self, frame_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probability of text [H, W], 0 to 1, at the size that the detector works at."""
        # One frame at a time: no other frame can change it.
        prepared = self._prepare(images=[frame_HWC], input_data_format="channels_last", return_tensors="pt")
        output = self._model(pixel_values=prepared["pixel_values"].to(self._device))
        probability_HW: npt.NDArray[np.float32] = output.last_hidden_state[0, 0].float().cpu().numpy()
        return probability_HW


def text_share(probability_HW: npt.NDArray[np.float32], params: TextAreaParams) -> float:
    """Area of the union of the rectangles of text / area of the picture, 0 to 1."""
    regions_HW = (probability_HW > params.pixel_threshold).astype(np.uint8)
    covered_HW = np.zeros_like(regions_HW)
    for contour in cv2.findContours(regions_HW, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]:
        centre, (width, height), degrees = cv2.minAreaRect(contour)
        is_small = min(width, height) < params.min_side_px
        if is_small or _mean_within(probability_HW, (centre, (width, height), degrees)) < params.box_threshold:
            continue
        grow = 2 * width * height * params.grow_ratio / (2 * (width + height))
        corners = cv2.boxPoints((centre, (width + grow, height + grow), degrees))
        cv2.fillPoly(covered_HW, [np.rint(corners).astype(np.int32)], 1)
    return float(covered_HW.mean())


def _mean_within(values_HW: npt.NDArray[np.float32], rectangle: Any) -> float:
    corners = np.rint(cv2.boxPoints(rectangle)).astype(np.int32)
    low = np.maximum(corners.min(axis=0), 0)
    high = np.minimum(corners.max(axis=0) + 1, values_HW.shape[::-1])
    part_HW = np.ascontiguousarray(values_HW[low[1] : high[1], low[0] : high[0]])
    inside_HW = np.zeros(part_HW.shape, np.uint8)
    cv2.fillPoly(inside_HW, [corners - low], 1)
    return float(cv2.mean(part_HW, inside_HW)[0])
