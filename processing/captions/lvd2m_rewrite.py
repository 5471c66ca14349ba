"""The refined caption of a clip as somebody would type it who wants such a video (LVD-2M, rewritten captions).

It reads the refined caption: name `lvd2m_refine` before it, or give it a dataset that has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from civid_loader.processing.asking import AskingStage, Previous, TextField
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.known_captions import caption_of
from civid_loader.processing.stage import ClipInput, FrameRequest, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Lvd2mRewriteParams:
    """Of `Lvd2mRewrite`: there are none."""


class Lvd2mRewrite(AskingStage[Lvd2mRewriteParams]):
    """A short caption from the refined one. No picture is shown."""

    name = "lvd2m_rewrite"
    version = 1
    Params = Lvd2mRewriteParams
    cost = "a model that reads, 1 question per clip"
    prompts = ("lvd2m_rewrite",)
    fields = (TextField(name="caption", kind="rewritten", max_words=40),)

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return {}

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`."""
        refined = caption_of(clip.row, "refined")
        if refined is None:
            return {"reason": "the clip has no refined caption: name lvd2m_refine before lvd2m_rewrite"}
        instruction = self.prompt("lvd2m_rewrite").fill(caption=refined)
        return self.texts(talk.ask("rewrite", [instruction], schema=self.answer_schema()))
