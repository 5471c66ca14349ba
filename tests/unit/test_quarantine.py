"""Clips that cannot be read are told one by one, with all that is needed to find them; an empty batch is a batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from civid_loader.errors import UnreadableVideoError, VideoNotFoundError
from civid_loader.loader import SequenceLoader
from civid_loader.packing import PackClips
from civid_loader.sampling import Uniform
from civid_loader.transforms.normalize_frames import NormalizeFrames
from civid_loader.transforms.resize_frames import ResizeFrames
from civid_loader.transforms.tokenize_text import TokenizeText
from support.training import dataset_of, write_videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_videos(root, 4)
    for name in ("page.mp4", "other.mp4"):
        (root / name).write_text("<html>404</html>" * 100)
    return root


def loader_of(folder: Path, videos: list[list[str | None]], **changes: Any) -> SequenceLoader:
    settings: dict[str, Any] = {"frames": Uniform(2), "size": (32, 48), "batch_size": 2, "shuffle": False} | changes
    return SequenceLoader(dataset_of(videos), videos=folder, **settings)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_bad_clip_is_a_line_of_its_own(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    videos: list[list[str | None]] = [["page.mp4", "0.mp4", "gone.mp4", "other.mp4", None], ["1.mp4"]]
    for _ in range(2):
        list(loader_of(folder, videos, on_error="skip", quarantine=path))
    lines = lines_of(path)
    assert [(one["sample_id"], one["clip_id"], one["video"], one["error"]) for one in lines] == [
        ("s0", "c0", "page.mp4", "UnreadableVideoError"),
        ("s0", "c2", "gone.mp4", "VideoNotFoundError"),
        ("s0", "c3", "other.mp4", "UnreadableVideoError"),
        ("s0", "c4", None, "VideoNotFoundError"),
    ]
    assert all(one["first_seen"] and one["message"] for one in lines)


def test_dropped_clips_are_told_and_counted(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    loader = loader_of(
        folder,
        [["0.mp4", "gone.mp4"], ["1.mp4", "gone.mp4"]],
        missing="drop_clip",
        quarantine=path,
        max_consecutive_failures=1,
    )
    (batch,) = loader
    assert batch.weights_B.tolist() == [1, 1]
    assert loader.stats().num_dropped_clips == 2
    assert loader.stats().failures == {}, "the samples were read"
    assert loader.stats().padding_share == batch.padding_share == 0.5
    assert [(one["sample_id"], one["clip_id"]) for one in lines_of(path)] == [("s0", "c1"), ("s1", "c3")]


@pytest.mark.parametrize("missing", ["drop_clip", "skip_sample"])
@pytest.mark.parametrize("size", [(32, 48), None])
def test_a_sample_of_which_nothing_is_left(folder: Path, missing: Any, size: Any) -> None:
    loader = loader_of(folder, [["gone.mp4", None], ["0.mp4"]], missing=missing, size=size)
    (batch,) = loader
    assert batch.weights_B.tolist() == [0, 1]
    assert loader.stats().failures == {"VideoNotFoundError": 1}


def test_a_batch_of_which_nothing_can_be_read_looks_like_the_others(folder: Path) -> None:
    def tokens(texts: list[str]) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.ones((len(texts), 5), dtype=torch.int64)}

    videos: list[list[str | None]] = [["page.mp4", "other.mp4"], ["gone.mp4"], ["0.mp4", "1.mp4"], ["2.mp4"]]
    transforms = [ResizeFrames(size=(16, 16)), TokenizeText(tokenizer=tokens), NormalizeFrames()]
    empty, whole = loader_of(folder, videos, on_error="skip", transforms=transforms)
    assert empty.weights_B.tolist() == [0, 0]
    assert not empty.mask_BNT.any()
    assert empty.frames_BNTCHW.dtype == whole.frames_BNTCHW.dtype == torch.float32
    assert empty.frames_BNTCHW.shape[2:] == whole.frames_BNTCHW.shape[2:] == (2, 3, 16, 24)
    assert empty.extras["tokens"]["input_ids"].shape[2:] == whole.extras["tokens"]["input_ids"].shape[2:]
    packing = loader_of(folder, videos, on_error="skip", transforms=transforms, collate=PackClips(max_frames=4))
    packed: Any = next(iter(packing))
    assert packed.packed.frames_PTCHW.dtype == torch.float32


def test_the_cure_is_one_that_a_loader_has(folder: Path) -> None:
    with pytest.raises(VideoNotFoundError, match=r"missing='drop_clip' or 'skip_sample' goes on without it$"):
        list(loader_of(folder, [["gone.mp4"]]))
    with pytest.raises(UnreadableVideoError, match=r"on_error='skip' or 'substitute' goes on without it$"):
        list(loader_of(folder, [["page.mp4"]]))
    with pytest.raises(UnreadableVideoError, match=r"page\.mp4.*on_error='skip' or 'substitute' goes on without it$"):
        list(loader_of(folder, [["gone.mp4", "page.mp4"]], missing="drop_clip"))


@pytest.mark.parametrize("torn", ['{"sample_id": "s0", "cl', '{"sample_id": "s9", "clip_id": "c9", "error": "E"}'])
def test_a_file_whose_last_line_was_cut_off(folder: Path, tmp_path: Path, torn: str) -> None:
    path = tmp_path / "quarantine.jsonl"
    videos: list[list[str | None]] = [["page.mp4"], ["0.mp4"]]
    path.write_text(torn)
    list(loader_of(folder, videos, on_error="skip", quarantine=path))
    before, *lines = path.read_text().splitlines()
    assert before == torn
    assert [json.loads(line)["clip_id"] for line in lines] == ["c0"]
    list(loader_of(folder, videos, on_error="skip", quarantine=path))
    assert len(path.read_text().splitlines()) == 2, "nor is it written again"


def test_another_file_is_not_taken_for_a_quarantine(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"something": "else"}\n')
    with pytest.raises(ValueError, match=r"notes\.jsonl, line 1: not what a loader writes there; name another file"):
        loader_of(folder, [["0.mp4"]], quarantine=path)
