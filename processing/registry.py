"""Which stages there are: the files of the folders are the list."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from civid_loader.errors import MissingDependencyError, StageError
from civid_loader.processing.given_values import wrong_with
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
        StageError: no such stage or parameter, or a value that it cannot have.
    """
    kind = find(name)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (params or {}).items()}
    if wrong := wrong_with(kind.Params, given, noun="parameter"):
        raise StageError(f"stage {name}: {wrong}")
    try:
        made = kind(kind.Params(**given), weights=weights)
        made.requests()  # sizes and numbers of frames are checked there
    except ValueError as error:
        raise StageError(f"stage {name}: {error}; `civid stages {name}` shows its parameters") from error
    return made
