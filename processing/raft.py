"""Optical flow by RAFT (Teed and Deng, ECCV 2020), each frame encoded once.

The parts are torchvision's, with its weights; only the order of work is ours. torchvision's forward takes pairs, so of
T frames in a row it encodes all but two twice, and it scales the flow up after each update. Here features of a frame
serve both its pairs, and only the last flow is scaled up: at 520 x 960, 12 updates of raft_large, 678 instead of
818 GFLOP per pair of a 10 s clip at 2 fps. In float32 the flow is the same.

Legend: B pairs or frames of a batch, T frames, C = 3 channels (RGB), D feature channels, H height, W width in px;
h = H / 8, w = W / 8; S = 2 radius + 1 samples across a correlation window.
"""
# ruff: noqa: N803, N806 - tensors carry their shape.

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torchvision.models.optical_flow import RAFT, raft_large, raft_small

from civid_loader.errors import ModelError

Architecture = Literal["raft_large", "raft_small"]
Precision = Literal["fp32", "tf32", "fp16"]

MULTIPLE_PX: Final = 8
"""Heights and widths are multiples of this."""
MIN_PX: Final = 128
"""Smallest height and width: the coarsest of the four correlation levels needs two values each way."""
GPU_BATCH: Final = 8
"""Pairs, and frames, at once on a GPU. A pair at 520 x 960 takes 322 MB for its correlations."""

_Place: TypeAlias = tuple[int, int]
"""(number of a clip, number of a frame in it)."""


def load_raft(path: Path, *, architecture: Architecture) -> RAFT:
    """The model with the weights of a `.pth` file of torchvision's; only tensors are read from it.

    Raises:
        ModelError: the file is none, or holds the weights of something else.
    """
    model = {"raft_large": raft_large, "raft_small": raft_small}[architecture](weights=None)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{path.name} does not hold the weights of {architecture}, or is damaged ({type(error).__name__}); name "
            "the .pth file that torchvision publishes for it"
        ) from error
    return model.eval()


class Raft:
    """Flow between the frames of clips.

    Batches always have the same shape, the last ones filled up with what is thrown away: libraries choose their
    kernels by the shape, so the flow of a pair does not depend on what it is computed with.
    """

    def __init__(
        self,
        model: RAFT,
        *,
        device: str = "cpu",
        num_flow_updates: int = 12,
        precision: Precision = "fp32",
        batch: int | None = None,
    ) -> None:
        """Takes the model over.

        Args:
            model: torchvision's, large or small, with weights.
            device: cpu or cuda.
            num_flow_updates: >= 1; torchvision's default is 12.
            precision: of encoders and updates on a GPU; the CPU computes in float32. Correlation, coordinates and flow
                are float32 everywhere, as RAFT's authors advise (princeton-vl/RAFT, issue 54).
            batch: pairs, and frames, at once; None: 1 on the CPU, else `GPU_BATCH`.
        """
        if precision not in get_args(Precision):
            raise ValueError(f"precision={precision!r} must be one of {', '.join(get_args(Precision))}")
        self._model = model.eval().to(device)
        self._device = torch.device(device)
        self._num_flow_updates = num_flow_updates
        self._precision = precision
        self._batch = batch or (GPU_BATCH if self._device.type == "cuda" else 1)
        radius = int(model.corr_block.radius)
        steps_S = torch.arange(-radius, radius + 1, dtype=torch.float32, device=self._device)
        # The first axis of a window steps along x: so the weights were trained.
        self._window_SS2 = torch.stack(torch.meshgrid(steps_S, steps_S, indexing="ij"), dim=-1)

    @torch.no_grad()
    def flows(self, clips_THWC: Sequence[npt.NDArray[np.uint8]]) -> Iterator[tuple[int, torch.Tensor]]:
        """Of each pair of neighbours, in order: (number of the clip, flow [2, H, W] in px, x and y).

        Flows are float32, on the device. What is kept at a time are the features of about three batches of frames and
        the correlations of one batch of pairs.

        Args:
            clips_THWC: RGB, all of one size; a clip of one frame has no pair.
        """
        pairs = [(clip, t) for clip, frames in enumerate(clips_THWC) for t in range(len(frames) - 1)]
        frames = sorted({place for clip, t in pairs for place in ((clip, t), (clip, t + 1))})
        features = _Encoded(self._encoder(self._model.feature_encoder, clips_THWC), frames, batch=self._batch)
        contexts = _Encoded(self._encoder(self._model.context_encoder, clips_THWC), pairs, batch=self._batch)
        for start in range(0, len(pairs), self._batch):
            real = pairs[start : start + self._batch]
            filled = _filled(real, self._batch)
            with self._exact():
                flow_B2HW = self._flow(
                    features.take(filled), features.take([(clip, t + 1) for clip, t in filled]), contexts.take(filled)
                )
            for (clip, _), flow_2HW in zip(real, flow_B2HW, strict=False):
                yield clip, flow_2HW
            for encoded in (features, contexts):
                encoded.forget(up_to=real[-1])

    def _encoder(
        self, encoder: torch.nn.Module, clips_THWC: Sequence[npt.NDArray[np.uint8]]
    ) -> Callable[[Sequence[_Place]], torch.Tensor]:
        def encode(places: Sequence[_Place]) -> torch.Tensor:
            images_BHWC = torch.from_numpy(np.stack([clips_THWC[clip][t] for clip, t in places])).to(self._device)
            images_BCHW = images_BHWC.permute(0, 3, 1, 2).contiguous()
            with self._exact(), self._reduced():
                maps_BDhw: torch.Tensor = encoder((images_BCHW / 255 - 0.5) / 0.5)
            return maps_BDhw.float()

        return encode

    def _flow(self, first_BDhw: torch.Tensor, second_BDhw: torch.Tensor, context_BDhw: torch.Tensor) -> torch.Tensor:
        """[B, 2, H, W], from the maps of both frames and the context of the first (paper, sections 3.2 and 3.3)."""
        height, width = first_BDhw.shape[2:]
        levels = _correlations(first_BDhw, second_BDhw, num_levels=int(self._model.corr_block.num_levels))
        start_B2hw = _pixels(height, width, self._device).expand(len(first_BDhw), -1, -1, -1)
        target_B2hw = start_B2hw
        num_hidden = int(self._model.update_block.hidden_state_size)
        with self._reduced():
            hidden = torch.tanh(context_BDhw[:, :num_hidden])
            context = torch.relu(context_BDhw[:, num_hidden:])
            for _ in range(self._num_flow_updates):
                correlation = self._look_up(levels, target_B2hw)
                hidden, step_B2hw = self._model.update_block(hidden, context, correlation, target_B2hw - start_B2hw)
                target_B2hw = target_B2hw + step_B2hw.float()
            mask = None if self._model.mask_predictor is None else self._model.mask_predictor(hidden)
        return _upsampled(target_B2hw - start_B2hw, None if mask is None else mask.float())

    def _look_up(self, levels: Sequence[torch.Tensor], target_B2hw: torch.Tensor) -> torch.Tensor:
        """[B, levels S S, h, w]: each level around where each pixel is thought to have gone."""
        num_pairs, _, height, width = target_B2hw.shape
        centres = target_B2hw.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found = []
        for level, correlation in enumerate(levels):
            at = centres / 2**level + self._window_SS2
            rows, columns = correlation.shape[2:]
            at = torch.stack((2 * at[..., 0] / (columns - 1) - 1, 2 * at[..., 1] / (rows - 1) - 1), dim=-1)
            window = F.grid_sample(correlation, at, mode="bilinear", align_corners=True)
            found.append(window.view(num_pairs, height, width, -1))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2).contiguous()

    def _reduced(self) -> AbstractContextManager[Any]:
        """Where less than float32 is allowed."""
        # Weights are cast once per block, so a block goes around all updates.
        return torch.autocast("cuda", torch.float16, enabled=self._precision == "fp16" and self._device.type == "cuda")

    def _exact(self) -> AbstractContextManager[Any]:
        """No TF32 but where it is asked for, and kernels chosen by shape alone."""
        stack = ExitStack()
        if self._device.type == "cuda":
            tf32 = self._precision == "tf32"
            flags: Any = torch.backends.cudnn.flags
            stack.enter_context(flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32))
        return stack


class _Encoded:
    """Maps of frames, computed batch by batch as they are asked for in order."""

    def __init__(
        self, encode: Callable[[Sequence[_Place]], torch.Tensor], places: Sequence[_Place], *, batch: int
    ) -> None:
        self._encode, self._places, self._batch = encode, places, batch
        self._next = 0
        self._maps: dict[_Place, torch.Tensor] = {}

    def take(self, places: Sequence[_Place]) -> torch.Tensor:
        """[B, D, h, w]."""
        while max(places) not in self._maps:
            coming = self._places[self._next : self._next + self._batch]
            self._maps.update(zip(coming, self._encode(_filled(coming, self._batch)), strict=False))
            self._next += self._batch
        return torch.stack([self._maps[place] for place in places])

    def forget(self, *, up_to: _Place) -> None:
        """Maps that are not asked for again."""
        for place in [place for place in self._maps if place <= up_to]:
            del self._maps[place]


def _filled(places: Sequence[_Place], batch: int) -> list[_Place]:
    return [*places, *[places[-1]] * (batch - len(places))]


def _pixels(height: int, width: int, device: torch.device) -> torch.Tensor:
    """[2, h, w]: x and y of each pixel."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack((columns, rows)).float()


def _correlations(first_BDhw: torch.Tensor, second_BDhw: torch.Tensor, *, num_levels: int) -> list[torch.Tensor]:
    """[B h w, 1, h', w'] per level: each pixel of the first frame against all of the second, by level half as many."""
    num_pairs, depth, height, width = first_BDhw.shape
    correlation = torch.matmul(first_BDhw.flatten(2).transpose(1, 2), second_BDhw.flatten(2))
    correlation = correlation.div_(math.sqrt(depth)).view(num_pairs * height * width, 1, height, width)
    levels = [correlation]
    for _ in range(num_levels - 1):
        levels.append(F.avg_pool2d(levels[-1], kernel_size=2, stride=2))
    return levels


def _upsampled(flow_B2hw: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[B, 2, H, W] in px of the full size: mixed from 3 x 3 neighbours as the mask says (paper, appendix B)."""
    num_pairs, _, height, width = flow_B2hw.shape
    scale = MULTIPLE_PX
    if mask is None:
        return scale * F.interpolate(flow_B2hw, scale_factor=scale, mode="bilinear", align_corners=True)
    shares = torch.softmax(mask.view(num_pairs, 1, 9, scale, scale, height, width), dim=2)
    neighbours = F.unfold(scale * flow_B2hw, kernel_size=3, padding=1).view(num_pairs, 2, 9, 1, 1, height, width)
    mixed = (shares * neighbours).sum(dim=2)
    return mixed.permute(0, 1, 4, 2, 5, 3).reshape(num_pairs, 2, height * scale, width * scale)
