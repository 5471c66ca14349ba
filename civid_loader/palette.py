"""What all our pictures share: colours, the font, and text that fits.

The font is the one that comes with Pillow: it draws ASCII and little more.
"""

import unicodedata
from functools import cache
from typing import Final

from PIL import ImageFont

PAPER: Final = (250, 249, 246)
CARD: Final = (255, 255, 255)
LINE: Final = (226, 223, 216)
EMPTY: Final = (232, 231, 227)
TRACK: Final = (241, 239, 234)
INK: Final = (44, 46, 52)
FAINT: Final = (132, 134, 142)
ACCENT: Final = (34, 110, 128)


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font at a size."""
    return ImageFont.load_default(size=size_px)


def plain(text: str) -> str:
    """Letters without their accents, which the font lacks; what else it lacks it draws as a box."""
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


def cut(text: str, size_px: int, width_px: float) -> str:
    """The text as the font can draw it, cut where it is too long."""
    text = plain(text)
    if font(size_px).getlength(text) <= width_px:
        return text
    while text and font(size_px).getlength(f"{text}...") > width_px:
        text = text[:-1]
    return f"{text}..."
