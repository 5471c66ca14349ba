"""Whether a clip's content varies, and whether it is rich and not mostly text, as LVD-2M asks (paper, figure 17)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from civid_loader.processing.asking import AskingStage, Previous
from civid_loader.processing.captioner import choice_schema
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.pictures import film_of, frames_of
from civid_loader.processing.stage import ClipInput, Column, FrameRequest, Row

GOOD: Final = "GOOD"
BAD: Final = "BAD"


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityJudgeParams:
    """Of `QualityJudge`."""

    num_frames: int = 8
    """In the middle of as many equal parts of the clip."""
    long_side_px: int = 480
    """Larger frames are made smaller."""


class QualityJudge(AskingStage[QualityJudgeParams]):
    """Two questions, each answered GOOD or BAD. The frames come first, so both questions share what is read of them."""

    name = "quality_judge"
    version = 1
    Params = QualityJudgeParams
    cost = "a model that sees, 2 questions per clip of a word each"
    prompts = ("quality_variation", "quality_diversity")
    findings = (
        Column(name="mllm_variation", dtype="bool", doc="Whether what is seen changes in the course of the clip."),
        Column(name="mllm_diversity", dtype="bool", doc="Whether there is much to see, and not mostly text."),
        Column(name="mllm_variation_probability", dtype="float32", doc="How likely the model finds it, if it tells."),
        Column(name="mllm_diversity_probability", dtype="float32", doc="How likely the model finds it, if it tells."),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return frames_of("uniform_mid", self.params.num_frames, long_side_px=self.params.long_side_px)

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        film = film_of(clip.frames["frames"], clip.times_seconds["frames"])
        row: Row = {}
        for name, prompt in zip(("mllm_variation", "mllm_diversity"), self.prompts, strict=True):
            question = self.prompt(prompt).text
            with talk.part(prompt):
                answer = talk.ask(
                    prompt, [film, question], schema=choice_schema(GOOD, BAD), max_tokens=32, wants_probabilities=True
                )
                row[name] = answer["choice"] == GOOD
                told = talk.response.probabilities if talk.response else None
                row[f"{name}_probability"] = None if told is None else told[GOOD]
        return row
