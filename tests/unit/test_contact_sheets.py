"""Contact sheets: captions beside the frames, or labels under them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from civid_loader.contact_sheets import SheetRow, contact_sheet


def row(sample_id: str = "civid/train/1", *, text: str = "A coral circle.", frames: object = None) -> SheetRow:
    return SheetRow(sample_id=sample_id, title="clip", text=text, frames_TCHW=frames)  # type: ignore[arg-type]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_frames_text_and_placeholder(tmp_path: Path) -> None:
    red = torch.zeros(4, 3, 90, 160, dtype=torch.uint8)
    red[:, 0] = 255
    path = tmp_path / "made" / "sheet.png"
    contact_sheet([row(frames=red), row(), row("lvd2m/ytb/2", frames=red.numpy())], path, title="Demo")
    with Image.open(path) as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert colours[(255, 0, 0)] > 2 * 4 * 100 * 180
    assert colours[(232, 231, 227)] > 800 * 70


def test_rows_of_one_sample_share_a_header(tmp_path: Path) -> None:
    contact_sheet([row("a"), row("a")], tmp_path / "one.png", title="x")
    contact_sheet([row("a"), row("b")], tmp_path / "two.png", title="x")
    (width, one), (same, two) = size(tmp_path / "one.png"), size(tmp_path / "two.png")
    assert width == same
    assert one < two


@pytest.mark.parametrize("text", ["", "ちいさな形の旅" * 90, "МАЛЕНЬКАЯ ФИГУРА Éloïse", "word " * 900, "x" * 3000])
def test_any_text_is_drawn_and_cut(tmp_path: Path, text: str) -> None:
    contact_sheet([row(text, text=text)], tmp_path / "x.png", title=text)
    assert size(tmp_path / "x.png")[1] < 345


@pytest.mark.parametrize("shape", [(1, 3, 320, 180), (16, 3, 90, 160), (3, 3, 2, 900)])
def test_any_number_and_shape_of_frames(tmp_path: Path, shape: tuple[int, ...]) -> None:
    contact_sheet([row(frames=np.zeros(shape, dtype=np.uint8))], tmp_path / "x.png", title="x")
    assert size(tmp_path / "x.png")[0] == 1560


@pytest.mark.parametrize(
    "frames",
    [np.zeros((4, 90, 160, 3), np.uint8), np.zeros((4, 3, 9, 9), np.float32), np.zeros((0, 3, 9, 9), np.uint8)],
)
def test_other_frames_are_refused(tmp_path: Path, frames: object) -> None:
    with pytest.raises(ValueError, match=r"civid/train/1, clip: frames must be uint8 \(T, 3, H, W\)"):
        contact_sheet([row(frames=frames)], tmp_path / "x.png", title="x")


def labelled(num_frames: int, *, shape: tuple[int, int] = (90, 160)) -> SheetRow:
    frames = np.full((num_frames, 3, *shape), 200, np.uint8)
    labels = tuple(f"{number}: {number / 2} s" for number in range(num_frames))
    return SheetRow(sample_id="clip.mp4", title="facts", text="", frames_TCHW=frames, labels=labels)


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (2, 900), (900, 2)])
def test_labelled_frames_stand_in_lines(tmp_path: Path, shape: tuple[int, int]) -> None:
    heights = {}
    for num_frames in (1, 4, 8, 9, 16, 17, 60):
        contact_sheet([labelled(num_frames, shape=shape)], tmp_path / "x.png", title="x")
        width, heights[num_frames] = size(tmp_path / "x.png")
        assert width == 1560
    assert heights[1] <= 500
    assert heights[16] < heights[17] < heights[60] < 3000


def test_as_many_labels_as_frames(tmp_path: Path) -> None:
    wrong = SheetRow(sample_id="a", title="b", text="", frames_TCHW=np.zeros((2, 3, 9, 9), np.uint8), labels=("one",))
    with pytest.raises(ValueError, match="a, b: 1 labels for 2 frames"):
        contact_sheet([wrong], tmp_path / "x.png", title="x")
