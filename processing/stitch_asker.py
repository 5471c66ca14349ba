"""Whether a scene goes on in the next, asked of one or two models that see: the votes q and l of `split_stitch`.

Legend: H height, W width, C = 3 channels (RGB).
"""
# ruff: noqa: N803 - arrays carry their shape.

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jsonschema
import numpy as np
import numpy.typing as npt

from civid_loader.errors import CaptionerError
from civid_loader.processing.answers import Answers
from civid_loader.processing.captioner import Picture, Request, choice_schema
from civid_loader.processing.prompts import load_prompt

Image = npt.NDArray[np.uint8]
PROMPT: Final = "scene_goes_on"
_YES: Final = "yes"
_MAX_TOKENS: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class StitchAsker:
    """The language models' votes. Called from several threads at once.

    The paper joins where both of two models say yes, or both of two embeddings. Of one model alone there is no such
    pair; then its yes joins where at least one embedding agrees, so that still two voters of different kinds do.
    """

    models: tuple[Answers, ...]
    """Of one or two, loaded."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the votes, as plain JSON."""
        return {
            "captioners": [dict(one.captioner.identity) for one in self.models],
            "prompts": {PROMPT: load_prompt(PROMPT).sha256},
        }

    def votes(self, last_HWC: Image, first_HWC: Image, *, alike: tuple[bool, bool]) -> tuple[bool, bool]:
        """(q, l) on two scenes, from the last frame of one and the first of the next.

        Nobody is asked whose answer would change nothing.

        Args:
            last_HWC: uint8.
            first_HWC: uint8, of the same size.
            alike: votes of the two embeddings.
        """
        is_alone = len(self.models) == 1
        if all(alike) or (is_alone and not any(alike)):
            return False, False
        q = self._ask(self.models[0], last_HWC, first_HWC)
        if not q or is_alone:
            return q, q and any(alike)
        return q, self._ask(self.models[1], last_HWC, first_HWC)

    def _ask(self, model: Answers, *frames_HWC: Image) -> bool:
        """No, too, where the answer cannot be read."""
        pictures = (Picture(pixels_HWC=np.ascontiguousarray(frame_HWC)) for frame_HWC in frames_HWC)
        schema = choice_schema(_YES, "no")
        request = Request(id=PROMPT, parts=(load_prompt(PROMPT).text, *pictures), schema=schema, max_tokens=_MAX_TOKENS)
        response = model.ask(request)
        if response.is_server_error:
            raise CaptionerError(
                f"{PROMPT}: {response.error}; when the server answers again, run the same command: what is finished is "
                "kept"
            )
        return response.error is None and _is_yes(response.text, schema)


def _is_yes(text: str, schema: Mapping[str, Any]) -> bool:
    try:
        value = json.loads(text)
        jsonschema.validate(value, dict(schema))
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return bool(value["choice"] == _YES)
