"""What a made-up clip shows. Pictures (`render`) and sentences (`wording`) are both made from it, so they agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar, get_args

import numpy as np

Shape = Literal["circle", "ring", "square", "triangle", "diamond", "hexagon", "star", "heart"]
Motion = Literal[
    "drift_right", "drift_left", "rise", "sink", "bounce", "circle", "spin", "sway", "pulse", "still"
]  # fmt: skip
Backdrop = Literal["hills", "skyline", "sea", "forest", "stars", "bokeh", "stripes", "studio"]
Mood = Literal["dusk", "morning", "night", "noon", "ember", "rose", "mist", "lagoon"]
Camera = Literal["static", "pan_right", "pan_left", "push_in", "pull_back", "tilt_up"]
Framing = Literal["wide", "medium", "close"]
RGB = tuple[int, int, int]
T = TypeVar("T")

COLOURS: Final[Mapping[str, RGB]] = {
    "coral": (255, 112, 97), "yellow": (255, 205, 64), "teal": (20, 158, 150), "violet": (140, 96, 214),
    "crimson": (214, 40, 74), "orange": (255, 146, 43), "blue": (62, 124, 230), "lime": (156, 206, 64),
    "pink": (255, 138, 184), "ivory": (250, 240, 218),
}  # fmt: skip
"""Colours of the shapes, by the name the captions use."""

SIZE_BY_FRAMING: Final[Mapping[Framing, float]] = {"wide": 0.24, "medium": 0.36, "close": 0.52}
"""Height of the lead as a fraction of the frame's height."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """The colours of a mood."""

    top: RGB
    """Colour of the gradient at the top of the frame."""
    bottom: RGB
    """Colour of the gradient at the bottom of the frame."""
    ink: RGB
    """Colour of the nearest layer of the backdrop."""
    glow: RGB
    """Colour of lights: sun, moon, stars, lit windows."""
    names: tuple[str, str]
    """Names of `top` and `bottom`, as the captions say them."""


MOODS: Final[Mapping[Mood, Palette]] = {
    "dusk": Palette(
        top=(255, 176, 148), bottom=(132, 100, 172), ink=(58, 42, 92), glow=(255, 232, 190), names=("peach", "lilac")
    ),
    "morning": Palette(
        top=(168, 226, 206), bottom=(255, 240, 196), ink=(44, 112, 106), glow=(255, 255, 236), names=("mint", "cream")
    ),
    "night": Palette(
        top=(14, 20, 56), bottom=(66, 76, 142), ink=(8, 12, 34), glow=(255, 236, 170), names=("navy", "indigo")
    ),
    "noon": Palette(
        top=(84, 176, 228), bottom=(214, 240, 246), ink=(30, 88, 118), glow=(255, 252, 224), names=("sky blue", "white")
    ),
    "ember": Palette(
        top=(98, 30, 54), bottom=(250, 152, 82), ink=(56, 16, 34), glow=(255, 220, 140), names=("burgundy", "amber")
    ),
    "rose": Palette(
        top=(255, 226, 222), bottom=(232, 140, 164), ink=(128, 52, 84), glow=(255, 248, 238), names=("blush", "rose")
    ),
    "mist": Palette(
        top=(222, 228, 234), bottom=(142, 158, 176), ink=(62, 76, 94), glow=(255, 255, 255), names=("pearl", "slate")
    ),
    "lagoon": Palette(
        top=(10, 74, 88), bottom=(116, 196, 160), ink=(4, 42, 50), glow=(224, 255, 220), names=("deep teal", "seafoam")
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """One moving shape."""

    shape: Shape
    """Outline of the shape."""
    colour: str
    """Key of `COLOURS`."""
    motion: Motion
    """How it moves during the shot."""
    size: float
    """Height as a fraction of the frame's height."""
    x: float
    """Centre at rest, fraction of the frame's width."""
    y: float
    """Centre at rest, fraction of the frame's height."""
    name: str | None = None
    """Name of the character it plays; a named shape has a face."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What one shot shows."""

    backdrop: Backdrop
    """What stands behind the shapes."""
    mood: Mood
    """Key of `MOODS`: the colours of the backdrop."""
    actors: tuple[Actor, ...]
    """The shapes, lead first."""
    camera: Camera
    """How the camera moves."""
    framing: Framing
    """How large the lead is in the frame."""
    label: str | None = None
    """Words on the screen, ASCII."""
    texture_seed: int = 0
    """Seed of the backdrop's details."""
    wording: int = 0
    """Which of several wordings the captions use, any non-negative number."""


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


def make_scenes(rng: np.random.Generator, *, count: int) -> list[Scene]:
    """`count` scenes that look different: backdrops and moods repeat only after all of them were used."""
    backdrops, moods, leads = (_cycle(rng, options, count) for options in (get_args(Backdrop), get_args(Mood), _LEADS))
    return [
        reframe(rng, _scene(rng, backdrop=backdrop, mood=mood, lead=lead))
        for backdrop, mood, lead in zip(backdrops, moods, leads, strict=True)
    ]


def make_sequence(rng: np.random.Generator, first: Scene, *, count: int) -> list[Scene]:
    """`first` and `count - 1` more shots of its lead: other motion and camera, every second one at another place."""
    scenes = [first]
    while len(scenes) < count:
        last = scenes[-1]
        if len(scenes) % 2 == 0:
            last = replace(
                last,
                backdrop=pick(rng, [place for place in get_args(Backdrop) if place != last.backdrop]),
                mood=pick(rng, [mood for mood in get_args(Mood) if mood != last.mood]),
            )
        scenes.append(reframe(rng, replace(last, label=None)))
    return scenes


def reframe(rng: np.random.Generator, scene: Scene) -> Scene:
    """The same place and shapes from another camera, moving differently."""
    lead, *others = scene.actors
    motions = [motion for motion in get_args(Motion) if motion not in ("still", lead.motion)]
    framing = pick(rng, [framing for framing in get_args(Framing) if framing != scene.framing])
    lead = replace(lead, motion=pick(rng, motions), size=SIZE_BY_FRAMING[framing])
    return replace(
        scene,
        actors=(lead, *(replace(other, size=0.55 * lead.size) for other in others)),
        camera=pick(rng, [camera for camera in get_args(Camera) if camera != scene.camera]),
        framing=framing,
        wording=int(rng.integers(1000)),
    )


def _scene(rng: np.random.Generator, *, backdrop: Backdrop, mood: Mood, lead: tuple[Shape, str]) -> Scene:
    shape, colour = lead
    actors = [Actor(shape=shape, colour=colour, motion="still", size=0.36, x=0.5, y=0.5)]
    shapes = [other for other in get_args(Shape) if other != shape]
    colours = [other for other in COLOURS if other != colour]
    for x, y in ((0.2, 0.68), (0.8, 0.3))[: int(rng.integers(0, 3))]:
        motion: Motion = pick(rng, ("spin", "bounce", "sway", "pulse"))
        actors.append(Actor(shape=pick(rng, shapes), colour=pick(rng, colours), motion=motion, size=0.2, x=x, y=y))
        shapes = [other for other in shapes if other != actors[-1].shape]
    return Scene(
        backdrop=backdrop,
        mood=mood,
        actors=tuple(actors),
        camera="static",
        framing="medium",
        texture_seed=int(rng.integers(2**31)),
    )


_LEADS: Final[tuple[tuple[Shape, str], ...]] = (
    ("circle", "coral"), ("star", "yellow"), ("heart", "crimson"), ("hexagon", "teal"), ("ring", "orange"),
    ("triangle", "lime"), ("diamond", "violet"), ("square", "blue"), ("star", "pink"), ("circle", "ivory"),
)  # fmt: skip


def _cycle(rng: np.random.Generator, options: Sequence[T], count: int) -> list[T]:
    """`count` options: every option once, shuffled, then all of them shuffled again, and so on."""
    rounds = -(-count // len(options))
    return [options[int(index)] for _ in range(rounds) for index in rng.permutation(len(options))][:count]
