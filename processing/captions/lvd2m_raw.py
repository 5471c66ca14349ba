"""What happens in each half minute of a clip, as LVD-2M has it described first (LVD-2M paper)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from civid_loader.processing.asking import AskingStage, Previous, TextField
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.pictures import frames_of, grid_of
from civid_loader.processing.stage import ClipInput, FrameRequest, Row
from civid_loader.sampling import pieces

ROWS: Final = 2
COLUMNS: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Lvd2mRawParams:
    """Of `Lvd2mRaw`."""

    piece_seconds: float = 30.0
    """Length of a piece; the last is as long as what is left."""
    min_tail_seconds: float = 0.0
    """A last piece shorter than this is a part of the one before; 2 saves questions about almost nothing."""
    long_side_px: int = 480
    """Larger frames are made smaller."""

    def __post_init__(self) -> None:
        pieces(1.0, seconds=self.piece_seconds, min_tail_seconds=self.min_tail_seconds)  # which checks them


class Lvd2mRaw(AskingStage[Lvd2mRawParams]):
    """A text for each piece of 30 s, from 6 of its frames in one picture of 2x3; a frame may fill several cells."""

    name = "lvd2m_raw"
    version = 1
    Params = Lvd2mRawParams
    cost = "a model that sees, 1 question per 30 s of a clip"
    prompts = ("lvd2m_raw",)
    fields = (TextField(name="caption", kind="raw", max_words=200),)

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return frames_of(
            "uniform_pieces",
            ROWS * COLUMNS,
            long_side_px=self.params.long_side_px,
            piece_seconds=self.params.piece_seconds,
            min_tail_seconds=self.params.min_tail_seconds,
        )

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        of_clip = pieces(
            clip.duration_seconds, seconds=self.params.piece_seconds, min_tail_seconds=self.params.min_tail_seconds
        )
        captions: list[Row] = []
        for number, (start, end) in enumerate(of_clip):
            here = slice(number * ROWS * COLUMNS, (number + 1) * ROWS * COLUMNS)
            frames, times = clip.frames["frames"][here], clip.times_seconds["frames"][here]
            instruction = self.prompt("lvd2m_raw").fill(
                duration_seconds=f"{end - start:.2f}", num_frames=len(set(times.tolist()))
            )
            picture = grid_of(frames, rows=ROWS, columns=COLUMNS)
            window = {"start_seconds": start, "end_seconds": end} if len(of_clip) > 1 else {}
            with talk.part(f"piece-{number}"):
                answer = talk.ask(f"piece-{number}", [instruction, picture], schema=self.answer_schema())
                captions += self.texts(answer, **window)["captions"]
        return {"captions": captions}
