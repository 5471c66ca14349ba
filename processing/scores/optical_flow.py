"""How much moves: optical flow between frames half a second apart (LVD-2M, section 3; RAFT at 520 x 960, 2 fps).

m_p is the length of the flow at a pixel p, in px of the analysed size per sampling interval. LVD-2M keeps clips with a
mean of at least 20; its own clips have 47.8, WebVid's 12.1.

Still clips can be passed over by the motion they are coded with, see stage codec_motion: with `min_codec_motion` they
have no flow and say so. Their frames are decoded all the same, with those of all stages; what is spared is the model,
which takes most of the time.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch

from civid_loader.errors import ModelError
from civid_loader.processing.raft import MIN_PX, MULTIPLE_PX, Precision, Raft, load_raft
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed, Weights

Backend = Literal["raft_large", "raft_small", "dis"]
_Clip: TypeAlias = npt.NDArray[np.uint8]
_Flows: TypeAlias = Callable[[Sequence[_Clip]], Iterator[tuple[int, torch.Tensor]]]

_CHECKPOINTS: Final = {"raft_large": "C_T_SKHT_V2-ff5fadd5", "raft_small": "C_T_V2-01064c6d"}
"""As the weights of torchvision name them: `Raft_Large_Weights.C_T_SKHT_V2.url`."""
_URL: Final = "https://download.pytorch.org/models"
_TOP_SHARE: Final = 0.05
"""Of MiraBench's dynamic degree, as in VBench."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpticalFlowParams:
    """Of `OpticalFlow`."""

    backend: Backend = "raft_large"
    """raft_large or raft_small with torchvision's weights; dis: OpenCV's DIS (Kroeger et al., ECCV 2016), preset
    medium, which needs none."""
    num_flow_updates: int = 12
    """Of RAFT, >= 1; MiraBench makes 20."""
    fps: float = 2.0
    """Frames per second looked at."""
    size: tuple[int, int] = (520, 960)
    """(height, width) in px that frames are stretched to; for RAFT multiples of 8 of at least 128."""
    auto_orient: bool = False
    """Clips higher than wide at (width, height) instead; LVD-2M stretches them too."""
    precision: Precision = "fp32"
    """Of RAFT's encoders and updates on a GPU; the CPU always computes in float32."""
    min_codec_motion: float | None = None
    """`codec_motion_mean`, a share of height + width, below which a clip is still and gets no flow; 0.00098 in NeMo
    Curator. Clips without that value get theirs. None: all do, and stage codec_motion is not needed."""

    def __post_init__(self) -> None:
        for value, options in ((self.backend, Backend), (self.precision, Precision)):
            if value not in get_args(options):
                raise ValueError(f"optical_flow: {value!r} must be one of {', '.join(get_args(options))}")
        if not isinstance(self.num_flow_updates, int) or self.num_flow_updates < 1:
            raise ValueError(f"optical_flow: num_flow_updates={self.num_flow_updates!r}: a whole number of at least 1")
        if self.backend != "dis" and any(side < MIN_PX or side % MULTIPLE_PX for side in self.size):
            raise ValueError(
                f"optical_flow: size={self.size}: {self.backend} takes multiples of {MULTIPLE_PX} px of at least "
                f"{MIN_PX}, as (520, 960); or choose backend dis"
            )
        if self.min_codec_motion is not None and not self.min_codec_motion > 0:
            raise ValueError(f"optical_flow: min_codec_motion={self.min_codec_motion}: above 0; None judges all clips")


class OpticalFlow(Stage[OpticalFlowParams]):
    """Amount of motion."""

    name = "optical_flow"
    version = 1
    Params = OpticalFlowParams
    cost = "GPU, 0.7 TFLOP per frame (raft_large)"
    columns = (
        Column(
            name="flow_mean_px",
            dtype="float32",
            unit="px",
            doc="Mean of m_p over pixels, then over pairs of frames: the score of LVD-2M.",
        ),
        Column(name="flow_p95_px", dtype="float32", unit="px", doc="95th percentile of m_p, mean over pairs."),
        Column(
            name="flow_top5_mean_px",
            dtype="float32",
            unit="px",
            doc="Mean of the largest 5 % of m_p, mean over pairs: the dynamic degree of MiraBench.",
        ),
        Column(
            name="flow_mean_norm",
            dtype="float32",
            unit="1/s",
            doc="flow_mean_px in diagonals of the analysed size per second; whatever the size and the sampling rate.",
        ),
        Column(name="flow_pairs", dtype="int32", doc="Pairs of frames looked at."),
        Column(name="flow_per_pair", dtype="list<float32>", unit="px", doc="Mean of m_p of each pair, in order."),
    )

    _flows: _Flows | None = None

    def __init__(self, params: OpticalFlowParams, *, weights: Mapping[str, Weights] | None = None) -> None:
        """See `Stage`."""
        super().__init__(params, weights=weights)
        self.needs = () if params.min_codec_motion is None else ("codec_motion",)

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        height, width = self.params.size
        wide = FrameRequest(mode="fps", value=self.params.fps, size=(height, width))
        if not self.params.auto_orient:
            return {"frames": wide}
        # Stretched frames do not tell how a clip stands; a small one at its own aspect ratio does.
        upright = FrameRequest(mode="fps", value=self.params.fps, size=(width, height))
        return {
            "frames": wide,
            "upright": upright,
            "shape": FrameRequest(mode="middle", size=(64, 64), resize="long_side"),
        }

    def dtype_on(self, device: str) -> str:
        """See `Stage`."""
        on_gpu = {"fp32": "float32", "tf32": "tf32", "fp16": "float16"}
        return on_gpu[self.params.precision] if device == "cuda" and self.params.backend != "dis" else "float32"

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        if self.params.backend == "dis":
            return {}
        checkpoint = _CHECKPOINTS[self.params.backend]
        id_ = f"torchvision/{self.params.backend}-{checkpoint.partition('-')[0]}"
        url = f"{_URL}/{self.params.backend}_{checkpoint}.pth"
        return {"raft": ModelNeed(id=id_, license="BSD-3-Clause", is_on_hub=False, url=url)}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        if self.params.backend == "dis":
            self._flows = _dis_flows
            return
        if "raft" not in self.weights:
            raise ModelError(
                f"optical_flow: {self.params.backend} has no weights; fetch torchvision's with --download, or name the "
                ".pth file: --model raft=PATH; or choose backend dis, which needs none"
            )
        model = load_raft(self.weights["raft"].path, architecture=self.params.backend)
        self._flows = Raft(
            model,
            device=device,
            num_flow_updates=self.params.num_flow_updates,
            precision=self.params.precision,
        ).flows

    def teardown(self) -> None:
        """See `Stage`."""
        self._flows = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        assert self._flows is not None, "setup comes first"
        spared = [self._spared(clip) for clip in batch]
        clips = [self._frames(clip) for clip, row in zip(batch, spared, strict=True) if row is None]
        found: list[list[torch.Tensor]] = [[] for _ in clips]
        # RAFT takes pairs of several clips together, where they are of one size.
        for size in sorted({frames.shape[1:] for frames in clips}):
            alike = [number for number, frames in enumerate(clips) if frames.shape[1:] == size]
            for place, flow_2HW in self._flows([clips[number] for number in alike]):
                found[alike[place]].append(_statistics(flow_2HW))
        judged = iter(found)
        return [self._row(next(judged)) if row is None else row for row in spared]

    def _spared(self, clip: ClipInput) -> Row | None:
        """The row of a clip too still to be looked at; None: it is not."""
        least, motion = self.params.min_codec_motion, clip.row.get("codec_motion_mean")
        if least is None or motion is None or motion >= least:
            return None
        return self._nothing(0, not_computable=f"codec motion {motion:.3g} of height + width is below {least:g}")

    def _frames(self, clip: ClipInput) -> _Clip:
        if not self.params.auto_orient:
            return clip.frames["frames"]
        height, width = clip.frames["shape"].shape[1:3]
        return clip.frames["upright" if height > width else "frames"]

    def _row(self, pairs: Sequence[torch.Tensor]) -> Row:
        if not pairs:
            return self._nothing(0, not_computable=f"one frame at {self.params.fps:g} fps; flow is between two")
        values = torch.stack(list(pairs)).cpu()
        if not values.isfinite().all():
            return self._nothing(len(pairs), reason=f"the flow is not finite at precision {self.params.precision}")
        mean_px, p95_px, top_px = values.mean(dim=0).tolist()
        return {
            "flow_mean_px": mean_px,
            "flow_p95_px": p95_px,
            "flow_top5_mean_px": top_px,
            "flow_mean_norm": mean_px / math.hypot(*self.params.size) * self.params.fps,
            "flow_pairs": len(pairs),
            "flow_per_pair": values[:, 0].tolist(),
        }

    def _nothing(self, num_pairs: int, **why: str) -> Row:
        return {**{column.name: None for column in self.columns}, "flow_pairs": num_pairs, **why}


def _statistics(flow_2HW: torch.Tensor) -> torch.Tensor:
    """[3] float64: mean, 95th percentile and mean of the top 5 % of the lengths of a flow, in px."""
    lengths = torch.linalg.vector_norm(flow_2HW.double(), dim=0).flatten()
    position = (1 - _TOP_SHARE) * (len(lengths) - 1)  # between two of them, as numpy.percentile has it
    below = math.floor(position)
    top = lengths.topk(len(lengths) - below).values
    p95 = torch.lerp(top[-1], top[-2], position - below)
    return torch.stack((lengths.mean(), p95, top[: max(1, int(_TOP_SHARE * len(lengths)))].mean()))


def _dis_flows(clips_THWC: Sequence[_Clip]) -> Iterator[tuple[int, torch.Tensor]]:
    """See `Raft.flows`."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for clip, frames_THWC in enumerate(clips_THWC):
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC]
        for first, second in pairwise(greys):
            no_guess = np.zeros((*first.shape, 2), np.float32)
            yield clip, torch.from_numpy(dis.calc(first, second, no_guess)).permute(2, 0, 1)
