"""Where each shot of a film takes place: shots of one place are a scene (MovieBench's released annotation code).

A shot is compared with the one before, so a film is gone through in order. Answers are kept by a run, and what is asked
follows from those before: started again, it goes on after the last answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from civid_loader.processing.asking import AskingStage, Previous, TextField
from civid_loader.processing.captioner import Part
from civid_loader.processing.conversation import AnswerError, Conversation
from civid_loader.processing.pictures import frames_of, pictures_of
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class MoviebenchScenesParams:
    """Of `MoviebenchScenes`."""

    num_frames: int = 3
    """Of each shot; a shot with fewer shows each once."""
    long_side_px: int = 512
    """Larger frames are made smaller."""


class MoviebenchScenes(AskingStage[MoviebenchScenesParams]):
    """The place of each shot in a phrase, and the number of its scene in the film."""

    name = "moviebench_scenes"
    version = 1
    unit = "movie"
    Params = MoviebenchScenesParams
    cost = "a model that sees, 1 question per shot, the shots of a movie one after the other"
    prompts = ("moviebench_scenes", "moviebench_scenes_first", "moviebench_scenes_next")
    fields = (TextField(name="scene", kind="scene_title", max_words=10),)
    findings = (
        Column(name="scene_number", dtype="int32", doc="From 1 in the order of the film; the same place has the same."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return frames_of("uniform_mid", self.params.num_frames, long_side_px=self.params.long_side_px)

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        parts: list[Part] = [self.prompt("moviebench_scenes").text]
        before = None if previous is None else previous.row["scene"]
        if previous is None or before is None:
            parts.append(self.prompt("moviebench_scenes_first").text)
        else:
            parts += [*_pictures(previous.clip), self.prompt("moviebench_scenes_next").fill(scene=before)]
        answer = talk.ask("scene", [*parts, *_pictures(clip)], schema=self.answer_schema())
        scene = answer["scene"].strip()
        if not scene:
            raise AnswerError("scene: the answer names no place", raw_text=answer["scene"])
        numbers: dict[str, int] = {} if previous is None else previous.row["scene_numbers"]
        number = numbers.get(scene.casefold(), len(numbers) + 1)
        return self.texts(answer) | {
            "scene_number": number,
            "scene": scene,
            "scene_numbers": numbers | {scene.casefold(): number},
        }

    def run_one(self, clip: ClipInput, previous: Previous | None) -> Row:
        """See `AskingStage`. After a shot without an answer the film goes on: its scenes keep their numbers."""
        known: Mapping[str, Any] = {} if previous is None else previous.row["scene_numbers"]
        return {"scene": None, "scene_numbers": known} | super().run_one(clip, previous)


def _pictures(clip: ClipInput) -> list[Part]:
    return [*pictures_of(clip.frames["frames"], clip.times_seconds["frames"])]
