"""Whatever the structure of a video, the times asked for and the span: the frames that decoding everything gives."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from civid_loader.decoding import read_frames
from civid_loader.media import probe
from civid_loader.packets import PacketIndex
from civid_loader.sampling import Times
from civid_loader.videos import bytes_source
from support.media import colourful_image, write_video
from support.reference_decoding import ReferenceVideo, decode_reference
from support.structures import x264, x265

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate])


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """How a video is built."""

    suffix: str
    is_fragmented: bool
    is_hevc: bool
    gop: int
    num_b_frames: int
    is_open: bool
    has_pyramid: bool
    steps: tuple[int, ...]
    """Hundredths of a second from each frame to the next."""
    start_hundredths: int


structures = st.builds(
    Structure,
    suffix=st.sampled_from(["mp4", "mp4", "mov", "mkv", "ts"]),
    is_fragmented=st.booleans(),
    is_hevc=st.integers(0, 3).map(lambda n: n == 0),
    gop=st.integers(1, 20),
    num_b_frames=st.integers(0, 8),
    is_open=st.booleans(),
    has_pyramid=st.booleans(),
    steps=st.lists(st.sampled_from([1, 3, 4, 4, 4, 7, 60]), max_size=32).map(tuple)
    | st.integers(0, 40).map(lambda count: (4,) * count),
    start_hundredths=st.sampled_from([0, 0, 0, 33, 500, -4, -32, -50]),
)


@cache
def made(structure: Structure) -> tuple[bytes, ReferenceVideo, PacketIndex]:
    """The file, what it shows, and its index."""
    moments = [sum(structure.steps[:k]) / 100 for k in range(len(structure.steps) + 1)]
    is_hevc = structure.is_hevc and len(moments) >= 4
    is_mp4 = structure.suffix in ("mp4", "mov")
    is_fragmented = is_mp4 and structure.is_fragmented and len(moments) >= 12
    start_hundredths = structure.start_hundredths
    if not is_mp4 or is_fragmented or -start_hundredths > 100 * moments[-1]:
        start_hundredths = max(0, start_hundredths)  # nothing before second 0, or nothing else
    suffix = "mkv" if structure.suffix == "ts" and len(moments) < 12 else structure.suffix  # too short to be recognised
    gop = max(4, structure.gop) if is_hevc else structure.gop
    num_b_frames = min(structure.num_b_frames, gop - 1, 4 if is_hevc else 8)  # its look-ahead is short
    shape = {"bframes": num_b_frames, "keyint": gop, "min_keyint": gop}
    shape |= {"open-gop": int(structure.is_open)}
    hevc = x265(**shape, **{"b-pyramid": int(structure.has_pyramid)})
    with TemporaryDirectory() as folder:
        path = write_video(
            Path(folder) / f"a.{suffix}",
            pts_seconds=moments,
            start_seconds=start_hundredths / 100,
            codec="libx265" if is_hevc else "libx264",
            encoder=hevc if is_hevc else x264(**shape, ref=3, b_pyramid=2 * structure.has_pyramid),
            container_options=FRAGMENTS if is_fragmented else {},
            image=colourful_image,
        )
        data = path.read_bytes()
    return data, decode_reference(data), probe(bytes_source(data)).index


@settings(UNHURRIED, max_examples=150)
@given(structures, st.data())
def test_any_times_of_any_span_of_any_video(structure: Structure, data: st.DataObject) -> None:
    video, expected, index = made(structure)
    end_seconds = expected.end_seconds
    moment = st.floats(0, end_seconds * 1.1) | st.sampled_from(expected.pts_seconds.tolist())
    for _ in range(3):
        times = Times(tuple(data.draw(st.lists(moment, min_size=1, max_size=6))))
        start = data.draw(st.just(0.0) | moment.filter(lambda t: t < end_seconds - 1e-3))
        end = data.draw(st.none() | moment.map(lambda t, start=start: start + t + 1e-4))  # type: ignore[misc]
        threads = data.draw(st.integers(1, 3))
        stored = data.draw(st.sampled_from(["none", "whole", "clip"]))
        chosen = index.clip(start, 1e9 if end is None else end) if stored == "clip" else index
        given_index = None if stored == "none" else chosen.to_bytes()
        numbers, pts_seconds = expected.sample(times, (start, end))
        found = read_frames(video, times, span=(start, end), index=given_index, threads=threads)
        assert found.pts_seconds.tolist() == pytest.approx(pts_seconds.tolist(), abs=2e-6)
        assert torch.equal(found.frames_TCHW, expected.images_TCHW[numbers])
        assert not found.is_corrupt.any()
        assert not found.is_index_stale


@settings(UNHURRIED, max_examples=40)
@given(structures, st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True))
def test_spans_share_out_the_frames(structure: Structure, cuts: list[float]) -> None:
    """Each frame belongs to exactly one of spans that follow each other, at whatever moments they are cut."""
    video, expected, index = made(structure)
    edges = [0.0, *sorted(cut * expected.end_seconds for cut in cuts), math.inf]
    found = []
    for start, end in pairwise(edges):
        inside, clip = expected.clip((start, None if end == math.inf else end))
        if end - start < 1e-3 or clip.pts_seconds[0] < -1e-6:
            continue  # no frame begins in it
        every = Times(tuple(float(pts) + 1e-7 for pts in clip.pts_seconds))
        frames = read_frames(video, every, span=(start, None if end == math.inf else end), index=index)
        assert torch.equal(frames.frames_TCHW, expected.images_TCHW[inside])
        found += inside.tolist()
    assert found == sorted(set(found))


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_very_short_videos(num_frames: int, suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"a.{suffix}", num_frames=num_frames, num_b_frames=2, image=colourful_image)
    expected = decode_reference(path.read_bytes())
    found = read_frames(path, Times((0.0, 0.05, 9.0)))
    assert torch.equal(found.frames_TCHW, expected.images_TCHW[expected.sample(Times((0.0, 0.05, 9.0)))[0]])
