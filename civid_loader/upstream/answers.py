"""Texts out of a model's JSON answer, whole or as upstream's parser left it."""

import json
from typing import Any, Final

from civid_loader.upstream.documents import without_surrogates

_FENCE: Final = "```"
_DECODER: Final = json.JSONDecoder(strict=False)


class UnreadableError(ValueError):
    """A record becomes a rejected row with this reason."""


def read_answer(item: Any, *, is_raw: bool, flags: dict[str, None]) -> dict[str, str]:
    """Texts by key, from an object, a JSON string, or a raw answer in a code fence; null: none.

    Objects and JSON strings went through upstream's parser, which cut texts out of the answer without decoding them:
    what it left behind is cleaned and flagged. A raw answer, known by its key or by a fence or prose before
    the object, is decoded once, here.

    Raises:
        UnreadableError: anything else.
    """
    if item is None:
        return {}
    if isinstance(item, str):
        is_raw = is_raw or not item.lstrip().startswith("{")
        start = item.find("{") if is_raw else len(item) - len(item.lstrip())
        try:
            item, _ = _DECODER.raw_decode(item, max(start, 0))
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"a caption is not JSON ({error}): {item[:80]!r}") from error
    if not isinstance(item, dict):
        raise UnreadableError(f"a caption is {type(item).__name__}, not an object")
    last = next(reversed(item), None)
    texts = {}
    for key, text in item.items():
        if not isinstance(text, str):
            raise UnreadableError(f"{key} is {type(text).__name__}, not text")
        if not is_raw and (key == last or "\\" in text):
            text = _clean(text, is_last=key == last, flags=flags)
        texts[key] = (text if text.isascii() else without_surrogates(text)).strip()
    return texts


def _clean(text: str, *, is_last: bool, flags: dict[str, None]) -> str:
    if is_last and (whole := _without_residue(text)) is not None:
        text = whole
        flags["fence_residue"] = None
    if "\\" in text:
        try:
            text = json.loads(f'"{text}"', strict=False)
            flags["escapes_decoded"] = None
        except ValueError:
            flags["escapes_left"] = None
    return text


def _without_residue(text: str) -> str | None:
    """The text without what is left of the end of a model's answer; None: nothing is.

    Seen: quote, newline, brace, newline, fence; the same with a comma after the quote; quote and parenthesis, where the
    quote closes nothing.
    """
    end = text.rstrip()
    if not end.endswith((_FENCE, '")')):
        return None
    if end.endswith('")'):
        return end[:-2] if end.count('"') % 2 else None
    end = end.removesuffix(_FENCE).rstrip().removesuffix("}").rstrip().removesuffix(",")
    return end[:-1] if end.endswith(('"', "'")) else end
