"""Points travel as far as the picture was moved."""
# ruff: noqa: N803 - arrays carry their shape.

from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from civid_loader.cli import app
from civid_loader.errors import AnnotationError, StageError
from civid_loader.processing.scores import tracking_strength
from civid_loader.processing.scores.tracking_strength import TrackingStrength, TrackingStrengthParams
from civid_loader.processing.weights import ModelNeed, Weights, find_weights
from support.stages_motion import clip_of, decoded, pattern_HWC, shifted_THWC, write_pan

NATIVE = TrackingStrengthParams(size=None)


def _stage(params: TrackingStrengthParams) -> TrackingStrength:
    stage = TrackingStrength(params)
    stage.setup(device="cpu")
    return stage


@pytest.mark.parametrize("px_per_frame", [1, 3, 6])
@pytest.mark.parametrize("size", [None, (384, 512)])
def test_a_pan_through_a_video(tmp_path: Path, px_per_frame: int, size: tuple[int, int] | None) -> None:
    """k px per frame over T frames: k (T - 1) / 2, in px of the video whatever the size of tracking."""
    path = write_pan(tmp_path / "a.mp4", px_per_frame=px_per_frame, num_frames=16, fps=25, size=(240, 320))
    stage = _stage(TrackingStrengthParams(size=size))
    (row,) = stage.run([decoded(path, stage)])
    assert row["tracking_strength"] == pytest.approx(px_per_frame * 15 / 2, rel=0.1)
    assert row["tracking_strength_norm"] == pytest.approx(row["tracking_strength"] / 400)
    # The points of the right border leave the picture.
    assert 60 <= row["tracking_points"] <= 90


def test_there_and_back() -> None:
    shifts_px = [0, 2, 4, 2, 0, -2, -4, -2] * 2
    (row,) = _stage(NATIVE).run([clip_of(shifted_THWC(pattern_HWC(240, 320), shifts_px, axis=0))])
    assert row["tracking_strength"] == pytest.approx(np.abs(shifts_px).mean(), rel=0.1)


def test_static_does_not_move() -> None:
    (row,) = _stage(NATIVE).run([clip_of(shifted_THWC(pattern_HWC(240, 320), [0] * 5))])
    assert row["tracking_strength"] == pytest.approx(0, abs=1e-3)
    assert row["tracking_points"] == 100


def test_points_that_all_leave_count_until_then() -> None:
    """12 px per frame of 320: after 26 frames nothing of the first is left; the mean is of those before."""
    (row,) = _stage(NATIVE).run([clip_of(shifted_THWC(pattern_HWC(64, 320), [12 * i for i in range(40)]))])
    assert row["tracking_points"] == 0
    assert row["tracking_strength"] == pytest.approx(np.mean([12 * i for i in range(27)]), rel=0.1)


def test_what_cannot_be_followed_has_no_score() -> None:
    grey = np.full((3, 64, 64, 3), 128, np.uint8)
    moving = clip_of(shifted_THWC(pattern_HWC(64, 64), [0, 1]))
    one, flat, found = _stage(NATIVE).run([clip_of(grey[:1]), clip_of(grey), moving])
    empty = {"tracking_strength": None, "tracking_strength_norm": None, "tracking_points": None}
    assert one == {**empty, "not_computable": "one frame; points move between two"}
    assert flat == {**empty, "not_computable": "no point can be followed: too little texture, or too fast"}
    assert found["tracking_strength"] == pytest.approx(0.5, rel=0.1)


def test_rows_do_not_depend_on_the_batch() -> None:
    stage = _stage(NATIVE)
    clips = [clip_of(shifted_THWC(pattern_HWC(96, 128, seed=k), [k * i for i in range(2 + k)])) for k in range(4)]
    alone = [stage.run([clip])[0] for clip in clips]
    assert stage.run(clips) == alone
    assert stage.run(clips[::-1]) == alone[::-1]


class FakeTracker:
    """Moves points 1 px to the right and 0.5 px down per frame; loses the first point after t = 1."""

    def weights_needed(self) -> ModelNeed | None:
        return ModelNeed(id="fake/tracker", license="CC-BY-NC-4.0", is_noncommercial=True)

    def setup(self, *, device: str, weights: Weights | None) -> None:
        assert weights is not None
        assert weights.path.read_text() == "weights"

    def track(self, frames_THWC: npt.NDArray[np.uint8], points_N2: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not frames_THWC.any():
            raise ValueError("all black")
        steps = np.arange(len(frames_THWC), dtype=np.float32)[:, None, None]
        tracks = points_N2 + steps * np.array([1, 0.5], np.float32)
        tracks[2:, 0] = np.nan
        return tracks


class ShortTracker(FakeTracker):
    def track(self, frames_THWC: npt.NDArray[np.uint8], points_N2: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return points_N2[None]


def _offer(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    def found(*, group: str) -> EntryPoints:
        assert group == "civid_loader.trackers"
        return EntryPoints(EntryPoint(name, f"{__name__}:{name}", group) for name in names)

    monkeypatch.setattr(tracking_strength, "entry_points", found)
    monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[self.attr])


def test_a_package_may_offer_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, ["FakeTracker"])
    (tmp_path / "w.pt").write_text("weights")
    params = TrackingStrengthParams(backend="FakeTracker", size=(64, 64), grid=4)
    need = TrackingStrength(params).weights_needed()["tracker"]
    assert need.is_noncommercial
    accepted = frozenset({"fake/tracker"})
    weights = find_weights("tracker", need, given=str(tmp_path / "w.pt"), may_download=False, accepted=accepted)
    stage = TrackingStrength(params, weights={"tracker": weights})
    stage.setup(device="cpu")
    frames, native = np.ones((5, 64, 64, 3), np.uint8), np.ones((1, 128, 192, 3), np.uint8)
    row, black = stage.run([clip_of(frames, native=native), clip_of(0 * frames, native=native)])
    # A px of 64 is 3 px of 192 across, half a px of 64 is 1 px of 128 down.
    assert row["tracking_strength"] == pytest.approx(np.hypot(3, 1) * 2)
    assert row["tracking_points"] == 15
    assert black["reason"] == "all black"
    assert stage.fingerprint() != TrackingStrength(params).fingerprint()


def test_its_licence_is_accepted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, ["FakeTracker"])
    (tmp_path / "w.pt").write_text("weights")
    command = ["process", str(tmp_path), "--stage", 'tracking_strength:{"backend": "FakeTracker"}']
    command += ["--model", f"tracker={tmp_path / 'w.pt'}"]
    refused = CliRunner().invoke(app, command).exception
    assert "fake/tracker (tracker) is under CC-BY-NC-4.0, which forbids commercial use" in str(refused)
    accepted = CliRunner().invoke(app, [*command, "--accept-license", "fake/tracker"]).exception
    assert isinstance(accepted, AnnotationError), "the licence is no matter any more; the folder is no dataset"


def test_a_tracker_must_give_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, ["ShortTracker"])
    stage = TrackingStrength(TrackingStrengthParams(backend="ShortTracker", size=None))
    stage._tracker = ShortTracker()
    with pytest.raises(TypeError, match=r"tracker ShortTracker gave tracks of shape \(1, 100, 2\) for 3 frames"):
        stage.run([clip_of(np.ones((3, 64, 64, 3), np.uint8))])


def test_trackers_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, ["FakeTracker"])
    with pytest.raises(StageError, match=r"no tracker 'cotracker'; there are FakeTracker, lk.*civid_loader\.trackers"):
        TrackingStrength(TrackingStrengthParams(backend="cotracker")).weights_needed()
    with pytest.raises(ValueError, match="grid=0: at least 1 point across"):
        TrackingStrengthParams(grid=0)
