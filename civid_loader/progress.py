"""One progress bar for long work, on stderr, silent where stderr is not a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

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


@contextmanager
def track_bytes(*, label: str, total_bytes: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar of bytes; what it gives is called with how many of `total_bytes` are done by now."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done_bytes: None
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total_bytes)
        yield lambda done_bytes: progress.update(task, completed=done_bytes)
