"""Instructions to models: texts of our own, one file each in `captions/prompts/`, named by id, known by hash."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any, Final

_FOLDER: Final = Path(__file__).parent / "captions" / "prompts"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """An instruction."""

    id: str
    text: str
    """With `$name` where something is filled in."""
    sha256: str
    """Of the text: another text asks something else."""

    def fill(self, **values: Any) -> str:
        """The text with its gaps filled; every gap must be, and there must be a gap for every value."""
        template = Template(self.text)
        assert set(template.get_identifiers()) == set(values), (self.id, template.get_identifiers(), sorted(values))
        return template.substitute(values)


@lru_cache
def load_prompt(prompt_id: str) -> Prompt:
    """The instruction `captions/prompts/<id>.md`."""
    text = (_FOLDER / f"{prompt_id}.md").read_text("utf-8").strip()
    return Prompt(id=prompt_id, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())
