import numpy as np
import pytest

from civid_loader.transforms.pad_frames import Fill, PadFrames
from support.samples import a_sample, frame_numbers, hide

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("blank", [0, 1, 2, None, None, None, None, None]),
        ("last", [0, 1, 2, 2, 2, 2, 2, 2]),
        ("loop", [0, 1, 2, 1, 0, 1, 2, 1]),
    ],
)
def test_what_is_too_short_is_filled(fill: Fill, expected: list[int | None]) -> None:
    sample = a_sample(3, 0, 1)
    changed = PadFrames(num_frames=8, fill=fill)(sample, RNG)
    assert frame_numbers(changed, 0, of=sample) == expected
    assert frame_numbers(changed, 1, of=sample) == [None] * 8
    assert frame_numbers(changed, 2, of=sample) == [0, *[None if fill == "blank" else 0] * 7]
    assert changed["pts_seconds_NT"][0].tolist() == [0.0 if t is None else t / 25 for t in expected]


def test_longer_clips_keep_all_and_damaged_frames_are_passed_over() -> None:
    sample = hide(a_sample(6, 4), 1, 1)
    changed = PadFrames(num_frames=4, fill="last")(sample, RNG)
    assert frame_numbers(changed, 0, of=sample) == [0, 1, 2, 3, 4, 5]
    assert frame_numbers(changed, 1, of=sample) == [0, 2, 3, 3, None, None]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="a whole number of at least 1"):
        PadFrames(num_frames=0)
    with pytest.raises(ValueError, match="must be one of blank, last, loop"):
        PadFrames(num_frames=4, fill="mirror")  # type: ignore[arg-type]
