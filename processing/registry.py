"""Which stages there are: the files of the folders are the list."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from civid_loader.errors import MissingDependencyError, StageError
from civid_loader.processing.stage import Stage
from civid_loader.processing.weights import Weights

_FOLDERS: Final = ("scores", "segments", "captions")


def names() -> list[str]:
    """Of all stages."""
    here = Path(__file__).parent
    return sorted(path.stem for folder in _FOLDERS for path in (here / folder).glob("*.py") if path.stem != "__init__")


def find(name: str) -> type[Stage[Any]]:
    """The stage of a name.

    Raises:
        StageError: there is none.
        MissingDependencyError: it needs a package that is not installed.
    """
    here = Path(__file__).parent
    for folder in _FOLDERS:
        if (here / folder / f"{name}.py").is_file():
            try:
                module = import_module(f"civid_loader.processing.{folder}.{name}")
            except ImportError as error:
                raise MissingDependencyError(
                    f"stage {name} needs {error.name}: pip install 'civid_loader[process]'"
                ) from error
            found = [
                value
                for value in vars(module).values()
                if isinstance(value, type) and issubclass(value, Stage) and getattr(value, "name", None) == name
            ]
            assert len(found) == 1, f"{name}: a stage file defines exactly one stage"
            return found[0]
    close = "".join(f" Did you mean {near!r}?" for near in get_close_matches(name, names(), n=1))
    raise StageError(f"there is no stage {name!r}; there are {', '.join(names())}.{close}")


def make(
    name: str, params: Mapping[str, Any] | None = None, *, weights: Mapping[str, Weights] | None = None
) -> Stage[Any]:
    """A stage with its parameters, those left out at their defaults; and its weights, see `Stage`.

    Raises:
        StageError: no such stage or parameter.
        ValueError: a value that is none.
    """
    kind = find(name)
    known = {field.name for field in fields(kind.Params)}
    if strange := sorted(set(params or {}) - known):
        raise StageError(f"stage {name} has no parameter {strange[0]!r}; it has {', '.join(sorted(known)) or 'none'}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (params or {}).items()}
    return kind(kind.Params(**given), weights=weights)
