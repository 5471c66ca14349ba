"""What is read and decoded for a few frames: no more than they need; and the same frames wherever the file lies."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from civid_loader import frame_groups
from civid_loader.decoding import read_frames
from civid_loader.media import probe
from civid_loader.packets import EDGE_BYTES, PacketIndex
from civid_loader.sampling import All, Fps, Sampler, Times, Uniform, Window
from civid_loader.video_shards import write_video_shard
from civid_loader.videos import ByteSource, bytes_source, open_video
from support.media import number_image
from support.reference_decoding import ReferenceVideo, decode_reference
from support.servers import serve
from support.structures import write_structure, x264

SAMPLERS: tuple[Sampler, ...] = (Uniform(6), Window(5, start=0.6), Fps(8.0), Times((0.9, 0.1)), Times((1.3,)))
Made = AbstractContextManager[ByteSource]


def noise(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A number above a picture that takes many bytes."""
    image = np.random.default_rng(number).integers(0, 255, (64, 96, 3), np.uint8)
    image[:12] = number_image(number, size=(64, 96))[:12]
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan")


class Counting:
    """A codec context that counts the frames that come out of it."""

    context: Any
    count: list[int]

    def __init__(self, context: Any, count: list[int]) -> None:
        object.__setattr__(self, "context", context)
        object.__setattr__(self, "count", count)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.context, name, value)

    def decode(self, packet: Any) -> list[Any]:
        frames: list[Any] = self.context.decode(packet)
        self.count[0] += len(frames)
        return frames


@pytest.fixture
def num_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    count = [0]
    original = frame_groups._context
    monkeypatch.setattr(frame_groups, "_context", lambda index: Counting(original(index), count))
    return count


def is_reference(packet: bytes) -> bool:
    """Whether other pictures of H.264 may refer to this one: the first slice says so (nal_ref_idc)."""
    at = 0
    while True:
        kind, length = packet[at + 4], int.from_bytes(packet[at : at + 4], "big")
        if kind & 31 in (1, 5):
            return bool(kind >> 5 & 3)
        at += 4 + length


def targets_of(index: PacketIndex, expected: ReferenceVideo, sampler: Sampler) -> list[int]:
    numbers, _ = expected.sample(sampler)
    return sorted(index.shown[sorted(set(numbers))].tolist())


def groups_of(index: PacketIndex, targets: Sequence[int]) -> list[tuple[int, list[int]]]:
    """The floor of groups, worked out anew: from the keyframe before, or the one before that for leading pictures."""
    groups: dict[int, list[int]] = {}
    keys = np.flatnonzero(index.is_key).tolist()
    for target in targets:
        before = [key for key in keys if key <= target]
        is_leading = index.pts[target] < index.pts[before[-1]]
        groups.setdefault(before[-2 if is_leading else -1], []).append(target)
    return sorted(groups.items())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("name", ["h264-b3", "h264-b8-open", "h264-pyramid", "h264-one-group"])
def test_no_more_frames_are_decoded_than_must_be(
    name: str, sampler: Sampler, folder: Path, num_decoded: list[int]
) -> None:
    """Of each group: pictures that others refer to, up to the last one wanted, and those wanted."""
    data = write_structure(folder, name, num_frames=60).read_bytes()
    index = probe(bytes_source(data)).index
    assert index.offsets is not None
    references = [is_reference(data[at : at + n]) for at, n in zip(index.offsets, index.sizes, strict=True)]
    floor = 0
    for first, targets in groups_of(index, targets_of(index, decode_reference(data), sampler)):
        floor += len({packet for packet in range(first, targets[-1] + 1) if references[packet]} | set(targets))
    read_frames(data, sampler, index=index)
    assert num_decoded[0] <= floor


def test_half_of_an_ordinary_h264_file_is_not_decoded_for_a_few_frames(folder: Path, num_decoded: list[int]) -> None:
    data = write_structure(folder, "h264-pyramid", num_frames=200, encoder=x264(bframes=3, keyint=200)).read_bytes()
    read_frames(data, Times((7.9,)))
    assert 90 < num_decoded[0] < 110


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("h264-b3", {"encoder": x264(bframes=3, keyint=20)}),
        ("h264-faststart", {"gop": 20}),
        ("h264-mkv-open", {"encoder": x264(bframes=3, keyint=20, open_gop=1)}),
        ("sound-mp4", {}),
        ("mpeg4-avi", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stored_index_leads_to_the_bytes_of_the_groups_alone(
    name: str, changes: dict[str, Any], sampler: Sampler, folder: Path
) -> None:
    """And to the file's head and tail, by which it is known to be the one that was indexed."""
    data = write_structure(folder, name, num_frames=60, size=(64, 96), image=noise, **changes).read_bytes()
    index = probe(bytes_source(data)).index
    assert index.offsets is not None
    num_needed = 0
    for first, targets in groups_of(index, targets_of(index, decode_reference(data), sampler)):
        places = [(int(index.offsets[k]), int(index.sizes[k])) for k in range(first, targets[-1] + 1)]
        num_needed += max(at + n for at, n in places) - min(at for at, _ in places)
    source = bytes_source(data)
    read_frames(source, sampler, index=index.to_bytes())
    assert source.counters.num_bytes <= 1.1 * num_needed + 2 * EDGE_BYTES
    assert source.counters.num_bytes <= len(data) * 1.1 + 2 * EDGE_BYTES


def _file(path: Path, _: Path) -> Made:
    return nullcontext(open_video(str(path), root=None))


def _tar(path: Path, folder: Path) -> Made:
    with tarfile.open(folder / "a.tar", "w") as tar:
        other = tarfile.TarInfo("other.bin")
        other.size = 1000
        tar.addfile(other, io.BytesIO(bytes(1000)))
        tar.add(path, f"in/{path.name}")
    return nullcontext(open_video(f"a.tar!in/{path.name}", root=str(folder)))


def _zip(path: Path, folder: Path, compression: int) -> Made:
    with zipfile.ZipFile(folder / f"{compression}.zip", "w", compression) as archive:
        archive.write(path, path.name)
    return nullcontext(open_video(f"{compression}.zip!{path.name}", root=str(folder)))


def _stored_zip(path: Path, folder: Path) -> Made:
    return _zip(path, folder, zipfile.ZIP_STORED)


def _deflated_zip(path: Path, folder: Path) -> Made:
    return _zip(path, folder, zipfile.ZIP_DEFLATED)


def _shard(path: Path, folder: Path) -> Made:
    write_video_shard(folder / "videos" / "train-00000-of-00001.parquet", [("z", b"z"), ("a", path.read_bytes())])
    return nullcontext(open_video("videos:a", root=None, dataset=str(folder)))


@contextmanager
def _http(path: Path, _: Path) -> Iterator[ByteSource]:
    with serve({path.name: path.read_bytes()}) as server:
        yield open_video(server.address(path.name), root=None)


PLACES: dict[str, Callable[[Path, Path], Made]] = {
    "file": _file, "tar": _tar, "stored zip": _stored_zip, "deflated zip": _deflated_zip, "shard": _shard,
    "http": _http,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["h264-b3-open", "h264-ts-open", "vp9-webm", "vp8-webm", "av1-mp4", "mpeg4-avi"])
def test_the_same_frames_wherever_the_file_lies(name: str, place: str, folder: Path, tmp_path: Path) -> None:
    path = write_structure(folder, name)
    expected, index = decode_reference(path.read_bytes()), probe(bytes_source(path.read_bytes())).index
    span = (0.41, 1.2)
    with PLACES[place](path, tmp_path) as source:
        for sampler in (Uniform(5), All()):
            for stored in (None, index.to_bytes(), index.clip(*span).to_bytes()):
                found = read_frames(source, sampler, span=span, index=stored, threads=2)
                numbers, pts_seconds = expected.sample(sampler, span)
                assert torch.equal(found.frames_TCHW, expected.images_TCHW[numbers])
                assert found.pts_seconds.tolist() == pytest.approx(pts_seconds.tolist(), abs=2e-6)
                assert not found.is_corrupt.any()
                assert not found.is_index_stale
