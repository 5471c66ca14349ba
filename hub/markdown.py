"""Text of any origin as Markdown that shows it as it is, without local paths."""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_PLAIN_CODE: Final = re.compile(r"[^`|<\n\r]+")
_SPECIAL: Final = re.compile(r"([\\`*_\[\]{}|#~!$])")
_ALL_PATH: Final = re.compile(r"(file://|[A-Za-z]:[\\/]|~/|/|\\\\)[^\n]*")
_LOCAL_PATH: Final = re.compile(
    r"(?<![\w)\]/.:])(?:file://+|[A-Za-z]:[\\/]|~/|/)(?:[^\s\"',;:|<>\\/]+[\\/])+(?P<name>[^\s\"',;:|<>\\/]*)"
)


def escaped(text: str) -> str:
    """The text on one line, nothing in it read as Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def code(text: str) -> str:
    """The text in a code span that may stand in a table."""
    text = " ".join(text.split())
    if _PLAIN_CODE.fullmatch(text):
        return f"`{text}`"
    return f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in text)}</code>"


def data(value: Any) -> str:
    """A value of a manifest in a code span; of local paths only the last part."""
    public = _public(value)
    return code(public if isinstance(public, str) else json.dumps(public, sort_keys=True, ensure_ascii=False))


def _public(value: Any) -> Any:
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, Mapping):
        return {without_paths(str(key)): _public(inner) for key, inner in value.items()}
    return [_public(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def without_paths(text: str) -> str:
    """`/data/models/clip.pt` becomes `clip.pt`: what a folder is called at home is nobody's business."""
    if _ALL_PATH.fullmatch(text):
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1] or "..."
    return _LOCAL_PATH.sub(lambda found: found["name"] or "...", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; pipes in them must be escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def quote(text: str) -> str:
    """A block quote."""
    return "\n".join(f"> {line}" for line in text.splitlines())


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)
