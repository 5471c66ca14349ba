"""Values that users give by name, for a dataclass: each must have a field, and be of its type."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def wrong_with(kind: type[Any], given: Mapping[str, Any], *, noun: str, without: Sequence[str] = ()) -> str | None:
    """What is wrong with values for a dataclass: which, why, and what is allowed; None: nothing that types tell.

    Args:
        kind: the dataclass.
        given: field -> value, as JSON gives it; numbers without a point are good where those with one are asked for.
        noun: what a field is called here.
        without: fields that are not given so.
    """
    known = {field.name: field for field in fields(kind) if field.init and field.name not in without}
    for name in given:
        if name not in known:
            close = "".join(f"; did you mean {near!r}?" for near in get_close_matches(name, known, n=1))
            return f"there is no {noun} {name!r}; there are {', '.join(sorted(known)) or 'none'}{close}"
    hints = get_type_hints(kind)
    for name, value in given.items():
        if not _fits(value, hints[name]):
            return f"{name}={value!r:.80}: must be {_told(hints[name])}"
    needed = [name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING]
    missing = next((name for name in needed if name not in given), None)
    return None if missing is None else f"it needs {missing}"


def _fits(value: Any, hint: Any) -> bool:
    origin, of = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in of)
    if origin is Literal:
        return value in of
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _told(hint: Any) -> str:
    origin, of = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_told, of))
    if origin is Literal:
        return f"one of {', '.join(map(str, of))}"
    words = {
        float: "a number", int: "a whole number", str: "a text", bool: "true or false", NoneType: "null",
        tuple: "a list", list: "a list",
    }  # fmt: skip
    kind = origin or hint
    return words.get(kind, "a mapping of names")
