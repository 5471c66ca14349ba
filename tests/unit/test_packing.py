import math
import time
from fractions import Fraction
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from civid_loader.packing import PackClips, PackedFrames, first_fit_decreasing, pack_frames
from support.samples import a_sample

CAPACITY = 24
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=60)


def clips_of(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 256, (t, 3, 2, 4), dtype=torch.uint8, generator=generator) for t in lengths]


def by_looking_at_every_pack(lengths: list[int], capacity: int) -> list[list[int]]:
    packs: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for pack in packs:
            if sum(lengths[k] for k in pack) + lengths[i] <= capacity:
                pack.append(i)
                break
        else:
            packs.append([i])
    return packs


@given(LENGTHS)
def test_packs_are_those_of_the_plain_method(lengths: list[int]) -> None:
    packs = first_fit_decreasing(lengths, capacity=CAPACITY)
    assert packs == by_looking_at_every_pack(lengths, CAPACITY) == first_fit_decreasing(lengths, capacity=CAPACITY)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= CAPACITY for pack in packs)


@given(LENGTHS)
def test_all_packs_but_one_are_more_than_half_full(lengths: list[int]) -> None:
    """So there are less than twice as many as the frames need, whatever the lengths."""
    filled = sorted(sum(lengths[i] for i in pack) for pack in first_fit_decreasing(lengths, capacity=CAPACITY))
    assert all(2 * sum_frames > CAPACITY for sum_frames in filled[1:])


@given(st.lists(st.lists(st.integers(1, CAPACITY - 1), max_size=6, unique=True), max_size=30), st.randoms())
def test_eleven_ninths_of_the_fewest(cuts: list[list[int]], random: Random) -> None:
    """Full packs cut to pieces: as many as there were is the fewest possible."""
    lengths = [
        end - start for cut in cuts for start, end in zip([0, *sorted(cut)], [*sorted(cut), CAPACITY], strict=True)
    ]
    random.shuffle(lengths)
    fewest = math.ceil(Fraction(sum(lengths), CAPACITY))
    assert fewest == len(cuts)
    assert fewest <= len(first_fit_decreasing(lengths, capacity=CAPACITY)) <= Fraction(11, 9) * fewest + Fraction(6, 9)


def test_examples() -> None:
    assert first_fit_decreasing([3, 5, 2, 4], capacity=7) == [[1, 2], [3, 0]]
    assert first_fit_decreasing([2, 2, 2], capacity=4) == [[0, 1], [2]], "equal ones in their order"
    assert first_fit_decreasing([], capacity=4) == []


def test_many_items_take_no_square_of_time() -> None:
    """Half of the packs never have room again: looking at each would be 5 * 10^9 steps."""
    lengths = [51] * 50_000 + [50] * 50_000
    start = time.perf_counter()
    assert len(first_fit_decreasing(lengths, capacity=100)) == 75_000
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("length", [0, 8])
def test_what_fits_no_pack_is_named(length: int) -> None:
    with pytest.raises(ValueError, match=rf"item 1 has length {length}: from 1 to the 7 that"):
        first_fit_decreasing([3, length], capacity=7)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_every_frame_is_in_its_place(lengths: list[int]) -> None:
    clips = clips_of(*lengths)
    packed = pack_frames(clips, max_frames=9)
    assert packed.lengths == tuple(lengths)
    assert all(torch.equal(own, clip) for own, clip in zip(packed.unpack(packed.frames_PTCHW), clips, strict=True))
    mask = packed.mask_PT
    assert int(mask.sum()) == sum(lengths)
    assert packed.padding_share == pytest.approx(1 - float(mask.float().mean()))
    for values in (packed.frames_PTCHW, packed.segment_PT, packed.position_PT):
        assert not values[~mask].any()
    for p, t in mask.nonzero().tolist():
        clip, position = int(packed.segment_PT[p, t]), int(packed.position_PT[p, t])
        assert torch.equal(packed.frames_PTCHW[p, t], clips[clip][position])
        assert packed.place[clip] == (p, t - position)


def test_one_example() -> None:
    packed = pack_frames(clips_of(3, 5, 2, 4), max_frames=8)
    assert packed.place == ((0, 5), (0, 0), (1, 4), (1, 0))
    assert packed.segment_PT.tolist() == [[1] * 5 + [0] * 3, [3] * 4 + [2] * 2 + [0] * 2]
    assert packed.position_PT.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 0, 1, 0, 0]]
    assert packed.mask_PT.sum(dim=1).tolist() == [8, 6]
    assert packed.padding_share == 2 / 16
    assert packed.frames_PTCHW.dtype == torch.uint8
    assert packed.segment_PT.dtype == packed.position_PT.dtype == torch.int64


def attended(packed: PackedFrames) -> list[torch.Tensor]:
    """What attention over frames makes of each clip's pixels."""
    tokens = packed.frames_PTCHW.flatten(2).double() / 255
    mixed = scaled_dot_product_attention(
        tokens[:, None], tokens[:, None], tokens[:, None], attn_mask=packed.attention_mask_PTT[:, None]
    )[:, 0]
    return packed.unpack(mixed)


def test_attention_in_a_pack_is_that_of_each_clip_alone() -> None:
    clips = clips_of(3, 5, 2, 4, 1)
    together = attended(pack_frames(clips, max_frames=9))
    for clip, own in zip(clips, together, strict=True):
        assert torch.allclose(attended(pack_frames([clip], max_frames=len(clip)))[0], own)


def test_clips_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="no clips"):
        pack_frames([], max_frames=8)
    with pytest.raises(ValueError, match=r"clip 1 has 9 frames: from 1 to max_frames=8; shorten it with WindowFrames"):
        pack_frames(clips_of(2, 9), max_frames=8)
    with pytest.raises(ValueError, match="clip 0 has 0 frames"):
        pack_frames(clips_of(0), max_frames=8)
    for other in (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 3, 2, 4), torch.zeros(3, 2, 4)):
        with pytest.raises(ValueError, match=r"clips 0 and 1 cannot share a pack: .*\(2, 3, 2, 4\) torch.uint8"):
            pack_frames([*clips_of(2), other], max_frames=8)


def test_a_batch_of_packs() -> None:
    samples = [a_sample(5, 0, 3, fps=10.0), a_sample(6, seed=1) | {"sample_id": "s1", "weight": 0.0, "note": 7}]
    batch = PackClips(max_frames=8)(samples)
    assert batch.packed.mask_PT.shape == (2, 8)
    assert batch.padding_share == pytest.approx(1 - 14 / 16)
    assert batch.clip_ids == ["c0", "c2", "c0"]
    assert batch.texts == ["text 0", "text 2", "text 0"]
    assert batch.samples_S.tolist() == [0, 0, 1]
    assert batch.weights_S.tolist() == [1, 1, 0]
    assert batch.fps_S.tolist() == pytest.approx([10, 10, 25])
    assert batch.sample_ids == ["s0", "s1"]
    assert batch.extras == {"note": [None, 7]}
    clips = zip(batch.packed.unpack(batch.packed.frames_PTCHW), batch.packed.unpack(batch.pts_seconds_PT), strict=True)
    expected = [(0, 0, 5), (0, 2, 3), (1, 0, 6)]
    for (frames, moments), (b, n, length) in zip(clips, expected, strict=True):
        assert torch.equal(frames, samples[b]["frames_NTCHW"][n, :length])
        assert torch.equal(moments, samples[b]["pts_seconds_NT"][n, :length])
    assert batch.to("meta").packed.frames_PTCHW.is_meta


def test_a_batch_without_a_frame_is_one_empty_pack() -> None:
    batch = PackClips(max_frames=4)([a_sample(0, num_frames=1)])
    assert batch.packed.frames_PTCHW.shape == (1, 4, 3, 4, 6)
    assert not batch.packed.mask_PT.any()
    assert (batch.clip_ids, batch.sample_ids, batch.fps_S.tolist()) == ([], ["s0"], [])


def test_batches_that_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="from 1 to max_frames=4; shorten it"):
        PackClips(max_frames=4)([a_sample(5)])
    with pytest.raises(ValueError, match="a whole number of frames of at least 1"):
        PackClips(max_frames=0)
