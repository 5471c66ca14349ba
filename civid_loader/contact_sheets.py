"""A contact sheet: one picture with the frames of each clip, and the caption beside them or a label under each.

Shapes: T frames, C channels (RGB), H height, W width, in pixels.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from civid_loader.palette import ACCENT, CARD, EMPTY, FAINT, INK, LINE, PAPER, font, plain

_WIDTH: Final = 1560
_MARGIN: Final = 36
_GAP: Final = 9
_PADDING: Final = 12
_THUMB_HEIGHT: Final = 118
_STRIP_WIDTH: Final = 858
_WIDE_WIDTH: Final = _WIDTH - 2 * _MARGIN
_WIDE_HEIGHT: Final = 250
_MAX_COLUMNS: Final = 8
_LABEL_HEIGHT: Final = 26
_TITLE_HEIGHT: Final = 24
_TEXT_LEFT: Final = _MARGIN + _STRIP_WIDTH + 24
_TEXT_WIDTH: Final = _WIDTH - _MARGIN - _TEXT_LEFT
_LINE_HEIGHT: Final = 19
_MAX_LINES: Final = 6
_HEADER_HEIGHT: Final = 44


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetRow:
    """One clip on the sheet."""

    sample_id: str
    """Rows of one sample that follow each other share a header with this text."""
    title: str
    """Small line above the caption, such as the clip id."""
    text: str
    """The caption; wrapped, and cut with an ellipsis after 6 lines. Not drawn where there are labels."""
    frames_TCHW: npt.ArrayLike | None  # noqa: N815
    """uint8 RGB frames, tensor or array; None: there are none."""
    labels: tuple[str, ...] = ()
    """T texts to stand under the frames, which then take the whole width, in as many lines as needed."""
    placeholder: str = "not found"
    """What stands in the place of frames where there are none."""


def contact_sheet(rows: Sequence[SheetRow], path: Path, *, title: str) -> None:
    """Draw `rows` under `title` and save them as the PNG file `path`; its folder is made.

    Raises:
        ValueError: frames are not uint8 (T, 3, H, W) with at least one frame, or not as many as labels; names the row.
    """
    blocks = [_measured(row) for row in rows]
    headers = [index == 0 or row.sample_id != rows[index - 1].sample_id for index, row in enumerate(rows)]
    height = 2 * _MARGIN + 52 + sum(block.height + _GAP for block in blocks) + _HEADER_HEIGHT * sum(headers)
    sheet = Image.new("RGB", (_WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 6), plain(title), font=font(30), fill=INK)
    y = _MARGIN + 52
    for block, header in zip(blocks, headers, strict=True):
        if header:
            draw.text((_MARGIN, y + 12), plain(block.row.sample_id), font=font(18), fill=ACCENT)
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
    """Its frames, all of one size."""

    columns: int
    """Frames side by side."""

    @property
    def height(self) -> int:
        """Height of its card in pixels."""
        if self.row.labels:
            num_lines = -(-len(self.thumbs) // self.columns)
            return _TITLE_HEIGHT + num_lines * (self.thumbs[0].height + _LABEL_HEIGHT) + 2 * _PADDING - 6
        picture = self.thumbs[0].height if self.thumbs else _THUMB_HEIGHT * 2 // 3
        return max(picture, _TITLE_HEIGHT + _LINE_HEIGHT * len(self.lines)) + 2 * _PADDING


def _measured(row: SheetRow) -> _Block:
    """Frames with a caption stand in one strip; with labels in lines of equal length, at most 8 in each. 12: 6 + 6."""
    frames = None if row.frames_TCHW is None else _checked(row)
    num_frames = 0 if frames is None else len(frames)
    columns, width, height = num_frames, _STRIP_WIDTH, _THUMB_HEIGHT
    if row.labels:
        columns, width, height = -(-num_frames // -(-num_frames // _MAX_COLUMNS)), _WIDE_WIDTH, _WIDE_HEIGHT
    thumbs = [] if frames is None else _thumbs(frames, width=(width + _GAP) / columns - _GAP, height=height)
    return _Block(row=row, lines=[] if row.labels else _wrap(plain(row.text)), thumbs=thumbs, columns=columns)


def _checked(row: SheetRow) -> npt.NDArray[np.uint8]:
    frames = np.asarray(row.frames_TCHW)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or not frames.shape[0]:
        raise ValueError(
            f"{row.sample_id}, {row.title}: frames must be uint8 (T, 3, H, W) with T >= 1, "
            f"got {frames.dtype} {frames.shape}"
        )
    if len(row.labels) not in (0, len(frames)):
        raise ValueError(f"{row.sample_id}, {row.title}: {len(row.labels)} labels for {len(frames)} frames")
    return frames


def _thumbs(frames: npt.NDArray[np.uint8], *, width: float, height: int) -> list[Image.Image]:
    """The frames, scaled to fit."""
    scale = min(height / frames.shape[2], width / frames.shape[3])
    size = max(1, int(frames.shape[3] * scale)), max(1, int(frames.shape[2] * scale))
    images = (Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))) for frame in frames)
    return [image.resize(size, Image.Resampling.LANCZOS) for image in images]


def _draw_block(sheet: Image.Image, block: _Block, *, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    card = (_MARGIN - _PADDING, top, _WIDTH - _MARGIN + _PADDING, top + block.height)
    draw.rounded_rectangle(card, radius=10, fill=CARD, outline=LINE)
    has_labels = bool(block.row.labels)
    for number, thumb in enumerate(block.thumbs):
        line, column = divmod(number, block.columns)
        left = _MARGIN + column * (thumb.width + _GAP)
        y = top + _PADDING + has_labels * (_TITLE_HEIGHT + line * (thumb.height + _LABEL_HEIGHT))
        mask = Image.new("L", thumb.size)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, thumb.width - 1, thumb.height - 1), radius=6, fill=255)
        sheet.paste(thumb, (left, y), mask=mask)
        if has_labels:
            middle = (left + thumb.width / 2, y + thumb.height + _LABEL_HEIGHT / 2 - 1)
            draw.text(middle, plain(block.row.labels[number]), font=font(14), fill=INK, anchor="mm")
    if not block.thumbs:
        box = (_MARGIN, top + _PADDING, _MARGIN + _STRIP_WIDTH, top + block.height - _PADDING)
        draw.rounded_rectangle(box, radius=8, fill=EMPTY)
        middle = (_MARGIN + _STRIP_WIDTH / 2, top + block.height / 2)
        draw.text(middle, plain(block.row.placeholder), font=font(18), fill=FAINT, anchor="mm")
    text_left = _MARGIN if has_labels else _TEXT_LEFT
    draw.text((text_left, top + _PADDING), plain(block.row.title), font=font(14), fill=FAINT)
    for number, text in enumerate(block.lines):
        y = top + _PADDING + _TITLE_HEIGHT + number * _LINE_HEIGHT
        draw.text((text_left, y), text, font=font(15), fill=INK)


def _wrap(text: str) -> list[str]:
    """Lines that fit the text column, at most `_MAX_LINES`."""
    lines = list(itertools.islice(_lines(text), _MAX_LINES + 1))
    if len(lines) > _MAX_LINES:
        last = lines[_MAX_LINES - 1].rsplit(" ", 1)[0].rstrip(" .,;:")  # without its last word there is room for …
        lines = [*lines[: _MAX_LINES - 1], f"{last} …"]
    return lines


def _lines(text: str) -> Iterator[str]:
    face = font(15)
    line = ""
    # Pieces of 24 characters fit in any script; text without spaces, such as Japanese, breaks between them.
    for piece in re.findall(r"\S{1,24}|\s+", text):
        word = piece if piece.strip() else " "
        if face.getlength(line + word) > _TEXT_WIDTH:
            yield line.rstrip()
            line = word.lstrip()
        else:
            line += word
    if line:
        yield line
