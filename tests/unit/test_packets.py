"""The packet index: its compact form, the runs of packets that frames need, and what is left of it for a span."""

from dataclasses import fields
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from civid_loader.errors import SchemaError
from civid_loader.packets import EDGE_BYTES, PacketIndex, edge_ranges, edges_hash

LONG = st.integers(-(2**40), 2**40)


def index(pts: list[int], keys: list[int], **changes: Any) -> PacketIndex:
    """Packets of 10 bytes each, one after the other, 25 a second."""
    count = len(pts)
    given_fields: dict[str, Any] = {
        "codec": "h264", "extradata": b"\1d", "rotation_degrees": 0, "color_space": 2, "color_range": 0,
        "tick_seconds": Fraction(1, 25), "first_pts": min(pts, default=0), "end_pts": max(pts, default=0) + 1,
        "pts": np.array(pts, np.int64), "is_key": np.isin(np.arange(count), keys), "is_shown": np.ones(count, bool),
        "sizes": np.full(count, 10, np.int64), "offsets": np.arange(count, dtype=np.int64) * 10,
    }  # fmt: skip
    return PacketIndex(**(given_fields | changes))


def same(a: PacketIndex, b: PacketIndex) -> bool:
    for field in fields(PacketIndex):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            if not (isinstance(right, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)):
                return False
        elif left != right:
            return False
    return True


@st.composite
def indexes(draw: st.DrawFn) -> PacketIndex:
    count = draw(st.integers(0, 60))

    def column(values: st.SearchStrategy[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), np.int64)

    flags = [column(st.integers(0, 1)).astype(bool) for _ in range(2)]
    return PacketIndex(
        codec=draw(st.sampled_from(["h264", "hevc", "vp9"])),
        extradata=draw(st.binary(max_size=80)),
        rotation_degrees=draw(st.sampled_from([0, 90, 180, -90])),
        color_space=draw(st.integers(0, 20)),
        color_range=draw(st.integers(0, 2)),
        tick_seconds=Fraction(draw(st.integers(1, 10**6)), draw(st.integers(1, 10**9))),
        first_pts=draw(LONG),
        end_pts=draw(LONG),
        pts=column(LONG),
        is_key=flags[0],
        is_shown=flags[1],
        sizes=column(st.integers(0, 2**40)),
        offsets=column(st.integers(0, 2**50)) if draw(st.booleans()) else None,
        span_seconds=draw(st.none() | st.tuples(st.floats(0, 1e9), st.floats(0, 1e9))),
        is_truncated=draw(st.booleans()),
        num_file_bytes=draw(st.integers(0, 2**60)),
        edges_hash=draw(st.integers(-(2**63), 2**63 - 1)),
    )


@given(indexes())
def test_it_comes_back_as_it_was(made: PacketIndex) -> None:
    assert same(PacketIndex.from_bytes(made.to_bytes()), made)
    assert made.to_bytes() == made.to_bytes()


@given(indexes(), st.data())
def test_a_damaged_index_is_an_error_or_an_index(made: PacketIndex, data: st.DataObject) -> None:
    whole = bytearray(made.to_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SchemaError, match="run `civid probe` again"):
        PacketIndex.from_bytes(bytes(whole))


@pytest.mark.parametrize("data", [b"", b"not an index", b"x" * 1000])
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(SchemaError, match="packet index cannot be read"):
        PacketIndex.from_bytes(data)


def test_it_is_small() -> None:
    """A minute at 30 fps with B-frames takes a few kilobytes, most of it the sizes."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(2_000, 20_000, 1800)
    order = [4 * (i // 4) + (4, 2, 1, 3)[i % 4] for i in range(1800)]
    made = index(
        order, list(range(0, 1800, 250)), sizes=sizes, offsets=np.cumsum(sizes) - sizes + 48, extradata=bytes(range(46))
    )
    assert len(made.to_bytes()) < 4_500


#             0  1  2  3  4 | 5  6  7   8  9: decoding order; an open group: 6 and 7 are shown before key 5
OPEN_GROUP = [0, 3, 1, 2, 4, 7, 5, 6, 9, 8]


def test_frames_are_in_order_of_display_and_start_from_their_keyframe() -> None:
    made = index(OPEN_GROUP, [0, 5])
    assert made.pts[made.shown].tolist() == list(range(10))
    assert made.starts_of(np.arange(10)).tolist() == [0, 0, 0, 0, 0, 5, 0, 0, 5, 5]
    assert made.groups([9, 2, 7, 2, 5]) == [(0, [2, 7]), (5, [5, 9])]
    assert made.byte_range(5, 9) == (50, 50)
    assert index(OPEN_GROUP, [5]).starts_of(np.arange(10)).tolist() == [-1] * 5 + [5, -1, -1, 5, 5]
    assert index(OPEN_GROUP, []).starts_of(np.arange(2)).tolist() == [-1, -1]


def test_hidden_packets_are_needed_and_not_shown() -> None:
    made = index(OPEN_GROUP, [0, 5], is_shown=np.array([False] * 4 + [True] * 6), first_pts=4)
    assert made.pts[made.shown].tolist() == [4, 5, 6, 7, 8, 9]
    assert made.starts_of(np.array([4])).tolist() == [0]
    assert made.seconds(made.pts[made.shown]).tolist() == pytest.approx([i / 25 for i in range(6)])


@given(st.integers(0, 9), st.integers(1, 10))
def test_a_span_keeps_what_its_frames_need(first: int, length: int) -> None:
    made = index(OPEN_GROUP, [0, 5])
    span = (first / 25, min(10, first + length) / 25)
    part = made.clip(*span)
    moments = part.seconds(part.pts[part.shown])
    wanted = part.shown[(moments >= span[0] - 1e-6) & (moments < span[1] - 1e-6)]
    assert part.pts[wanted].tolist() == list(range(first, min(10, first + length)))
    assert (part.starts_of(wanted) >= 0).all()
    assert part.span_seconds in (span, None)
    assert (part.first_pts, part.end_pts) == (made.first_pts, made.end_pts)
    assert same(PacketIndex.from_bytes(part.to_bytes()), part)


def test_a_span_within_one_frame_keeps_the_frame_on_screen() -> None:
    part = index(OPEN_GROUP, [0, 5]).clip(8.2 / 25, 8.4 / 25)
    assert part.pts.tolist() == [7, 5, 6, 9, 8]


def test_a_file_is_known_by_its_edges() -> None:
    assert edge_ranges(100) == [(0, 100), (0, 101)]
    assert edge_ranges(10_000) == [(0, EDGE_BYTES), (10_000 - EDGE_BYTES, EDGE_BYTES + 1)]
    assert edges_hash(b"a", b"b") == edges_hash(b"a", b"b") != edges_hash(b"a", b"c")
