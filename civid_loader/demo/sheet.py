"""A contact sheet: one picture with the frames of each clip and the caption beside them.

The font is the one that comes with Pillow: it draws ASCII and little more.

Shapes: T frames, C channels (RGB), H height, W width, in pixels.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_WIDTH: Final = 1560
_MARGIN: Final = 36
_GAP: Final = 9
_PADDING: Final = 12
_THUMB_HEIGHT: Final = 118
_STRIP_WIDTH: Final = 858
_TEXT_LEFT: Final = _MARGIN + _STRIP_WIDTH + 24
_TEXT_WIDTH: Final = _WIDTH - _MARGIN - _TEXT_LEFT
_LINE_HEIGHT: Final = 19
_MAX_LINES: Final = 6
_HEADER_HEIGHT: Final = 44
_PAPER: Final = (250, 249, 246)
_CARD: Final = (255, 255, 255)
_LINE: Final = (226, 223, 216)
_INK: Final = (44, 46, 52)
_FAINT: Final = (132, 134, 142)
_ACCENT: Final = (34, 110, 128)
_EMPTY: Final = (232, 231, 227)


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetRow:
    """One clip on the sheet."""

    sample_id: str
    """Rows of one sample that follow each other share a header with this text."""
    title: str
    """Small line above the caption, such as the clip id."""
    text: str
    """The caption; wrapped, and cut with an ellipsis after 6 lines."""
    frames_TCHW: npt.ArrayLike | None  # noqa: N815
    """uint8 RGB frames, tensor or array; None: the video was not found."""


def contact_sheet(rows: Sequence[SheetRow], path: Path, *, title: str) -> None:
    """Draw `rows` under `title` and save them as the PNG file `path`; its folder is made.

    Raises:
        ValueError: frames are not uint8 (T, 3, H, W) with at least one frame; names the row.
    """
    blocks = [_Block(row=row, lines=_wrap(_plain(row.text)), thumbs=_thumbs(row)) for row in rows]
    headers = [index == 0 or row.sample_id != rows[index - 1].sample_id for index, row in enumerate(rows)]
    height = 2 * _MARGIN + 52 + sum(block.height + _GAP for block in blocks) + _HEADER_HEIGHT * sum(headers)
    sheet = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 6), _plain(title), font=_font(30), fill=_INK)
    y = _MARGIN + 52
    for block, header in zip(blocks, headers, strict=True):
        if header:
            draw.text((_MARGIN, y + 12), _plain(block.row.sample_id), font=_font(18), fill=_ACCENT)
            y += _HEADER_HEIGHT
        _draw_block(sheet, block, top=y)
        y += block.height + _GAP
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """A row, measured."""

    row: SheetRow
    """The row."""
    lines: list[str]
    """Its text, wrapped."""
    thumbs: list[Image.Image]
    """Its frames, all of one size; none if the video was not found."""

    @property
    def height(self) -> int:
        """Height of its card in pixels."""
        picture = self.thumbs[0].height if self.thumbs else _THUMB_HEIGHT * 2 // 3
        return max(picture, 24 + _LINE_HEIGHT * len(self.lines)) + 2 * _PADDING


def _draw_block(sheet: Image.Image, block: _Block, *, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    card = (_MARGIN - _PADDING, top, _WIDTH - _MARGIN + _PADDING, top + block.height)
    draw.rounded_rectangle(card, radius=10, fill=_CARD, outline=_LINE)
    for number, thumb in enumerate(block.thumbs):
        mask = Image.new("L", thumb.size)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, thumb.width - 1, thumb.height - 1), radius=6, fill=255)
        sheet.paste(thumb, (_MARGIN + number * (thumb.width + _GAP), top + _PADDING), mask=mask)
    if not block.thumbs:
        box = (_MARGIN, top + _PADDING, _MARGIN + _STRIP_WIDTH, top + block.height - _PADDING)
        draw.rounded_rectangle(box, radius=8, fill=_EMPTY)
        middle = (_MARGIN + _STRIP_WIDTH / 2, top + block.height / 2)
        draw.text(middle, "not found", font=_font(18), fill=_FAINT, anchor="mm")
    draw.text((_TEXT_LEFT, top + _PADDING), _plain(block.row.title), font=_font(14), fill=_FAINT)
    for number, line in enumerate(block.lines):
        draw.text((_TEXT_LEFT, top + _PADDING + 24 + number * _LINE_HEIGHT), line, font=_font(15), fill=_INK)


def _thumbs(row: SheetRow) -> list[Image.Image]:
    """The frames, scaled so that they fit side by side."""
    if row.frames_TCHW is None:
        return []
    frames = np.asarray(row.frames_TCHW)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or not frames.shape[0]:
        raise ValueError(
            f"{row.sample_id}, {row.title}: frames must be uint8 (T, 3, H, W) with T >= 1, "
            f"got {frames.dtype} {frames.shape}"
        )
    num_frames, _, height, width = frames.shape
    cell = (_STRIP_WIDTH - _GAP * (num_frames - 1)) / num_frames
    scale = min(_THUMB_HEIGHT / height, cell / width)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    images = (Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))) for frame in frames)
    return [image.resize(size, Image.Resampling.LANCZOS) for image in images]


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)


def _plain(text: str) -> str:
    """Letters without their accents, which the font lacks; what else it lacks it draws as a box."""
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


def _wrap(text: str) -> list[str]:
    """Lines that fit the text column, at most `_MAX_LINES`."""
    lines = list(itertools.islice(_lines(text), _MAX_LINES + 1))
    if len(lines) > _MAX_LINES:
        last = lines[_MAX_LINES - 1].rsplit(" ", 1)[0].rstrip(" .,;:")  # without its last word there is room for …
        lines = [*lines[: _MAX_LINES - 1], f"{last} …"]
    return lines


def _lines(text: str) -> Iterator[str]:
    font = _font(15)
    line = ""
    # Pieces of 24 characters fit in any script; text without spaces, such as Japanese, breaks between them.
    for piece in re.findall(r"\S{1,24}|\s+", text):
        word = piece if piece.strip() else " "
        if font.getlength(line + word) > _TEXT_WIDTH:
            yield line.rstrip()
            line = word.lstrip()
        else:
            line += word
    if line:
        yield line
