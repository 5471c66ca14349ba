"""Cells of a table, one at a time: the plain way, for `support.naive`."""

import ast
import math
import re
from collections.abc import Callable
from typing import Any, Final

NULLS: Final = {"", "nan", "NaN", "None", "none", "null", "NULL", "N/A"}
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TIME: Final = re.compile(r"(?:([0-9]{1,4}):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]+)?)")


class BadRowError(ValueError):
    """The record cannot be read."""


def text_of(row: dict[str, str], name: str) -> str | None:
    """Trimmed; null where missing."""
    text = row.get(name, "").strip()
    return None if text in NULLS else text


def required(row: dict[str, str], name: str) -> str:
    """The same, of a cell that must not be missing."""
    text = text_of(row, name)
    if text is None:
        raise BadRowError(name)
    return text


def number_of(row: dict[str, str], name: str) -> float | None:
    """A finite number, written in decimals."""
    text = text_of(row, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or math.isinf(float(text)):
        raise BadRowError(name)
    return float(text)


def whole_of(row: dict[str, str], name: str, *, bits: int = 54) -> int | None:
    """`1025`, `1025.0`."""
    number = number_of(row, name)
    return None if number is None else whole(number, bits=bits)


def whole(value: Any, *, bits: int = 54) -> int:
    """The same, out of a list: a number, or the text of one."""
    number = number_of({"": str(value)}, "")
    if number is None or number != math.floor(number) or abs(number) >= 2 ** (bits - 1):
        raise BadRowError(f"{value} is not a whole number")
    return int(number)


def seconds(value: Any) -> float:
    """`H:MM:SS(.fff)` or `MM:SS`."""
    match = _TIME.fullmatch(str(value))
    if not match:
        raise BadRowError(str(value))
    return round(float(match[1] or 0) * 3600 + float(match[2]) * 60 + float(match[3]), 6)


def pair_of(row: dict[str, str], name: str, read: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What Python prints for a list of two: `[0, 1025.0]`, `['00:00:17.759', '0:01:20.880']`."""
    text = text_of(row, name)
    if text is None:
        return None, None
    try:
        first, second = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError) as error:
        raise BadRowError(name) from error
    return read(first), read(second)


def check_span(start: float | None, end: float | None) -> None:
    """Schema rules: 0 <= start < end; missing is null."""
    if (start is not None and (start < 0 or (end is not None and end <= start))) or math.inf in (start, end):
        raise BadRowError("not 0 <= start < end")
