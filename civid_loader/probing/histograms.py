"""The report of `civid probe` as a picture: one panel for each histogram."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from civid_loader.probing.media_report import ProbeReport

# Colours and spacing are those of the contact sheets.
_PAPER: Final = (250, 249, 246)
_CARD: Final = (255, 255, 255)
_LINE: Final = (226, 223, 216)
_INK: Final = (44, 46, 52)
_FAINT: Final = (132, 134, 142)
_ACCENT: Final = (34, 110, 128)
_EMPTY: Final = (241, 239, 234)
_WIDTH: Final = 1560
_MARGIN: Final = 36
_GAP: Final = 24
_PADDING: Final = 28
_PANEL_WIDTH: Final = (_WIDTH - 2 * _MARGIN - _GAP) // 2
_TITLE_HEIGHT: Final = 104
_PANEL_TITLE_HEIGHT: Final = 52
_BAR_HEIGHT: Final = 22
_STEP: Final = 34
_LABEL_WIDTH: Final = 118
_COUNT_WIDTH: Final = 150


def draw(report: ProbeReport, path: Path, *, title: str) -> None:
    """Save the histograms of a report as the PNG file `path`."""
    panels = list(report.histograms.items())
    rows = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    heights = [_panel_height(max(len(counts) for _, counts in row)) for row in rows]
    height = _MARGIN + _TITLE_HEIGHT + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_MARGIN, _MARGIN - 6), _cut(title, 30, _WIDTH - 2 * _MARGIN), font=_font(30), fill=_INK)
    pen.text((_MARGIN, _MARGIN + 42), _summary(report), font=_font(18), fill=_FAINT)
    top = _MARGIN + _TITLE_HEIGHT
    for row, panel_height in zip(rows, heights, strict=True):
        for column, (name, counts) in enumerate(row):
            _draw_panel(pen, name, counts, left=_MARGIN + column * (_PANEL_WIDTH + _GAP), top=top, height=panel_height)
        top += panel_height + _GAP
    picture.save(path, format="PNG")


def _summary(report: ProbeReport) -> str:
    num_ok = report.statuses.get("ok", 0)
    parts = [
        f"{num_ok:,} of {report.num_clips:,} clips ok",
        f"{report.hours:,.1f} hours",
        f"{report.num_files:,} files",
    ]
    if num_ok:
        parts.append(f"variable frame rate {report.num_vfr / num_ok:.1%}")
    return "     ".join(parts)


def _panel_height(num_bars: int) -> int:
    return 2 * _PADDING + _PANEL_TITLE_HEIGHT + _STEP * max(1, num_bars) - (_STEP - _BAR_HEIGHT)


def _draw_panel(
    pen: ImageDraw.ImageDraw, name: str, counts: Mapping[str, int], *, left: int, top: int, height: int
) -> None:
    pen.rounded_rectangle((left, top, left + _PANEL_WIDTH, top + height), radius=10, fill=_CARD, outline=_LINE)
    pen.text((left + _PADDING, top + _PADDING - 4), name, font=_font(20), fill=_ACCENT)
    total, largest = sum(counts.values()), max(counts.values(), default=0)
    bar_left = left + _PADDING + _LABEL_WIDTH
    bar_width = _PANEL_WIDTH - 2 * _PADDING - _LABEL_WIDTH - _COUNT_WIDTH
    if not counts:
        pen.text((left + _PADDING, top + _PADDING + _PANEL_TITLE_HEIGHT), "no clip is ok", font=_font(16), fill=_FAINT)
    for number, (label, count) in enumerate(counts.items()):
        y = top + _PADDING + _PANEL_TITLE_HEIGHT + number * _STEP
        middle = y + _BAR_HEIGHT / 2
        text = _cut(label, 16, _LABEL_WIDTH - 14)
        pen.text((bar_left - 14, middle), text, font=_font(16), fill=_INK, anchor="rm")
        pen.rounded_rectangle((bar_left, y, bar_left + bar_width, y + _BAR_HEIGHT), radius=5, fill=_EMPTY)
        if count:
            length = max(6, round(bar_width * count / largest))
            pen.rounded_rectangle((bar_left, y, bar_left + length, y + _BAR_HEIGHT), radius=5, fill=_ACCENT)
        shares = (f"{count:,}", _INK, _COUNT_WIDTH - 62), (_share(count, total), _FAINT, _COUNT_WIDTH)
        for value, colour, right in shares:
            pen.text((bar_left + bar_width + right, middle), value, font=_font(16), fill=colour, anchor="rm")


def _share(count: int, total: int) -> str:
    """`0 %` only where there is nothing."""
    return "< 1 %" if 0 < count < 0.005 * total else f"{count / total:.0%}".replace("%", " %")


def _cut(text: str, size_px: int, width_px: int) -> str:
    """The text, cut where it is too long."""
    if _font(size_px).getlength(text) <= width_px:
        return text
    while text and _font(size_px).getlength(f"{text}...") > width_px:
        text = text[:-1]
    return f"{text}..."


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)
