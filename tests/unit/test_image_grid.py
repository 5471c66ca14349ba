from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from civid_loader.transforms.image_grid import ImageGrid
from civid_loader.transforms.normalize_frames import NormalizeFrames
from support.samples import a_sample, hide

SIZE = (4, 6)


def grids(grid: ImageGrid, sample: dict[str, Any]) -> torch.Tensor:
    made: torch.Tensor = grid(sample, np.random.default_rng(0))["grids_NCHW"]
    return made


def cells(picture_CHW: torch.Tensor, grid: ImageGrid) -> list[torch.Tensor]:  # noqa: N803 - tensors carry their shape
    """The cells, row by row, of a picture of frames of SIZE."""
    edge = grid.border_px if grid.has_outer_border else 0
    tops = [edge + row * (SIZE[0] + grid.border_px) for row in range(grid.rows)]
    lefts = [edge + column * (SIZE[1] + grid.border_px) for column in range(grid.columns)]
    return [picture_CHW[:, top : top + SIZE[0], left : left + SIZE[1]] for top in tops for left in lefts]


def test_rows_from_left_to_right() -> None:
    sample = a_sample(6, size=SIZE)
    grid = ImageGrid(border_px=2, color=(1, 2, 3))
    made = grids(grid, sample)
    assert made.shape == (1, 3, 2 * 4 + 3 * 2, 3 * 6 + 4 * 2)
    assert made.dtype == torch.uint8
    for cell, frame in zip(cells(made[0], grid), sample["frames_NTCHW"][0], strict=True):
        assert torch.equal(cell, frame)
        cell[:] = 0
    colors = {tuple(color) for color in made[0].flatten(1).T.tolist()}
    assert colors == {(0, 0, 0), (1, 2, 3)}, "all the rest is border"


@pytest.mark.parametrize(("outer", "size"), [(True, (84, 242)), (False, (64, 222))])
def test_the_size_of_a_known_grid(outer: bool, size: tuple[int, int]) -> None:
    made = grids(ImageGrid(rows=2, columns=4, has_outer_border=outer), a_sample(8, size=(27, 48)))
    assert made.shape == (1, 3, *size)


def test_without_border_frames_touch() -> None:
    sample = a_sample(4, size=SIZE)
    a, b, c, d = sample["frames_NTCHW"][0]
    made = grids(ImageGrid(rows=2, columns=2, border_px=0), sample)[0]
    assert torch.equal(made, torch.cat([torch.cat([a, b], dim=2), torch.cat([c, d], dim=2)], dim=1))


def test_too_few_frames_leave_cells_blank() -> None:
    """Masked frames take no cell; a missing clip has a picture too, so that clips stay in step."""
    sample = hide(a_sample(4, 0, size=SIZE), 0, 1)
    grid = ImageGrid(color=(9, 8, 7))
    made = grids(grid, sample)
    shown = cells(made[0], grid)
    for cell, t in zip(shown, (0, 2, 3), strict=False):
        assert torch.equal(cell, sample["frames_NTCHW"][0, t])
    blank = torch.tensor([9, 8, 7], dtype=torch.uint8)[:, None, None].expand(3, *SIZE)
    assert all(torch.equal(cell, blank) for cell in [*shown[3:], *cells(made[1], grid)])


@pytest.mark.parametrize(("count", "chosen"), [(18, [1, 4, 7, 10, 13, 16]), (7, [0, 1, 2, 4, 5, 6]), (6, range(6))])
def test_of_more_frames_some_evenly(count: int, chosen: list[int]) -> None:
    sample = a_sample(count, size=SIZE)
    grid = ImageGrid()
    expected = [sample["frames_NTCHW"][0, t] for t in chosen]
    assert all(torch.equal(a, b) for a, b in zip(cells(grids(grid, sample)[0], grid), expected, strict=True))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 40), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_as_many_different_frames_as_there_is_room_for(count: int, rows: int, columns: int) -> None:
    sample = a_sample(count, num_frames=max(1, count), size=SIZE)
    grid = ImageGrid(rows=rows, columns=columns, border_px=1, color=(0, 0, 0))
    known = [frame.numpy().tobytes() for frame in sample["frames_NTCHW"][0, :count]]
    shown = [cell.numpy().tobytes() for cell in cells(grids(grid, sample)[0], grid) if cell.any()]
    numbers = [known.index(frame) for frame in shown]
    assert len(numbers) == min(count, rows * columns)
    assert numbers == sorted(set(numbers))


def test_frames_that_are_no_pixels_any_more() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"sample s0: its frames are torch\.float32, .*in front of NormalizeFrames"):
        ImageGrid()(NormalizeFrames()(a_sample(1), rng), rng)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": 0}, "rows=0: must be a whole number of at least 1"),
        ({"columns": 2.0}, r"columns=2\.0: must be a whole number"),
        ({"border_px": -1}, "border_px=-1: must be a whole number of at least 0"),
        ({"color": (255, 255)}, r"color=\(255, 255\): must be red, green and blue"),
        ({"color": (0, 0, 256)}, "from 0 to 255"),
        ({"color": (1.0, 1.0, 1.0)}, "each a whole number"),
    ],
)
def test_settings_are_checked_when_given(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageGrid(**given)
