"""The raw captions of a clip made one good caption, as LVD-2M does (LVD-2M paper).

It reads raw captions: name `lvd2m_raw` before it, or give it a dataset that has some.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from civid_loader.processing.asking import AskingStage, Previous, TextField
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.known_captions import captions_of
from civid_loader.processing.stage import ClipInput, FrameRequest, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Lvd2mRefineParams:
    """Of `Lvd2mRefine`: there are none."""


class Lvd2mRefine(AskingStage[Lvd2mRefineParams]):
    """One caption from the raw ones: a single one is refined, several are told as one event. No picture is shown."""

    name = "lvd2m_refine"
    version = 1
    Params = Lvd2mRefineParams
    cost = "a model that reads, 1 question per clip"
    prompts = ("lvd2m_refine", "lvd2m_merge")
    fields = (TextField(name="caption", kind="refined", max_words=120),)

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {}

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        raw = captions_of(clip.row, "raw")
        if not raw:
            return {"reason": "the clip has no raw caption: name lvd2m_raw before lvd2m_refine"}
        if len(raw) == 1:
            instruction = self.prompt("lvd2m_refine").fill(description=raw[0]["text"])
        else:
            parts = [f"{_span(one, number)}: {one['text']}" for number, one in enumerate(raw, start=1)]
            instruction = self.prompt("lvd2m_merge").fill(descriptions="\n\n".join(parts))
        return self.texts(talk.ask("refine", [instruction], schema=self.answer_schema()))


def _span(caption: Row, number: int) -> str:
    """Which part a caption is about; one without a window only says its place."""
    if caption["start_seconds"] is None or caption["end_seconds"] is None:
        return f"Part {number}"
    return f"Part {number}, {caption['start_seconds']:.1f} to {caption['end_seconds']:.1f} s"
