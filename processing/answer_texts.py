"""What an answer says, whichever model wrote it: JSON by its schema, though there may be words or a fence around it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import jsonschema

_THOUGHT: Final = "</think>"
_FENCE: Final = re.compile(r"```\w*\s(.*?)\s*```", re.DOTALL)
"""Around the whole text; a fence within JSON is a part of what it says."""


def choices_of(schema: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What one may choose from, of a schema of `choice_schema`; () of any other."""
    named = {} if schema is None else schema.get("properties", {})
    return tuple(named["choice"].get("enum", ())) if list(named) == ["choice"] else ()


def without_thoughts(text: str) -> str:
    """An answer without what the model thought aloud before; a chat may have begun the thought: `... </think> yes`."""
    _, mark, after = text.partition(_THOUGHT)
    return (after if mark else text).strip()


def read_answer(text: str, schema: Mapping[str, Any]) -> Any:
    """What a text says that should be JSON of a schema.

    The first of these that is JSON counts: the text, what follows its thoughts, what is in a fence around that, and
    from the first { to the last }. Of a choice, its word counts too, see `_chosen`.

    Raises:
        ValueError: it says nothing that can be read, or something else than the schema asks for.
    """
    choices = choices_of(schema)
    value, why = _json_of(text)
    if choices and not isinstance(value, dict):
        if (chosen := _chosen(text, choices)) is None:
            raise ValueError(f"the answer is neither {' nor '.join(choices)}, or more than one of them")
        return {"choice": chosen}
    if why is not None:
        raise ValueError(f"the answer is no JSON: {why}")
    try:
        jsonschema.validate(value, dict(schema))
        json.dumps(value, ensure_ascii=False).encode()
    except jsonschema.ValidationError as error:
        raise ValueError(f"the answer breaks its schema: {error.message}") from error
    except UnicodeEncodeError as error:
        raise ValueError("the answer has half a character in it") from error
    return value


def _json_of(text: str) -> tuple[Any, str | None]:
    """The first JSON in a text; or None, and why its plainest form is none."""
    why = None
    for one in _forms(text):
        try:
            return json.loads(one), None
        except (json.JSONDecodeError, RecursionError) as error:
            why = why or str(error)
    return None, why


def _forms(text: str) -> Iterator[str]:
    yield text
    after = without_thoughts(text)
    yield after
    if fenced := _FENCE.fullmatch(after):
        yield fenced[1]
    for one in (after, text):
        start, end = one.find("{"), one.rfind("}")
        if 0 <= start < end:
            yield one[start : end + 1]


def _chosen(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text names: as all that it says, or as a word in capitals, of which no other choice is there.

    With GOOD and BAD, `good.` and `It is GOOD, as GOOD as can be` are GOOD; `neither GOOD nor BAD` and `so good` none.
    """
    plain = without_thoughts(text)
    word = plain.strip(" \n\t\"'`*.!").casefold()
    whole = [one for one in choices if one.casefold() == word]
    named = whole or [one for one in choices if re.search(rf"\b{re.escape(one.upper())}\b", plain)]
    return named[0] if len(named) == 1 else None
