from typing import Any

import pytest
import torch

from civid_loader.collation import Batch, blank_like, collate, frame_rates
from civid_loader.transforms.interleave import VideoItem
from support.samples import a_sample


def sample(
    name: str,
    *,
    num_clips: int = 1,
    num_frames: int = 2,
    size: tuple[int, int] = (4, 6),
    dtype: torch.dtype = torch.uint8,
) -> dict[str, Any]:
    return {
        "sample_id": name,
        "clip_ids": [f"{name}-{n}" for n in range(num_clips)],
        "frames_NTCHW": torch.full((num_clips, num_frames, 3, *size), 7, dtype=dtype),
        "mask_NT": torch.ones((num_clips, num_frames), dtype=torch.bool),
        "pts_seconds_NT": torch.full((num_clips, num_frames), 0.5, dtype=torch.float64),
        "texts": [f"text {name}-{n}" for n in range(num_clips)],
    }


def test_clips_and_frames_are_padded() -> None:
    batch = collate([sample("a", num_clips=3, num_frames=1), sample("b", num_clips=1, num_frames=4)])
    assert batch.frames_BNTCHW.shape == (2, 3, 4, 3, 4, 6)
    assert batch.mask_BNT.tolist() == [
        [[True, False, False, False]] * 3,
        [[True] * 4, [False] * 4, [False] * 4],
    ]
    assert torch.equal(batch.frames_BNTCHW, batch.mask_BNT[..., None, None, None].expand(2, 3, 4, 3, 4, 6) * 7)
    assert torch.equal(batch.pts_seconds_BNT, batch.mask_BNT * 0.5)
    assert batch.texts == [["text a-0", "text a-1", "text a-2"], ["text b-0", None, None]]
    assert batch.clip_ids == [["a-0", "a-1", "a-2"], ["b-0", None, None]]
    assert batch.sample_ids == ["a", "b"]
    assert (batch.frames_BNTCHW.dtype, batch.mask_BNT.dtype) == (torch.uint8, torch.bool)
    assert batch.pts_seconds_BNT.dtype == torch.float64


def test_a_batch_is_a_copy() -> None:
    one = sample("a")
    batch = collate([one])
    one["frames_NTCHW"].zero_()
    assert int(batch.frames_BNTCHW.min()) == 7


@pytest.mark.parametrize(
    ("other", "described"),
    [
        (sample("b", size=(4, 8)), "4x8 px, 3 channels, torch.uint8"),
        (sample("b", dtype=torch.float32), "torch.float32"),
    ],
)
def test_frames_that_differ_name_both_samples_and_the_cure(other: dict[str, Any], described: str) -> None:
    with pytest.raises(ValueError, match=rf"samples a and b .* 4x6 px.*{described}; pass size=\(height, width\)"):
        collate([sample("a"), sample("a2"), other])
    with pytest.raises(ValueError, match="no samples"):
        collate([])


def test_to_a_device() -> None:
    batch = collate([sample("a")])
    moved = batch.to("meta", non_blocking=True)
    assert {moved.frames_BNTCHW.device.type, moved.mask_BNT.device.type, moved.pts_seconds_BNT.device.type} == {"meta"}
    assert (moved.texts, moved.sample_ids, moved.clip_ids) == (batch.texts, batch.sample_ids, batch.clip_ids)
    assert batch.frames_BNTCHW.device.type == "cpu"


def test_pin_memory_pins_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[tuple[int, ...]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tuple(tensor.shape))
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batch = collate([sample("a")]).pin_memory()
    assert isinstance(batch, Batch)
    assert pinned == [(1, 1, 2, 3, 4, 6), (1, 1, 2), (1, 1, 2), (1, 1), (1,)]


def test_weights_and_what_transforms_added() -> None:
    batch = collate([sample("a") | {"weight": 0.0, "gain": 2}, sample("b") | {"gain": 3}])
    assert batch.weights_B.tolist() == [0, 1]
    assert batch.extras == {"gain": [2, 3]}
    assert collate([sample("a")]).extras == {}


def test_rates_are_those_of_the_frames_given() -> None:
    batch = collate([a_sample(5, 1, fps=25.0), a_sample(3, 0, fps=4.0)])
    assert batch.fps_BN[:, 0].tolist() == pytest.approx([25, 4])
    assert batch.fps_BN[:, 1].isnan().all(), "of one frame there is no rate, nor of none"
    unordered = torch.tensor([1.0, 0.0, 0.5, 9.0])
    assert float(frame_rates(unordered, torch.tensor([True, True, True, False]))) == 2
    assert frame_rates(torch.ones(3), torch.ones(3, dtype=torch.bool)).isnan(), "the same frame again and again"
    assert batch.padding_share == pytest.approx(11 / 20)


def test_what_transforms_added_is_stacked_where_it_can_be() -> None:
    one, two = a_sample(2, 2) | {"note": "a"}, a_sample(2) | {"note": "b"}
    one |= {"tokens": {"input_ids": torch.ones((2, 5)), "lengths": [5, 5]}, "area": torch.tensor(0.5)}
    two |= {"tokens": {"input_ids": torch.ones((1, 5)), "lengths": [5]}, "area": torch.tensor(0.25)}
    extras = collate([one, two]).extras
    assert extras["note"] == ["a", "b"]
    assert extras["area"].tolist() == [0.5, 0.25]
    assert extras["tokens"]["input_ids"].tolist() == [[[1] * 5] * 2, [[1] * 5, [0] * 5]]
    assert extras["tokens"]["lengths"] == [[5, 5], [5]]
    two["tokens"] = {"input_ids": torch.ones((1, 7)), "lengths": [7]}
    assert [ids.shape for ids in collate([one, two]).extras["tokens"]["input_ids"]] == [(2, 5), (1, 7)]


def test_tensors_move_however_deep_they_lie() -> None:
    item = VideoItem(clip_index=0, frames_TCHW=torch.zeros((1, 3, 2, 2)), pts_seconds_T=torch.zeros(1))
    sample = a_sample(2) | {"items": (item,), "tokens": {"input_ids": torch.ones((1, 5))}}
    moved = collate([sample]).to("meta")
    assert moved.extras["items"][0][0].frames_TCHW.is_meta
    assert moved.extras["tokens"]["input_ids"].is_meta
    assert moved.fps_BN.is_meta


def test_an_empty_place_has_all_that_the_others_have() -> None:
    good = a_sample(2, 2) | {"tokens": {"input_ids": torch.ones((2, 5))}, "note": "a"}
    batch = collate([good, blank_like(good, sample_id="bad")])
    assert batch.extras["tokens"]["input_ids"].shape == (2, 2, 5)
    assert not batch.extras["tokens"]["input_ids"][1].any()
    assert (batch.extras["note"], batch.sample_ids) == (["a", None], ["s0", "bad"])
