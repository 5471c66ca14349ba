"""What one clip shows, in the four texts of CI-VID's single captions (CI-VID's released captioning code)."""

from collections.abc import Mapping
from dataclasses import dataclass

from civid_loader.processing.asking import AskingStage, Previous, TextField
from civid_loader.processing.captioner import Picture
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.pictures import frames_of
from civid_loader.processing.stage import ClipInput, FrameRequest, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class CividSingleParams:
    """Of `CividSingle`."""

    long_side_px: int = 768
    """Larger frames are made smaller."""


class CividSingle(AskingStage[CividSingleParams]):
    """Content, camera angle, camera movement and background of a clip, from frames at 1/4, 1/2 and 3/4 of it."""

    name = "civid_single"
    version = 1
    Params = CividSingleParams
    cost = "a model that sees, 1 question per clip"
    prompts = ("civid_single",)
    fields = (
        TextField(name="video_content", kind="content", max_words=300),
        TextField(name="camera_angle", kind="camera_angle", max_words=30),
        TextField(name="camera_movement", kind="camera_movement", max_words=30),
        TextField(name="video_background", kind="background", max_words=60),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return frames_of("thirds", 3, long_side_px=self.params.long_side_px)

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        instruction = self.prompt("civid_single").fill(duration_seconds=f"{clip.duration_seconds:.2f}")
        pictures = [Picture(pixels_HWC=frame) for frame in clip.frames["frames"]]
        return self.texts(talk.ask("single", [instruction, *pictures], schema=self.answer_schema()))
