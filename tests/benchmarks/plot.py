"""A line plot with Pillow alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

WIDTH_PX: Final = 800
HEIGHT_PX: Final = 400
MARGIN_PX: Final = 50
NUM_TICKS: Final = 5


def save_curve(points: Sequence[tuple[float, float]], path: Path, *, x_label: str, y_label: str) -> Path:
    """Draw (x, y) points as a line, both axes from 0, and save it as PNG."""
    x_end, y_end = max(x for x, _ in points) or 1.0, 1.1 * max(y for _, y in points) or 1.0
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    draw = ImageDraw.Draw(image)

    def place(x: float, y: float) -> tuple[float, float]:
        inner = (WIDTH_PX - 2 * MARGIN_PX, HEIGHT_PX - 2 * MARGIN_PX)
        return MARGIN_PX + x / x_end * inner[0], HEIGHT_PX - MARGIN_PX - y / y_end * inner[1]

    for tick in range(NUM_TICKS + 1):
        x, y = x_end * tick / NUM_TICKS, y_end * tick / NUM_TICKS
        draw.line([place(0, y), place(x_end, y)], fill="lightgray")
        draw.text((5, place(0, y)[1] - 5), f"{y:.0f}", fill="black")
        draw.text((place(x, 0)[0] - 5, HEIGHT_PX - MARGIN_PX + 5), f"{x:.0f}", fill="black")
    draw.text((WIDTH_PX // 2, HEIGHT_PX - 20), x_label, fill="black")
    draw.text((MARGIN_PX, 20), y_label, fill="black")
    draw.line([place(x, y) for x, y in points], fill="navy", width=2)
    image.save(path)
    return path
