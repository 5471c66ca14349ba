"""Motion that was put into clips is what the flow stage finds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from civid_loader.errors import ModelError, StageError
from civid_loader.processing.planner import DecodePlan
from civid_loader.processing.raft import Precision
from civid_loader.processing.scores import optical_flow
from civid_loader.processing.scores.codec_motion import CodecMotion, CodecMotionParams
from civid_loader.processing.scores.optical_flow import OpticalFlow, OpticalFlowParams
from support.stages_motion import (
    clip_of,
    decoded,
    make_optical_flow,
    make_raft_stage,
    pattern_HWC,
    shifted_THWC,
    write_pan,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def _dis(**params: object) -> OpticalFlow:
    stage = OpticalFlow(OpticalFlowParams(backend="dis", **params))  # type: ignore[arg-type] # as each test has them
    stage.setup(device="cpu")
    return stage


@pytest.mark.parametrize("px_per_frame", [1, 3, 7, 15, 30])
def test_planted_motion_through_a_video(tmp_path: Path, px_per_frame: int) -> None:
    """Tolerance: 5 % or 0.15 px."""
    path = write_pan(tmp_path / "a.mp4", px_per_frame=px_per_frame, num_frames=5, fps=10, size=(360, 640))
    stage = _dis(fps=10.0, size=(360, 640))
    (row,) = stage.run([decoded(path, stage)])
    assert row["flow_mean_px"] == pytest.approx(px_per_frame, abs=max(0.15, 0.05 * px_per_frame))
    assert row["flow_mean_norm"] == pytest.approx(row["flow_mean_px"] * 10 / np.hypot(360, 640))
    assert row["flow_pairs"] == len(row["flow_per_pair"]) == 4
    assert row["flow_mean_px"] == pytest.approx(np.mean(row["flow_per_pair"]))


def test_one_px_per_frame_is_22_5_at_the_size_of_lvd2m(tmp_path: Path) -> None:
    """At 30 fps 15 px in half a second, of 640; at 960 px width 22.5."""
    path = write_pan(tmp_path / "a.mp4", px_per_frame=1, num_frames=90, fps=30, size=(360, 640))
    stage = _dis()
    (row,) = stage.run([decoded(path, stage)])
    assert row["flow_mean_px"] == pytest.approx(22.5, abs=0.3)
    assert row["flow_pairs"] == 5


def test_static_is_exactly_zero() -> None:
    (row,) = _dis(size=(128, 192)).run([clip_of(shifted_THWC(pattern_HWC(128, 192), [0, 0, 0]))])
    assert [row[name] for name in ("flow_mean_px", "flow_p95_px", "flow_top5_mean_px", "flow_mean_norm")] == [0] * 4
    assert row["flow_per_pair"] == [0, 0]
    assert "reason" not in row


def test_statistics_of_a_known_flow() -> None:
    """Lengths 0, 5, 10 ... 495 px, in any place: the top 5 % are 475 to 495."""
    lengths = np.random.default_rng(0).permutation(np.arange(0.0, 500.0, 5.0)).reshape(10, 10)
    flow = torch.from_numpy(np.stack((0.6 * lengths, -0.8 * lengths)))
    mean_px, p95_px, top_px = optical_flow._statistics(flow).tolist()
    assert mean_px == pytest.approx(247.5)
    assert p95_px == pytest.approx(np.percentile(lengths, 95))
    assert top_px == pytest.approx(485)


def test_one_frame_is_not_computable(tmp_path: Path) -> None:
    for stage in (_dis(size=(128, 128)), make_optical_flow(tmp_path)):
        stage.setup(device="cpu")
        (row,) = stage.run([clip_of(shifted_THWC(pattern_HWC(128, 128), [0]))])
        assert row.pop("not_computable") == "one frame at 2 fps; flow is between two"
        assert row.pop("flow_pairs") == 0
        assert row == dict.fromkeys(column.name for column in stage.columns if column.name != "flow_pairs")


@pytest.mark.parametrize("backend", ["dis", "raft_small"])
def test_rows_do_not_depend_on_the_batch(tmp_path: Path, backend: optical_flow.Backend) -> None:
    params = OpticalFlowParams(backend=backend, size=(128, 136), num_flow_updates=2)
    stage = OpticalFlow(params) if backend == "dis" else make_raft_stage(tmp_path, params)
    stage.setup(device="cpu")
    clips = [
        clip_of(shifted_THWC(pattern_HWC(128, 136, seed=seed), [seed * i for i in range(num_frames)]), id=str(seed))
        for seed, num_frames in enumerate((3, 1, 2, 4))
    ]
    alone = [stage.run([clip])[0] for clip in clips]
    assert [row["flow_pairs"] for row in alone] == [2, 0, 1, 3]
    assert stage.run(clips) == alone
    assert stage.run(clips[::-1]) == alone[::-1]
    assert [*stage.run(clips[:3]), *stage.run(clips[3:])] == alone


def test_upright_clips_may_be_turned(tmp_path: Path) -> None:
    """A clip on its side moves as much as the same clip upright."""
    stage = _dis(size=(128, 192), auto_orient=True)
    wide = write_pan(tmp_path / "a.mp4", px_per_frame=1, num_frames=20, fps=10, size=(128, 192))
    clip = decoded(wide, stage)
    assert clip.frames["shape"].shape[1:] == (43, 64, 3)
    tall = {name: frames.transpose(0, 2, 1, 3) for name, frames in clip.frames.items()}
    turned = replace(clip, frames={**tall, "frames": tall["upright"], "upright": tall["frames"]})
    found, upright = stage.run([clip, turned])
    assert found["flow_mean_px"] == pytest.approx(5, rel=0.05)
    assert upright["flow_mean_px"] == pytest.approx(found["flow_mean_px"], rel=0.02)
    assert set(_dis(size=(128, 192)).requests()) == {"frames"}


def test_still_clips_are_passed_over_by_their_codec_motion() -> None:
    """A clip whose value is missing or large enough has the flow it has without the parameter."""
    motions = [0.0009, 0.001, None, 0.5, 0.0]
    clips = [
        replace(
            clip_of(shifted_THWC(pattern_HWC(128, 136, seed=i), [0, 3, 6]), id=str(i)), row={"codec_motion_mean": one}
        )
        for i, one in enumerate(motions)
    ]
    expected = _dis(size=(128, 136)).run(clips)
    assert all("reason" not in row for row in expected)
    stage = _dis(size=(128, 136), min_codec_motion=0.001)
    asked: list[int] = []
    flows = stage._flows
    assert flows is not None

    def counted(frames: Sequence[npt.NDArray[np.uint8]]) -> Iterator[tuple[int, torch.Tensor]]:
        asked.append(len(frames))
        return flows(frames)

    stage._flows = counted
    found = stage.run(clips)
    assert found[1:4] == expected[1:4]
    for i, reason in ((0, "codec motion 0.0009 of height + width is below 0.001"), (4, "codec motion 0 of height")):
        assert found[i].pop("not_computable").startswith(reason)
        assert found[i].pop("flow_pairs") == 0
        assert set(found[i].values()) == {None}
    assert asked == [3], "the others are spared"
    assert [stage.run([clip])[0].get("flow_mean_px") for clip in clips] == [row["flow_mean_px"] for row in found]
    assert stage.run([clips[4]])[0]["flow_mean_px"] is None


def test_the_prefilter_needs_its_stage() -> None:
    flow, motion = _dis(size=(128, 136), min_codec_motion=0.001), CodecMotion(CodecMotionParams())
    with pytest.raises(StageError, match="stage optical_flow needs codec_motion: name it too"):
        DecodePlan.of([flow])
    assert [stage.name for stage in DecodePlan.of([flow, motion]).stages] == ["codec_motion", "optical_flow"]
    assert DecodePlan.of([_dis()]).stages[0].name == "optical_flow"


def test_infinite_flow_is_not_a_score(tmp_path: Path) -> None:
    stage = make_optical_flow(tmp_path)
    path = stage.weights["raft"].path
    torch.save({name: value * float("nan") for name, value in torch.load(path).items()}, path)
    stage.setup(device="cpu")
    (row,) = stage.run([clip_of(shifted_THWC(pattern_HWC(128, 128), [0, 1]))])
    assert row["reason"] == "the flow is not finite at precision fp32"
    assert row["flow_mean_px"] is None
    assert row["flow_pairs"] == 1


@pytest.mark.parametrize(("precision", "on_gpu"), [("fp32", "float32"), ("tf32", "tf32"), ("fp16", "float16")])
def test_the_precision_told_is_that_computed_in(precision: Precision, on_gpu: str) -> None:
    stage = OpticalFlow(OpticalFlowParams(precision=precision))
    assert (stage.dtype_on("cuda"), stage.dtype_on("cpu")) == (on_gpu, "float32")
    assert OpticalFlow(OpticalFlowParams(backend="dis", precision=precision)).dtype_on("cuda") == "float32"


def test_weights_are_named_and_needed(tmp_path: Path) -> None:
    need = OpticalFlow(OpticalFlowParams()).weights_needed()["raft"]
    assert (need.id, need.license, need.is_on_hub) == ("torchvision/raft_large-C_T_SKHT_V2", "BSD-3-Clause", False)
    small = OpticalFlow(OpticalFlowParams(backend="raft_small"))
    assert small.weights_needed()["raft"].id == "torchvision/raft_small-C_T_V2"
    assert _dis().weights_needed() == {}
    with pytest.raises(ModelError, match=r"raft_small has no weights.*--model raft=PATH.*backend dis"):
        small.setup(device="cpu")
    stage = make_optical_flow(tmp_path)
    assert stage.weights["raft"].sha256
    assert stage.fingerprint() != OpticalFlow(stage.params).fingerprint()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backend": "raft"}, "'raft' must be one of raft_large, raft_small, dis"),
        ({"precision": "bf16"}, "'bf16' must be one of fp32, tf32, fp16"),
        ({"size": (520, 964)}, r"size=\(520, 964\): raft_large takes multiples of 8 px of at least 128"),
        ({"size": (120, 960)}, "at least 128"),
        ({"num_flow_updates": 0}, "num_flow_updates=0: a whole number of at least 1"),
        ({"num_flow_updates": 2.5}, r"num_flow_updates=2\.5: a whole number"),
        ({"min_codec_motion": 0.0}, "min_codec_motion=0.0: above 0"),
    ],
)
def test_parameters_that_are_none(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpticalFlowParams(**params)  # type: ignore[arg-type] # the mistake
