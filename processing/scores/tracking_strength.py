"""How far points travel: MiraBench's tracking strength.

A grid of points lies on the first frame; p_tn is where point n is in frame t, in px of the video. The score is the mean
over t, first frame included, of the mean of ||p_tn - p_0n|| over the points still followed in t: a camera that pans by
k px per frame has k (T - 1) / 2. MiraBench follows points with CoTracker2, whose licence forbids commercial use; here
a chain of Lucas-Kanade steps follows them, or a tracker of a package that the user installed.

Legend: T frames, N points, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from typing import Any, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from civid_loader.errors import StageError
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row, Stage
from civid_loader.processing.weights import ModelNeed, Weights

GROUP: Final = "civid_loader.trackers"
"""Entry points that packages offer trackers by: `name = "package.module:Tracker"`, a class made without arguments.
The name is part of who the stage is: a tracker that gives other tracks takes another name."""


class Tracker(Protocol):
    """What follows points through the frames of a clip."""

    def weights_needed(self) -> ModelNeed | None:
        """Its model, with its licence; found as those of stages are."""
        ...

    def setup(self, *, device: str, weights: Weights | None) -> None:
        """Load it, once per worker."""
        ...

    def track(
        self, frames_THWC: npt.NDArray[np.uint8], points_N2: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.floating[Any]]:
        """Where points of the first frame are in each, [T, N, 2]: x and y in px, NaN where that is not known.

        Raises:
            ValueError: this clip cannot be tracked, and why.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingStrengthParams:
    """Of `TrackingStrength`."""

    backend: str = "lk"
    """lk, or the name of an installed tracker."""
    grid: int = 10
    """Points across and down, >= 1."""
    size: tuple[int, int] | None = (384, 512)
    """(height, width) in px that frames are stretched to for tracking, as MiraBench does; None: as they are. Tracks
    count in px of the video in either case."""
    max_frames: int | None = None
    """Of more, as many are looked at, evenly spread; None: all."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(f"tracking_strength: grid={self.grid}: at least 1 point across")


class TrackingStrength(Stage[TrackingStrengthParams]):
    """Length of point tracks."""

    name = "tracking_strength"
    version = 1
    Params = TrackingStrengthParams
    cost = "CPU, 2 ms per frame (lk)"
    columns = (
        Column(
            name="tracking_strength",
            dtype="float32",
            unit="px",
            doc="Mean distance of tracked points from where they were in the first frame.",
        ),
        Column(
            name="tracking_strength_norm",
            dtype="float32",
            doc="The same in diagonals of the picture, whatever its size.",
        ),
        Column(
            name="tracking_points",
            dtype="int32",
            doc="Points followed to the last frame; where 0, the value is of the frames before the last was lost.",
        ),
    )

    _tracker: Tracker | None = None

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        frames = FrameRequest(mode="all", size=self.params.size, max_frames=self.params.max_frames)
        # Of the native frame only the size is looked at.
        return (
            {"frames": frames}
            if self.params.size is None
            else {"frames": frames, "native": FrameRequest(mode="middle")}
        )

    def weights_needed(self) -> Mapping[str, ModelNeed]:
        """See `Stage`."""
        need = _tracker(self.params.backend).weights_needed()
        return {} if need is None else {"tracker": need}

    def setup(self, *, device: str) -> None:
        """See `Stage`."""
        self._tracker = _tracker(self.params.backend)
        self._tracker.setup(device=device, weights=self.weights.get("tracker"))

    def teardown(self) -> None:
        """See `Stage`."""
        self._tracker = None

    def run(self, batch: Sequence[ClipInput]) -> list[Row]:
        """See `Stage`."""
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipInput) -> Row:
        assert self._tracker is not None, "setup comes first"
        frames_THWC = clip.frames["frames"]
        height, width = frames_THWC.shape[1:3]
        if len(frames_THWC) < 2:
            return self._nothing(not_computable="one frame; points move between two")
        points_N2 = _grid(height, width, across=self.params.grid)
        try:
            tracks_TN2 = self._tracker.track(frames_THWC, points_N2)
        except ValueError as error:
            return self._nothing(reason=str(error))
        if tracks_TN2.shape != (len(frames_THWC), *points_N2.shape):
            raise TypeError(
                f"tracker {self.params.backend} gave tracks of shape {tracks_TN2.shape} for {len(frames_THWC)} frames "
                f"and {len(points_N2)} points; it must give [T, N, 2]"
            )
        native = clip.frames["native" if self.params.size else "frames"].shape[1:3]
        scale_2 = np.array([native[1] / width, native[0] / height])
        away_TN = np.linalg.norm((tracks_TN2 - tracks_TN2[0]) * scale_2, axis=-1)
        means_px = [float(np.mean(away[known])) for away in away_TN if (known := np.isfinite(away)).any()]
        if len(means_px) < 2:
            return self._nothing(not_computable="no point can be followed: too little texture, or too fast")
        strength_px = sum(means_px) / len(means_px)
        return {
            "tracking_strength": strength_px,
            "tracking_strength_norm": strength_px / math.hypot(*native),
            "tracking_points": int(np.isfinite(away_TN[-1]).sum()),
        }

    def _nothing(self, **why: str) -> Row:
        return {**{column.name: None for column in self.columns}, **why}


class _LucasKanade:
    """Each step from the point's last place (Bouguet's pyramidal Lucas-Kanade); lost points stay lost."""

    _WINDOW_PX: Final = 21
    _NUM_LEVELS: Final = 4

    def weights_needed(self) -> ModelNeed | None:
        """See `Tracker`."""
        return None

    def setup(self, *, device: str, weights: Weights | None) -> None:
        """See `Tracker`."""

    def track(
        self, frames_THWC: npt.NDArray[np.uint8], points_N2: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.floating[Any]]:
        """See `Tracker`."""
        height, width = frames_THWC.shape[1:3]
        tracks_TN2 = np.full((len(frames_THWC), *points_N2.shape), np.nan, np.float32)
        tracks_TN2[0] = points_N2
        greys = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC)
        for t, (before, after) in enumerate(pairwise(greys), start=1):
            known = np.flatnonzero(np.isfinite(tracks_TN2[t - 1, :, 0]))
            if not len(known):
                break
            start = tracks_TN2[t - 1, known, None]
            moved, is_found, _ = cv2.calcOpticalFlowPyrLK(
                before,
                after,
                start,
                np.zeros_like(start),
                winSize=(self._WINDOW_PX, self._WINDOW_PX),
                maxLevel=self._NUM_LEVELS - 1,
            )
            moved_N2 = moved[:, 0]
            is_inside = ((moved_N2 >= 0) & (moved_N2 <= (width - 1, height - 1))).all(axis=1)
            followed = (is_found[:, 0] == 1) & is_inside
            tracks_TN2[t, known[followed]] = moved_N2[followed]
        return tracks_TN2


def _grid(height: int, width: int, *, across: int) -> npt.NDArray[np.float32]:
    """[N, 2] x and y, rows from the top; W / 64 px off the borders, as CoTracker lays it (8 px of 512)."""
    margin_px = width / 64
    rows = np.linspace(margin_px, height - margin_px, across)
    columns = np.linspace(margin_px, width - margin_px, across)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float32)


def _tracker(name: str) -> Tracker:
    if name == "lk":
        return _LucasKanade()
    offered: dict[str, EntryPoint] = {one.name: one for one in entry_points(group=GROUP)}
    if name not in offered:
        raise StageError(
            f"there is no tracker {name!r}; there are {', '.join(sorted({'lk', *offered}))}. Others come with packages "
            f"that offer one as an entry point of the group {GROUP}"
        )
    made: Tracker = offered[name].load()()
    return made
