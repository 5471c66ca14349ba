"""The moving shapes: small RGBA pictures with smooth edges, a white rim and a soft shadow."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from civid_loader.demo.backdrops import mix
from civid_loader.demo.scene import COLOURS, RGB, Actor, Shape

Point = tuple[float, float]

_MARGIN: Final = 1.5
"""Side of the picture over height of the shape: room for rim and shadow, and to turn in."""
_SUPERSAMPLE: Final = 4
_FACE: Final[RGB] = (38, 34, 48)


def paint_actor(actor: Actor, *, height_px: int) -> Image.Image:
    """The actor's shape, `height_px` high, in the middle of a square RGBA picture."""
    side = math.ceil(height_px * _MARGIN)
    edge = _blurred_outline(actor.shape, side=side, height_px=height_px)
    fill, rim = _step(edge, 0.5), _step(edge, 0.06)
    sprite = Image.new("RGBA", (side, side))
    shadow = Image.new("L", (side, side))
    shadow.paste(rim, (round(0.03 * height_px), round(0.06 * height_px)))
    sprite.paste((0, 0, 0, 110), mask=shadow.filter(ImageFilter.GaussianBlur(0.035 * height_px)))
    sprite.paste((255, 255, 255, 255), mask=rim)
    colour = COLOURS[actor.colour]
    ramp = Image.linear_gradient("L").resize((side, side))
    top, bottom = mix(colour, (255, 255, 255), 0.22), mix(colour, (0, 0, 0), 0.14)
    shading = Image.composite(Image.new("RGB", ramp.size, bottom), Image.new("RGB", ramp.size, top), ramp)
    sprite.paste(shading, mask=fill)
    if actor.name is not None:
        _draw_face(sprite, height_px=height_px)
    return sprite


def paint_label(text: str, *, height_px: int) -> Image.Image:
    """Words on a dark rounded plate, RGBA."""
    font = ImageFont.load_default(size=height_px * 0.62)
    left, _, right, _ = font.getbbox(text)
    plate = Image.new("RGBA", (math.ceil(right - left + height_px), height_px))
    draw = ImageDraw.Draw(plate)
    draw.rounded_rectangle((0, 0, plate.width - 1, height_px - 1), radius=height_px // 3, fill=(20, 20, 28, 190))
    draw.text((plate.width / 2, height_px / 2), text, font=font, fill=(255, 255, 255, 255), anchor="mm")
    return plate


def _blurred_outline(shape: Shape, *, side: int, height_px: int) -> Image.Image:
    """The filled outline, blurred: a threshold then gives rounded corners, a lower one a wider shape (the rim)."""
    scale = _SUPERSAMPLE * height_px / 2
    middle = _SUPERSAMPLE * side / 2
    mask = Image.new("L", (_SUPERSAMPLE * side, _SUPERSAMPLE * side))
    draw = ImageDraw.Draw(mask)
    draw.polygon([(middle + scale * x, middle + scale * y) for x, y in _OUTLINES[shape]()], fill=255)
    if shape == "ring":
        draw.polygon([(middle + 0.5 * scale * x, middle + 0.5 * scale * y) for x, y in _regular(90)], fill=0)
    return mask.filter(ImageFilter.GaussianBlur(0.09 * scale))


def _step(mask: Image.Image, level: float) -> Image.Image:
    """Everything above `level` (0..1) becomes opaque; reduced to the final size, so the edge is smooth."""
    return mask.point([255 * (value > 255 * level) for value in range(256)]).reduce(_SUPERSAMPLE)


def _draw_face(sprite: Image.Image, *, height_px: int) -> None:
    draw = ImageDraw.Draw(sprite)
    middle, unit = sprite.width / 2, height_px / 2
    for side in (-1, 1):
        x, y = middle + side * 0.24 * unit, middle - 0.02 * unit
        for radius, dx, colour in ((0.17, 0.0, (255, 255, 255)), (0.1, 0.03, _FACE), (0.035, 0.07, (255, 255, 255))):
            eye, pupil = radius * unit, x + dx * unit
            draw.ellipse((pupil - eye, y - eye, pupil + eye, y + eye), fill=colour)
    smile = (middle - 0.2 * unit, middle + 0.02 * unit, middle + 0.2 * unit, middle + 0.36 * unit)
    draw.arc(smile, start=25, end=155, fill=_FACE, width=max(1, round(0.06 * unit)))


def _regular(corners: int, *, turn: float = 0.0, inner: float | None = None) -> list[Point]:
    """Corners of a regular polygon in a unit circle, first one up; `inner` adds a star's inner corners."""
    count = corners if inner is None else 2 * corners
    points = []
    for index in range(count):
        angle = 2 * math.pi * index / count + turn
        radius = inner if inner is not None and index % 2 else 1.0
        points.append((radius * math.sin(angle), -radius * math.cos(angle)))
    return points


def _heart() -> list[Point]:
    points = []
    for step in range(90):
        t = 2 * math.pi * step / 90
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -y / 16 - 0.1))
    return points


_OUTLINES: Final[Mapping[Shape, Callable[[], list[Point]]]] = {
    "circle": lambda: _regular(90),
    "ring": lambda: _regular(90),
    "square": lambda: [(0.86 * x, 0.86 * y) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))],
    "triangle": lambda: [(0.0, -0.95), (1.0, 0.8), (-1.0, 0.8)],
    "diamond": lambda: [(0.0, -1.1), (0.8, 0.0), (0.0, 1.1), (-0.8, 0.0)],
    "hexagon": lambda: _regular(6, turn=math.pi / 6),
    "star": lambda: _regular(5, inner=0.5),
    "heart": _heart,
}
