"""Every sampler, over every structure of a video: exactly the frames that decoding everything would give.

The reference decodes from the first packet to the last and picks by time. What is read here knows only the packets it
needs, with no index, with the stored one, or with the part of it that a span needs.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from civid_loader.decoding import read_frames
from civid_loader.media import probe
from civid_loader.packets import PacketIndex
from civid_loader.sampling import All, Fps, Middle, Sampler, Snapped, Thirds, Times, Uniform, UniformEnds, Window
from civid_loader.videos import bytes_source
from support.media import read_numbers
from support.reference_decoding import ReferenceVideo, decode_reference
from support.structures import STRUCTURES, with_edits, write_structure

Span = tuple[float, float | None] | None

SAMPLERS: tuple[Sampler, ...] = (
    Uniform(7), UniformEnds(5), Thirds(), Fps(10.0), Fps(4.0, include_last=True), Fps(60.0, max_frames=9),
    Window(4, stride=2, start=0.7), Middle(), All(), All(max_frames=5), Times((0.55, 0.0, 9.0, 0.31)),
    Snapped(Uniform(3)),
)  # fmt: skip
FEW: tuple[Sampler, ...] = (Uniform(7), Fps(10.0), All(), Times((0.55, 0.0, 9.0, 0.31)))
SPANS: tuple[Span, ...] = (None, (0.37, 0.96), (0.9, None))
EDITS = {
    "a trim inside a group": [(600, 45_000)],
    "a trim and a cut": [(480, 36_000)],
    "a delay": [(700, -1), (1440, 0)],
    "a delay and a trim": [(700, -1), (600, 45_000)],
    "two pieces": [(400, 0), (400, 72_000)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


@cache
def reference(data: bytes) -> ReferenceVideo:
    return decode_reference(data)


def index_forms(data: bytes, span: Span) -> "dict[str, PacketIndex | bytes | None]":
    index = probe(bytes_source(data)).index
    forms: dict[str, PacketIndex | bytes | None] = {"none": None, "whole": index.to_bytes()}
    if span is not None:
        forms["clip"] = index.clip(span[0], 1e9 if span[1] is None else span[1]).to_bytes()
    return forms


def check(data: bytes, *, spans: tuple[Span, ...] = SPANS, samplers: tuple[Sampler, ...] = SAMPLERS) -> None:
    expected = reference(data)
    for span in spans:
        for form, index in index_forms(data, span).items():
            for place, sampler in enumerate(samplers):
                numbers, pts_seconds = expected.sample(sampler, span)
                for threads in (1, 2) if isinstance(sampler, All) else (1 + place % 2,):
                    case = f"{sampler}, span {span}, index {form}, threads {threads}"
                    found = read_frames(data, sampler, span=span, index=index, threads=threads)
                    assert found.pts_seconds.tolist() == pytest.approx(pts_seconds.tolist(), abs=2e-6), case
                    assert torch.equal(found.frames_TCHW, expected.images_TCHW[numbers]), case
                    assert not found.is_corrupt.any(), case
                    assert not found.is_index_stale, case


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_sampler_gives_the_frames_that_decoding_everything_gives(name: str, folder: Path) -> None:
    check(write_structure(folder, name).read_bytes())


def test_a_span_ends_anywhere_in_a_pyramid_of_b_frames(folder: Path) -> None:
    """Matroska states no times of decoding: frames shown before the span's end may stand behind later ones."""
    data = write_structure(folder, "h264-deep-pyramid-mkv").read_bytes()
    check(data, spans=tuple((0.2, 0.8 + k / 25 + 0.01) for k in range(8)), samplers=(All(), Times((9.0,))))


@pytest.mark.parametrize("name", ["h264-b3", "h264-b3-open", "hevc", "h264-10bit"])
@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS.keys())
def test_edit_lists(name: str, edits: list[tuple[int, int]], folder: Path) -> None:
    data = with_edits(write_structure(folder, name).read_bytes(), edits)
    last = reference(data).pts_seconds[-1]
    check(data, spans=(None, (0.1, 0.37), (last / 2, None)), samplers=FEW)


@pytest.mark.parametrize("name", ["h264-b3", "h264-pyramid-open", "hevc-open-ts", "vp8-webm", "av1-mp4"])
def test_a_clip_is_a_span_inside_a_longer_video(name: str, folder: Path) -> None:
    """Of 8 s, spans that begin and end at, between and just beside keyframes."""
    data = write_structure(folder, name, num_frames=200).read_bytes()
    spans: tuple[Span, ...] = ((0.0, 1.0), (2.4, 4.8), (3.333, 3.6), (4.79, 4.81), (5.0, 5.02), (7.2, 8.5))
    check(data, spans=spans, samplers=FEW)
    assert read_numbers(reference(data).images_TCHW) == list(range(200))


def test_the_reference_knows_the_frames_by_their_numbers(folder: Path) -> None:
    """What is written into the pixels agrees with the order of display, whatever the order of decoding."""
    for name in ("h264-b8-open", "hevc-open-mp4", "vp8-webm", "vp9-mp4", "av1-mkv", "mpeg4-mp4", "vfr-ts"):
        expected = reference(write_structure(folder, name).read_bytes())
        assert read_numbers(expected.images_TCHW) == list(range(len(expected.images_TCHW))), name
    hidden = reference(write_structure(folder, "discarded-first").read_bytes())
    assert read_numbers(hidden.images_TCHW) == list(range(8, 36))
    late = reference(write_structure(folder, "late-mp4").read_bytes())
    assert np.allclose(late.pts_seconds, np.arange(36) / 25)
