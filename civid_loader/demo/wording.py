"""Sentences about a made-up scene: every caption of the made-up release is put together here."""

from collections.abc import Mapping, Sequence
from typing import Final

from civid_loader.demo.scene import MOODS, Actor, Backdrop, Camera, Framing, Motion, Scene, T

_MOTIONS: Final[Mapping[Motion, tuple[str, str]]] = {
    "drift_right": ("drifts from left to right", "drifting from left to right"),
    "drift_left": ("drifts from right to left", "drifting from right to left"),
    "rise": ("rises slowly towards the top", "rising towards the top"),
    "sink": ("sinks slowly towards the bottom", "sinking towards the bottom"),
    "bounce": ("bounces up and down", "bouncing up and down"),
    "circle": ("circles the middle of the frame", "circling the middle of the frame"),
    "spin": ("spins in place", "spinning in place"),
    "sway": ("sways from side to side", "swaying from side to side"),
    "pulse": ("grows and shrinks like a slow breath", "growing and shrinking"),
    "still": ("stands still", "standing still"),
}
_PLACES: Final[Mapping[Backdrop, tuple[str, str]]] = {
    "hills": ("rolling hills", "Three layers of rolling hills lie below a pale sun, the nearest layer the darkest"),
    "skyline": (
        "a city skyline",
        "Two rows of plain towers stand shoulder to shoulder, and nearly half of their small windows are lit",
    ),
    "sea": (
        "a calm sea",
        "A half-set sun touches the horizon of a calm sea and lays short bright dashes of light on the water",
    ),
    "forest": ("a fir forest", "Three rows of fir trees fill the lower half, paler the further away they stand"),
    "stars": (
        "a starry sky",
        "Small stars are scattered over the sky, a moon with three craters glows above, and a low ridge lies below",
    ),
    "bokeh": ("blurred discs of light", "Large pale discs of light, out of focus, overlap all over the picture"),
    "stripes": ("diagonal stripes", "Soft diagonal stripes of even width cover the whole wall"),
    "studio": (
        "an empty studio",
        "A plain wall meets a flat floor, and a soft spotlight brightens the middle of the wall",
    ),
}
_CAMERAS: Final[Mapping[Camera, tuple[str, str]]] = {
    "static": ("stays still from the first frame to the last", "a still camera"),
    "pan_right": ("pans slowly to the right", "a slow pan to the right"),
    "pan_left": ("pans slowly to the left", "a slow pan to the left"),
    "push_in": ("pushes in gently, so that everything grows", "a gentle push in"),
    "pull_back": ("pulls back gently and shows more of the place", "a gentle pull back"),
    "tilt_up": ("tilts up from the ground towards the sky", "a slow tilt up"),
}
_FRAMINGS: Final[Mapping[Framing, tuple[str, str]]] = {
    "wide": ("a wide shot", "about a quarter as tall as the frame"),
    "medium": ("a medium shot", "about a third as tall as the frame"),
    "close": ("a close shot", "about half as tall as the frame"),
}
_CORNERS: Final = ("lower left", "upper right")


def subject(actor: Actor) -> str:
    """The actor with an article, or the name of the character it plays."""
    return actor.name or f"{_article(actor.colour)} {actor.colour} {actor.shape}"


def place(scene: Scene) -> str:
    """The backdrop in two or three words."""
    return _PLACES[scene.backdrop][0]


def doing(actor: Actor) -> str:
    """What the actor does: `drifts from left to right`."""
    return _MOTIONS[actor.motion][0]


def short(scene: Scene) -> str:
    """One sentence about the lead."""
    lead = scene.actors[0]
    verb, participle = _MOTIONS[lead.motion]
    return _one_of(
        scene,
        f"{_capital(subject(lead))} {verb} in front of {place(scene)}.",
        f"{_capital(place(scene))} with {subject(lead)} {participle}.",
        f"In front of {place(scene)}, {subject(lead)} {verb}.",
    )


def request(scene: Scene) -> str:
    """The clip as somebody would ask a generator for it."""
    lead = scene.actors[0]
    what = f"{subject(lead)} {_MOTIONS[lead.motion][1]}, {place(scene)} behind it"
    return _one_of(scene, f"{what}, {scene.mood} colours", f"animation of {what}", f"{what}, paper-cut style")


def main_object(scene: Scene) -> str:
    """What the shapes are and do."""
    lead, *others = scene.actors
    who = "who" if lead.name else "which"
    text = _one_of(
        scene,
        f"{_capital(subject(lead))} is the main subject and {doing(lead)} during the shot.",
        f"The main subject is {subject(lead)}, softly shaded and outlined in white, {who} {doing(lead)}.",
        f"{_capital(subject(lead))} {doing(lead)}, casting a soft shadow.",
        f"We see {subject(lead)}, rimmed in white and evenly lit, {who} {doing(lead)}.",
        f"Outlined in white against the backdrop, {subject(lead)} {doing(lead)}.",
    )
    for other, corner in zip(others, _CORNERS, strict=False):
        text += f" At the {corner}, {subject(other)} {doing(other)}."
    return text


def content(scene: Scene) -> str:
    """`main_object`, the words on the screen and how it ends."""
    label = f' A dark plate at the bottom reads "{scene.label}".' if scene.label else ""
    ending = _one_of(
        scene,
        "Nothing else enters the frame, and the movement keeps its pace until the end.",
        "The movement is smooth and unhurried, and no shape leaves its path.",
        "The shapes keep their colours and outlines throughout.",
    )
    return f"{main_object(scene)}{label} {ending}"


def background(scene: Scene) -> str:
    """What stands behind the shapes, and its colours."""
    top, bottom = MOODS[scene.mood].names
    what = _PLACES[scene.backdrop][1]
    return _one_of(
        scene,
        f"{what}. The colours run from {top} at the top to {bottom} at the bottom.",
        f"{what}, all of it tinted between {top} and {bottom}.",
        f"{what}. Overhead the picture is {top}; further down it turns {bottom}.",
    )


def camera_angle(scene: Scene) -> str:
    """Framing and angle."""
    shot, fraction = _FRAMINGS[scene.framing]
    return f"{_capital(shot)}, straight on and at eye level; the {scene.actors[0].shape} is {fraction}."


def camera_movement(scene: Scene) -> str:
    """How the camera moves."""
    return f"The camera {_CAMERAS[scene.camera][0]}."


def camera(scene: Scene) -> str:
    """Framing and movement in one text."""
    return f"{camera_angle(scene)} {camera_movement(scene)}"


def style(scene: Scene) -> str:
    """The look."""
    return _one_of(
        scene,
        f"A flat paper-cut look with white rims, soft shadows and {scene.mood} colours.",
        f"Simple animated graphics: smooth edges, thin outlines and a {scene.mood} palette.",
        f"A playful, sticker-like style in {' and '.join(MOODS[scene.mood].names)}, lightly shaded.",
    )


def dense(scene: Scene) -> str:
    """Everything about the scene."""
    return f"{main_object(scene)} {background(scene)} {camera_movement(scene)}"


def story(sentences: Sequence[str]) -> str:
    """Sentences about shots that follow each other, joined at the cuts."""
    return " After a cut: ".join(sentences)


def single_caption(scene: Scene) -> dict[str, str]:
    """The four CI-VID fields about one clip, in upstream's order."""
    return {
        "video_content": content(scene),
        "camera_angle": camera_angle(scene),
        "camera_movement": camera_movement(scene),
        "video_background": background(scene),
    }


def joint_caption(first: Scene, second: Scene) -> dict[str, str]:
    """The six CI-VID fields about the step from one clip to the next, in upstream's order."""
    lead, after = first.actors[0], second.actors[0]
    same_place = first.backdrop == second.backdrop
    kept = place(first) if same_place else "the even, soft light and the paper-cut look"
    moved = "stays the same" if same_place else f"changes from {place(first)} to {place(second)}"
    return {
        "continuation_in_video_content": f"{_capital(subject(lead))} is the subject of both clips, "
        "with the same colour, rim and shadow.",
        "change_in_video_content": f"The {after.shape} {doing(lead)} in the first clip; "
        f"in the second it {doing(after)}.",
        "continuation_in_video_background": f"Both clips share {kept}.",
        "change_in_video_background": f"The place {moved}.",
        "change_in_camera_angle": f"{_capital(_FRAMINGS[first.framing][0])} is followed by "
        f"{_FRAMINGS[second.framing][0]}, both straight on.",
        "change_in_camera_movement": f"{_capital(_CAMERAS[first.camera][1])} gives way to "
        f"{_CAMERAS[second.camera][1]}.",
    }


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _one_of(scene: Scene, *wordings: T) -> T:
    return wordings[scene.wording % len(wordings)]
