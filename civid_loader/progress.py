"""One progress bar for long work, on stderr, silent where stderr is not a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def track(items: Iterable[T], *, label: str, total: int, quiet: bool = False) -> Iterator[T]:
    """Pass `items` on while a bar shows how many of `total` came by and how long the rest will take."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield from items
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, description=label, total=total)
