"""Fields of a request that not every server takes: one that is refused for such a field is sent without it."""

import json
import logging
from dataclasses import dataclass, field
from typing import Any, Final

OPTIONAL: Final = {
    "logprobs": "how likely choices are is not told",
    "chat_template_kwargs": "the model may think aloud before it answers",
    "response_format": "answers need not keep to their schema",
}
"""Field -> what is lost without it."""
_TOGETHER: Final = {"logprobs": ("logprobs", "top_logprobs")}
_log: Final = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class OptionalFields:
    """Which of them a server takes."""

    left_out: set[str] = field(default_factory=set)

    def trimmed(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body without those that it does not take."""
        names = {one for name in self.left_out for one in _TOGETHER.get(name, (name,))}
        return {name: value for name, value in body.items() if name not in names}

    def without_refused(self, body: bytes, message: str) -> bytes | None:
        """A body again, without the fields that a refusal names, which are left out from now on; None: it names none.

        A field is said once, as a warning, though many requests are refused for it.
        """
        told = json.loads(body)
        named = {name for name in OPTIONAL if name in told and name in message}
        for name in named - self.left_out:
            _log.warning("the server does not take %s, which is left out: %s (%s)", name, OPTIONAL[name], message)
        self.left_out |= named
        return json.dumps(self.trimmed(told)).encode() if named else None
