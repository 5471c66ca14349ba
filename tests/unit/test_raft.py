"""RAFT with frames encoded once gives what torchvision's own forward gives."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.models.optical_flow import RAFT

from civid_loader.errors import ModelError
from civid_loader.processing.raft import Raft, load_raft
from support.stages_motion import random_raft

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Images = npt.NDArray[np.uint8]


def _noise(num_frames: int, height: int, width: int, *, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def _stock(model: RAFT, frames: Images, *, num_flow_updates: int) -> torch.Tensor:
    """Flow [T - 1, 2, H, W] by torchvision's forward."""
    images = (torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous() / 255 - 0.5) / 0.5
    with torch.no_grad():
        found: torch.Tensor = model(images[:-1], images[1:], num_flow_updates=num_flow_updates)[-1]
    return found


def _ours(model: RAFT, clips: list[Images], *, num_flow_updates: int, batch: int | None) -> list[list[torch.Tensor]]:
    """Flows by clip."""
    found: list[list[torch.Tensor]] = [[] for _ in clips]
    for clip, flow in Raft(model, num_flow_updates=num_flow_updates, batch=batch).flows(clips):
        found[clip].append(flow)
    return found


@pytest.mark.parametrize(
    ("size", "num_frames", "num_flow_updates", "batch"),
    [((128, 128), 2, 12, None), ((136, 168), 5, 2, 1), ((136, 168), 5, 2, 3), ((128, 192), 3, 3, 2)],
)
def test_raft_large_equals_torchvision_to_the_last_bit(
    size: tuple[int, int], num_frames: int, num_flow_updates: int, batch: int | None
) -> None:
    model, frames = random_raft(large=True), _noise(num_frames, *size)
    expected = _stock(model, frames, num_flow_updates=num_flow_updates)
    found = torch.stack(_ours(model, [frames], num_flow_updates=num_flow_updates, batch=batch)[0])
    assert found.dtype == torch.float32
    assert float(expected.abs().mean()) > 0.1
    assert float((found - expected).abs().max()) == 0


@pytest.mark.parametrize("batch", [1, 3])
def test_raft_small_equals_torchvision_up_to_its_own_rounding(batch: int) -> None:
    """torchvision's own result moves by 4e-5 px with the number of pairs."""
    model, frames = random_raft(large=False), _noise(5, 136, 168)
    expected = _stock(model, frames, num_flow_updates=12)
    found = torch.stack(_ours(model, [frames], num_flow_updates=12, batch=batch)[0])
    assert float(expected.abs().mean()) > 1
    assert float((found - expected).abs().max()) < 2e-4


def test_one_frame_has_no_flow() -> None:
    assert _ours(random_raft(large=False), [_noise(1, 128, 128)], num_flow_updates=1, batch=None) == [[]]


@pytest.mark.parametrize(("large", "batch"), [(False, 1), (False, 4), (True, 4)])
def test_flow_does_not_depend_on_company(large: bool, batch: int) -> None:
    """Clips of 3, 1, 2 and 4 frames: 6 pairs, across clips and with a batch that is filled up."""
    model = random_raft(large=large)
    clips = [_noise(num_frames, 128, 128, seed=num_frames) for num_frames in (3, 1, 2, 4)]
    alone = [_ours(model, [clip], num_flow_updates=1, batch=batch)[0] for clip in clips]
    assert [len(flows) for flows in alone] == [2, 0, 1, 3]
    together = _ours(model, clips, num_flow_updates=1, batch=batch)
    reverse = _ours(model, clips[::-1], num_flow_updates=1, batch=batch)[::-1]
    for expected, first, second in zip(alone, together, reverse, strict=True):
        assert all(map(torch.equal, expected, first))
        assert all(map(torch.equal, expected, second))


def test_each_frame_is_encoded_once() -> None:
    model = random_raft(large=False)
    counts = {"feature_encoder": 0, "context_encoder": 0}
    for name in counts:

        def count(module: object, images: tuple[torch.Tensor, ...], name: str = name) -> None:
            counts[name] += len(images[0])

        getattr(model, name).register_forward_pre_hook(count)
    _ours(model, [_noise(4, 128, 128), _noise(3, 128, 128), _noise(1, 128, 128)], num_flow_updates=1, batch=1)
    assert counts == {"feature_encoder": 4 + 3, "context_encoder": 3 + 2}


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    torch.save(random_raft(large=False).state_dict(), tmp_path / "small.pth")
    model = load_raft(tmp_path / "small.pth", architecture="raft_small")
    assert not model.training
    expected = random_raft(large=False).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_other_files_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    (tmp_path / "empty.pth").touch()
    torch.save(random_raft(large=False).state_dict(), tmp_path / "small.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save(Path("code"), tmp_path / "object.pth")
    for name in ("page.pth", "empty.pth", "small.pth", "list.pth", "object.pth", "absent.pth", "."):
        with pytest.raises(
            ModelError, match=re.escape(f"{(tmp_path / name).name} does not hold the weights of raft_la")
        ):
            load_raft(tmp_path / name, architecture="raft_large")


def test_precision_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="'bf16' must be one of fp32, tf32, fp16"):
        Raft(random_raft(large=False), precision="bf16")  # type: ignore[arg-type] # the mistake
