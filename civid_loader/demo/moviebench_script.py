"""The script of the made-up movies: who plays in which shot when. `moviebench_release` films it."""

from dataclasses import dataclass
from typing import Final, Literal

from civid_loader.demo.render import Codec
from civid_loader.demo.scene import Shape

OUTSIDE: Final = 0
"""Scene number of a shot that no scene lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Character:
    """Somebody of the cast."""

    name: str
    """As the shot descriptions write it."""
    actor: str | None
    """As the folder of the character bank writes it; None: the bank does not know the character."""
    shape: Shape
    """What plays it."""
    colour: str
    """Key of `COLOURS`."""
    stills: tuple[str, ...] = ("best.jpg",)
    """File names of the portraits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Take:
    """One shot."""

    span: tuple[int, int]
    """[start, end) in the movie, milliseconds."""
    scene: int = OUTSIDE
    """Number of its scene, from 1."""
    characters: tuple[str, ...] = ()
    """Names, lead first."""
    label: str | None = None
    """Words on the screen."""
    has_json: bool = True
    """Whether the description was made: a failed one has no file."""
    has_video: bool = True
    """Whether the user has the .avi."""
    trailing_text: str = ""
    """What the model wrote after its JSON."""
    num_style_elements: int = 3
    """How many style elements it has, at most 3."""
    aside: str = ""
    """Begins the audio description; commas and quotes make it hard to read as a comma table."""

    def name(self, movie: "Movie") -> str:
        """`<movie>_<start>-<end>`, the name of all its files."""
        start, end = (_clock(millis) for millis in self.span)
        return f"{movie.movie_id}_{start}-{end}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Movie:
    """A movie."""

    movie_id: str
    """Number and title; the title may contain '-'."""
    imdb_id: str
    """Id in mad2imdb.json, made up."""
    split: Literal["Train", "Test"] | None
    """None: in neither, shots only."""
    synopsis: str
    """Text in mad2plot.json."""
    characters: tuple[Character, ...]
    """The cast."""
    takes: tuple[Take, ...]
    """The shots, in the order the scenes list them."""
    subtitles: tuple[tuple[int, int, str], ...] = ()
    """Cues: start and end in milliseconds, text."""
    size: tuple[int, int] = (136, 320)
    """(height, width) of the video, pixels."""
    codec: Codec = "h264"
    """Codec of the video."""

    def character(self, name: str) -> Character:
        """The cast member of that name."""
        return next(character for character in self.characters if character.name == name)


def _clock(millis: int) -> str:
    return f"{millis // 3_600_000:02d}.{millis // 60_000 % 60:02d}.{millis // 1000 % 60:02d}.{millis % 1000:03d}"


_LIGHTHOUSE: Final = Movie(
    movie_id="0901_The_Paper_Lighthouse",
    imdb_id="tt99000101",
    split="Train",
    synopsis="Wren Holloway finds a lighthouse folded from paper and decides to carry it to the sea. Captain's Mate "
    "wants it for his ship, Éloïse Véron wants it back, and none of them has asked who lit it. When the tide comes in "
    "they have to unfold it together.",
    characters=(
        Character(
            name="Wren Holloway", actor="Odile_Fairweather", shape="circle", colour="coral",
            stills=("best.jpg", "4_0.jpg", "11.57.47.jpg"),
        ),
        Character(name="Captain's Mate", actor="J.P._Harkness", shape="square", colour="blue"),
        Character(
            name="Éloïse Véron", actor="Théodora_Marchand", shape="star", colour="yellow",
            stills=("best.jpg", "1727000000000.jpg"),
        ),
    ),
    takes=(
        Take(
            span=(12_480, 14_980), scene=1, characters=("Wren Holloway",), label="PAPER LIGHTHOUSE",
            aside="Morning, grey and quiet. ",
        ),
        Take(span=(15_240, 17_740), scene=1, characters=("Wren Holloway", "Captain's Mate"), num_style_elements=2),
        Take(
            span=(66_000, 68_400), scene=2, characters=("Éloïse Véron",),
            aside='"Mind the step," SOMEONE calls, twice. ',
        ),
        Take(span=(63_000, 65_200), scene=2, characters=("Éloïse Véron", "Wren Holloway")),
        Take(span=(65_200, 65_380), scene=2, aside='A card, 6" wide, flashes past. '),
        Take(span=(130_040, 132_540), scene=3, characters=("Captain's Mate",)),
        Take(span=(133_000, 135_000), scene=3, characters=("Captain's Mate", "Éloïse Véron"), has_json=False),
        Take(span=(80_120, 82_120), characters=("Wren Holloway",), aside='He says "no", then nods. '),
    ),
    subtitles=(
        (13_000, 14_500, "<i>It was smaller than I thought.</i>"),
        (14_700, 16_200, "Who folded it?\nAnd why here?"),
        (63_500, 64_900, "That is mine."),
        (90_000, 91_500, "(waves)"),
        (130_500, 132_000, "Hold the line, mate."),
    ),
)  # fmt: skip

_EXPRESS: Final = Movie(
    movie_id="1901_The_Half-Light_Express",
    imdb_id="tt99000102",
    split="Test",
    synopsis="A night train stops between two stations that are not on any map. Lu-Chen, the only passenger with a "
    "ticket, walks from carriage to carriage and finds that the conductor has been counting the same shapes for years.",
    characters=(
        Character(
            name="Lu-Chen", actor="Valeria_Tran", shape="heart", colour="crimson", stills=("best.jpg", "2_1.jpg"),
        ),
        Character(name="The Conductor", actor="Rufus_Ambleside", shape="hexagon", colour="teal"),
        Character(name="The Stoker", actor=None, shape="triangle", colour="orange"),
    ),
    takes=(
        Take(span=(3_725_040, 3_727_540), scene=1, characters=("Lu-Chen",), label="PLATFORM 0", aside="Night, rain. "),
        Take(span=(3_727_900, 3_730_300), scene=1, characters=("The Conductor", "Lu-Chen")),
        Take(span=(3_731_000, 3_733_000), scene=1, characters=("The Stoker",), has_video=False),
        Take(
            span=(3_790_500, 3_793_000), scene=2, characters=("The Conductor", "The Stoker"),
            trailing_text="\n\nThe description above follows the six frames from left to right.",
        ),
        Take(span=(3_793_400, 3_795_400), scene=2, num_style_elements=1),
    ),
    subtitles=(
        (3_725_500, 3_727_000, "Is this seat taken?"),
        (3_728_100, 3_730_000, "- Ticket, please.\n- It never leaves."),
    ),
)  # fmt: skip

_LANTERN: Final = Movie(
    movie_id="0907_DER_LETZTE_LEUCHTTURM",
    imdb_id="tt99000103",
    split=None,
    synopsis="Frau Söderblom keeps the last lighthouse of the coast dark for one night, to see who notices.",
    characters=(
        Character(name="Frau Söderblom", actor="Ingrid_Åkerhielm", shape="diamond", colour="violet"),
        Character(name="Der Junge", actor="Till_Brandwein", shape="triangle", colour="lime"),
    ),
    takes=(
        Take(span=(301_000, 303_000), scene=1, characters=("Frau Söderblom",)),
        Take(span=(303_200, 305_600), scene=1, characters=("Der Junge", "Frau Söderblom"), aside="Outside, wind. "),
        Take(span=(310_000, 312_000), scene=2, characters=("Der Junge",)),
    ),
    size=(180, 320),
    codec="mpeg4",
)

MOVIES: Final = (_LIGHTHOUSE, _EXPRESS, _LANTERN)
"""All of them; in the order of mad2imdb.json."""
