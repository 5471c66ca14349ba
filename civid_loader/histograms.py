"""Histograms as one picture: a panel for each, with a bar, the count and the share of every bucket."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from civid_loader.palette import ACCENT, CARD, FAINT, INK, LINE, PAPER, TRACK, cut, font, plain

_MARGIN: Final = 36
_GAP: Final = 24
_PADDING: Final = 28
_TITLE_HEIGHT: Final = 52
_SUBTITLE_HEIGHT: Final = 52
_PANEL_TITLE_HEIGHT: Final = 52
_BAR_HEIGHT: Final = 22
_STEP: Final = 34
_TEXT: Final = 16
_BAR_GAP: Final = 14
_SHARE_WIDTH: Final = 62
_LABEL_WIDTH: Final = 64
_COUNT_WIDTH: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One histogram."""

    title: str
    """What the buckets are of, with its unit: `clip duration, s`."""
    counted: str
    """What is counted: `clips`."""
    counts: Mapping[str, int]
    """Bucket -> how many, in the order drawn."""
    otherwise: str = "nothing to count"
    """What stands in the place of bars where there are none."""


def draw_panels(
    panels: Sequence[Panel], *, title: str, subtitle: str = "", width_px: int = 1560, columns: int = 2
) -> Image.Image:
    """The panels in rows of `columns`, on one picture that is `width_px` wide and as high as they need."""
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [_panel_height(max(len(panel.counts) for panel in row)) for row in rows]
    top = _MARGIN + _TITLE_HEIGHT + (_SUBTITLE_HEIGHT if subtitle else 0)
    height = top + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN
    picture = Image.new("RGB", (width_px, height), PAPER)
    pen = ImageDraw.Draw(picture)
    size_px = 30 if width_px > 1000 else 24
    pen.text((_MARGIN, _MARGIN - 6), cut(title, size_px, width_px - 2 * _MARGIN), font=font(size_px), fill=INK)
    pen.text((_MARGIN, _MARGIN + 42), cut(subtitle, 18, width_px - 2 * _MARGIN), font=font(18), fill=FAINT)
    panel_width = (width_px - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    for row, panel_height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            left = _MARGIN + column * (panel_width + _GAP)
            _draw_panel(pen, panel, (left, top, left + panel_width, top + panel_height))
        top += panel_height + _GAP
    return picture


def _panel_height(num_bars: int) -> int:
    return 2 * _PADDING + _PANEL_TITLE_HEIGHT + _STEP * max(1, num_bars) - (_STEP - _BAR_HEIGHT)


def _draw_panel(pen: ImageDraw.ImageDraw, panel: Panel, box: tuple[int, int, int, int]) -> None:
    """`box` is (left, top, right, bottom) in pixels. Labels and counts take the width they need, bars the rest."""
    pen.rounded_rectangle(box, radius=10, fill=CARD, outline=LINE)
    left, top, right = box[0] + _PADDING, box[1] + _PADDING, box[2] - _PADDING
    pen.text((right, top + 8), plain(panel.counted), font=font(_TEXT), fill=FAINT, anchor="rm")
    title_width = right - left - font(_TEXT).getlength(plain(panel.counted)) - _BAR_GAP
    pen.text((left, top + 8), cut(panel.title, 20, title_width), font=font(20), fill=ACCENT, anchor="lm")
    top += _PANEL_TITLE_HEIGHT
    if not panel.counts:
        pen.text((left, top), plain(panel.otherwise), font=font(_TEXT), fill=FAINT)
        return
    total, largest = sum(panel.counts.values()), max(1, *panel.counts.values())
    labels = [cut(label, _TEXT, 0.4 * (right - left)) for label in panel.counts]
    bar_left = left + max(_LABEL_WIDTH, *map(_width, labels)) + _BAR_GAP
    bar_right = (
        right - max(_COUNT_WIDTH, *(_width(f"{count:,}") for count in panel.counts.values())) - _SHARE_WIDTH - _BAR_GAP
    )
    for number, (label, count) in enumerate(zip(labels, panel.counts.values(), strict=True)):
        y = top + number * _STEP
        middle = y + _BAR_HEIGHT / 2
        pen.text((bar_left - _BAR_GAP, middle), label, font=font(_TEXT), fill=INK, anchor="rm")
        pen.rounded_rectangle((bar_left, y, bar_right, y + _BAR_HEIGHT), radius=5, fill=TRACK)
        if count:
            length = max(6, round((bar_right - bar_left) * count / largest))
            pen.rounded_rectangle((bar_left, y, bar_left + length, y + _BAR_HEIGHT), radius=5, fill=ACCENT)
        pen.text((right - _SHARE_WIDTH, middle), f"{count:,}", font=font(_TEXT), fill=INK, anchor="rm")
        pen.text((right, middle), _share(count, total), font=font(_TEXT), fill=FAINT, anchor="rm")


def _width(text: str) -> int:
    return round(font(_TEXT).getlength(text))


def _share(count: int, total: int) -> str:
    """`0 %` only where there is nothing."""
    return "< 1 %" if 0 < count < 0.005 * total else f"{count / max(1, total):.0%}".replace("%", " %")
