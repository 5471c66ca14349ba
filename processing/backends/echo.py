"""A model that is none: it fills every schema with what it was asked. For dry runs and tests."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from civid_loader.processing.captioner import Request, Response


@dataclass(frozen=True, kw_only=True)
class EchoCaptioner:
    """The same question gets the same answer, another one another. See `Captioner`."""

    model: str = "echo"
    max_in_flight: int = 8

    @property
    def num_slots(self) -> int:
        """See `Captioner`."""
        return self.max_in_flight

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Captioner`."""
        return {"backend": "echo", "model": self.model}

    def check(self) -> None:
        """It can always be asked."""

    def load(self) -> None:
        """There is nothing to load."""

    def generate(self, requests: Sequence[Request]) -> list[Response]:
        """See `Captioner`."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Response:
        mark = f"{request.id.rpartition('/')[2]} {request.key[:8]}"
        value = mark if request.schema is None else _fill(request.schema, mark)
        text = value if isinstance(value, str) else json.dumps(value)
        probabilities = None
        if request.wants_probabilities and request.schema is not None:
            choices = request.schema["properties"]["choice"]["enum"]
            probabilities = {choice: 1 / len(choices) for choice in choices}
        words = sum(len(part.split()) for part in request.parts if isinstance(part, str))
        return Response(
            id=request.id,
            text=text,
            finish_reason="stop",
            prompt_tokens=words,
            completion_tokens=len(text.split()),
            probabilities=probabilities,
        )

    def close(self) -> None:
        """There is nothing to let go of."""


def _fill(schema: Mapping[str, Any], mark: str) -> Any:
    """A value that a schema allows, of the kinds of schema that stages use."""
    if "enum" in schema:
        return schema["enum"][int(hashlib.sha256(mark.encode()).hexdigest(), 16) % len(schema["enum"])]
    kind = schema["type"]
    if kind == "object":
        named = schema.get("properties", {})
        return {name: _fill(one, f"{name}: {mark}") for name, one in named.items()}
    if kind == "array":
        return [_fill(schema["items"], mark)] * max(1, schema.get("minItems", 1))
    simple: dict[str, Any] = {"string": mark, "boolean": True, "integer": 1, "number": 1.0, "null": None}
    return simple[kind[0] if isinstance(kind, list) else kind]


def make(model: str, *, device: str, **options: Any) -> EchoCaptioner:
    """See the package; `device` does not matter."""
    return EchoCaptioner(model=model, **options)
