"""Samples that cannot be read: an error, an empty place or another sample, always told, and never too many."""

import ctypes
import json
import multiprocessing
import os
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from civid_loader.decoding import Frames, read_frames
from civid_loader.errors import NoVideoStreamError, TooManyFailedError, UnreadableVideoError, VideoNotFoundError
from civid_loader.loader import SequenceLoader
from civid_loader.sampling import Uniform
from civid_loader.transforms.normalize_frames import NormalizeFrames
from civid_loader.videos import ByteSource
from support.media import write_sound
from support.servers import ALWAYS, Behaviour, serve
from support.training import dataset_of, write_videos

GOOD = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve good videos; one cut off, one empty, one without pictures, one that is a web page."""
    root = tmp_path_factory.mktemp("videos")
    write_videos(root, GOOD)
    whole = (root / "0.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "empty.mp4").touch()
    write_sound(root / "sound.mp4")
    (root / "page.mp4").write_text("<html>404</html>" * 100)
    return root


BAD = {
    "cut.mp4": "UnreadableVideoError",
    "empty.mp4": "VideoNotFoundError",
    "sound.mp4": "NoVideoStreamError",
    "page.mp4": "UnreadableVideoError",
    "gone.mp4": "VideoNotFoundError",
}
VIDEOS: list[list[str | None]] = [[name] for name in (*(f"{i}.mp4" for i in range(GOOD)), *BAD)]


def loader_of(folder: Path, videos: list[list[str | None]] = VIDEOS, **changes: Any) -> SequenceLoader:
    settings: dict[str, Any] = {"frames": Uniform(2), "size": (32, 48), "batch_size": 4} | changes
    return SequenceLoader(dataset_of(videos), videos=folder, **settings)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_poisoned_epoch_completes(folder: Path, tmp_path: Path, num_workers: int) -> None:
    path = tmp_path / "quarantine.jsonl"
    loader = loader_of(folder, on_error="skip", num_workers=num_workers, quarantine=path)
    for _ in range(2):
        given = Counter(
            name
            for batch in loader
            for name, weight in zip(batch.sample_ids, batch.weights_B.tolist(), strict=True)
            if weight
        )
        assert given == {f"s{i}": 1 for i in range(GOOD)}, "every good sample, once"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["sample_id"]: line["error"] for line in lines} == {
        f"s{GOOD + i}": error for i, error in enumerate(BAD.values())
    }
    assert len(lines) == len(BAD), "once each, over two epochs"
    assert all(line["first_seen"] and ".mp4" in line["message"] for line in lines)
    assert sum(loader.stats().failures.values()) >= 2 * len(BAD), "those that fill up a batch are tried again"
    again = loader_of(folder, on_error="skip", quarantine=path)
    for _ in again:
        pass
    assert len(path.read_text().splitlines()) == len(BAD), "nor by another run"


def test_memory_does_not_grow_with_failures(folder: Path) -> None:
    loader = loader_of(folder, on_error="skip")
    peaks = []
    for _ in range(4):
        for _ in range(5):
            list(loader)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[-1] - peaks[0] < 10_000, f"kB after each five epochs: {peaks}"


def test_memory_of_workers_does_not_grow_with_failures(folder: Path) -> None:
    """The whole poison set over many epochs, in a worker that stays."""
    loader = loader_of(folder, on_error="skip", num_workers=1)
    sizes = []
    for _ in range(4):
        for _ in range(5):
            list(loader)
        (worker,) = multiprocessing.active_children()
        sizes.append(psutil.Process(worker.pid).memory_info().rss)
    assert sizes[-1] - sizes[0] < 10e6, f"bytes after each five epochs: {sizes}"


def test_a_sample_that_cannot_be_read_keeps_its_place(folder: Path) -> None:
    loader = loader_of(folder, [["0.mp4"], ["page.mp4"], ["1.mp4"], ["2.mp4"]], on_error="skip", shuffle=False)
    (batch,) = loader
    assert batch.sample_ids == ["s0", "s1", "s2", "s3"]
    assert batch.weights_B.tolist() == [1, 0, 1, 1]
    assert batch.mask_BNT.any(dim=2)[:, 0].tolist() == [True, False, True, True]
    assert not batch.frames_BNTCHW[1].any()


def test_an_empty_place_is_of_the_type_that_transforms_give(folder: Path) -> None:
    videos: list[list[str | None]] = [["0.mp4"], ["page.mp4"]]
    (batch,) = loader_of(folder, videos, on_error="skip", batch_size=2, shuffle=False, transforms=[NormalizeFrames()])
    assert batch.frames_BNTCHW.dtype == torch.float32
    assert batch.weights_B.tolist() == [1, 0]


def test_another_sample_stands_in(folder: Path) -> None:
    loader = loader_of(folder, on_error="substitute", shuffle=False)
    batches = list(loader)
    assert all(weight == 1 for batch in batches[:-1] for weight in batch.weights_B.tolist())
    assert all(batch.mask_BNT.all() for batch in batches[:-1])
    assert [batch.sample_ids for batch in batches] == [
        batch.sample_ids for batch in loader_of(folder, on_error="substitute", shuffle=False)
    ]
    assert sum(loader.stats().failures.values()) >= len(BAD)


def test_raising_is_the_default(folder: Path) -> None:
    for name, kind in (
        ("page.mp4", UnreadableVideoError),
        ("sound.mp4", NoVideoStreamError),
        ("gone.mp4", VideoNotFoundError),
    ):
        with pytest.raises(kind, match=rf"sample s0, clip c0: .*{name}"):
            list(loader_of(folder, [[name]]))


def test_missing_clips_of_a_sequence(folder: Path) -> None:
    videos: list[list[str | None]] = [["0.mp4", "gone.mp4", "1.mp4"], ["2.mp4", "3.mp4", "4.mp4"]]
    dropped = next(iter(loader_of(folder, videos, missing="drop_clip", batch_size=2, shuffle=False)))
    assert dropped.mask_BNT.any(dim=2).tolist() == [[True, False, True], [True] * 3]
    assert dropped.weights_B.tolist() == [1, 1]
    skipped = next(iter(loader_of(folder, videos, missing="skip_sample", batch_size=2, shuffle=False)))
    assert skipped.weights_B.tolist() == [0, 1]
    assert skipped.mask_BNT.any(dim=2).tolist() == [[False] * 3, [True] * 3]
    with pytest.raises(VideoNotFoundError, match=r"gone\.mp4"):
        list(loader_of(folder, videos, batch_size=2))
    with pytest.raises(UnreadableVideoError, match=r"page\.mp4"):
        list(loader_of(folder, [["page.mp4"]], missing="skip_sample"))


def test_too_many_failures_stop_the_run(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    bad: list[list[str | None]] = [["gone.mp4"]] * 30
    with pytest.raises(TooManyFailedError, match=r"(?s)8 samples in a row .*8 VideoNotFoundError.*quarantine\.jsonl"):
        list(loader_of(folder, bad, on_error="skip", max_consecutive_failures=8, quarantine=path))
    assert len(path.read_text().splitlines()) == 8
    mixed = [videos for pair in zip(VIDEOS[:GOOD], bad[:GOOD], strict=True) for videos in pair]
    with pytest.raises(TooManyFailedError, match=r"max_failures=5"):
        list(loader_of(folder, mixed, on_error="skip", max_failures=5))


def test_errors_of_the_system_are_never_skipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("civid_loader.transforms.decode_clips.read_frames", full)
    with pytest.raises(MemoryError):
        list(loader_of(folder, on_error="skip"))


def test_a_server_that_hangs_costs_its_time_limit_and_no_more(folder: Path, tmp_path: Path) -> None:
    content = (folder / "0.mp4").read_bytes()
    with serve({"a.mp4": content, "slow.mp4": content}) as server:
        server.behaviours["slow.mp4"] = Behaviour(num_stalled=ALWAYS)
        videos: list[list[str | None]] = [[server.address("a.mp4")], [server.address("slow.mp4")], ["0.mp4"]]
        loader = loader_of(folder, videos, on_error="skip", decode_timeout_seconds=1.0, batch_size=3, shuffle=False)
        (batch,) = loader
    assert batch.weights_B.tolist() == [1, 0, 1]
    assert loader.stats().failures == {"VideoTimeoutError": 1}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_call_that_never_returns_is_left_behind_and_its_worker_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """The whole poison set, and a decoder stuck in C: no exception reaches it there, and no signal but a kill."""
    workers = tmp_path / "workers"
    workers.mkdir()

    def stuck(video: ByteSource, *arguments: Any, **settings: Any) -> Frames:
        if video.name.endswith("7.mp4"):
            (workers / str(os.getpid())).touch()
            ctypes.CDLL(None).sleep(3600)
        return read_frames(video, *arguments, **settings)

    monkeypatch.setattr("civid_loader.transforms.decode_clips.read_frames", stuck)
    path = tmp_path / "quarantine.jsonl"
    loader = loader_of(
        folder, on_error="skip", num_workers=num_workers, decode_timeout_seconds=0.5, quarantine=path, tail="short"
    )
    given = [
        name
        for batch in loader
        for name, weight in zip(batch.sample_ids, batch.weights_B.tolist(), strict=True)
        if weight
    ]
    assert sorted(given) == sorted(f"s{i}" for i in range(GOOD) if i != 7), "every good sample, once"
    listed = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(listed) == len(BAD) + 1
    (told,) = [line for line in listed if line["sample_id"] == "s7"]
    assert told["error"] == "StuckVideoError"
    assert "sample s7, clip c7: stuck for more than 0.5 s in a call that does not return" in told["message"]
    (process,) = [int(path.name) for path in workers.iterdir()]
    assert (process == os.getpid()) == (num_workers == 0)
    if num_workers:
        deadline = time.monotonic() + 30
        while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{process}").exists(), "the process that was stuck is gone"


def test_a_batch_of_which_nothing_is_known(folder: Path) -> None:
    with pytest.raises(ValueError, match="nobody knows their size; pass size="):
        list(loader_of(folder, [["page.mp4"]], on_error="skip", size=None))
