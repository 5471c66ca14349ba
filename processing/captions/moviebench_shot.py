"""A shot of a film with its characters by name, as MovieBench describes shots (its released annotation code).

What is said comes from captions of kind `subtitle`, the sentence for people who cannot see from `audio_description`,
and the characters from the dataset's table `characters`. Its portraits lie below the root of pictures, which is the
release's folder of annotations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from civid_loader.processing.asking import AskingStage, Previous, TextField, texts_schema
from civid_loader.processing.captioner import Part
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.known_captions import caption_of, captions_of
from civid_loader.processing.pictures import frames_of, pictures_of, portrait
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row

MAX_STYLE_ELEMENTS: Final = 3
MAX_CHARACTER_WORDS: Final = 30
_MAX_TOKENS: Final = 2048
_TEXTS: Final = ("plot", "background", "camera")


@dataclass(frozen=True, kw_only=True, slots=True)
class MoviebenchShotParams:
    """Of `MoviebenchShot`."""

    num_frames: int = 6
    """Of the shot, from its first to its last; a shot with fewer shows each once."""
    long_side_px: int = 768
    """Larger frames are made smaller."""
    portrait_short_side_px: int = 128
    """Of portraits."""


class MoviebenchShot(AskingStage[MoviebenchShotParams]):
    """Characters, style, plot, background and camera of a shot."""

    name = "moviebench_shot"
    version = 2
    Params = MoviebenchShotParams
    cost = "a model that sees, 1 question per shot"
    prompts = ("moviebench_shot", "moviebench_shot_clip")
    fields = (
        TextField(name="plot", kind="plot", max_words=80),
        TextField(name="background", kind="background", max_words=40),
        TextField(name="camera", kind="camera_movement", max_words=30),
        TextField(name="style_elements", kind="style"),
    )
    findings = (
        Column(name="moviebench_shot_characters", dtype="list<string>", doc="Who is seen, each as `Name: looks`."),
        Column(
            name="moviebench_shot_unknown_names", dtype="list<string>", doc="Names left out: not the film's characters."
        ),
        Column(name="moviebench_shot_notes", dtype="list<string>", doc="What was missing, left out or too long."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return frames_of("uniform_ends", self.params.num_frames, long_side_px=self.params.long_side_px)

    def answer_schema(self) -> dict[str, Any]:
        """See `AskingStage`."""
        schema = texts_schema("style_elements", *_TEXTS)
        of_lists = {
            "characters": {"type": "array", "items": texts_schema("name", "description")},
            "style_elements": {"type": "array", "items": {"type": "string"}},
        }
        return schema | {"properties": schema["properties"] | of_lists, "required": ["characters", *schema["required"]]}

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        bank: Sequence[Mapping[str, Any]] = clip.row.get("bank") or ()
        notes: list[str] = [] if bank else ["no characters known"]
        parts = [
            self.prompt("moviebench_shot").text,
            *self._portraits(bank, notes),
            *pictures_of(clip.frames["frames"], clip.times_seconds["frames"]),
            self._of_clip(clip, bank),
        ]
        answer = talk.ask("shot", parts, schema=self.answer_schema(), max_tokens=_MAX_TOKENS)
        seen, unknown = _known(answer["characters"], bank)
        notes += [f"longer than asked for: {name}" for name, text in seen.items() if _is_too_long(text)]
        styles = [text.strip() for text in answer["style_elements"] if text.strip()]
        if len(styles) > MAX_STYLE_ELEMENTS:
            notes.append(f"style elements left out: {len(styles) - MAX_STYLE_ELEMENTS}")
        row = self.texts({name: answer[name] for name in _TEXTS})
        row["captions"] += [self.caption("style", text) for text in styles[:MAX_STYLE_ELEMENTS]]
        return row | {
            "moviebench_shot_characters": [f"{name}: {text}" for name, text in seen.items()],
            "moviebench_shot_unknown_names": unknown,
            "moviebench_shot_notes": notes,
        }

    def _portraits(self, bank: Sequence[Mapping[str, Any]], notes: list[str]) -> list[Part]:
        """Each character's names, and its main portrait where there is one."""
        parts: list[Part] = []
        for character in bank:
            also = f" (also called {', '.join(character['aliases'])})" if character["aliases"] else ""
            parts.append(f"Character: {character['name']}{also}")
            picture = None
            if character["portraits"]:
                picture = portrait(
                    character["portraits"][0], root=self.pictures, short_side_px=self.params.portrait_short_side_px
                )
            if picture is None:
                notes.append(f"no portrait: {character['name']}")
            else:
                parts.append(picture)
        return parts

    def _of_clip(self, clip: ClipInput, bank: Sequence[Mapping[str, Any]]) -> str:
        lines = [
            one["text"] if one["start_seconds"] is None else f"{one['start_seconds']:.1f}: {one['text']}"
            for one in captions_of(clip.row, "subtitle")
        ]
        return self.prompt("moviebench_shot_clip").fill(
            duration_seconds=f"{clip.duration_seconds:.2f}",
            num_frames=len(set(clip.times_seconds["frames"].tolist())),
            dialogue="\n".join(lines) or "nothing",
            audio_description=caption_of(clip.row, "audio_description") or "none",
            names="\n".join(character["name"] for character in bank) or 'none: "characters" is empty',
        )


def _known(
    answered: Sequence[Mapping[str, str]], bank: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, str], list[str]]:
    """Name in the bank -> description, the first of each; and names that are of nobody, or of several, there."""
    seen: dict[str, str] = {}
    unknown: list[str] = []
    for one in answered:
        name = _plain(one["name"])
        by_name = [character["name"] for character in bank if _plain(character["name"]) == name]
        by_alias = [
            character["name"] for character in bank if name in (_plain(alias) for alias in character["aliases"])
        ]
        found = by_name or by_alias
        if len(found) == 1:
            seen.setdefault(found[0], one["description"].strip())
        else:
            unknown.append(one["name"].strip())
    return seen, unknown


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _is_too_long(text: str) -> bool:
    return len(text.split()) > MAX_CHARACTER_WORDS
