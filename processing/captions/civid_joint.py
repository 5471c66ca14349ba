"""What goes on and what changes from one clip to the next, in CI-VID's six joint captions (its captioning code).

It reads the captions that single clips have: name `civid_single` before it, or give it a dataset that has some.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from civid_loader.processing.asking import AskingStage, Previous, TextField
from civid_loader.processing.captioner import Picture
from civid_loader.processing.conversation import Conversation
from civid_loader.processing.known_captions import caption_of
from civid_loader.processing.pictures import Frames, frames_of, grid_of
from civid_loader.processing.stage import ClipInput, FrameRequest, Row

_SINGLE: Final = ("content", "camera_angle", "camera_movement", "background")
_WHITE: Final = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class CividJointParams:
    """Of `CividJoint`."""

    long_side_px: int = 768
    """Larger frames are made smaller."""


class CividJoint(AskingStage[CividJointParams]):
    """The step from the clip before, from three frames of both and what is written of each."""

    name = "civid_joint"
    version = 1
    unit = "sample"
    Params = CividJointParams
    cost = "a model that sees, 1 question per clip but the first of a sample"
    prompts = ("civid_joint",)
    fields = (
        TextField(name="continuation_in_video_content", kind="continuation_content", max_words=120, is_transition=True),
        TextField(name="change_in_video_content", kind="change_content", max_words=100, is_transition=True),
        TextField(
            name="continuation_in_video_background", kind="continuation_background", max_words=40, is_transition=True
        ),
        TextField(name="change_in_video_background", kind="change_background", max_words=40, is_transition=True),
        TextField(name="change_in_camera_angle", kind="change_camera_angle", max_words=40, is_transition=True),
        TextField(name="change_in_camera_movement", kind="change_camera_movement", max_words=40, is_transition=True),
    )

    def requests(self) -> Mapping[str, FrameRequest]:
        """See `Stage`."""
        return frames_of("thirds", 3, long_side_px=self.params.long_side_px)

    def about(self, clip: ClipInput, previous: Previous | None, talk: Conversation) -> Row:
        """See `AskingStage`. The first clip of a sample has no step to it, and no reason for that."""
        index: int = clip.row["index"]
        if index == 0:
            return {}
        if previous is None or previous.clip.row["index"] != index - 1:
            return {"reason": f"the clip before, number {index - 1} of its sample, could not be read"}
        written = [_written(one.row) for one in (previous.clip, clip)]
        if not all(written):
            which = "the clip before" if not written[0] else "the clip"
            return {"reason": f"{which} has no caption of kind content: name civid_single before civid_joint"}
        instruction = self.prompt("civid_joint").fill(first=written[0], second=written[1])
        pair = _pair(previous.clip.frames["frames"], clip.frames["frames"])
        return self.texts(talk.ask("joint", [instruction, pair], schema=self.answer_schema()))


def _written(row: Mapping[str, Any]) -> str:
    """The single captions of a clip; "" without that of its content."""
    texts = {kind: caption_of(row, kind) for kind in _SINGLE}
    if not texts["content"]:
        return ""
    return "\n".join(f"{kind.replace('_', ' ')}: {text}" for kind, text in texts.items() if text)


def _pair(first_THWC: Frames, second_THWC: Frames) -> Picture:  # noqa: N803 - arrays carry their shape
    """A row of frames above another; smaller frames are white at their lower right."""
    height, width = np.maximum(first_THWC.shape[1:3], second_THWC.shape[1:3])
    missing = [(height - one.shape[1], width - one.shape[2]) for one in (first_THWC, second_THWC)]
    same_size = [
        np.pad(one, ((0, 0), (0, below), (0, beside), (0, 0)), constant_values=_WHITE)
        for one, (below, beside) in zip((first_THWC, second_THWC), missing, strict=True)
    ]
    return grid_of(np.concatenate(same_size), rows=2, columns=3, has_outer_border=False)
