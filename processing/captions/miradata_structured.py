"""A clip in MiraData's six captions: short, dense, main object, background, camera, style (MiraData paper)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from civid_loader.processing.asking import AskingStage, Previous, TextField
from civid_loader.processing.captioner import Part, Picture
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.known_captions import caption_of
from civid_loader.processing.pictures import film_of, frames_of, grid_of
from civid_loader.processing.stage import ClipInput, FrameRequest, Row
from civid_loader.sampling import pieces

Shown = Literal["film", "pictures", "grid"]
WINDOW_SECONDS: Final = 120.0
ROWS: Final = 2
COLUMNS: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class MiradataStructuredParams:
    """Of `MiradataStructured`."""

    pictures: Shown = "film"
    """How frames are shown: as a video, one by one, or as MiraData did in one picture of 2x4, for models of images."""
    use_hint: bool = False
    """Tell the model the short caption that the clip has."""
    long_side_px: int = 480
    """Larger frames are made smaller."""
    min_tail_seconds: float = 10.0
    """A last window shorter than this is a part of the one before."""

    def __post_init__(self) -> None:
        if self.pictures not in get_args(Shown):
            raise ValueError(f"pictures={self.pictures!r}: must be one of {', '.join(get_args(Shown))}")


class MiradataStructured(AskingStage[MiradataStructuredParams]):
    """Six captions of a clip, from 8 frames; of one longer than 120 s, six for each 120 s of it.

    A clip of fewer frames shows each once; in one picture, some fill several cells.
    """

    name = "miradata_structured"
    version = 1
    Params = MiradataStructuredParams
    cost = "a model that sees, 1 question per 120 s of a clip"
    prompts = ("miradata_structured", "miradata_hint")
    fields = (
        TextField(name="short", kind="short", max_words=25),
        TextField(name="dense", kind="dense", max_words=150),
        TextField(name="main_object", kind="main_object", max_words=100),
        TextField(name="background", kind="background", max_words=100),
        TextField(name="camera", kind="camera", max_words=80),
        TextField(name="style", kind="style", max_words=25),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return frames_of(
            "uniform_pieces",
            ROWS * COLUMNS,
            long_side_px=self.params.long_side_px,
            piece_seconds=WINDOW_SECONDS,
            min_tail_seconds=self.params.min_tail_seconds,
        )

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        windows = pieces(clip.duration_seconds, seconds=WINDOW_SECONDS, min_tail_seconds=self.params.min_tail_seconds)
        captions: list[Row] = []
        for number, (start, end) in enumerate(windows):
            parts = self._parts(clip, number, start, end)
            window = {"start_seconds": start, "end_seconds": end} if len(windows) > 1 else {}
            with talk.part(f"window-{number}"):
                answer = talk.ask(f"window-{number}", parts, schema=self.answer_schema())
                captions += self.texts(answer, **window)["captions"]
        return {"captions": captions}

    def _parts(self, clip: ClipInput, number: int, start: float, end: float) -> Sequence[Part]:
        here = slice(number * ROWS * COLUMNS, (number + 1) * ROWS * COLUMNS)
        frames, times = clip.frames["frames"][here], clip.times_seconds["frames"][here]
        film = film_of(frames, times)
        shown: Mapping[Shown, Sequence[Part]] = {
            "film": [film],
            "pictures": [Picture(pixels_HWC=frame) for frame in film.frames_THWC],
            "grid": [grid_of(frames, rows=ROWS, columns=COLUMNS)],
        }
        instruction = self.prompt("miradata_structured").fill(
            duration_seconds=f"{end - start:.2f}", num_frames=len(film.frames_THWC)
        )
        hint = caption_of(clip.row, "short", at_seconds=start) if self.params.use_hint else None
        hints = [self.prompt("miradata_hint").fill(hint=hint)] if hint else []
        return [instruction, *hints, *shown[self.params.pictures]]
