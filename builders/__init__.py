"""One file is one dataset: upstream's files to sample rows. The folder is the registry."""

import difflib
import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from civid_loader.errors import AnnotationError

if TYPE_CHECKING:
    from civid_loader.upstream.builder import UpstreamBuilder


def names() -> list[str]:
    """Datasets there is a file for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> "type[UpstreamBuilder]":
    """The builder class in `builders/<name>.py`.

    Raises:
        AnnotationError: no such dataset; lists those there are.
    """
    if name not in names():
        close = difflib.get_close_matches(name.lower().replace("-", "").replace("_", ""), names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise AnnotationError(f"no dataset {name!r}; there is {', '.join(names())}.{hint}")
    module = import_module(f"{__name__}.{name}")
    found = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    ]
    builders: list[type[UpstreamBuilder]] = [value for value in found if hasattr(value, "TERMS")]
    assert len(builders) == 1, f"{name}: a dataset file defines exactly one builder"
    return builders[0]


def recognize(keys: frozenset[str]) -> list[str]:
    """Datasets whose tables or records have these columns or keys."""
    return [name for name in names() if find(name).recognizes(keys)]
