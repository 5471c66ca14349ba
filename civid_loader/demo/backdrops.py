"""The still pictures behind the shapes, drawn larger than the frame so that the camera can move over them."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from civid_loader.demo.scene import MOODS, RGB, Backdrop, Palette, Scene

Painter = Callable[[Image.Image, Palette, np.random.Generator], Image.Image]


def paint_backdrop(scene: Scene, *, size: tuple[int, int]) -> Image.Image:
    """The scene's backdrop as an RGB image of `size` (height, width) pixels, hard-edged: draw it large and reduce."""
    palette = MOODS[scene.mood]
    rng = np.random.default_rng(scene.texture_seed)
    return _vignette(_PAINTERS[scene.backdrop](_gradient(palette, size=size), palette, rng))


def mix(first: RGB, second: RGB, amount: float) -> RGB:
    """A colour between two: `amount` 0 is the first, 1 the second."""
    red, green, blue = (round(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _gradient(palette: Palette, *, size: tuple[int, int]) -> Image.Image:
    height, width = size
    ramp = np.linspace(0, 1, height)[:, None] ** 0.9
    column = np.asarray(palette.top) * (1 - ramp) + np.asarray(palette.bottom) * ramp
    return Image.fromarray(np.repeat(column[:, None, :], width, axis=1).round().astype(np.uint8))


def _vignette(image: Image.Image) -> Image.Image:
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (image.height, image.width)), indexing="ij")
    shade = 1 - 0.16 * np.clip(x**2 + y**2 - 0.5, 0, None)[..., None]
    return Image.fromarray((np.asarray(image) * shade).clip(0, 255).astype(np.uint8))


def _disc(image: Image.Image, *, x: float, y: float, radius: float, colour: RGB, glow: float = 0.0) -> None:
    """A disc; `glow` > 0 adds a soft halo of that many radii."""
    if glow:
        mask = Image.new("L", image.size)
        halo = radius * glow
        ImageDraw.Draw(mask).ellipse((x - halo, y - halo, x + halo, y + halo), fill=110)
        # Blurred small: a wide blur of the full picture costs ten times as much.
        small = mask.reduce(8).filter(ImageFilter.GaussianBlur(halo / 24))
        image.paste(colour, mask=small.resize(image.size, Image.Resampling.BILINEAR))
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _ridge(rng: np.random.Generator, *, width: int, base: float, swing: float) -> list[tuple[float, float]]:
    """Points of a soft wavy line around `base`, from left to right."""
    x = np.linspace(0, 1, 120)
    y = np.full(x.shape, base)
    for n in (1, 2, 3):
        y += swing / n * np.sin(2 * np.pi * (rng.uniform(0.6, 1.1) * n * x + rng.uniform()))
    return [(float(a), float(b)) for a, b in zip(x * width, y, strict=True)]


def _hills(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    _disc(image, x=width * rng.uniform(0.6, 0.75), y=height * 0.34, radius=height * 0.07, colour=palette.glow, glow=3)
    for layer, level in enumerate((0.58, 0.7, 0.82)):
        ridge = _ridge(rng, width=width, base=height * level, swing=height * 0.05)
        colour = mix(palette.bottom, palette.ink, (0.25, 0.55, 0.9)[layer])
        ImageDraw.Draw(image).polygon([*ridge, (width, height), (0, height)], fill=colour)
    return image


def _skyline(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    for low, high, amount in ((0.42, 0.62, 0.3), (0.56, 0.78, 0.85)):
        x = -0.02 * width
        while x < width:
            tower = width * rng.uniform(0.05, 0.09)
            top = height * rng.uniform(low, high)
            draw.rectangle((x, top, x + tower, height), fill=mix(palette.bottom, palette.ink, amount))
            _windows(draw, palette, rng, box=(x, top, x + tower, height), amount=amount)
            x += tower + width * 0.006
    return image


def _windows(
    draw: ImageDraw.ImageDraw,
    palette: Palette,
    rng: np.random.Generator,
    *,
    box: tuple[float, float, float, float],
    amount: float,
) -> None:
    left, top, right, bottom = box
    pane = (right - left) / 7
    for row in np.arange(top + 1.5 * pane, bottom, 2.4 * pane):
        for column in range(3):
            if rng.uniform() < 0.45:
                x = left + pane * (1 + 2 * column)
                draw.rectangle((x, row, x + pane, row + 1.3 * pane), fill=mix(palette.bottom, palette.glow, amount))


def _sea(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    sun = width * rng.uniform(0.3, 0.7)
    _disc(image, x=sun, y=height * 0.5, radius=height * 0.13, colour=palette.glow, glow=2.4)
    for band in range(9):
        base = height * (0.54 + 0.055 * band)
        ridge = _ridge(rng, width=width, base=base, swing=height * 0.004 * (1 + band / 2))
        colour = mix(palette.bottom, palette.ink, 0.15 + 0.085 * band)
        ImageDraw.Draw(image).polygon([*ridge, (width, height), (0, height)], fill=colour)
        reach = width * 0.1 * (1 - band / 10)
        x = sun + width * rng.uniform(-0.02, 0.02)
        shine = (x - reach, base + height * 0.02, x + reach, base + height * 0.028)
        ImageDraw.Draw(image).rounded_rectangle(shine, radius=height * 0.004, fill=mix(colour, palette.glow, 0.55))
    return image


def _forest(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    for level, tall, amount in ((0.62, 0.26, 0.25), (0.76, 0.34, 0.55), (0.92, 0.42, 0.92)):
        colour = mix(palette.bottom, palette.ink, amount)
        draw.rectangle((0, height * level, width, height), fill=colour)
        for x in np.arange(-0.02, 1.04, 0.055) + rng.uniform(-0.015, 0.015, size=20):
            tip = height * (level - tall * rng.uniform(0.6, 1.0))
            for tier in range(3):
                top = tip + (height * level - tip) * 0.26 * tier
                foot = top + (height * level - tip) * 0.5
                half = height * 0.04 * (1 + 0.45 * tier)
                draw.polygon([(x * width, top), (x * width - half, foot), (x * width + half, foot)], fill=colour)
    return image


def _stars(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    for _ in range(130):
        radius = rng.uniform(1, 4)
        colour = mix(palette.top, palette.glow, 0.4 + radius / 8)
        x, y = width * rng.uniform(), height * rng.uniform() ** 1.2
        _disc(image, x=x, y=y, radius=radius * height / 700, colour=colour)
    moon_x, moon_y, radius = width * rng.uniform(0.68, 0.78), height * 0.28, height * 0.09
    _disc(image, x=moon_x, y=moon_y, radius=radius, colour=palette.glow, glow=2.2)
    for dx, dy, size in ((-0.3, -0.2, 0.22), (0.3, 0.25, 0.3), (0.15, -0.45, 0.14)):
        crater = mix(palette.glow, palette.bottom, 0.25)
        _disc(image, x=moon_x + dx * radius, y=moon_y + dy * radius, radius=size * radius, colour=crater)
    ridge = _ridge(rng, width=width, base=height * 0.86, swing=height * 0.03)
    ImageDraw.Draw(image).polygon([*ridge, (width, height), (0, height)], fill=palette.ink)
    return image


def _bokeh(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    for _ in range(26):
        diameter = round(height * rng.uniform(0.1, 0.3))
        disc = Image.new("L", (diameter, diameter))
        ImageDraw.Draw(disc).ellipse((1, 1, diameter - 2, diameter - 2), fill=60, outline=95, width=height // 160)
        corner = (round(rng.uniform(0, width) - diameter / 2), round(rng.uniform(0, height) - diameter / 2))
        image.paste(mix(palette.bottom, palette.glow, rng.uniform(0.4, 1)), corner, mask=disc)
    return image.filter(ImageFilter.BoxBlur(height // 200))


def _stripes(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in (image.height, image.width)), indexing="ij")
    period = image.height / rng.integers(5, 9)
    wave = np.clip(3 * np.sin(2 * np.pi * (x + y) / period), -1, 1)[..., None]
    pixels = np.asarray(image) + 0.09 * wave * (np.asarray(palette.glow) - np.asarray(palette.ink))
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def _studio(image: Image.Image, palette: Palette, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    floor = height * 0.74
    ImageDraw.Draw(image).rectangle((0, floor, width, height), fill=mix(palette.bottom, palette.ink, 0.35))
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in (height, width)), indexing="ij")
    spot = np.exp(-((x - rng.uniform(0.4, 0.6)) ** 2 / 0.06 + (y - 0.45) ** 2 / 0.09))[..., None] * 0.55
    pixels = np.asarray(image) * (1 - spot) + np.asarray(palette.glow) * spot
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


_PAINTERS: Final[Mapping[Backdrop, Painter]] = {
    "hills": _hills,
    "skyline": _skyline,
    "sea": _sea,
    "forest": _forest,
    "stars": _stars,
    "bokeh": _bokeh,
    "stripes": _stripes,
    "studio": _studio,
}
