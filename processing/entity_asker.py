"""What a sequence is about, asked of a model that sees; the rules are those of `entity_segment`.

Pictures are as CI-VID's operator shows them: the middle frames below each other, 10 px of white between; a frame by
itself; the frames of persons side by side, as near to a square as may be.

Legend: N pictures, H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803, N806 - arrays carry their shape.

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from PIL import Image as Pictures

from civid_loader.errors import CaptionerError
from civid_loader.processing.answer_texts import read_answer
from civid_loader.processing.answers import Answers
from civid_loader.processing.captioner import Captioner, Picture, Request, Response, choice_schema
from civid_loader.processing.conversation import MORE_TOKENS
from civid_loader.processing.prompts import load_prompt
from civid_loader.processing.segments.entity_segment import Entity, Image
from civid_loader.transforms.image_grid import tile

PROMPTS: Final = ("entity_main", "entity_seen", "entity_several", "entity_same")
_ENTITY: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"entity": {"type": ["string", "null"]}, "is_person": {"type": "boolean"}},
    "required": ["entity", "is_person"],
    "additionalProperties": False,
}
_YES: Final = "yes"
_MAX_TOKENS: Final = 128
_NO_ENTITY: Final = ("", "none", "null")
_ROW_PX: Final = 640
"""Long side of the frames that are below each other."""
_FRAME_PX: Final = 1024
"""Long side of a frame by itself."""
_GRID_PX: Final = 1200
"""Height of frames side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionerAsker:
    """See `Asker`. Called from many threads at once."""

    answers: Answers
    """Of a model that is loaded."""

    @classmethod
    def of(cls, captioner: Captioner) -> "CaptionerAsker":
        """One that asks this model."""
        return cls(answers=Answers(captioner=captioner))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its answers, as plain JSON."""
        prompts = {name: load_prompt(name).sha256 for name in PROMPTS}
        return {"captioner": dict(self.answers.captioner.identity), "prompts": prompts}

    def main_entity(self, middle_frames: Sequence[Image]) -> Entity | None:
        """See `Asker`."""
        rows = [_smaller(frame_HWC, long_side_px=_ROW_PX) for frame_HWC in middle_frames]
        text = load_prompt("entity_main").fill(num_pictures=len(rows))
        (response,) = self._answers("entity_main", [_request(text, _tiled(rows, 1, border_px=10), _ENTITY)])
        found = _read(response, _ENTITY)
        name = " ".join((found["entity"] or "").split()) if found else ""
        return None if found is None or name.lower() in _NO_ENTITY else Entity(name=name, is_person=found["is_person"])

    def are_seen(self, entity: Entity, frames: Sequence[Image]) -> list[bool | None]:
        """See `Asker`."""
        return self._each("entity_seen", entity, frames)

    def are_several(self, entity: Entity, frames: Sequence[Image]) -> list[bool | None]:
        """See `Asker`."""
        return self._each("entity_several", entity, frames)

    def is_same(self, entity: Entity, frames: Sequence[Image]) -> bool | None:
        """See `Asker`."""
        text = load_prompt("entity_same").fill(entity=entity.name, num_pictures=len(frames))
        (answer,) = self._yes_or_no("entity_same", [(text, side_by_side(frames))])
        return answer

    def _each(self, prompt: str, entity: Entity, frames: Sequence[Image]) -> list[bool | None]:
        text = load_prompt(prompt).fill(entity=entity.name)
        return self._yes_or_no(prompt, [(text, _smaller(one, long_side_px=_FRAME_PX)) for one in frames])

    def _yes_or_no(self, name: str, asked: Sequence[tuple[str, Image]]) -> list[bool | None]:
        schema = choice_schema(_YES, "no")
        requests = [_request(text, picture_HWC, schema) for text, picture_HWC in asked]
        found = [_read(response, schema) for response in self._answers(name, requests)]
        return [None if one is None else one["choice"] == _YES for one in found]

    def _answers(self, name: str, requests: Sequence[Request]) -> list[Response]:
        """Of questions that do not depend on each other, sent together; once more what was cut off."""
        # Named by what they ask: another run asks the same.
        named = [replace(one, id=f"{name}/{one.key[:16]}") for one in requests]
        responses = self._sent(name, named)
        cut_off = [i for i, one in enumerate(responses) if one.finish_reason == "length"]
        longer = [replace(named[i], max_tokens=int(named[i].max_tokens * MORE_TOKENS)) for i in cut_off]
        for i, response in zip(cut_off, self._sent(name, longer), strict=True):
            responses[i] = response
        return responses

    def _sent(self, name: str, requests: Sequence[Request]) -> list[Response]:
        responses = self.answers.ask_all(requests) if requests else []
        if down := next((one for one in responses if one.is_server_error), None):
            raise CaptionerError(
                f"{name}: {down.error}; when the server answers again, run the same command: what is finished is kept"
            )
        return responses


def side_by_side(frames: Sequence[Image]) -> Image:
    """Frames in a grid without borders, about as many columns as rows; of wide ones rather more rows.

    Five frames of 16:9 fill 3 rows of 2, one cell blank; five upright ones 2 rows of 3.
    """
    more = math.ceil(math.sqrt(len(frames)))
    less = math.ceil(len(frames) / more)
    height, width = frames[0].shape[:2]
    rows, columns = (more, less) if width > height else (less, more)
    cell_px = min(height, _GRID_PX // rows)
    size = (cell_px, max(1, round(width * cell_px / height)))
    return _tiled([_resized(frame_HWC, size) for frame_HWC in frames], columns, border_px=0)


def _tiled(frames: Sequence[Image], columns: int, *, border_px: int) -> Image:
    frames_NCHW = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    rows = math.ceil(len(frames) / columns)
    tiled_CHW = tile(frames_NCHW, rows=rows, columns=columns, border_px=border_px, has_outer_border=False)
    return np.ascontiguousarray(tiled_CHW.permute(1, 2, 0).numpy())


def _smaller(frame_HWC: Image, *, long_side_px: int) -> Image:
    height, width = frame_HWC.shape[:2]
    scale = min(1.0, long_side_px / max(height, width))
    return _resized(frame_HWC, (max(1, round(height * scale)), max(1, round(width * scale))))


def _resized(frame_HWC: Image, size: tuple[int, int]) -> Image:
    if frame_HWC.shape[:2] == size:
        return frame_HWC
    picture = Pictures.fromarray(np.ascontiguousarray(frame_HWC))
    return np.array(picture.resize(size[::-1], Pictures.Resampling.LANCZOS))


def _request(text: str, picture_HWC: Image, schema: Mapping[str, Any]) -> Request:
    picture = Picture(pixels_HWC=np.ascontiguousarray(picture_HWC))
    return Request(id="entity", parts=(text, picture), schema=schema, max_tokens=_MAX_TOKENS)


def _read(response: Response, schema: Mapping[str, Any]) -> Any:
    """What an answer says; None: nothing that can be read."""
    if response.error or response.finish_reason == "length":
        return None
    try:
        return read_answer(response.text, schema)
    except ValueError:
        return None
