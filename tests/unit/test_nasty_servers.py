"""Servers that are slow, ignore ranges, hang up or refuse: the right frames, or an error of ours, and soon."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from civid_loader.decoding import read_frames
from civid_loader.errors import RemoteVideoError, VideoError, VideoNotFoundError, VideoTimeoutError
from civid_loader.media import probe
from civid_loader.packets import PacketIndex
from civid_loader.sampling import Times, Uniform
from civid_loader.videos import bytes_source, open_video
from support.reference_decoding import ReferenceVideo, decode_reference
from support.servers import ALWAYS, Behaviour, RangeServer, serve
from support.structures import write_structure

SPAN = (0.5, 1.5)


def grain(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(number).integers(0, 255, (96, 128, 3), np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("served")
    return write_structure(folder, "h264-b3", num_frames=60, size=(96, 128), image=grain).read_bytes()


@pytest.fixture(scope="module")
def expected(data: bytes) -> ReferenceVideo:
    return decode_reference(data)


@pytest.fixture(params=["no index", "index"])
def index(request: pytest.FixtureRequest, data: bytes) -> PacketIndex | None:
    return probe(bytes_source(data)).index if request.param == "index" else None


@pytest.fixture
def server(data: bytes) -> Iterator[RangeServer]:
    with serve({"a.mp4": data}) as running:
        yield running


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(ignores_ranges=True),
        Behaviour(hides_length=True, ignores_ranges=True),
        Behaviour(num_cut=1),
        Behaviour(num_shifted=1),
        Behaviour(status=500, num_refused=1),
        Behaviour(latency_seconds=0.02),
    ],
    ids=["no ranges", "no ranges, no length", "hangs up once", "shifted once", "fails once", "latency"],
)
def test_frames_come_from_servers_that_get_there_in_the_end(
    behaviour: Behaviour, server: RangeServer, index: PacketIndex | None, expected: ReferenceVideo
) -> None:
    server.behaviours["a.mp4"] = behaviour
    source = open_video(server.address("a.mp4"), root=None)
    found = read_frames(source, Uniform(5), span=SPAN, index=index)
    numbers, _ = expected.sample(Uniform(5), SPAN)
    assert torch.equal(found.frames_TCHW, expected.images_TCHW[numbers])
    assert not found.is_corrupt.any()


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Behaviour(status=404, num_refused=ALWAYS), VideoNotFoundError),
        (Behaviour(status=416, num_refused=ALWAYS), VideoError),
        (Behaviour(status=403, num_refused=ALWAYS), VideoError),
        (Behaviour(status=500, num_refused=ALWAYS), RemoteVideoError),
        (Behaviour(num_cut=ALWAYS), RemoteVideoError),
    ],
    ids=["404", "416", "403", "500", "always hangs up"],
)
def test_servers_that_never_deliver_are_an_error_of_ours(
    behaviour: Behaviour, error: type[VideoError], server: RangeServer, index: PacketIndex | None
) -> None:
    server.behaviours["a.mp4"] = behaviour
    with pytest.raises(error, match=r"a\.mp4"):
        read_frames(open_video(server.address("a.mp4"), root=None), Uniform(5), index=index, timeout_seconds=20)


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(bytes_per_second=3_000), Behaviour(num_stalled=ALWAYS), Behaviour(latency_seconds=3)],
    ids=["drips", "stalls", "late"],
)
def test_a_slow_server_is_given_up_soon_after_the_time_limit(
    behaviour: Behaviour, server: RangeServer, index: PacketIndex | None
) -> None:
    server.behaviours["a.mp4"] = behaviour
    began = time.monotonic()
    with pytest.raises(VideoTimeoutError):
        read_frames(open_video(server.address("a.mp4"), root=None), Uniform(5), index=index, timeout_seconds=0.5)
    assert time.monotonic() - began < 2.5


def test_a_slow_decoder_is_given_up_too(tmp_path: Path) -> None:
    path = write_structure(tmp_path, "h264-one-group", num_frames=200, size=(480, 640), gop=250)
    began = time.monotonic()
    with pytest.raises(VideoTimeoutError, match="pass a larger timeout_seconds"):
        read_frames(path, Times((7.9,)), timeout_seconds=0.02)
    assert time.monotonic() - began < 1


def test_another_file_at_the_address_is_noticed(server: RangeServer, data: bytes, tmp_path: Path) -> None:
    index = probe(bytes_source(data)).index.to_bytes()
    server.files["a.mp4"] = other = write_structure(tmp_path, "vp9-mp4").read_bytes()
    found = read_frames(open_video(server.address("a.mp4"), root=None), Uniform(5), index=index)
    theirs = decode_reference(other)
    assert found.is_index_stale
    assert torch.equal(found.frames_TCHW, theirs.images_TCHW[theirs.sample(Uniform(5))[0]])
